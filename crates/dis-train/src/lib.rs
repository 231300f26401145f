//! dis-train

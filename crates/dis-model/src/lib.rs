//! dis-model

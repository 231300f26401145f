//! dis-ssm

//! dis-diffusion

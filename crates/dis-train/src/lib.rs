//! Datasets, trainer, exact resume and sample metrics for DiS.

pub mod data;
pub mod metrics;

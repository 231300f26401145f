//! What models and samplers need of a backend.

use dis_scan::ScanBackend;
use dis_tensor::{ImageOps, Recorder};

/// A backend that runs whole models: operations of blocks ([`ScanBackend`], which has those of
/// [`Backend`](dis_tensor::Backend)), a sampler's and a loss's on images ([`ImageOps`]), and the repetition of
/// launches ([`Recorder`]). Every backend with these three is one.
pub trait ModelBackend: ScanBackend + ImageOps + Recorder {}

impl<B: ScanBackend + ImageOps + Recorder> ModelBackend for B {}

//! Sequences of operations that a device repeats by itself, such as CUDA graphs.

use crate::backend::Backend;
use crate::error::{Result, TensorError};

/// A device that may be able to record what it is asked to do, and to repeat it at little cost.
///
/// A recording holds addresses: whatever it reads and writes must stay where it is for as long as the
/// recording is repeated. Memory that comes and goes while something is recorded must therefore not
/// be anybody else's in between; [`Recorder::apart`] gives a backend whose memory is its own.
pub trait Recorder: Backend {
    /// What was recorded.
    type Recording: Send + Sync + std::fmt::Debug;

    /// Whether it is worth trying.
    fn can_record(&self) -> bool;

    /// The same device with a memory pool of its own.
    fn apart(&self) -> Self;

    /// Runs `f`, whose operations are recorded instead of run; nothing (and `f` is not called) where
    /// the device records nothing. `f` may allocate only what the pool holds already, since it ran
    /// before, and must neither write to the device from the host nor read from it.
    ///
    /// # Errors
    /// What `f` fails with, or the device.
    fn record<T, E: From<TensorError>>(
        &self,
        f: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<Option<(Self::Recording, T)>, E>;

    /// Does again what was recorded, in stream order.
    ///
    /// # Errors
    /// If the device fails.
    fn replay(&self, recording: &Self::Recording) -> Result<()>;

    /// Overwrites all of a buffer of ids, in stream order.
    ///
    /// # Errors
    /// Not as many ids as the buffer has, or a device that failed.
    fn write_ids(&self, buf: &mut Self::Buf<u32>, ids: &[u32]) -> Result<()>;
}

/// The recording of a device that records nothing.
#[derive(Clone, Copy, Debug)]
pub enum NoRecording {}

/// As many ids as a buffer has.
pub(crate) fn check_ids(ids: &[u32], len: usize) -> Result<()> {
    if ids.len() == len {
        return Ok(());
    }
    Err(TensorError::Invalid {
        op: "write_ids",
        what: format!("{} ids into a buffer of {len}", ids.len()),
    })
}

macro_rules! host {
    ([$($generic:tt)*] $backend:ty) => {
        impl<$($generic)*> Recorder for $backend {
            type Recording = NoRecording;

            fn can_record(&self) -> bool {
                false
            }

            fn apart(&self) -> Self {
                self.clone()
            }

            fn record<T, E: From<TensorError>>(
                &self,
                _: impl FnOnce() -> std::result::Result<T, E>,
            ) -> std::result::Result<Option<(NoRecording, T)>, E> {
                Ok(None)
            }

            fn replay(&self, recording: &NoRecording) -> Result<()> {
                match *recording {}
            }

            fn write_ids(&self, buf: &mut Self::Buf<u32>, ids: &[u32]) -> Result<()> {
                check_ids(ids, buf.len())?;
                buf.copy_from_slice(ids);
                Ok(())
            }
        }
    };
}
host!([] crate::Cpu);
host!([S: crate::Scalar] crate::Reference<S>);

//! Recording through the driver.

use std::fmt;
use std::sync::Arc;

use dis_kernels::Driver;

use super::Cuda;
use crate::error::{Result, TensorError};
use crate::record::{Recorder, check_ids};

/// A sequence of launches of a driver.
pub struct DeviceRecording<D: Driver>(D::Graph);

impl<D: Driver> fmt::Debug for DeviceRecording<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceRecording")
    }
}

impl<D: Driver> Recorder for Cuda<D> {
    type Recording = DeviceRecording<D>;

    fn can_record(&self) -> bool {
        true
    }

    fn apart(&self) -> Self {
        Self {
            pool: self.pool.apart(),
            failure: Arc::clone(&self.failure),
            ..*self
        }
    }

    fn record<T, E: From<TensorError>>(
        &self,
        f: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<Option<(Self::Recording, T)>, E> {
        const OP: &str = "record";
        let mut began = false;
        self.run(OP, |driver| {
            began = driver.begin_capture()?;
            Ok(())
        })?;
        if !began {
            return Ok(None);
        }
        let done = f();
        // Also where `f` failed: otherwise the stream would stay in that state.
        let graph = self.driver().end_capture();
        let done = done?;
        let graph = graph.map_err(|error| self.failed(OP, error))?;
        Ok(Some((DeviceRecording(graph), done)))
    }

    fn replay(&self, recording: &Self::Recording) -> Result<()> {
        self.run("replay", |driver| driver.replay(&recording.0))
    }

    fn write_ids(&self, buf: &mut Self::Buf<u32>, ids: &[u32]) -> Result<()> {
        const OP: &str = "write_ids";
        check_ids(ids, buf.len)?;
        if let Some(block) = &buf.block {
            let bytes = bytemuck::cast_slice(ids);
            self.run(OP, |driver| driver.upload(block.address(), bytes))?;
        }
        buf.ids = Some(ids.into());
        Ok(())
    }
}

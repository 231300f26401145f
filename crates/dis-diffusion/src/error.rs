//! The one error type of the crate.

/// What diffusion can refuse.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A noise schedule that does not exist or is not a schedule.
    #[error("noise schedule {schedule}: {what}")]
    Schedule {
        /// The schedule as asked for.
        schedule: String,
        /// What is wrong with it.
        what: String,
    },
    /// A respacing that cannot be read or does not fit the schedule.
    #[error("timestep respacing {spec:?}: {what}")]
    Respacing {
        /// The specification as asked for.
        spec: String,
        /// What is wrong with it.
        what: String,
    },
    /// An array has the wrong shape.
    #[error("{what}: shape {got:?}, expected {expected:?}")]
    Shape {
        /// Which array.
        what: &'static str,
        /// Its shape.
        got: Vec<usize>,
        /// The shape that fits.
        expected: Vec<usize>,
    },
    /// A list that goes with the batch has the wrong length.
    #[error("{what}: {got} entries for {expected} samples")]
    Count {
        /// Which list.
        what: &'static str,
        /// Its length.
        got: usize,
        /// Samples in the batch.
        expected: usize,
    },
    /// A timestep outside the schedule.
    #[error("timestep {index} of a diffusion with {steps} steps")]
    Timestep {
        /// The index asked for.
        index: usize,
        /// Steps of the diffusion.
        steps: usize,
    },
    /// An option outside its domain, or options that contradict each other.
    #[error("{0}")]
    Invalid(String),
    /// Supplied noise ended before the sampler did.
    #[error("no noise for iteration {iteration}: {supplied} draws were supplied")]
    NoNoise {
        /// The iteration, from 0 for the noisiest step.
        iteration: usize,
        /// How many draws there were.
        supplied: usize,
    },
    /// The sample is infinite or not a number.
    #[error("the sample is not finite after iteration {iteration} (timestep {timestep})")]
    NotFinite {
        /// The iteration, from 0 for the noisiest step.
        iteration: usize,
        /// The original timestep of that iteration.
        timestep: usize,
    },
    /// Who watched the run ended it.
    #[error("ended after iteration {iteration}")]
    Ended {
        /// The last iteration that was done, from 0.
        iteration: usize,
    },
    /// The device that holds the images failed, or refused an operation.
    #[error("images on the device: {0}")]
    Device(#[from] dis_tensor::TensorError),
    /// The network failed.
    #[error("the network failed: {0}")]
    Network(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Wraps whatever a network returns, for implementations of
    /// [`Denoiser`](crate::Denoiser).
    pub fn network(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Network(error.into())
    }

    /// An array of another shape than is needed.
    pub fn shape(what: &'static str, got: &[usize], expected: &[usize]) -> Self {
        Self::Shape {
            what,
            got: got.to_vec(),
            expected: expected.to_vec(),
        }
    }
}

/// Result of this crate's operations.
pub type Result<T> = std::result::Result<T, Error>;

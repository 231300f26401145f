//! Which weights of a file that holds several.

/// Which weights of a file that holds several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Entry {
    /// The moving average if there is one, else the weights, else the only tensors there are.
    #[default]
    Auto,
    /// The moving average.
    Ema,
    /// The weights as they were trained.
    Raw,
    /// The entry of this name; `/` goes into nested dictionaries. Of safetensors, what stands before
    /// the names of its parameters.
    Named(String),
}

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => write!(f, "a model"),
            Self::Ema => write!(f, "a moving average"),
            Self::Raw => write!(f, "weights as they were trained"),
            Self::Named(name) => write!(f, "{name:?}"),
        }
    }
}

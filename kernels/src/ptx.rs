//! The PTX texts, embedded so that nothing is needed to build and the driver compiles them.

/// One PTX text.
#[derive(Debug, PartialEq, Eq)]
pub struct PtxFile {
    /// Name of the file in `kernels/ptx/`.
    pub name: &'static str,
    /// Its contents.
    pub text: &'static str,
}

impl PtxFile {
    /// What its `.version` says.
    pub fn version(&self) -> &'static str {
        self.text
            .lines()
            .find_map(|line| line.strip_prefix(".version"))
            .map_or("unknown", str::trim)
    }
}

macro_rules! files {
    ($($(#[$doc:meta])* $constant:ident = $file:literal;)*) => {
        $(
            $(#[$doc])*
            pub static $constant: PtxFile = PtxFile {
                name: $file,
                text: include_str!(concat!("../ptx/", $file)),
            };
        )*
        /// All texts.
        pub static FILES: &[&PtxFile] = &[$(&$constant),*];
    };
}

files! {
    /// Elementwise operations over token matrices.
    ELEMENTWISE = "elementwise.ptx";
    /// Sums over rows.
    REDUCE = "reduce.ptx";
    /// Normalisation.
    NORM = "norm.ptx";
    /// Softmax.
    SOFTMAX = "softmax.ptx";
    /// Embedding tables.
    EMBED = "embed.ptx";
    /// Images and patches.
    PATCH = "patch.ptx";
    /// Batches of images, for samplers.
    IMAGES = "images.ptx";
    /// Samples by a statistic of each.
    STATISTICS = "statistics.ptx";
    /// The training loss.
    LOSS = "loss.ptx";
    /// The optimizer.
    OPTIM = "optim.ptx";
    /// The matrix product.
    GEMM = "gemm.ptx";
    /// Rounding to bfloat16, and the matrix product of that.
    BF16 = "bf16.ptx";
    /// The selective scan, forward.
    SCAN_FORWARD = "scan_forward.ptx";
    /// The selective scan, backward.
    SCAN_BACKWARD = "scan_backward.ptx";
    /// The causal convolution.
    CONV1D = "conv1d.ptx";
    /// Partial sums of the backward passes.
    PARTIALS = "partials.ptx";
}

/// Approximate instructions, to record what hardware gives for them. Not one of [`FILES`]: no
/// operation uses it.
pub static APPROX: PtxFile = PtxFile {
    name: "approx.ptx",
    text: include_str!("../ptx/approx.ptx"),
};

//! Which instruction set runs: detection, the `DIS_SIMD` variable, and the shells in which a
//! kernel is compiled for each of them.

use super::{Simd, portable::Portable};
use std::sync::OnceLock;

/// An instruction set that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Plain Rust; the compiler's baseline.
    Portable,
    /// 128-bit ARM vectors. Run by its authors in an emulator only.
    Neon,
    /// 256-bit x86 vectors with fused multiply-add.
    Avx2,
    /// 512-bit x86 vectors (F, VL, BW and DQ).
    Avx512,
}

impl Level {
    /// The name that `DIS_SIMD` takes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// The level of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Portable, Self::Neon, Self::Avx2, Self::Avx512]
            .into_iter()
            .find(|level| level.name() == name)
    }

    /// Whether this processor has it.
    pub fn is_supported(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => super::neon::Neon::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => super::avx2::Avx2::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => super::avx512::Avx512::detect().is_some(),
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Portable => "portable",
            Self::Neon => "NEON",
            Self::Avx2 => "AVX2",
            Self::Avx512 => "AVX-512",
        })
    }
}

/// The levels this processor has, slowest first.
pub fn supported() -> Vec<Level> {
    [Level::Portable, Level::Neon, Level::Avx2, Level::Avx512]
        .into_iter()
        .filter(|level| level.is_supported())
        .collect()
}

/// What was chosen for this process, and what to tell the user about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// What runs.
    pub level: Level,
    /// Why `DIS_SIMD` was not followed, if it was set and was not.
    pub warning: Option<String>,
}

impl Selection {
    /// Follows `request` (the value of `DIS_SIMD`) if it names a supported level, and takes the
    /// best supported one otherwise.
    pub fn from_request(request: Option<&str>) -> Self {
        let supported = supported();
        let best = supported.last().copied().unwrap_or(Level::Portable);
        let Some(request) = request.filter(|text| !text.is_empty()) else {
            return Self {
                level: best,
                warning: None,
            };
        };
        match Level::from_name(request) {
            Some(level) if level.is_supported() => Self {
                level,
                warning: None,
            },
            known => {
                let names: Vec<_> = supported.iter().map(|level| level.name()).collect();
                let why = if known.is_some() {
                    "not supported by this processor"
                } else {
                    "unknown"
                };
                let warning = format!(
                    "DIS_SIMD={request} is {why}; using {} (available: {})",
                    best.name(),
                    names.join(", ")
                );
                Self {
                    level: best,
                    warning: Some(warning),
                }
            }
        }
    }
}

/// The choice for this process, made once from the processor and `DIS_SIMD`.
pub fn selection() -> &'static Selection {
    static SELECTION: OnceLock<Selection> = OnceLock::new();
    SELECTION.get_or_init(|| {
        let request = std::env::var_os("DIS_SIMD");
        Selection::from_request(
            request
                .as_ref()
                .map(|text| text.to_string_lossy())
                .as_deref(),
        )
    })
}

/// The level of this process.
pub fn level() -> Level {
    selection().level
}

/// Code to be compiled for every level.
pub trait Kernel {
    /// What it returns.
    type Output;
    /// The code. Mark the implementation `#[inline(always)]`, and everything it calls with
    /// vectors too: only what is inlined is compiled for the level. Closures are not.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Runs a kernel at a level, or portably where the processor does not have it.
pub fn dispatch<K: Kernel>(level: Level, kernel: K) -> K::Output {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => match super::avx512::Avx512::detect() {
            // SAFETY: the token proves that the processor has the shell's features.
            Some(token) => unsafe { shell_avx512(token, kernel) },
            None => kernel.run(Portable),
        },
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => match super::avx2::Avx2::detect() {
            // SAFETY: the token proves that the processor has the shell's features.
            Some(token) => unsafe { shell_avx2(token, kernel) },
            None => kernel.run(Portable),
        },
        #[cfg(target_arch = "aarch64")]
        Level::Neon => match super::neon::Neon::detect() {
            // SAFETY: the token proves that the processor has the shell's features.
            Some(token) => unsafe { shell_neon(token, kernel) },
            None => kernel.run(Portable),
        },
        _ => kernel.run(Portable),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
fn shell_avx512<K: Kernel>(token: super::avx512::Avx512, kernel: K) -> K::Output {
    kernel.run(token)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn shell_avx2<K: Kernel>(token: super::avx2::Avx2, kernel: K) -> K::Output {
    kernel.run(token)
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
fn shell_neon<K: Kernel>(token: super::neon::Neon, kernel: K) -> K::Output {
    kernel.run(token)
}

/// Asks for the cache line of `slice[index]`, which need not exist; a hint without effect on
/// results.
#[inline(always)]
pub fn prefetch(slice: &[f32], index: usize) {
    #[cfg(target_arch = "x86_64")]
    fetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(slice, index);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (slice, index);
}

/// [`prefetch`] into the second-level cache, where the first is full of what is worked on.
#[inline(always)]
pub fn prefetch_second(slice: &[f32], index: usize) {
    #[cfg(target_arch = "x86_64")]
    fetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(slice, index);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (slice, index);
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn fetch<const HINT: i32>(slice: &[f32], index: usize) {
    let address = slice.as_ptr().wrapping_add(index).cast::<i8>();
    // SAFETY: a prefetch does not access memory architecturally, so any address will do.
    unsafe { std::arch::x86_64::_mm_prefetch::<HINT>(address) }
}

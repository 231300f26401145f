#![doc = include_str!("../README.md")]
//!
//! # How it works
//!
//! A [`Module`] is decoded once; a [`Device`] holds memory and launches its entries. A warp is 32
//! lanes with a program counter each, of which the lowest runs first, so that divergence,
//! reconvergence, shuffles and barriers behave as on hardware. What would be silent there is a
//! [`Fault`] here, named by file, line, block and thread. A launch that has none returns [`Counters`]: what it
//! executed and moved.
//!
//! ```
//! use dis_ptx_sim::{Device, FaultKind, Launch, Module, Options};
//!
//! let text = "// y = 2 x, one thread an element.
//! .version 7.0
//! .target sm_80
//! .address_size 64
//! .visible .entry double(.param .u64 x, .param .u64 y)
//! .maxntid 64
//! {
//!     .reg .b32 %t;
//!     .reg .b64 %x, %y;
//!     .reg .f32 %v;
//!     ld.param.u64 %x, [x];
//!     ld.param.u64 %y, [y];
//!     mov.u32 %t, %tid.x;
//!     mad.wide.u32 %x, %t, 4, %x;
//!     mad.wide.u32 %y, %t, 4, %y;
//!     ld.global.f32 %v, [%x];
//!     add.rn.f32 %v, %v, %v;
//!     st.global.f32 [%y], %v;
//!     ret;
//! }";
//! let module = Module::parse("double.ptx", text)?;
//! assert!(module.lint().is_empty());
//!
//! let mut device = Device::new(Options::default());
//! let (x, y) = (device.alloc(4 * 50), device.alloc(4 * 50));
//! device.write(x, &[0; 4 * 50])?;
//! let mut launch = Launch { grid: [1, 1, 1], block: [50, 1, 1], dynamic_shared: 0 };
//! let args = [x.to_le_bytes().to_vec(), y.to_le_bytes().to_vec()];
//! let counters = device.launch(&module, "double", launch, &args)?;
//! assert_eq!(counters.global_load_bytes, 200);
//!
//! // One thread too many reads past the end.
//! launch.block[0] = 51;
//! let fault = device.launch(&module, "double", launch, &args).unwrap_err();
//! assert_eq!((fault.kind, fault.line, fault.thread), (FaultKind::OutOfBounds, 16, [50, 0, 0]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it takes
//!
//! `.version`, `.target`, `.address_size 64`; entries with `.maxntid`, `.reqntid`, `.maxnreg`,
//! `.minnctapersm`; registers, shared variables of fixed and open size, labels, predicates, scopes;
//! the instructions `add sub mul mad fma div rem min max abs neg sqrt rcp rsqrt ex2 lg2 sin cos tanh
//! and or xor not shl shr popc clz brev bfe bfi prmt copysign testp setp selp mov cvt ld st shfl vote
//! activemask bar bra ret exit` in the forms that compute kernels use. Anything else is an error that
//! names its line. Functions, atomics, textures, local memory and tensor cores are deliberately absent.
//!
//! # What it is strict about
//!
//! - A shuffle, vote or warp barrier faults where its mask names a lane that does not exist, has
//!   returned or is elsewhere; `bar.sync` where any thread of the block is elsewhere or has returned.
//! - Two lanes that store to one word race, even with equal values.
//! - Memory read through `ld.global.nc` is not written in the same launch, by any thread.
//! - Shared variables lie apart, each with the alignment it asks for and no more; allocations lie
//!   apart at addresses above 32 bits, which are never used again.
//! - A vector load reads all it names: padding that nothing wrote is a fault.
//!
//! What only hardware can show: timing, the order in which unordered threads happen to run, the
//! actual results of `.approx` instructions within their bounds (see [`Approx`]), and what the
//! assembler makes of the text.

mod approx;
mod code;
mod cost;
mod counters;
mod coverage;
mod device;
mod exec;
mod fault;
mod isa;
mod lex;
mod memory;
mod module;
mod options;
mod parse;
mod shadow;

pub use counters::Counters;
pub use coverage::{Coverage, LineCoverage};
pub use device::{Device, Launch};
pub use fault::{Fault, FaultKind, MemoryError, ParseError};
pub use module::{Entry, Lint, LintKind, Module, Param};
pub use options::{Approx, Options, Order};

#![cfg_attr(feature = "sim", doc = include_str!("../README.md"))]
//!
//! # How kernels are launched
//!
//! Each family is one PTX text in `ptx/` and one module with its launch contracts: structures whose fields are the
//! kernel's operands in the order of its parameters. [`Kernel::ready`] checks them, and [`launch`] takes only what
//! was checked; grid, block, shared memory and arguments follow from it. A [`Driver`] executes them: [`sim::Sim`] (feature `sim`) or `cuda::CudaDriver` (feature
//! `cuda`). Memory comes from a [`Pool`]; operands are [`Mat`] and [`MatMut`].

pub mod contract;
pub mod driver;
pub mod error;
pub mod mat;
pub mod memory;
pub mod pointer;
pub mod ptx;

#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(feature = "sim")]
pub mod sim;

pub mod approx;
pub mod bf16;
pub mod elementwise;
pub mod embed;
pub mod gemm;
pub mod images;
pub mod loss;
pub mod norm;
pub mod optim;
pub mod patch;
pub mod reduce;
pub mod scan;
pub mod softmax;
pub mod statistics;

pub use contract::{
    Arg, Contract, ContractInfo, Geometry, Kernel, Param, ParamInfo, ParamKind, Ready, launch,
};
pub use driver::{Driver, Launch};
pub use error::{KernelError, Result};
pub use mat::{Mat, MatMut, Matrix};
pub use memory::{Block, Pool};
pub use pointer::{Pointer, Ptr, PtrMut};
pub use ptx::PtxFile;

/// Every launch contract of this crate.
pub fn contracts() -> Vec<ContractInfo> {
    let families: &[&[ContractInfo]] = &[
        elementwise::CONTRACTS,
        reduce::CONTRACTS,
        norm::CONTRACTS,
        softmax::CONTRACTS,
        embed::CONTRACTS,
        patch::CONTRACTS,
        images::CONTRACTS,
        statistics::CONTRACTS,
        loss::CONTRACTS,
        optim::CONTRACTS,
        gemm::CONTRACTS,
        bf16::CONTRACTS,
        scan::CONTRACTS,
        approx::CONTRACTS,
    ];
    families.concat()
}

//! What an entry executes, and what it needs to start.

use crate::isa::{Inst, Slot};

/// Special registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Sreg {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    Laneid,
    Warpid,
    LanemaskEq,
    LanemaskLt,
    LanemaskLe,
    LanemaskGt,
    LanemaskGe,
}

impl Sreg {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let axis = |s: &str| match s {
            "x" => Some(0),
            "y" => Some(1),
            "z" => Some(2),
            _ => None,
        };
        if let Some((base, part)) = name.split_once('.') {
            let k = axis(part)?;
            return Some(match base {
                "%tid" => Self::Tid(k),
                "%ntid" => Self::Ntid(k),
                "%ctaid" => Self::Ctaid(k),
                "%nctaid" => Self::Nctaid(k),
                _ => return None,
            });
        }
        Some(match name {
            "%laneid" => Self::Laneid,
            "%warpid" => Self::Warpid,
            "%lanemask_eq" => Self::LanemaskEq,
            "%lanemask_lt" => Self::LanemaskLt,
            "%lanemask_le" => Self::LanemaskLe,
            "%lanemask_gt" => Self::LanemaskGt,
            "%lanemask_ge" => Self::LanemaskGe,
            _ => return None,
        })
    }
}

/// A shared variable: where the simulator puts it.
#[derive(Debug, Clone)]
pub(crate) struct SharedVar {
    pub(crate) name: String,
    pub(crate) base: u32,
    /// Size in bytes; that of an extern variable comes with the launch.
    pub(crate) size: Option<u32>,
    pub(crate) align: u32,
    pub(crate) line: u32,
}

/// What an entry executes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Code {
    pub(crate) insts: Vec<Inst>,
    /// Rows of the files: registers first, then constants, then special registers.
    pub(crate) words: usize,
    pub(crate) wides: usize,
    pub(crate) preds: usize,
    pub(crate) word_consts: Vec<(Slot, u32)>,
    pub(crate) wide_consts: Vec<(Slot, u64)>,
    pub(crate) sregs: Vec<(Slot, Sreg)>,
    pub(crate) shared: Vec<SharedVar>,
    /// Offset of each parameter in the parameter buffer.
    pub(crate) param_offsets: Vec<usize>,
    pub(crate) param_bytes: usize,
}

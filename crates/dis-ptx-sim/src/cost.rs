//! What kind of work an instruction is.

use crate::isa::{Bin32, Bin64, Op, Tri32, Tri64, Un32, Un64};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cost {
    /// Integers, moves, memory, control.
    Other,
    /// A result of the special function unit.
    Special,
    /// A fused multiply-add.
    Fma,
    /// Another float addition, subtraction or multiplication.
    Float,
    /// A division or root with IEEE rounding.
    Slow,
}

impl Op {
    pub(crate) fn cost(&self) -> Cost {
        match self {
            Self::Special { .. } | Self::DivApprox { .. } => Cost::Special,
            Self::Tri32 { f: Tri32::FmaF, .. } | Self::Tri64 { f: Tri64::FmaF, .. } => Cost::Fma,
            Self::Bin32 { f, .. } => match f {
                Bin32::AddF | Bin32::SubF | Bin32::MulF => Cost::Float,
                Bin32::DivF => Cost::Slow,
                _ => Cost::Other,
            },
            Self::Bin64 { f, .. } => match f {
                Bin64::AddF | Bin64::SubF | Bin64::MulF => Cost::Float,
                Bin64::DivF => Cost::Slow,
                _ => Cost::Other,
            },
            Self::Un32 {
                f: Un32::SqrtF | Un32::RcpF,
                ..
            } => Cost::Slow,
            Self::Un64 {
                f: Un64::SqrtF | Un64::RcpF,
                ..
            } => Cost::Slow,
            _ => Cost::Other,
        }
    }
}

//! Decoded instructions: operations over register slots.
//!
//! Registers of up to 32 bits, of 64 bits and predicates live in a file each. Constants and special
//! registers have slots of their own, filled before a block starts, so that every operand is a slot.

/// Index of a row in one of the three register files.
pub(crate) type Slot = u16;

/// Fundamental types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Ty {
    Pred,
    B8,
    U8,
    S8,
    B16,
    U16,
    S16,
    F16,
    Bf16,
    B32,
    U32,
    S32,
    F32,
    F16x2,
    Bf16x2,
    B64,
    U64,
    S64,
    F64,
}

/// Kind of value a type holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    Bits,
    Unsigned,
    Signed,
    Float,
    Pred,
}

impl Ty {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "pred" => Self::Pred,
            "b8" => Self::B8,
            "u8" => Self::U8,
            "s8" => Self::S8,
            "b16" => Self::B16,
            "u16" => Self::U16,
            "s16" => Self::S16,
            "f16" => Self::F16,
            "bf16" => Self::Bf16,
            "b32" => Self::B32,
            "u32" => Self::U32,
            "s32" => Self::S32,
            "f32" => Self::F32,
            "f16x2" => Self::F16x2,
            "bf16x2" => Self::Bf16x2,
            "b64" => Self::B64,
            "u64" => Self::U64,
            "s64" => Self::S64,
            "f64" => Self::F64,
            _ => return None,
        })
    }

    /// Bytes in memory; 0 for predicates.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Pred => 0,
            Self::B8 | Self::U8 | Self::S8 => 1,
            Self::B16 | Self::U16 | Self::S16 | Self::F16 | Self::Bf16 => 2,
            Self::B32 | Self::U32 | Self::S32 | Self::F32 | Self::F16x2 | Self::Bf16x2 => 4,
            Self::B64 | Self::U64 | Self::S64 | Self::F64 => 8,
        }
    }

    pub(crate) fn sort(self) -> Sort {
        match self {
            Self::Pred => Sort::Pred,
            Self::B8 | Self::B16 | Self::B32 | Self::B64 => Sort::Bits,
            Self::U8 | Self::U16 | Self::U32 | Self::U64 => Sort::Unsigned,
            Self::S8 | Self::S16 | Self::S32 | Self::S64 => Sort::Signed,
            Self::F16 | Self::Bf16 | Self::F16x2 | Self::Bf16x2 | Self::F32 | Self::F64 => {
                Sort::Float
            }
        }
    }

    pub(crate) fn file(self) -> File {
        match self.bytes() {
            0 => File::Pred,
            8 => File::Wide,
            _ => File::Word,
        }
    }
}

/// One of the three register files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum File {
    Pred,
    Word,
    Wide,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Un32 {
    Not,
    NegS,
    AbsS,
    NegF,
    AbsF,
    SqrtF,
    RcpF,
    Popc,
    Clz,
    Brev,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bin32 {
    Add,
    Sub,
    MulLo,
    MulHiU,
    MulHiS,
    DivU,
    DivS,
    RemU,
    RemS,
    MinU,
    MaxU,
    MinS,
    MaxS,
    And,
    Or,
    Xor,
    Shl,
    ShrU,
    ShrS,
    AddF,
    SubF,
    MulF,
    DivF,
    MinF,
    MaxF,
    MinNanF,
    MaxNanF,
    CopysignF,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tri32 {
    MadLo,
    MadHiU,
    MadHiS,
    FmaF,
    BfeU,
    BfeS,
    Prmt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Un64 {
    Not,
    NegS,
    AbsS,
    NegF,
    AbsF,
    SqrtF,
    RcpF,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bin64 {
    Add,
    Sub,
    MulLo,
    MulHiU,
    MulHiS,
    DivU,
    DivS,
    RemU,
    RemS,
    MinU,
    MaxU,
    MinS,
    MaxS,
    And,
    Or,
    Xor,
    AddF,
    SubF,
    MulF,
    DivF,
    MinF,
    MaxF,
    CopysignF,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tri64 {
    MadLo,
    FmaF,
}

/// Shifts of 64 bits, whose amount has 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shift64 {
    Shl,
    ShrU,
    ShrS,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Logic {
    And,
    Or,
    Xor,
}

/// Comparisons; those with a `u` at the end are true where an operand is NaN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cmp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Equ,
    Neu,
    Ltu,
    Leu,
    Gtu,
    Geu,
    Num,
    Nan,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Testp {
    Finite,
    Infinite,
    Number,
    NotANumber,
    Normal,
    Subnormal,
}

/// Instructions whose result is an approximation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Special {
    Ex2,
    Lg2,
    Rcp,
    Rsqrt,
    Sqrt,
    Sin,
    Cos,
    Tanh,
}

/// Rounding of a conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Round {
    /// None was written.
    None,
    /// To the nearest, ties to even.
    Nearest,
    /// Towards zero.
    Zero,
    /// Towards minus infinity.
    Down,
    /// Towards plus infinity.
    Up,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShflMode {
    Up,
    Down,
    Bfly,
    Idx,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VoteMode {
    Any,
    All,
    Uni,
    Ballot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Space {
    Global { nc: bool },
    Shared,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Base {
    Wide(Slot),
    Word(Slot),
    Absolute,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Addr {
    pub(crate) base: Base,
    pub(crate) offset: i64,
}

/// Registers of a load or store: up to four of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vector {
    pub(crate) slots: [Slot; 4],
    pub(crate) len: u8,
    pub(crate) file: File,
}

/// A predicate operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PredIn {
    pub(crate) slot: Slot,
    pub(crate) negated: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Mov32 {
        d: Slot,
        a: Slot,
    },
    Mov64 {
        d: Slot,
        a: Slot,
    },
    MovP {
        d: Slot,
        a: Slot,
    },
    Un32 {
        f: Un32,
        d: Slot,
        a: Slot,
    },
    Bin32 {
        f: Bin32,
        d: Slot,
        a: Slot,
        b: Slot,
    },
    Tri32 {
        f: Tri32,
        d: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
    },
    Bfi32 {
        d: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
        e: Slot,
    },
    Un64 {
        f: Un64,
        d: Slot,
        a: Slot,
    },
    Bin64 {
        f: Bin64,
        d: Slot,
        a: Slot,
        b: Slot,
    },
    Shift64 {
        f: Shift64,
        d: Slot,
        a: Slot,
        b: Slot,
    },
    Tri64 {
        f: Tri64,
        d: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
    },
    MulWide {
        signed: bool,
        d: Slot,
        a: Slot,
        b: Slot,
    },
    MadWide {
        signed: bool,
        d: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
    },
    LogicP {
        f: Logic,
        d: Slot,
        a: Slot,
        b: Slot,
    },
    NotP {
        d: Slot,
        a: Slot,
    },
    Setp {
        cmp: Cmp,
        ty: Ty,
        d: Slot,
        q: Option<Slot>,
        a: Slot,
        b: Slot,
        with: Option<(Logic, PredIn)>,
    },
    Testp {
        f: Testp,
        ty: Ty,
        d: Slot,
        a: Slot,
    },
    Selp {
        file: File,
        d: Slot,
        a: Slot,
        b: Slot,
        p: Slot,
    },
    Cvt {
        to: Ty,
        from: Ty,
        round: Round,
        integral: bool,
        sat: bool,
        ftz: bool,
        d: Slot,
        a: Slot,
    },
    /// Two floats to a pair of bf16, `a` in the upper half.
    CvtPair {
        d: Slot,
        a: Slot,
        b: Slot,
    },
    Special {
        f: Special,
        ftz: bool,
        d: Slot,
        a: Slot,
    },
    DivApprox {
        full: bool,
        ftz: bool,
        d: Slot,
        a: Slot,
        b: Slot,
    },
    Pack64 {
        d: Slot,
        lo: Slot,
        hi: Slot,
    },
    Unpack64 {
        lo: Option<Slot>,
        hi: Option<Slot>,
        a: Slot,
    },
    Pack32 {
        d: Slot,
        lo: Slot,
        hi: Slot,
    },
    Unpack32 {
        lo: Option<Slot>,
        hi: Option<Slot>,
        a: Slot,
    },
    LdParam {
        ty: Ty,
        d: Vector,
        offset: u32,
    },
    Ld {
        space: Space,
        ty: Ty,
        d: Vector,
        addr: Addr,
    },
    St {
        space: Space,
        ty: Ty,
        s: Vector,
        addr: Addr,
    },
    Bra {
        target: u32,
        uni: bool,
    },
    Bar,
    BarWarp {
        mask: Slot,
    },
    Shfl {
        mode: ShflMode,
        d: Slot,
        p: Option<Slot>,
        a: Slot,
        b: Slot,
        c: Slot,
        mask: Slot,
    },
    Vote {
        mode: VoteMode,
        d: Slot,
        a: PredIn,
        mask: Slot,
    },
    ActiveMask {
        d: Slot,
    },
    Ret,
}

/// An instruction with its guard and its place in the text.
#[derive(Debug, Clone)]
pub(crate) struct Inst {
    pub(crate) op: Op,
    pub(crate) guard: Option<PredIn>,
    pub(crate) line: u32,
    pub(crate) text: Box<str>,
}

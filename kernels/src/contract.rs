//! Launch contracts: what a kernel takes, as Rust types.
//!
//! A contract is declared once, with `contract!`: operands in the order of the entry's parameters, each of
//! which becomes a pointer and strides on its way to the kernel. [`Kernel::ready`] checks them, and what it
//! gives can be launched.

use std::fmt;

use crate::driver::{Driver, Launch};
use crate::error::Result;
use crate::mat::shape;
use crate::pointer::Pointer;
use crate::ptx::PtxFile;

/// The PTX type of a parameter. Pointers are `.u64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamKind {
    /// `.u32`
    U32,
    /// `.u64`
    U64,
    /// `.f32`
    F32,
    /// `.f64`
    F64,
}

impl ParamKind {
    /// Bytes in the parameter list.
    pub fn size(self) -> usize {
        match self {
            Self::U32 | Self::F32 => 4,
            Self::U64 | Self::F64 => 8,
        }
    }
}

/// A parameter's name and type, as the text declares them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamInfo {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: ParamKind,
}

/// A distance between elements that follows an operand's pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stride {
    /// From row to row.
    Row,
    /// From column to column.
    Column,
    /// From sample to sample.
    Batch,
}

/// Strides that a kernel takes of an operand, with what their parameters' names end in.
pub type Strides = [(Stride, &'static str)];

/// One argument: the little-endian bytes of a parameter.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arg {
    bytes: [u8; 8],
    size: u8,
}

impl AsRef<[u8]> for Arg {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.size)]
    }
}

/// The arguments of a launch in the order of the kernel's parameters. They lie on the stack: a launch
/// allocates nothing.
#[derive(Clone, Copy)]
pub struct Args {
    list: [Arg; Self::MOST],
    count: usize,
}

impl Args {
    /// The most parameters that a kernel has, as a test checks.
    pub const MOST: usize = 67;

    fn new() -> Self {
        Self {
            list: [Arg::default(); Self::MOST],
            count: 0,
        }
    }

    pub(crate) fn push<const N: usize>(&mut self, value: [u8; N]) {
        let arg = &mut self.list[self.count];
        arg.bytes[..N].copy_from_slice(&value);
        arg.size = N as u8;
        self.count += 1;
    }

    /// The arguments.
    pub fn as_slice(&self) -> &[Arg] {
        &self.list[..self.count]
    }
}

impl fmt::Debug for Args {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

/// What can be passed to a kernel, as one parameter or several that belong together.
pub trait Param: Copy {
    /// The strides that are passed where a contract does not say which.
    const STRIDES: &'static Strides = &[];
    /// What stands for an operand that is absent: null, or zero.
    const ABSENT: Self;

    /// Adds what the kernel declares for an operand of this name.
    fn declare(list: &mut Vec<ParamInfo>, name: &str, strides: &Strides);

    /// Checks what an operand can be checked for alone: that it lies in its memory, and that its sizes
    /// fit the kernels' 32-bit arithmetic.
    ///
    /// # Errors
    /// If it does not, or they do not.
    fn check(&self, kernel: &'static str, name: &'static str) -> Result<()> {
        let _ = (kernel, name);
        Ok(())
    }

    /// Adds the values of what [`Self::declare`] declares.
    fn pass(&self, args: &mut Args, strides: &Strides);
}

/// One parameter of this name.
pub(crate) fn one(list: &mut Vec<ParamInfo>, name: &str, kind: ParamKind) {
    let name = name.to_owned();
    list.push(ParamInfo { name, kind });
}

macro_rules! scalar {
    ($($ty:ty = $kind:ident, $zero:literal;)*) => {
        $(impl Param for $ty {
            const ABSENT: Self = $zero;

            fn declare(list: &mut Vec<ParamInfo>, name: &str, _: &Strides) {
                one(list, name, ParamKind::$kind);
            }
            fn pass(&self, args: &mut Args, _: &Strides) {
                args.push(self.to_le_bytes());
            }
        })*
    };
}
scalar!(u32 = U32, 0; u64 = U64, 0; f32 = F32, 0.0; f64 = F64, 0.0;);

/// A `.u32` of 0 or 1.
impl Param for bool {
    const ABSENT: Self = false;

    fn declare(list: &mut Vec<ParamInfo>, name: &str, strides: &Strides) {
        u32::declare(list, name, strides);
    }
    fn pass(&self, args: &mut Args, strides: &Strides) {
        u32::from(*self).pass(args, strides);
    }
}

/// A size: a `.u32`, of which kernels take those that are no larger than an `i32` can be.
impl Param for usize {
    const ABSENT: Self = 0;

    fn declare(list: &mut Vec<ParamInfo>, name: &str, strides: &Strides) {
        u32::declare(list, name, strides);
    }
    fn check(&self, kernel: &'static str, name: &'static str) -> Result<()> {
        if *self > i32::MAX as usize {
            return Err(shape(
                kernel,
                format!("{name} is {self}, above {}", i32::MAX),
            ));
        }
        Ok(())
    }
    fn pass(&self, args: &mut Args, strides: &Strides) {
        (*self as u32).pass(args, strides);
    }
}

impl<T, Access> Param for Pointer<T, Access> {
    const ABSENT: Self = Self::null();

    fn declare(list: &mut Vec<ParamInfo>, name: &str, strides: &Strides) {
        u64::declare(list, name, strides);
    }
    fn pass(&self, args: &mut Args, strides: &Strides) {
        self.address().pass(args, strides);
    }
}

/// Where there is none, all of its parameters are zero.
impl<P: Param> Param for Option<P> {
    const STRIDES: &'static Strides = P::STRIDES;
    const ABSENT: Self = None;

    fn declare(list: &mut Vec<ParamInfo>, name: &str, strides: &Strides) {
        P::declare(list, name, strides);
    }
    fn check(&self, kernel: &'static str, name: &'static str) -> Result<()> {
        self.as_ref().map_or(Ok(()), |x| x.check(kernel, name))
    }
    fn pass(&self, args: &mut Args, strides: &Strides) {
        self.unwrap_or(P::ABSENT).pass(args, strides);
    }
}

/// A kernel as the assembler text must declare it.
#[derive(Clone, Copy, Debug)]
pub struct ContractInfo {
    /// The text.
    pub file: &'static PtxFile,
    /// The entry point.
    pub entry: &'static str,
    /// Its parameters in order.
    pub params: fn() -> Vec<ParamInfo>,
}

/// The operands of a kernel, declared by `contract!`.
pub trait Contract: Param + fmt::Debug {
    /// The declaration.
    const INFO: ContractInfo;
    /// The entry point.
    const NAME: &'static str = Self::INFO.entry;
}

/// Grid, block and dynamic shared memory of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes.
    pub dynamic_shared: u32,
}

impl Geometry {
    /// A launch without dynamic shared memory.
    pub const fn new(grid: [u32; 3], block: [u32; 3]) -> Self {
        Self {
            grid,
            block,
            dynamic_shared: 0,
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.grid.contains(&0)
    }
}

/// A kernel: what its operands must have to do with one another, and how it is launched.
pub trait Kernel: Contract {
    /// Checks that operands which are right each by itself fit together, and gives grid, block and
    /// shared memory. It may view operands otherwise, as one row where they are contiguous; then they are
    /// checked again.
    ///
    /// # Errors
    /// If shapes do not fit together, or the launch would be too large.
    fn fit(&mut self) -> Result<Geometry>;

    /// Checks the operands.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves its
    /// memory.
    fn ready(mut self) -> Result<Ready<Self>> {
        self.check(Self::NAME, "")?;
        let geometry = self.fit()?;
        self.check(Self::NAME, "")?;
        Ok(Ready {
            kernel: self,
            geometry,
        })
    }
}

/// A kernel whose operands have been checked, by [`Kernel::ready`].
#[derive(Clone, Copy, Debug)]
pub struct Ready<K> {
    pub(crate) kernel: K,
    geometry: Geometry,
}

/// Launches a kernel (nothing when its grid is empty). Returns before it has run.
///
/// # Errors
/// As [`Driver::launch`].
pub fn launch<D: Driver, K: Contract>(driver: &D, ready: &Ready<K>) -> Result<()> {
    if ready.geometry.is_empty() {
        return Ok(());
    }
    let mut args = Args::new();
    ready.kernel.pass(&mut args, &[]);
    driver.launch(&Launch {
        file: K::INFO.file,
        entry: K::NAME,
        geometry: ready.geometry,
        args: args.as_slice(),
    })
}

/// The name of a part of an operand; either may be empty.
pub(crate) fn joined(operand: &str, part: &str) -> String {
    match (operand, part) {
        ("", one) | (one, "") => one.to_owned(),
        _ => format!("{operand}_{part}"),
    }
}

/// What a contract computes of its operands.
pub(crate) fn computed<K, T>(operands: &K, of: impl FnOnce(&K) -> T) -> T {
    of(operands)
}

/// Declares the operands of a kernel, in the order of the PTX entry's parameters:
///
/// ```ignore
/// contract! {
///     /// `dst = scale * src`.
///     pub struct Scale: ELEMENTWISE, "dis_scale" {
///         src: Mat,                            // src, src_row, src_batch
///         table: Mat [row],                    // table, table_row
///         weights: Mat [batch as outer, row],  // weights, weights_outer, weights_row
///         bias: Option<Mat> [],                // bias: null where there is none
///         dst: MatMut,
///         scale: f32,
///         host ratio: f64,                     // nothing: only the host uses it
///         rank: usize = |k| (k.ratio * k.dst.channels as f64) as usize,
///         channels: usize = |k| k.dst.channels,
///     }
///     pub fn new;
/// }
/// ```
///
/// The structure has the fields without `=`; [`Kernel::fit`] is written by hand. `pub fn new` makes a
/// function that takes them in this order and checks them; without it, fields are public, or a function
/// written by hand checks something more.
///
/// Without `: FILE, "entry"`, operands that several kernels have are declared. A kernel takes them by
/// `first: Walk`, as `first_u`, `first_u_row` and so on, or by `flat walk: Walk`, as `u`, `u_row`. A field
/// is called otherwise in the text by `delta_bias: Option<Mat> [] as bias`.
macro_rules! contract {
    (
        $(#[$meta:meta])*
        pub struct $name:ident : $file:ident, $entry:literal { $($body:tt)* }
        $(pub fn $new:ident;)?
    ) => {
        $crate::contract::contract!(
            @fields [$(#[$meta])* pub struct $name] [$($new)?] {} {} {} $($body)*
        );
        impl $crate::contract::Contract for $name {
            const INFO: $crate::contract::ContractInfo = $crate::contract::ContractInfo {
                file: &$crate::ptx::$file,
                entry: $entry,
                params: || {
                    let mut list = Vec::new();
                    <$name as $crate::contract::Param>::declare(&mut list, "", &[]);
                    list
                },
            };
        }
    };
    ($(#[$meta:meta])* pub struct $name:ident { $($body:tt)* }) => {
        $crate::contract::contract!(@fields [$(#[$meta])* pub struct $name] [] {} {} {} $($body)*);
    };

    // The fields one after another: those of the structure, the arguments of `new`, the parameters.
    (@fields $head:tt $new:tt {$($fields:tt)*} {$($args:tt)*} {$($params:tt)*}
        $(#[$doc:meta])* $vis:vis host $field:ident : $ty:ty, $($rest:tt)*
    ) => {
        $crate::contract::contract!(@fields $head $new
            {$($fields)* $(#[$doc])* $vis $field: $ty,} {$($args)* $field: $ty,} {$($params)*}
            $($rest)*);
    };
    (@fields $head:tt $new:tt {$($fields:tt)*} {$($args:tt)*} {$($params:tt)*}
        $(#[$doc:meta])* $vis:vis flat $field:ident : $ty:ty, $($rest:tt)*
    ) => {
        $crate::contract::contract!(@fields $head $new
            {$($fields)* $(#[$doc])* $vis $field: $ty,} {$($args)* $field: $ty,}
            {$($params)* {"", $ty, &[], |k: &Self| k.$field}}
            $($rest)*);
    };
    (@fields $head:tt $new:tt $fields:tt $args:tt {$($params:tt)*}
        $field:ident : $ty:ty = $value:expr, $($rest:tt)*
    ) => {
        $crate::contract::contract!(@fields $head $new $fields $args
            {$($params)* {stringify!($field), $ty, <$ty as $crate::contract::Param>::STRIDES, $value}}
            $($rest)*);
    };
    (@fields $head:tt $new:tt {$($fields:tt)*} {$($args:tt)*} {$($params:tt)*}
        $(#[$doc:meta])* $vis:vis $field:ident : $ty:ty
        $([$($stride:ident $(as $suffix:ident)?),*])? $(as $param:ident)?, $($rest:tt)*
    ) => {
        $crate::contract::contract!(@fields $head $new
            {$($fields)* $(#[$doc])* $vis $field: $ty,} {$($args)* $field: $ty,}
            {$($params)* {
                $crate::contract::contract!(@name $field $($param)?),
                $ty,
                $crate::contract::contract!(@strides $ty $(, [$($stride $($suffix)?),*])?),
                |k: &Self| k.$field
            }}
            $($rest)*);
    };
    (@fields [$(#[$meta:meta])* pub struct $name:ident] $new:tt {$($fields:tt)*} $args:tt
        {$({$param:expr, $ty:ty, $strides:expr, $value:expr})*}
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name { $($fields)* }

        impl $crate::contract::Param for $name {
            const ABSENT: Self = $crate::contract::contract!(@absent $args);

            fn declare(
                list: &mut Vec<$crate::contract::ParamInfo>,
                name: &str,
                _: &$crate::contract::Strides,
            ) {
                $(<$ty as $crate::contract::Param>::declare(
                    list, &$crate::contract::joined(name, $param), $strides,
                );)*
            }
            fn check(&self, kernel: &'static str, _: &'static str) -> $crate::error::Result<()> {
                $(
                    let value: $ty = $crate::contract::computed(self, $value);
                    $crate::contract::Param::check(&value, kernel, $param)?;
                )*
                Ok(())
            }
            fn pass(&self, args: &mut $crate::contract::Args, _: &$crate::contract::Strides) {
                $(
                    let value: $ty = $crate::contract::computed(self, $value);
                    $crate::contract::Param::pass(&value, args, $strides);
                )*
            }
        }
        $crate::contract::contract!(@new $name $new $args);
    };

    (@absent {$($field:ident : $ty:ty,)*}) => {
        Self { $($field: <$ty as $crate::contract::Param>::ABSENT),* }
    };
    (@new $name:ident [] $args:tt) => {};
    (@new $name:ident [$new:ident] {$($field:ident : $ty:ty,)*}) => {
        impl $name {
            /// Takes the operands in the order of the kernel's parameters, and checks them.
            ///
            /// # Errors
            /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand
            /// leaves its memory.
            pub fn $new($($field: $ty),*) -> $crate::error::Result<$crate::contract::Ready<Self>> {
                $crate::contract::Kernel::ready(Self { $($field),* })
            }
        }
    };
    (@strides $ty:ty) => { <$ty as $crate::contract::Param>::STRIDES };
    (@strides $ty:ty, [$($stride:ident $($suffix:ident)?),*]) => {
        &[$((
            $crate::contract::contract!(@stride $stride),
            $crate::contract::contract!(@name $stride $($suffix)?),
        )),*]
    };
    (@stride row) => { $crate::contract::Stride::Row };
    (@stride column) => { $crate::contract::Stride::Column };
    (@stride batch) => { $crate::contract::Stride::Batch };
    (@name $name:ident) => { stringify!($name) };
    (@name $name:ident $other:ident) => { stringify!($other) };
}
pub(crate) use contract;

//! Launch contracts: what a kernel takes, as Rust types.

use std::fmt;
use std::marker::PhantomData;

use crate::driver::{Driver, Launch};
use crate::error::Result;
use crate::ptx::PtxFile;

/// Device memory that a kernel reads: an address and the number of elements from there on.
pub struct Ptr<T> {
    address: u64,
    len: u64,
    element: PhantomData<fn() -> T>,
}

/// Device memory that a kernel writes (and may read).
pub struct PtrMut<T> {
    address: u64,
    len: u64,
    element: PhantomData<fn() -> T>,
}

macro_rules! pointer {
    ($name:ident) => {
        impl<T> $name<T> {
            /// `len` elements at `address`, which must be live device memory of that size for as
            /// long as kernels use it; [`crate::Block`] hands out such pointers.
            pub fn new(address: u64, len: u64) -> Self {
                Self {
                    address,
                    len,
                    element: PhantomData,
                }
            }
            /// No memory: an optional operand that is absent.
            pub fn null() -> Self {
                Self::new(0, 0)
            }
            /// Whether the operand is absent.
            pub fn is_null(self) -> bool {
                self.address == 0
            }
            /// The address.
            pub fn address(self) -> u64 {
                self.address
            }
            /// Elements from the address on.
            pub fn len(self) -> u64 {
                self.len
            }
            /// Whether there are none.
            pub fn is_empty(self) -> bool {
                self.len == 0
            }
            /// The pointer `elements` further on (empty when that is outside).
            pub fn at(self, elements: u64) -> Self {
                let step = elements.min(self.len);
                Self::new(self.address + step * size_of::<T>() as u64, self.len - step)
            }
        }
        impl<T> Clone for $name<T> {
            fn clone(&self) -> Self {
                *self
            }
        }
        impl<T> Copy for $name<T> {}
        impl<T> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}+{}", self.address, self.len)
            }
        }
        impl<T> Param for $name<T> {
            const KIND: ParamKind = ParamKind::U64;
            fn bytes(&self) -> Vec<u8> {
                self.address.to_le_bytes().to_vec()
            }
        }
    };
}
pointer!(Ptr);
pointer!(PtrMut);

impl<T> PtrMut<T> {
    /// The same memory, to read.
    pub fn read(self) -> Ptr<T> {
        Ptr::new(self.address, self.len)
    }
}

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

/// A type that can be passed to a kernel.
pub trait Param {
    /// The type that the kernel declares.
    const KIND: ParamKind;
    /// Its little-endian bytes.
    fn bytes(&self) -> Vec<u8>;
}

macro_rules! scalar {
    ($($ty:ty = $kind:ident),*) => {
        $(impl Param for $ty {
            const KIND: ParamKind = ParamKind::$kind;
            fn bytes(&self) -> Vec<u8> {
                self.to_le_bytes().to_vec()
            }
        })*
    };
}
scalar!(u32 = U32, u64 = U64, f32 = F32, f64 = F64);

/// A parameter's name and type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParamInfo {
    /// The field; the PTX parameter is called the same.
    pub name: &'static str,
    /// Its type.
    pub kind: ParamKind,
}

/// A kernel as the assembler text must declare it.
#[derive(Clone, Copy, Debug)]
pub struct ContractInfo {
    /// The text.
    pub file: &'static PtxFile,
    /// The entry point.
    pub entry: &'static str,
    /// Its parameters in order.
    pub params: &'static [ParamInfo],
}

/// A parameter list; made by [`contract!`](crate::contract!).
pub trait Params {
    /// The declaration.
    const INFO: ContractInfo;
    /// One byte string for each parameter, in order.
    fn args(&self) -> Vec<Vec<u8>>;
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

/// A kernel with its arguments, ready to launch. Values exist only through checked constructors.
pub trait Contract: Params {
    /// Grid, block and shared memory that follow from the arguments.
    fn geometry(&self) -> Geometry;
}

/// A kernel with its geometry: what checked constructors return.
#[derive(Clone, Copy, Debug)]
pub struct Ready<K> {
    kernel: K,
    geometry: Geometry,
}

impl<K: Params> Ready<K> {
    /// For constructors, after their checks.
    pub(crate) fn new(kernel: K, geometry: Geometry) -> Self {
        Self { kernel, geometry }
    }
}

impl<K: Params> Params for Ready<K> {
    const INFO: ContractInfo = K::INFO;
    fn args(&self) -> Vec<Vec<u8>> {
        self.kernel.args()
    }
}

impl<K: Params> Contract for Ready<K> {
    fn geometry(&self) -> Geometry {
        self.geometry
    }
}

/// Launches a kernel (nothing when its grid is empty). Returns before it has run.
///
/// # Errors
/// As [`Driver::launch`].
pub fn launch<D: Driver, C: Contract>(driver: &D, kernel: &C) -> Result<()> {
    let geometry = kernel.geometry();
    if geometry.is_empty() {
        return Ok(());
    }
    driver.launch(&Launch {
        file: C::INFO.file,
        entry: C::INFO.entry,
        geometry,
        args: &kernel.args(),
    })
}

/// Declares a kernel's parameter list as a structure with those fields, in the order of the PTX
/// entry's parameters:
///
/// ```ignore
/// contract! {
///     /// `dst = value`.
///     pub struct Fill: ELEMENTWISE, "dis_fill" {
///         dst: PtrMut<f32>,
///         value: f32,
///     }
/// }
/// ```
#[macro_export]
macro_rules! contract {
    (
        $(#[$meta:meta])*
        pub struct $name:ident : $file:ident, $entry:literal {
            $($(#[$field_meta:meta])* $field:ident : $ty:ty),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name {
            $($(#[$field_meta])* $field: $ty),*
        }
        impl $crate::contract::Params for $name {
            const INFO: $crate::contract::ContractInfo = $crate::contract::ContractInfo {
                file: &$crate::ptx::$file,
                entry: $entry,
                params: &[$($crate::contract::ParamInfo {
                    name: stringify!($field),
                    kind: <$ty as $crate::contract::Param>::KIND,
                }),*],
            };
            fn args(&self) -> Vec<Vec<u8>> {
                vec![$($crate::contract::Param::bytes(&self.$field)),*]
            }
        }
    };
}

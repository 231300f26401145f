//! Element types of stored tensors and their way to float32.

use std::borrow::Cow;

use half::{bf16, f16};
use safetensors::Dtype;

/// How an element is stored, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ElementType {
    /// float64.
    F64,
    /// float32.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    BF16,
    /// 8 bits: 4 of exponent, 3 of mantissa, no infinity.
    F8E4M3,
    /// 8 bits: 5 of exponent, 2 of mantissa; the upper byte of a half.
    F8E5M2,
    /// int64.
    I64,
    /// int32.
    I32,
    /// int16.
    I16,
    /// int8.
    I8,
    /// uint64.
    U64,
    /// uint32.
    U32,
    /// uint16.
    U16,
    /// uint8.
    U8,
    /// One byte; anything but 0 is 1.
    Bool,
}

use ElementType as T;

/// Each type with PyTorch's name, and the storage class of old where it has one.
const TORCH: [(ElementType, &str, &str); 15] = [
    (T::F64, "float64", "DoubleStorage"),
    (T::F32, "float32", "FloatStorage"),
    (T::F16, "float16", "HalfStorage"),
    (T::BF16, "bfloat16", "BFloat16Storage"),
    (T::F8E4M3, "float8_e4m3fn", ""),
    (T::F8E5M2, "float8_e5m2", ""),
    (T::I64, "int64", "LongStorage"),
    (T::I32, "int32", "IntStorage"),
    (T::I16, "int16", "ShortStorage"),
    (T::I8, "int8", "CharStorage"),
    (T::U64, "uint64", ""),
    (T::U32, "uint32", ""),
    (T::U16, "uint16", ""),
    (T::U8, "uint8", "ByteStorage"),
    (T::Bool, "bool", "BoolStorage"),
];

impl ElementType {
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            T::F64 | T::I64 | T::U64 => 8,
            T::F32 | T::I32 | T::U32 => 4,
            T::F16 | T::BF16 | T::I16 | T::U16 => 2,
            T::F8E4M3 | T::F8E5M2 | T::I8 | T::U8 | T::Bool => 1,
        }
    }

    /// By PyTorch's name, such as `float32`.
    pub(crate) fn from_torch(name: &str) -> Option<Self> {
        let found = TORCH.iter().find(|(_, torch, _)| *torch == name);
        found.map(|(element, ..)| *element)
    }

    /// By PyTorch's storage class, such as `FloatStorage`.
    pub(crate) fn from_storage(class: &str) -> Option<Self> {
        let found = TORCH.iter().find(|(_, _, storage)| *storage == class);
        found
            .filter(|_| !class.is_empty())
            .map(|(element, ..)| *element)
    }

    /// In safetensors.
    pub(crate) fn to_safetensors(self) -> Dtype {
        match self {
            T::F64 => Dtype::F64,
            T::F32 => Dtype::F32,
            T::F16 => Dtype::F16,
            T::BF16 => Dtype::BF16,
            T::F8E4M3 => Dtype::F8_E4M3,
            T::F8E5M2 => Dtype::F8_E5M2,
            T::I64 => Dtype::I64,
            T::I32 => Dtype::I32,
            T::I16 => Dtype::I16,
            T::I8 => Dtype::I8,
            T::U64 => Dtype::U64,
            T::U32 => Dtype::U32,
            T::U16 => Dtype::U16,
            T::U8 => Dtype::U8,
            T::Bool => Dtype::BOOL,
        }
    }

    pub(crate) fn from_safetensors(dtype: Dtype) -> Option<Self> {
        let mut all = TORCH.iter().map(|(element, ..)| *element);
        all.find(|element| element.to_safetensors() == dtype)
    }

    /// Converts little-endian elements. The shorter of both slices decides how many.
    pub fn to_f32(self, bytes: &[u8], out: &mut [f32]) {
        match self {
            T::F64 => each(bytes, out, |b| f64::from_le_bytes(b) as f32),
            T::F32 => each(bytes, out, f32::from_le_bytes),
            T::F16 => each(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
            T::BF16 => each(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
            T::F8E4M3 => each(bytes, out, |[b]: [u8; 1]| e4m3_to_f32(b)),
            T::F8E5M2 => each(bytes, out, |[b]: [u8; 1]| {
                f16::from_bits(u16::from(b) << 8).to_f32()
            }),
            T::I64 => each(bytes, out, |b| i64::from_le_bytes(b) as f32),
            T::I32 => each(bytes, out, |b| i32::from_le_bytes(b) as f32),
            T::I16 => each(bytes, out, |b| f32::from(i16::from_le_bytes(b))),
            T::I8 => each(bytes, out, |b| f32::from(i8::from_le_bytes(b))),
            T::U64 => each(bytes, out, |b| u64::from_le_bytes(b) as f32),
            T::U32 => each(bytes, out, |b| u32::from_le_bytes(b) as f32),
            T::U16 => each(bytes, out, |b| f32::from(u16::from_le_bytes(b))),
            T::U8 => each(bytes, out, |[b]: [u8; 1]| f32::from(b)),
            T::Bool => each(bytes, out, |[b]: [u8; 1]| f32::from(u8::from(b != 0))),
        }
    }
}

fn each<const N: usize>(bytes: &[u8], out: &mut [f32], word: impl Fn([u8; N]) -> f32) {
    for (bytes, out) in bytes.as_chunks::<N>().0.iter().zip(out) {
        *out = word(*bytes);
    }
}

/// Exponent bias 7; all ones is not a number, and there is no infinity.
fn e4m3_to_f32(bits: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(bits >> 3 & 15), f32::from(bits & 7));
    let magnitude = match (exponent, bits & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa / 512.0,
        _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7),
    };
    if bits & 0x80 == 0 {
        magnitude
    } else {
        -magnitude
    }
}

/// The little-endian bytes of float32 values: the values themselves where the machine is.
pub fn le_bytes(values: &[f32]) -> Cow<'_, [u8]> {
    if cfg!(target_endian = "little") {
        Cow::Borrowed(bytemuck::cast_slice(values))
    } else {
        Cow::Owned(values.iter().flat_map(|x| x.to_le_bytes()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(element: ElementType, bytes: &[u8]) -> f32 {
        assert_eq!(bytes.len(), element.size());
        let mut out = [f32::NAN];
        element.to_f32(bytes, &mut out);
        out[0]
    }

    #[test]
    fn every_type_converts() {
        assert_eq!(one(T::F64, &(-1.5f64).to_le_bytes()), -1.5);
        assert_eq!(one(T::F32, &0.1f32.to_le_bytes()), 0.1);
        assert_eq!(one(T::F16, &0x3555u16.to_le_bytes()), 0.333_251_95);
        assert_eq!(one(T::F16, &0x0001u16.to_le_bytes()), 2f32.powi(-24));
        assert_eq!(one(T::BF16, &0xC049u16.to_le_bytes()), -3.140_625);
        assert_eq!(one(T::I64, &(-3i64).to_le_bytes()), -3.0);
        assert_eq!(one(T::I32, &(-70_000i32).to_le_bytes()), -70_000.0);
        assert_eq!(one(T::I16, &(-300i16).to_le_bytes()), -300.0);
        assert_eq!(one(T::I8, &[0xFF]), -1.0);
        assert_eq!(one(T::U64, &(1u64 << 40).to_le_bytes()), 2f32.powi(40));
        assert_eq!(one(T::U32, &u32::MAX.to_le_bytes()), 4_294_967_296.0);
        assert_eq!(one(T::U16, &u16::MAX.to_le_bytes()), 65_535.0);
        assert_eq!(one(T::U8, &[200]), 200.0);
        assert_eq!((one(T::Bool, &[0]), one(T::Bool, &[3])), (0.0, 1.0));
    }

    #[test]
    fn eight_bit_floats() {
        // Smallest, largest, one and a half, minus one.
        assert_eq!(one(T::F8E4M3, &[0x01]), 2f32.powi(-9));
        assert_eq!(one(T::F8E4M3, &[0x7E]), 448.0);
        assert_eq!(one(T::F8E4M3, &[0x3C]), 1.5);
        assert_eq!(one(T::F8E4M3, &[0xB8]), -1.0);
        assert!(one(T::F8E4M3, &[0xFF]).is_nan());
        assert_eq!(one(T::F8E5M2, &[0x01]), 2f32.powi(-16));
        assert_eq!(one(T::F8E5M2, &[0x7B]), 57_344.0);
        assert_eq!(one(T::F8E5M2, &[0xFC]), f32::NEG_INFINITY);
    }

    #[test]
    fn names_are_found_both_ways() {
        for (element, torch, storage) in TORCH {
            assert_eq!(ElementType::from_torch(torch), Some(element));
            if !storage.is_empty() {
                assert_eq!(ElementType::from_storage(storage), Some(element));
            }
        }
        assert_eq!(ElementType::from_storage(""), None);
        assert_eq!(ElementType::from_torch("complex64"), None);
    }
}

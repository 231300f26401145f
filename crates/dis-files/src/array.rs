//! Arrays of numbers in memory, as `.npz` files hold them.

use crate::element::ElementType;

/// An array in memory: its elements little-endian, the last index running fastest.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    element: ElementType,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// An array is not what it is used as.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ArrayError(String);

impl Array {
    /// An array of float64.
    ///
    /// # Errors
    /// If there are not as many values as the shape has elements.
    pub fn from_f64(shape: &[usize], values: &[f64]) -> std::result::Result<Self, ArrayError> {
        if elements(shape) != Some(values.len() as u64) {
            return Err(ArrayError(format!(
                "shape {shape:?} is not that of {} values",
                values.len()
            )));
        }
        Ok(Self {
            element: ElementType::F64,
            shape: shape.to_vec(),
            bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        })
    }

    /// An array of elements that are little-endian and in C order; their number fits the shape.
    pub(crate) fn new(element: ElementType, shape: Vec<usize>, bytes: Vec<u8>) -> Self {
        Self {
            element,
            shape,
            bytes,
        }
    }

    /// Type of the elements.
    pub fn element(&self) -> ElementType {
        self.element
    }

    /// Lengths.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements, little-endian, the last index running fastest.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The values of an array of floats.
    ///
    /// # Errors
    /// If it is not float16, float32 or float64.
    pub fn to_f64(&self) -> std::result::Result<Vec<f64>, ArrayError> {
        match self.element {
            ElementType::F64 => Ok(self.words(f64::from_le_bytes)),
            ElementType::F32 => Ok(self.words(|b| f64::from(f32::from_le_bytes(b)))),
            ElementType::F16 => Ok(self.words(|b| half::f16::from_le_bytes(b).to_f64())),
            other => Err(ArrayError(format!("is of type {other:?}, not of floats"))),
        }
    }

    /// The values of an array of whole numbers.
    ///
    /// # Errors
    /// If it is of another type, or a number is above the largest int64.
    pub fn to_i64(&self) -> std::result::Result<Vec<i64>, ArrayError> {
        Ok(match self.element {
            ElementType::I64 => self.words(i64::from_le_bytes),
            ElementType::I32 => self.words(|b| i64::from(i32::from_le_bytes(b))),
            ElementType::I16 => self.words(|b| i64::from(i16::from_le_bytes(b))),
            ElementType::I8 => self.words(|b| i64::from(i8::from_le_bytes(b))),
            ElementType::U32 => self.words(|b| i64::from(u32::from_le_bytes(b))),
            ElementType::U16 => self.words(|b| i64::from(u16::from_le_bytes(b))),
            ElementType::U8 => self.words(|[b]: [u8; 1]| i64::from(b)),
            ElementType::U64 => {
                let wide = self.words(u64::from_le_bytes);
                let fits = wide.iter().map(|&n| i64::try_from(n)).collect();
                let Ok(values) = fits else {
                    return Err(ArrayError("holds a number above the largest int64".into()));
                };
                values
            }
            other => {
                let what = format!("is of type {other:?}, not of whole numbers");
                return Err(ArrayError(what));
            }
        })
    }

    fn words<const N: usize, T>(&self, word: impl Fn([u8; N]) -> T) -> Vec<T> {
        self.bytes
            .as_chunks::<N>()
            .0
            .iter()
            .map(|b| word(*b))
            .collect()
    }
}

/// Elements of a shape, if they can be counted.
pub(crate) fn elements(shape: &[usize]) -> Option<u64> {
    let mut lengths = shape.iter().map(|&n| n as u64);
    lengths.try_fold(1u64, u64::checked_mul)
}

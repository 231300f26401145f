//! A tensor that lies in a file: known by name, shape and place, read when it is wanted.

use std::io::{self, Read, Seek, SeekFrom};

use crate::element::ElementType;

/// Bytes read at a time. Small enough to stay in a core's cache for the pass that follows.
const CHUNK: usize = 1 << 18;

/// More dimensions than any tensor has.
const MAX_DIMS: usize = 32;

/// Sees a piece of a tensor, with the position of its first element.
type See<'a, E> = &'a mut dyn FnMut(usize, &[f32]) -> Result<(), E>;

/// Where a tensor's elements are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTensor {
    /// Name in the state dict.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
    element: ElementType,
    elements: usize,
    /// Byte of the file at which element 0 of the tensor is.
    start: u64,
    /// Elements from one index to the next, by dimension; `None` where they lie densely.
    strides: Option<Vec<usize>>,
    /// Elements from the first to past the last one used.
    window: usize,
}

/// The storage that a tensor is a view of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// First byte in the file.
    pub start: u64,
    /// Its bytes; they must be within the file.
    pub bytes: u64,
    /// Elements of the tensor's type before its first.
    pub offset: usize,
}

impl StoredTensor {
    /// A view of a storage, row-major without strides. Refuses views that leave the storage.
    pub(crate) fn new(
        name: String,
        shape: Vec<usize>,
        element: ElementType,
        place: Place,
        strides: Option<&[usize]>,
    ) -> Result<Self, String> {
        if shape.len() > MAX_DIMS {
            return Err(format!("tensor {name:?} has {} dimensions", shape.len()));
        }
        let product = |sizes: &[usize]| {
            let mut sizes = sizes.iter();
            sizes.try_fold(1usize, |a, &b| a.checked_mul(b))
        };
        let outside = || {
            format!(
                "tensor {name:?} of shape {shape:?} and strides {strides:?} at element {} leaves \
                 its storage of {} bytes",
                place.offset, place.bytes
            )
        };
        let elements = product(&shape).ok_or_else(outside)?;
        if strides.is_some_and(|s| s.len() != shape.len()) {
            return Err(format!(
                "tensor {name:?} of shape {shape:?} has strides {strides:?}"
            ));
        }
        let strides = strides.filter(|strides| elements > 0 && !dense(&shape, strides));
        let window = match strides {
            None => elements,
            Some(strides) => {
                let mut pairs = shape.iter().zip(strides);
                let last = pairs.try_fold(0usize, |sum, (&size, &stride)| {
                    sum.checked_add((size - 1).checked_mul(stride)?)
                });
                last.and_then(|last| last.checked_add(1))
                    .ok_or_else(outside)?
            }
        };
        let bytes = |n: usize| (n as u64).checked_mul(element.size() as u64);
        let skipped = bytes(place.offset).ok_or_else(outside)?;
        let used = bytes(window).ok_or_else(outside)?;
        let end = skipped.checked_add(used).ok_or_else(outside)?;
        let start = place.start.checked_add(skipped).ok_or_else(outside)?;
        if end > place.bytes && elements > 0 {
            return Err(outside());
        }
        let strides = strides.map(<[usize]>::to_vec);
        Ok(Self {
            name,
            shape,
            element,
            elements,
            start,
            strides,
            window,
        })
    }

    /// Type of the elements in the file.
    pub fn element(&self) -> ElementType {
        self.element
    }

    /// Byte of the file at which its first element is, and whether its elements follow densely from
    /// there, row-major.
    pub fn start(&self) -> (u64, bool) {
        (self.start, self.strides.is_none())
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.elements
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.elements == 0
    }

    /// Reads it from its file, row-major, as float32.
    ///
    /// # Errors
    /// If reading fails.
    pub fn read<R: Read + Seek>(&self, source: &mut R) -> io::Result<Vec<f32>> {
        let mut out = vec![0.0; self.elements];
        self.read_into::<R, io::Error>(source, &mut out, &mut |_, _| Ok(()))?;
        Ok(out)
    }

    /// Reads it into `out`, row-major, which must have room for exactly its elements. `each` sees
    /// every piece while it is still in the cache, with the position of its first element.
    ///
    /// # Errors
    /// If reading fails, `out` has another length, or with what `each` returns.
    pub fn read_into<R: Read + Seek, E: From<io::Error>>(
        &self,
        source: &mut R,
        out: &mut [f32],
        each: See<'_, E>,
    ) -> Result<(), E> {
        if out.len() != self.elements {
            return Err(io::Error::from(io::ErrorKind::InvalidInput).into());
        }
        if out.is_empty() {
            return Ok(());
        }
        source.seek(SeekFrom::Start(self.start))?;
        let Some(strides) = &self.strides else {
            return self.read_dense(source, out, each);
        };
        let mut window = vec![0.0; self.window];
        self.read_dense::<R, E>(source, &mut window, &mut |_, _| Ok(()))?;
        gather(&window, &self.shape, strides, out);
        each(0, out)
    }

    fn read_dense<R: Read, E: From<io::Error>>(
        &self,
        source: &mut R,
        out: &mut [f32],
        each: See<'_, E>,
    ) -> Result<(), E> {
        let size = self.element.size();
        // Straight to where they belong, if they are stored as they are used.
        let direct = self.element == ElementType::F32 && cfg!(target_endian = "little");
        let mut buffer = vec![
            0;
            if direct {
                0
            } else {
                CHUNK.min(out.len() * size)
            }
        ];
        let mut first = 0;
        for piece in out.chunks_mut(CHUNK / size) {
            if direct {
                source.read_exact(bytemuck::cast_slice_mut(piece))?;
            } else {
                let bytes = &mut buffer[..piece.len() * size];
                source.read_exact(bytes)?;
                self.element.to_f32(bytes, piece);
            }
            each(first, piece)?;
            first += piece.len();
        }
        Ok(())
    }
}

/// Whether strides are those of a row-major tensor. Those of dimensions of one element mean
/// nothing.
fn dense(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1usize;
    for (&size, &stride) in shape.iter().zip(strides).rev() {
        if size != 1 && stride != expected {
            return false;
        }
        expected = expected.saturating_mul(size);
    }
    true
}

/// Copies a strided view, row-major. All indices are within the window.
fn gather(window: &[f32], shape: &[usize], strides: &[usize], out: &mut [f32]) {
    for (out, at) in out.iter_mut().zip(offsets(shape, strides)) {
        *out = window[at];
    }
}

/// Where the elements of a strided array lie, row-major, without end.
pub(crate) fn offsets(shape: &[usize], strides: &[usize]) -> impl Iterator<Item = usize> {
    let mut index = vec![0; shape.len()];
    let mut at = 0;
    std::iter::repeat_with(move || {
        let this = at;
        for d in (0..shape.len()).rev() {
            index[d] += 1;
            at += strides[d];
            if index[d] < shape[d] {
                break;
            }
            at -= strides[d] * shape[d];
            index[d] = 0;
        }
        this
    })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn place(bytes: u64, offset: usize) -> Place {
        Place {
            start: 4,
            bytes,
            offset,
        }
    }

    fn view(
        shape: &[usize],
        strides: Option<&[usize]>,
        place: Place,
    ) -> Result<StoredTensor, String> {
        StoredTensor::new("x".into(), shape.to_vec(), ElementType::F32, place, strides)
    }

    fn read(tensor: &StoredTensor) -> Vec<f32> {
        let bytes: Vec<u8> = (0..13)
            .flat_map(|i| (i as f32 - 1.0).to_le_bytes())
            .collect();
        let mut out = vec![0.0; tensor.len()];
        let mut seen = 0;
        tensor
            .read_into::<_, io::Error>(&mut Cursor::new(bytes), &mut out, &mut |first, piece| {
                assert_eq!(first, seen);
                seen += piece.len();
                Ok(())
            })
            .unwrap();
        assert_eq!(seen, tensor.len());
        out
    }

    #[test]
    fn views_of_a_storage() {
        let dense = view(&[2, 3], Some(&[3, 1]), place(48, 2)).unwrap();
        assert_eq!(dense.strides, None);
        assert_eq!(read(&dense), [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        let transposed = view(&[3, 2], Some(&[1, 3]), place(48, 2)).unwrap();
        assert_eq!(read(&transposed), [2.0, 5.0, 3.0, 6.0, 4.0, 7.0]);
        let spread = view(&[2, 1, 2], Some(&[6, 99, 2]), place(48, 1)).unwrap();
        assert_eq!(read(&spread), [1.0, 3.0, 7.0, 9.0]);
        assert_eq!(read(&view(&[], Some(&[]), place(48, 11)).unwrap()), [11.0]);
        assert!(read(&view(&[0, 5], Some(&[9, 9]), place(0, 0)).unwrap()).is_empty());
    }

    #[test]
    fn views_that_leave_their_storage_are_refused() {
        let refused = |shape: &[usize], strides: Option<&[usize]>, place| {
            let message = view(shape, strides, place).unwrap_err();
            assert!(message.contains("\"x\""), "{message}");
        };
        refused(&[13], None, place(48, 0));
        refused(&[2], None, place(48, 11));
        refused(&[2, 2], Some(&[11, 1]), place(48, 0));
        refused(&[2], Some(&[1, 1]), place(48, 0));
        refused(&[usize::MAX, 2], None, place(48, 0));
        refused(&[2], Some(&[usize::MAX]), place(48, 0));
        refused(&[1], None, place(48, usize::MAX));
        refused(&[1; 33], None, place(48, 0));
    }

    #[test]
    fn long_tensors_are_read_in_pieces() {
        let n = 3 * CHUNK + 7;
        let bytes: Vec<u8> = (0..n).flat_map(|i| (i as u16).to_le_bytes()).collect();
        let place = Place {
            start: 0,
            bytes: bytes.len() as u64,
            offset: 0,
        };
        let tensor = StoredTensor::new("x".into(), vec![n], ElementType::U16, place, None).unwrap();
        let mut out = vec![0.0; n];
        tensor
            .read_into::<_, io::Error>(&mut Cursor::new(bytes), &mut out, &mut |_, _| Ok(()))
            .unwrap();
        assert!(
            out.iter()
                .enumerate()
                .all(|(i, &x)| x == f32::from(i as u16))
        );
    }
}

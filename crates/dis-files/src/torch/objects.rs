//! What the few permitted globals make of their arguments.

use super::error::TorchError;
use super::pickle::Machine;
use super::value::{Global, Node, NumpyDtype, Storage, Tensor, Value};
use crate::element::ElementType;

type Result<T> = std::result::Result<T, TorchError>;

/// No permitted global takes more arguments.
const MAX_ARGUMENTS: usize = 8;
/// More dimensions than any tensor has.
const MAX_DIMS: usize = 32;
/// Longest tag of a device.
const MAX_TAG: usize = 32;

impl Machine<'_> {
    fn get(&self, value: Value) -> Option<&Node> {
        match value {
            Value::Node(at) => self.nodes.get(at as usize),
            _ => None,
        }
    }

    /// A short tuple's items. Bounded, since one tuple may be used by many calls.
    fn items(&self, value: Value, most: usize) -> Result<Vec<Value>> {
        match self.get(value) {
            Some(Node::Tuple(items)) if items.len() <= most => Ok(items.clone()),
            _ => self.damaged("arguments that fit no known call"),
        }
    }

    fn sizes(&self, value: Value) -> Result<Vec<usize>> {
        let mut sizes = Vec::new();
        for item in self.items(value, MAX_DIMS)? {
            sizes.push(self.size(item)?);
        }
        Ok(sizes)
    }

    fn size(&self, value: Value) -> Result<usize> {
        match value {
            Value::Int(n) if n >= 0 => match usize::try_from(n) {
                Ok(n) => Ok(n),
                Err(_) => self.damaged(format!("size {n} is too large")),
            },
            other => self.damaged(format!("{other:?} where a size is expected")),
        }
    }

    /// `('storage', class, key, location, elements)`.
    pub(super) fn persistent(&mut self, id: Value) -> Result<Value> {
        let items = self.items(id, MAX_ARGUMENTS)?;
        let [
            Value::Text(kind),
            class,
            Value::Text(key),
            Value::Text(location),
            len,
        ] = items[..]
        else {
            return self.damaged("a persistent object that is no storage");
        };
        if kind.of(self.bytes) != b"storage" {
            return self.damaged("a persistent object that is no storage");
        }
        let element = match class {
            Value::Global(Global::Storage(element)) => Some(element),
            Value::Global(Global::UntypedStorage) => None,
            _ => return self.damaged("a storage of unknown class"),
        };
        let location = location.of(self.bytes);
        // Cut first: one long text may be used by many storages.
        let location = String::from_utf8_lossy(&location[..location.len().min(MAX_TAG)]);
        if !known_location(&location) {
            return Err(TorchError::Unsupported(format!(
                "a storage is tagged with device {location:?}; cpu and cuda:N are understood"
            )));
        }
        let len = self.size(len)? as u64;
        self.node(Node::Storage(Storage { key, element, len }))
    }

    /// A call of a permitted global.
    pub(super) fn call(&mut self, callee: Value, args: Value) -> Result<Value> {
        let Value::Global(global) = callee else {
            return self.damaged("a call of what is no global");
        };
        let args = self.items(args, MAX_ARGUMENTS)?;
        match (global, &args[..]) {
            (Global::OrderedDict, []) => self.node(Node::Dict(Vec::new())),
            (Global::OrderedDict, [list]) => self.ordered_dict(*list),
            (Global::Namespace, []) => self.node(Node::Namespace(Value::None)),
            (Global::Size, [size]) => Ok(*size),
            (Global::Device, [_] | [_, _]) => Ok(Value::Opaque),
            (Global::RebuildTensorV2, [storage, offset, shape, strides, _, _])
            | (Global::RebuildTensorV2, [storage, offset, shape, strides, _, _, _]) => {
                self.tensor(*storage, [*offset, *shape, *strides], None)
            }
            (Global::RebuildTensorV3, [storage, offset, shape, strides, _, _, dtype])
            | (Global::RebuildTensorV3, [storage, offset, shape, strides, _, _, dtype, _]) => {
                let Value::Global(Global::ElementType(element)) = *dtype else {
                    return self.damaged("a tensor of unknown type");
                };
                self.tensor(*storage, [*offset, *shape, *strides], Some(element))
            }
            (Global::RebuildParameter, [tensor, _, _]) => match self.get(*tensor) {
                Some(Node::Tensor(_)) => Ok(*tensor),
                _ => self.damaged("a parameter that is no tensor"),
            },
            (Global::NumpyDtype, [Value::Text(code), _, _] | [Value::Text(code)]) => {
                let dtype = match code.of(self.bytes) {
                    [kind @ (b'b' | b'i' | b'u' | b'f'), size @ b'1'..=b'8'] => NumpyDtype {
                        kind: *kind,
                        size: usize::from(size - b'0'),
                    },
                    _ => return self.damaged("a numpy type that is no plain number"),
                };
                self.node(Node::NumpyDtype(dtype))
            }
            (Global::NumpyScalar, [dtype, bytes]) => self.numpy_scalar(*dtype, *bytes),
            (Global::Encode, [Value::Text(text), Value::Text(_)]) => {
                // Python writes bytes as text in latin-1 under protocol 2.
                let text = String::from_utf8_lossy(text.of(self.bytes));
                let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(c).ok()).collect();
                match bytes {
                    Some(bytes) => {
                        self.charge(bytes.len() / size_of::<Value>())?;
                        self.node(Node::Bytes(bytes))
                    }
                    None => self.damaged("bytes that are not latin-1"),
                }
            }
            _ => self.damaged(format!("{global:?} is used in an unknown way")),
        }
    }

    fn ordered_dict(&mut self, list: Value) -> Result<Value> {
        let Some(Node::List(items)) = self.get(list) else {
            return self.damaged("an ordered dictionary of what is no list");
        };
        let mut pairs = Vec::new();
        for &item in items {
            match self.get(item) {
                Some(Node::Tuple(pair) | Node::List(pair)) if pair.len() == 2 => {
                    pairs.push((pair[0], pair[1]));
                }
                _ => return self.damaged("an ordered dictionary of what are no pairs"),
            }
        }
        // One list may be used by many calls: each copy counts.
        self.charge(pairs.len())?;
        self.node(Node::Dict(pairs))
    }

    fn tensor(
        &mut self,
        storage: Value,
        [offset, shape, strides]: [Value; 3],
        element: Option<ElementType>,
    ) -> Result<Value> {
        let Some(&Node::Storage(storage)) = self.get(storage) else {
            return self.damaged("a tensor without storage");
        };
        let Some(element) = element.or(storage.element) else {
            return self.damaged("a tensor of unknown type");
        };
        let tensor = Tensor {
            storage,
            element,
            offset: self.size(offset)?,
            shape: self.sizes(shape)?,
            strides: self.sizes(strides)?,
        };
        self.charge(tensor.shape.len())?;
        self.node(Node::Tensor(Box::new(tensor)))
    }

    fn numpy_scalar(&mut self, dtype: Value, bytes: Value) -> Result<Value> {
        let Some(&Node::NumpyDtype(dtype)) = self.get(dtype) else {
            return self.damaged("a numpy number of unknown type");
        };
        let bytes = match (bytes, self.get(bytes)) {
            (Value::Bytes(span), _) => span.of(self.bytes),
            (_, Some(Node::Bytes(bytes))) => bytes,
            _ => return self.damaged("a numpy number without value"),
        };
        match numpy_number(dtype, bytes) {
            Some(value) => Ok(value),
            None => self.damaged(format!("a numpy number of {} bytes", bytes.len())),
        }
    }

    /// Sets the state of an object.
    pub(super) fn build(&mut self, object: Value, state: Value) -> Result<()> {
        let state_is_dict = matches!(self.get(state), Some(Node::Dict(_)));
        let foreign_order = match self.get(state) {
            Some(Node::Tuple(items)) => match items.get(1) {
                Some(Value::Text(order)) => order.of(self.bytes) == b">",
                _ => true,
            },
            _ => true,
        };
        let Value::Node(at) = object else {
            return self.damaged("it sets the state of what has none");
        };
        match self.nodes.get_mut(at as usize) {
            Some(Node::Namespace(attributes)) if state_is_dict => *attributes = state,
            // A state dict carries versions of its modules as an attribute.
            Some(Node::Dict(_)) if state_is_dict => {}
            Some(Node::NumpyDtype(_)) if !foreign_order => {}
            Some(Node::NumpyDtype(_)) => {
                return self.damaged("a numpy type that is not little-endian");
            }
            _ => return self.damaged("it sets the state of what has none"),
        }
        Ok(())
    }
}

fn known_location(tag: &str) -> bool {
    let number = |n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit());
    matches!(tag, "cpu" | "cuda") || tag.strip_prefix("cuda:").is_some_and(number)
}

fn numpy_number(dtype: NumpyDtype, bytes: &[u8]) -> Option<Value> {
    if bytes.len() != dtype.size {
        return None;
    }
    let negative = dtype.kind == b'i' && bytes.last().is_some_and(|b| b & 0x80 != 0);
    let mut wide = if negative { [0xFF; 8] } else { [0; 8] };
    wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
    let word = u64::from_le_bytes(wide);
    Some(match (dtype.kind, dtype.size) {
        (b'b', 1) => Value::Bool(word != 0),
        (b'i', _) => Value::Int(word as i64),
        (b'u', _) => i64::try_from(word).map_or(Value::Opaque, Value::Int),
        (b'f', 8) => Value::Float(f64::from_bits(word)),
        (b'f', 4) => Value::Float(f64::from(f32::from_bits(word as u32))),
        (b'f', 2) => Value::Float(half::f16::from_bits(word as u16).to_f64()),
        _ => return None,
    })
}

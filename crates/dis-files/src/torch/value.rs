//! What a pickle describes.
//!
//! Containers live in one list and refer to each other by number, so a pickle can describe shared
//! and even circular objects without any recursion here, and dropping them never recurses either.

use super::error::TorchError;
use crate::element::ElementType;

/// A piece of the pickle's bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Span {
    pub start: u32,
    pub len: u32,
}

/// A value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// UTF-8, checked when it was read.
    Text(Span),
    Bytes(Span),
    Global(Global),
    /// An object of [`Pickle::nodes`].
    Node(u32),
    /// Something of which only the presence matters: a device, a huge integer.
    Opaque,
}

/// The only globals that a pickle may name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Global {
    OrderedDict,
    Namespace,
    RebuildTensorV2,
    RebuildTensorV3,
    RebuildParameter,
    Size,
    Device,
    Storage(ElementType),
    UntypedStorage,
    ElementType(ElementType),
    NumpyScalar,
    NumpyDtype,
    Encode,
}

/// A container or an object.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    /// Its attributes, a dictionary once they are set.
    Namespace(Value),
    Storage(Storage),
    Tensor(Box<Tensor>),
    Bytes(Vec<u8>),
    NumpyDtype(NumpyDtype),
}

/// A storage: an entry of the archive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Storage {
    /// Name of the entry below `data/`.
    pub key: Span,
    /// Type of its elements, unless the tensors say it.
    pub element: Option<ElementType>,
    /// Elements; bytes if untyped.
    pub len: u64,
}

/// A view of a storage.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tensor {
    pub storage: Storage,
    pub element: ElementType,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

/// A little-endian numpy type: b, i, u or f, and its bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct NumpyDtype {
    pub kind: u8,
    pub size: usize,
}

/// A pickle that was read.
#[derive(Clone, Debug)]
pub(super) struct Pickle {
    pub bytes: Vec<u8>,
    pub nodes: Vec<Node>,
    pub root: Value,
}

impl Pickle {
    /// A text, if it is one.
    pub(super) fn text(&self, value: Value) -> Option<&str> {
        match value {
            Value::Text(span) => std::str::from_utf8(span.of(&self.bytes)).ok(),
            _ => None,
        }
    }

    /// The object that a value refers to.
    pub(super) fn node(&self, value: Value) -> Option<&Node> {
        match value {
            Value::Node(at) => self.nodes.get(at as usize),
            _ => None,
        }
    }

    /// Keys and values of a dictionary or of a namespace.
    pub(super) fn pairs(&self, value: Value) -> &[(Value, Value)] {
        match self.node(value) {
            Some(Node::Dict(pairs)) => pairs,
            Some(Node::Namespace(state)) => match self.node(*state) {
                Some(Node::Dict(pairs)) => pairs,
                _ => &[],
            },
            _ => &[],
        }
    }

    /// What a dictionary has under a key: a text, or a number written in decimal. A later pair
    /// hides an earlier one.
    pub(super) fn get(&self, dict: Value, key: &str) -> Option<Value> {
        if let Some(Node::List(items) | Node::Tuple(items)) = self.node(dict) {
            return items.get(key.parse::<usize>().ok()?).copied();
        }
        let number = key.parse::<i64>().ok();
        let is_key = |value: Value| match value {
            Value::Int(n) => Some(n) == number,
            value => self.text(value) == Some(key),
        };
        let found = self.pairs(dict).iter().rev().find(|(k, _)| is_key(*k));
        found.map(|(_, value)| *value)
    }

    /// Tensors directly in a dictionary.
    pub(super) fn tensors_in(&self, dict: Value) -> usize {
        let pairs = self.pairs(dict).iter();
        pairs.filter(|(_, v)| self.tensor(*v).is_some()).count()
    }

    /// A tensor, if it is one.
    pub(super) fn tensor(&self, value: Value) -> Option<&Tensor> {
        match self.node(value) {
            Some(Node::Tensor(tensor)) => Some(tensor),
            _ => None,
        }
    }
}

impl Span {
    /// The piece itself; empty if it is not within `bytes`.
    pub(super) fn of(self, bytes: &[u8]) -> &[u8] {
        let start = self.start as usize;
        bytes
            .get(start..start + self.len as usize)
            .unwrap_or_default()
    }
}

impl Global {
    /// By module and name. Refuses everything that is not needed.
    pub(super) fn find(module: &str, name: &str) -> Result<Self, TorchError> {
        let found = match (module, name) {
            ("collections", "OrderedDict") => Some(Self::OrderedDict),
            ("argparse", "Namespace") => Some(Self::Namespace),
            ("torch._utils", "_rebuild_tensor_v2") => Some(Self::RebuildTensorV2),
            ("torch._utils", "_rebuild_tensor_v3") => Some(Self::RebuildTensorV3),
            ("torch._utils", "_rebuild_parameter") => Some(Self::RebuildParameter),
            ("torch", "Size") => Some(Self::Size),
            ("torch", "device") => Some(Self::Device),
            ("torch.storage" | "torch", "UntypedStorage") => Some(Self::UntypedStorage),
            ("torch", other) => ElementType::from_storage(other)
                .map(Self::Storage)
                .or_else(|| ElementType::from_torch(other).map(Self::ElementType)),
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => {
                Some(Self::NumpyScalar)
            }
            ("numpy", "dtype") => Some(Self::NumpyDtype),
            ("_codecs", "encode") => Some(Self::Encode),
            _ => None,
        };
        found.ok_or_else(|| TorchError::Global {
            name: format!("{module}.{name}").escape_debug().to_string(),
        })
    }
}

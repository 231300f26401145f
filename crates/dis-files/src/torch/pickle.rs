//! A machine for the part of pickle that `torch.save` emits.
//!
//! It builds descriptions ([`super::value`]) and nothing else: no name is looked up in any module
//! and no code is run. Operations are those of the pickle protocols 2 to 4 that tensors, containers
//! and plain settings need; others are refused by name, and so are globals
//! ([`Global::find`](super::value::Global::find)).
//!
//! Every operation does work and takes memory in proportion to the bytes it is made of, so a pickle
//! of n bytes costs O(n), however often it refers to its own objects.

use std::collections::HashMap;

use super::error::TorchError;
use super::value::{Global, Node, Pickle, Span, Value};

/// Most values that a pickle may make. A checkpoint of 1,000 parameters with optimizer state has
/// some 120,000.
const MAX_VALUES: usize = 4_000_000;

/// Longest name of a module or global.
const MAX_NAME: usize = 256;

/// The machine.
pub(super) struct Machine<'a> {
    pub(super) bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    /// Heights of the stack at marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    pub(super) nodes: Vec<Node>,
    made: usize,
}

type Result<T> = std::result::Result<T, TorchError>;

/// Reads a pickle.
pub(super) fn read(bytes: Vec<u8>) -> Result<Pickle> {
    let mut machine = Machine {
        bytes: &bytes,
        at: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        nodes: Vec::new(),
        made: 0,
    };
    let root = machine.run()?;
    let nodes = machine.nodes;
    Ok(Pickle { bytes, nodes, root })
}

impl Machine<'_> {
    pub(super) fn damaged<T>(&self, what: impl Into<String>) -> Result<T> {
        Err(TorchError::Pickle {
            position: self.at,
            what: what.into(),
        })
    }

    /// Counts values made, and refuses more than [`MAX_VALUES`].
    pub(super) fn charge(&mut self, values: usize) -> Result<()> {
        self.made = self.made.saturating_add(values);
        if self.made > MAX_VALUES {
            return self.damaged(format!("more than {MAX_VALUES} values"));
        }
        Ok(())
    }

    fn take(&mut self, len: usize) -> Result<Span> {
        if len > self.bytes.len() - self.at {
            return self.damaged("it is cut off");
        }
        // The whole pickle is far below 4 GiB, see the caller.
        let span = Span {
            start: self.at as u32,
            len: len as u32,
        };
        self.at += len;
        Ok(span)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let span = self.take(N)?;
        let mut bytes = [0; N];
        bytes.copy_from_slice(span.of(self.bytes));
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8> {
        self.array().map(|[b]| b)
    }

    fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn length(&mut self, bytes: usize) -> Result<usize> {
        let mut wide = [0; 8];
        let span = self.take(bytes)?;
        wide[..bytes].copy_from_slice(span.of(self.bytes));
        match usize::try_from(u64::from_le_bytes(wide)) {
            Ok(len) => Ok(len),
            Err(_) => self.damaged("it is cut off"),
        }
    }

    fn line(&mut self) -> Result<&str> {
        let rest = &self.bytes[self.at..];
        let rest = &rest[..rest.len().min(MAX_NAME + 1)];
        let Some(len) = rest.iter().position(|&b| b == b'\n') else {
            return self.damaged("a name without end");
        };
        let Ok(text) = std::str::from_utf8(&rest[..len]) else {
            return self.damaged("a name that is not UTF-8");
        };
        self.at += len + 1;
        Ok(text)
    }

    fn text(&mut self, len: usize) -> Result<Value> {
        let span = self.take(len)?;
        if std::str::from_utf8(span.of(self.bytes)).is_err() {
            return self.damaged("a text that is not UTF-8");
        }
        Ok(Value::Text(span))
    }

    fn push(&mut self, value: Value) -> Result<()> {
        self.charge(1)?;
        self.stack.push(value);
        Ok(())
    }

    /// Makes an object, and pushes it.
    fn push_node(&mut self, node: Node) -> Result<()> {
        let value = self.node(node)?;
        self.push(value)
    }

    /// Makes an object.
    pub(super) fn node(&mut self, node: Node) -> Result<Value> {
        self.charge(1)?;
        self.nodes.push(node);
        Ok(Value::Node((self.nodes.len() - 1) as u32))
    }

    /// Height of the stack below which the innermost mark hides values.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Value> {
        if self.stack.len() <= self.floor() {
            return self.damaged("it takes a value where there is none");
        }
        match self.stack.pop() {
            Some(value) => Ok(value),
            None => self.damaged("it takes a value where there is none"),
        }
    }

    fn top(&mut self) -> Result<Value> {
        let value = self.pop()?;
        self.stack.push(value);
        Ok(value)
    }

    /// The values above the innermost mark, which goes with them.
    fn pop_mark(&mut self) -> Result<Vec<Value>> {
        match self.marks.pop() {
            Some(height) if height <= self.stack.len() => Ok(self.stack.split_off(height)),
            _ => self.damaged("it goes back to a mark that is not there"),
        }
    }

    fn tuple(&mut self, len: usize) -> Result<()> {
        let mut items = Vec::with_capacity(len);
        for _ in 0..len {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push_node(Node::Tuple(items))
    }

    fn remember(&mut self, key: u32) -> Result<()> {
        let value = self.top()?;
        self.charge(1)?;
        self.memo.insert(key, value);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<()> {
        match self.memo.get(&key) {
            Some(&value) => self.push(value),
            None => self.damaged(format!("memo {key} was never stored")),
        }
    }

    fn append(&mut self, items: Vec<Value>) -> Result<()> {
        let list = self.top()?;
        if let Value::Node(at) = list
            && let Some(Node::List(list)) = self.nodes.get_mut(at as usize)
        {
            list.extend(items);
            return Ok(());
        }
        self.damaged("it appends to what is not a list")
    }

    fn set_items(&mut self, items: &[Value]) -> Result<()> {
        let dict = self.top()?;
        let (pairs, rest) = items.as_chunks::<2>();
        if let Value::Node(at) = dict
            && let Some(Node::Dict(dict)) = self.nodes.get_mut(at as usize)
            && rest.is_empty()
        {
            dict.extend(pairs.iter().map(|[key, value]| (*key, *value)));
            return Ok(());
        }
        self.damaged("it sets items of what is not a dictionary")
    }

    fn global(&mut self, found: Result<Global>) -> Result<()> {
        let global = found?;
        self.push(Value::Global(global))
    }

    fn run(&mut self) -> Result<Value> {
        loop {
            let code = self.byte()?;
            match code {
                b'.' => return self.pop(),
                // Protocol and frames say nothing about content.
                0x80 => drop(self.byte()?),
                0x95 => drop(self.take(8)?),
                b'(' => {
                    self.charge(1)?;
                    self.marks.push(self.stack.len());
                }
                b'0' => drop(self.pop()?),
                b'1' => drop(self.pop_mark()?),
                b'N' => self.push(Value::None)?,
                0x88 => self.push(Value::Bool(true))?,
                0x89 => self.push(Value::Bool(false))?,
                b'K' => {
                    let n = self.byte()?;
                    self.push(Value::Int(i64::from(n)))?;
                }
                b'M' => {
                    let n = self.array().map(u16::from_le_bytes)?;
                    self.push(Value::Int(i64::from(n)))?;
                }
                b'J' => {
                    let n = self.array().map(i32::from_le_bytes)?;
                    self.push(Value::Int(i64::from(n)))?;
                }
                0x8A => {
                    let len = self.length(1)?;
                    let span = self.take(len)?;
                    self.push(long(span.of(self.bytes)))?;
                }
                b'G' => {
                    let x = self.array().map(f64::from_be_bytes)?;
                    self.push(Value::Float(x))?;
                }
                b'X' | 0x8C | 0x8D | b'U' | b'T' => {
                    let width = match code {
                        0x8C | b'U' => 1,
                        0x8D => 8,
                        _ => 4,
                    };
                    let len = self.length(width)?;
                    let value = self.text(len)?;
                    self.push(value)?;
                }
                b'B' | b'C' | 0x8E => {
                    let width = match code {
                        b'C' => 1,
                        0x8E => 8,
                        _ => 4,
                    };
                    let len = self.length(width)?;
                    let span = self.take(len)?;
                    self.push(Value::Bytes(span))?;
                }
                b'}' => self.push_node(Node::Dict(Vec::new()))?,
                b']' => self.push_node(Node::List(Vec::new()))?,
                b')' => self.tuple(0)?,
                0x85 => self.tuple(1)?,
                0x86 => self.tuple(2)?,
                0x87 => self.tuple(3)?,
                b't' => {
                    let items = self.pop_mark()?;
                    self.push_node(Node::Tuple(items))?;
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(vec![item])?;
                }
                b'e' => {
                    let items = self.pop_mark()?;
                    self.append(items)?;
                }
                b's' => {
                    let value = self.pop()?;
                    let key = self.pop()?;
                    self.set_items(&[key, value])?;
                }
                b'u' => {
                    let items = self.pop_mark()?;
                    self.set_items(&items)?;
                }
                b'q' => {
                    let key = self.byte()?;
                    self.remember(u32::from(key))?;
                }
                b'r' => {
                    let key = self.u32()?;
                    self.remember(key)?;
                }
                0x94 => {
                    let key = self.memo.len() as u32;
                    self.remember(key)?;
                }
                b'h' => {
                    let key = self.byte()?;
                    self.recall(u32::from(key))?;
                }
                b'j' => {
                    let key = self.u32()?;
                    self.recall(key)?;
                }
                b'c' => {
                    let module = self.line()?.to_string();
                    let found = Global::find(&module, self.line()?);
                    self.global(found)?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Value::Text(module), Value::Text(name)) = (module, name) else {
                        return self.damaged("a global whose name is not a text");
                    };
                    if module.len.max(name.len) as usize > MAX_NAME {
                        return self.damaged("a global with a name far too long");
                    }
                    let text = |span: Span| String::from_utf8_lossy(span.of(self.bytes));
                    let found = Global::find(&text(module), &text(name));
                    self.global(found)?;
                }
                b'Q' => {
                    let id = self.pop()?;
                    let value = self.persistent(id)?;
                    self.push(value)?;
                }
                b'R' | 0x81 => {
                    let (args, callee) = (self.pop()?, self.pop()?);
                    let value = self.call(callee, args)?;
                    self.push(value)?;
                }
                b'b' => {
                    let state = self.pop()?;
                    let object = self.top()?;
                    self.build(object, state)?;
                }
                other => {
                    let name = operation(other);
                    return self.damaged(format!(
                        "operation {name} is none that torch.save emits: refused"
                    ));
                }
            }
        }
    }
}

/// A little-endian integer of any length.
fn long(bytes: &[u8]) -> Value {
    let mut wide = match bytes.last() {
        Some(&last) if last & 0x80 != 0 => [0xFF; 8],
        _ => [0; 8],
    };
    if bytes.len() > wide.len() {
        return Value::Opaque;
    }
    wide[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(wide))
}

/// Name of an operation that is refused.
fn operation(code: u8) -> String {
    let name = match code {
        b'i' => "INST",
        b'o' => "OBJ",
        b'P' => "PERSID",
        b'2' => "DUP",
        b'I' => "INT",
        b'L' => "LONG",
        b'F' => "FLOAT",
        b'S' => "STRING",
        b'V' => "UNICODE",
        b'l' => "LIST",
        b'd' => "DICT",
        b'g' => "GET",
        b'p' => "PUT",
        0x82 => "EXT1",
        0x83 => "EXT2",
        0x84 => "EXT4",
        0x8B => "LONG4",
        0x8F => "EMPTY_SET",
        0x90 => "ADDITEMS",
        0x91 => "FROZENSET",
        0x92 => "NEWOBJ_EX",
        0x96 => "BYTEARRAY8",
        0x97 => "NEXT_BUFFER",
        0x98 => "READONLY_BUFFER",
        _ => return format!("0x{code:02x}"),
    };
    name.to_string()
}

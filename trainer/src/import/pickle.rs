//! The part of Python's pickle that describes tensors, read as data. Nothing is called: the few names that PyTorch gives to a
//! tensor's making are known here, and any other ends the reading before it is looked at further.
//!
//! Objects lie in one list and refer to each other by number, so that neither a deep nesting nor a name that is used a million
//! times costs more than the bytes that say so.

mod objects;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use self::objects::{Global, Object, Result, damaged, size};
pub(super) use self::objects::{Heap, Kind, Value, View};

/// Most bytes of a pickle. A state dict of ten thousand tensors takes 2 MB; what is larger holds other things.
pub(super) const LARGEST: u64 = 16 << 20;
/// Most bytes of a storage's name, which is copied for each tensor that has it.
const LONGEST_KEY: usize = 64;
/// Most bytes of a whole number.
const LONGEST_INT: usize = 8;

/// Reads a pickle: its objects, the one that it stands for, and what follows it.
///
/// # Errors
/// For what is damaged, for what is no description of tensors, and for every name that is not PyTorch's own for a tensor.
pub(super) fn read(bytes: &[u8]) -> Result<(Heap, Value, &[u8])> {
    let machine =
        Machine { rest: bytes, heap: Heap::default(), stack: Vec::new(), memo: HashMap::new() };
    machine.run()
}

struct Machine<'a> {
    rest: &'a [u8],
    heap: Heap,
    stack: Vec<Value>,
    memo: HashMap<u32, Value>,
}

impl<'a> Machine<'a> {
    fn run(mut self) -> Result<(Heap, Value, &'a [u8])> {
        loop {
            let [code] = self.take()?;
            if code == b'.' {
                let root = self.pop()?;
                return Ok((self.heap, root, self.rest));
            }
            let known = self.scalar(code)? || self.container(code)? || self.other(code)?;
            if !known {
                return Err(format!(
                    "has the pickle instruction {code:#04x}, which descriptions of tensors do without; save the weights alone \
                     in Python: torch.save(model.state_dict(), FILE)"
                ));
            }
        }
    }

    /// Numbers, texts and names.
    fn scalar(&mut self, code: u8) -> Result<bool> {
        let value = match code {
            b'N' => Value::None,
            0x88 | 0x89 => Value::Bool(code == 0x88),
            b'K' => Value::Int(u8::from_le_bytes(self.take()?).into()),
            b'M' => Value::Int(u16::from_le_bytes(self.take()?).into()),
            b'J' => Value::Int(i32::from_le_bytes(self.take()?).into()),
            0x8a => {
                let [length] = self.take()?;
                Value::Int(self.long(length.into())?)
            }
            b'G' => {
                let _: [u8; 8] = self.take()?;
                Value::Float
            }
            0x8c => {
                let [length] = self.take()?;
                self.text(length.into())?
            }
            b'X' => {
                let length = u32::from_le_bytes(self.take()?);
                self.text(length as usize)?
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                Value::Global(Global::of(module, name)?)
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let both = self.heap.text(module).zip(self.heap.text(name));
                let (module, name) = both.ok_or_else(|| damaged("a name is no text"))?;
                Value::Global(Global::of(module, name)?)
            }
            _ => return Ok(false),
        };
        self.stack.push(value);
        Ok(true)
    }

    /// Tuples, lists and dicts.
    fn container(&mut self, code: u8) -> Result<bool> {
        let object = match code {
            b'(' => {
                self.stack.push(Value::Mark);
                return Ok(true);
            }
            b')' => Object::Tuple(Vec::new()),
            b']' => Object::List(Vec::new()),
            b'}' => Object::Dict(Vec::new()),
            b't' => Object::Tuple(self.marked()?),
            b'l' => Object::List(self.marked()?),
            b'd' => Object::Dict(pairs(&self.marked()?)?),
            0x85 => Object::Tuple(self.last(1)?),
            0x86 => Object::Tuple(self.last(2)?),
            0x87 => Object::Tuple(self.last(3)?),
            b'a' => return self.extend(1),
            b's' => return self.extend(2),
            b'e' | b'u' => {
                let items = self.marked()?;
                return self.extend_by(&items);
            }
            _ => return Ok(false),
        };
        let value = self.heap.add(object);
        self.stack.push(value);
        Ok(true)
    }

    /// The memo, calls of known names, and what has no effect.
    fn other(&mut self, code: u8) -> Result<bool> {
        match code {
            0x80 => {
                let [version] = self.take()?;
                if version > 5 {
                    return Err(format!(
                        "is a pickle of protocol {version}, 5 is the newest known"
                    ));
                }
            }
            // A frame says how much to read ahead.
            0x95 => {
                let _: [u8; 8] = self.take()?;
            }
            b'q' => {
                let [place] = self.take()?;
                self.remember(place.into())?;
            }
            b'r' => {
                let place = u32::from_le_bytes(self.take()?);
                self.remember(place)?;
            }
            0x94 => {
                let place = u32::try_from(self.memo.len()).unwrap_or(u32::MAX);
                self.remember(place)?;
            }
            b'h' => {
                let [place] = self.take()?;
                self.recall(place.into())?;
            }
            b'j' => {
                let place = u32::from_le_bytes(self.take()?);
                self.recall(place)?;
            }
            b'Q' => self.storage()?,
            b'R' => self.reduce()?,
            b'b' => self.build()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn reduce(&mut self) -> Result<()> {
        let (arguments, callable) = (self.pop()?, self.pop()?);
        let Value::Global(callable) = callable else {
            return Err(damaged("what is called has no name"));
        };
        let items = self.heap.tuple(arguments)?;
        let object = match callable {
            Global::OrderedDict if items.is_empty() => Object::Dict(Vec::new()),
            Global::RebuildTensor => Object::Tensor(self.view(items)?),
            Global::RebuildParameter => {
                let tensor =
                    *items.first().ok_or_else(|| damaged("a parameter without a tensor"))?;
                self.stack.push(tensor);
                return Ok(());
            }
            Global::Size => Object::Tuple(Vec::new()),
            Global::OrderedDict | Global::Storage(_) => {
                return Err(damaged("a name is called as PyTorch does not"));
            }
        };
        let value = self.heap.add(object);
        self.stack.push(value);
        Ok(())
    }

    /// The arguments of `_rebuild_tensor_v2`: storage, offset, shape, strides, and two that do not matter here.
    fn view(&self, items: &[Value]) -> Result<View> {
        let [storage, offset, shape, strides, ..] = items else {
            return Err(damaged("a tensor has too few parts"));
        };
        let Some(Object::Storage { key, kind, elements }) = self.heap.object(*storage) else {
            return Err(damaged("a tensor without a storage"));
        };
        let (shape, strides) = (self.heap.sizes(*shape)?, self.heap.sizes(*strides)?);
        if shape.len() != strides.len() {
            return Err(damaged("a tensor has another number of axes than of strides"));
        }
        let (key, kind, elements) = (key.clone(), *kind, *elements);
        Ok(View { key, kind, elements, offset: size(*offset)?, shape, strides })
    }

    /// A persistent id: `("storage", TYPE, key, device, elements)`.
    fn storage(&mut self) -> Result<()> {
        let id = self.pop()?;
        // Older files have a sixth part, for a storage within another, which no file of weights has.
        let [word, Value::Global(Global::Storage(kind)), key, _, elements, ..] =
            self.heap.tuple(id)?
        else {
            return Err(damaged("a reference to something that is no storage"));
        };
        let key = self.heap.text(*key).filter(|key| key.len() <= LONGEST_KEY);
        let key = key.filter(|_| self.heap.text(*word) == Some("storage"));
        let key = key.ok_or_else(|| damaged("a storage without a name"))?.to_owned();
        let object = Object::Storage { key, kind: *kind, elements: size(*elements)? };
        let value = self.heap.add(object);
        self.stack.push(value);
        Ok(())
    }

    /// State for an object. A state dict notes its format version so; nothing else has any here.
    fn build(&mut self) -> Result<()> {
        let (_, object) = (self.pop()?, self.pop()?);
        if self.heap.dict(object).is_none() {
            return Err(damaged("state for something that has none"));
        }
        self.stack.push(object);
        Ok(())
    }

    fn extend(&mut self, count: usize) -> Result<bool> {
        let items = self.last(count)?;
        self.extend_by(&items)
    }

    /// Appends to the list, or sets in the dict, that is on top.
    fn extend_by(&mut self, items: &[Value]) -> Result<bool> {
        let top = self.stack.last().copied().unwrap_or(Value::None);
        match self.heap.object_mut(top) {
            Some(Object::List(list)) => list.extend_from_slice(items),
            Some(Object::Dict(dict)) => dict.extend(pairs(items)?),
            _ => return Err(damaged("items for something that holds none")),
        }
        Ok(true)
    }

    fn remember(&mut self, place: u32) -> Result<()> {
        let value = *self.stack.last().ok_or_else(|| damaged("nothing to remember"))?;
        self.memo.insert(place, value);
        Ok(())
    }

    fn recall(&mut self, place: u32) -> Result<()> {
        let value = self.memo.get(&place).copied();
        self.stack.push(value.ok_or_else(|| damaged("it refers to what it has not said"))?);
        Ok(())
    }

    /// What stands above the last mark, which is taken off.
    fn marked(&mut self) -> Result<Vec<Value>> {
        let mark = self.stack.iter().rposition(|value| *value == Value::Mark);
        let mark = mark.ok_or_else(|| damaged("a mark is missing"))?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(items)
    }

    fn last(&mut self, count: usize) -> Result<Vec<Value>> {
        let from = self.stack.len().checked_sub(count);
        let items =
            self.stack.split_off(from.ok_or_else(|| damaged("it takes what is not there"))?);
        if items.contains(&Value::Mark) {
            return Err(damaged("a mark stands where an object should"));
        }
        Ok(items)
    }

    fn pop(&mut self) -> Result<Value> {
        Ok(self.last(1)?[0])
    }

    fn text(&mut self, length: usize) -> Result<Value> {
        let bytes = self.slice(length)?;
        let text = std::str::from_utf8(bytes).map_err(|_| damaged("a text is no UTF-8"))?;
        Ok(self.heap.add(Object::Text(text.to_owned())))
    }

    /// A whole number of so many bytes, in two's complement.
    fn long(&mut self, length: usize) -> Result<i64> {
        let bytes = self.slice(length)?;
        if length > LONGEST_INT {
            return Err(damaged("a number is too large"));
        }
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut whole = [if negative { 0xff } else { 0 }; LONGEST_INT];
        whole[..length].copy_from_slice(bytes);
        Ok(i64::from_le_bytes(whole))
    }

    fn line(&mut self) -> Result<&'a str> {
        let end = self.rest.iter().position(|byte| *byte == b'\n');
        let line = self.slice(end.ok_or_else(|| damaged("it is cut off"))?)?;
        self.slice(1)?;
        std::str::from_utf8(line).map_err(|_| damaged("a name is no UTF-8"))
    }

    fn slice(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) =
            self.rest.split_at_checked(length).ok_or_else(|| damaged("it is cut off"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) =
            self.rest.split_first_chunk().ok_or_else(|| damaged("it is cut off"))?;
        self.rest = rest;
        Ok(*taken)
    }
}

fn pairs(items: &[Value]) -> Result<Vec<(Value, Value)>> {
    let (pairs, rest) = items.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(damaged("a dict has a key without a value"));
    }
    Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
}

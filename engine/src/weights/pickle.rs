//! Pickle without Python: what `torch.save` writes about a dictionary of tensors, read as plain data.
//!
//! A pickle is a program for a stack machine. This machine has no way to call anything: a class or function is a name, and calling one makes a
//! record of name and arguments. What such a record means is for the reader to say (see `pth.rs`); one that nobody knows is refused there.
//! Operations are those of protocol 2, which `torch.save` writes (documented in Python's `Lib/pickletools.py`), and no others. Each is paid for by the memory that it takes, of
//! which there is so much and no more.

use std::collections::HashMap;

/// One value. Others are named by their place in [`Pickle`], since a pickle may refer to a value before it is complete.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Python's `None`.
    None,
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// A text.
    Text(String),
    /// A tuple or a list.
    Sequence(Vec<usize>),
    /// A dictionary, ordered or not.
    Dict(Vec<(usize, usize)>),
    /// The name of a class or function: module and name.
    Global(String, String),
    /// Something kept outside the pickle, known by this.
    Persistent(usize),
    /// What calling the first with the second would make.
    Call(usize, usize),
}

/// A pickle that was read: its values and which of them is the whole.
#[derive(Debug)]
pub(super) struct Pickle {
    values: Vec<Value>,
    root: usize,
}

impl Pickle {
    /// Reads a pickle whose values take so many bytes of memory at most.
    ///
    /// # Errors
    /// What keeps it from being one of the kind that is read: a truncated one, an unknown operation, values that take more memory.
    pub(super) fn read(bytes: &[u8], memory: usize) -> Result<Self, String> {
        let mut machine =
            Machine { input: bytes, at: 0, left: memory, values: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() };
        let root = machine.run()?;
        Ok(Self { values: machine.values, root })
    }

    /// The value that the pickle is.
    pub(super) fn root(&self) -> &Value {
        &self.values[self.root]
    }

    /// The value at a place that another value names.
    pub(super) fn get(&self, place: usize) -> &Value {
        &self.values[place]
    }

    /// The values of a tuple or list at `place`.
    pub(super) fn sequence(&self, place: usize) -> Option<&[usize]> {
        if let Value::Sequence(items) = self.get(place) { Some(items) } else { None }
    }

    /// The integer at `place`.
    pub(super) fn int(&self, place: usize) -> Option<i64> {
        if let Value::Int(number) = self.get(place) { Some(*number) } else { None }
    }

    /// The text at `place`.
    pub(super) fn text(&self, place: usize) -> Option<&str> {
        if let Value::Text(text) = self.get(place) { Some(text) } else { None }
    }

    /// The name at `place`, as `module.name`.
    pub(super) fn global(&self, place: usize) -> Option<String> {
        if let Value::Global(module, name) = self.get(place) { Some(format!("{module}.{name}")) } else { None }
    }
}

/// The stack machine.
struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    /// Bytes of memory that values and what leads to them may still take. What is given back does not count: a pickle has little to give back.
    left: usize,
    values: Vec<Value>,
    stack: Vec<usize>,
    /// Heights of the stack at each mark that is open.
    marks: Vec<usize>,
    memo: HashMap<u32, usize>,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<usize, String> {
        loop {
            let start = self.at;
            let operation = self.take(1)?[0];
            match operation {
                0x80 => drop(self.take(1)?), // PROTO
                b'.' => return self.pop(),   // STOP
                b'(' => {
                    self.spend(size_of::<usize>())?;
                    self.marks.push(self.stack.len());
                }
                b'0' => drop(self.pop()?),
                // Constants.
                b'N' => self.push(Value::None)?,
                0x88 => self.push(Value::Bool(true))?,
                0x89 => self.push(Value::Bool(false))?,
                b'K' => self.number::<1>(|bytes| u8::from_le_bytes(bytes).into())?,
                b'M' => self.number::<2>(|bytes| u16::from_le_bytes(bytes).into())?,
                b'J' => self.number::<4>(|bytes| i32::from_le_bytes(bytes).into())?,
                0x8A => self.long()?,
                b'G' => {
                    let bytes = self.array()?;
                    self.push(Value::Float(f64::from_be_bytes(bytes)))?;
                }
                b'X' => {
                    let length = u32::from_le_bytes(self.array()?) as usize;
                    let text =
                        std::str::from_utf8(self.take(length)?).map_err(|error| format!("a text that is none ({error})"))?.to_owned();
                    self.push(Value::Text(text))?;
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.push(Value::Global(module, name))?;
                }
                // Containers.
                b')' | b']' => self.push(Value::Sequence(Vec::new()))?,
                b'}' => self.push(Value::Dict(Vec::new()))?,
                b't' | b'l' => {
                    let items = self.pop_to_mark()?;
                    self.push(Value::Sequence(items))?;
                }
                0x85..=0x87 => {
                    let items = self.pop_many(usize::from(operation - 0x84))?;
                    self.push(Value::Sequence(items))?;
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(vec![item])?;
                }
                b'e' => {
                    let items = self.pop_to_mark()?;
                    self.append(items)?;
                }
                b's' => {
                    let pair = self.pop_many(2)?;
                    self.set_items(&pair)?;
                }
                b'u' => {
                    let pairs = self.pop_to_mark()?;
                    self.set_items(&pairs)?;
                }
                // Memo.
                b'q' => self.remember::<1>(|bytes| u8::from_le_bytes(bytes).into())?,
                b'r' => self.remember::<4>(u32::from_le_bytes)?,
                b'h' => self.recall::<1>(|bytes| u8::from_le_bytes(bytes).into())?,
                b'j' => self.recall::<4>(u32::from_le_bytes)?,
                // Objects.
                b'Q' => {
                    let name = self.pop()?;
                    self.push(Value::Persistent(name))?;
                }
                b'R' => {
                    let arguments = self.pop()?;
                    let function = self.pop()?;
                    let is_dict =
                        matches!(&self.values[function], Value::Global(module, name) if module == "collections" && name == "OrderedDict");
                    self.push(if is_dict { Value::Dict(Vec::new()) } else { Value::Call(function, arguments) })?;
                }
                // What an object is given beside its items: torch's state dictionaries carry their version there.
                b'b' => drop(self.pop()?),
                other => return Err(format!("operation {other:#04x} at byte {start} is not one that `torch.save` writes")),
            }
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let bytes = self.at.checked_add(count).and_then(|end| self.input.get(self.at..end)).ok_or("it ends in mid-air")?;
        self.at += count;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        Ok(self.take(N)?.try_into().expect("as many bytes as were asked for"))
    }

    fn line(&mut self) -> Result<String, String> {
        let rest = self.input.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|&byte| byte == b'\n').ok_or("it ends in mid-air")?;
        let line = self.take(length + 1)?;
        Ok(String::from_utf8_lossy(&line[..length]).into_owned())
    }

    /// Pays for so many bytes of memory.
    fn spend(&mut self, bytes: usize) -> Result<(), String> {
        self.left = self.left.checked_sub(bytes).ok_or("it makes more values than the pickle of any model")?;
        Ok(())
    }

    fn push(&mut self, value: Value) -> Result<(), String> {
        let held = match &value {
            Value::Text(text) => text.len(),
            Value::Global(module, name) => module.len() + name.len(),
            Value::Sequence(items) => size_of_val(items.as_slice()),
            _ => 0,
        };
        self.spend(size_of::<Value>() + size_of::<usize>() + held)?;
        self.values.push(value);
        self.stack.push(self.values.len() - 1);
        Ok(())
    }

    /// The topmost value, but none from below the last mark.
    fn pop(&mut self) -> Result<usize, String> {
        if self.stack.len() <= self.marks.last().copied().unwrap_or(0) {
            return Err("its stack runs empty".into());
        }
        self.stack.pop().ok_or_else(|| "its stack runs empty".into())
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<usize>, String> {
        let mut items = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        Ok(items)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<usize>, String> {
        let mark = self.marks.pop().ok_or("a mark is missing")?;
        Ok(self.stack.split_off(mark))
    }

    fn top(&mut self) -> Result<&mut Value, String> {
        let top = *self.stack.last().ok_or("its stack runs empty")?;
        Ok(&mut self.values[top])
    }

    fn append(&mut self, more: Vec<usize>) -> Result<(), String> {
        self.spend(size_of_val(more.as_slice()))?;
        match self.top()? {
            Value::Sequence(items) => items.extend(more),
            _ => return Err("it appends to what is no list".into()),
        }
        Ok(())
    }

    fn set_items(&mut self, pairs: &[usize]) -> Result<(), String> {
        let (pairs, []) = pairs.as_chunks::<2>() else { return Err("a key without a value".into()) };
        self.spend(size_of_val(pairs))?;
        match self.top()? {
            Value::Dict(items) => items.extend(pairs.iter().map(|&[key, value]| (key, value))),
            _ => return Err("it sets items of what is no dictionary".into()),
        }
        Ok(())
    }

    fn number<const N: usize>(&mut self, of: fn([u8; N]) -> i64) -> Result<(), String> {
        let number = of(self.array()?);
        self.push(Value::Int(number))
    }

    /// An integer of as many bytes as the first one says, little-endian, two's complement.
    fn long(&mut self) -> Result<(), String> {
        let length = usize::from(self.take(1)?[0]);
        let bytes = self.take(length)?;
        if length > 8 {
            return Err("an integer of more than 64 bits".into());
        }
        let fill = if bytes.last().is_some_and(|&byte| byte & 0x80 != 0) { 0xFF } else { 0 };
        let mut wide = [fill; 8];
        wide[..length].copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(wide)))
    }

    fn remember<const N: usize>(&mut self, of: fn([u8; N]) -> u32) -> Result<(), String> {
        let name = of(self.array()?);
        let top = *self.stack.last().ok_or("its stack runs empty")?;
        // As much again as it takes: a table has free places.
        self.spend(2 * size_of::<(u32, usize)>())?;
        self.memo.insert(name, top);
        Ok(())
    }

    fn recall<const N: usize>(&mut self, of: fn([u8; N]) -> u32) -> Result<(), String> {
        let name = of(self.array()?);
        let value = *self.memo.get(&name).ok_or("it refers to a value that is not there")?;
        self.spend(size_of::<usize>())?;
        self.stack.push(value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: usize = 4096;

    #[test]
    fn a_dictionary_with_all_kinds_of_values() {
        // {"a": (1, -2, 300), "b": [None, True, 1.5]}, as Python's pickle writes it in protocol 2.
        let bytes = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01K\x01J\xfe\xff\xff\xffM\x2c\x01\x87q\x02X\x01\x00\x00\x00bq\x03]q\x04(N\x88G?\xf8\x00\x00\x00\x00\x00\x00eu.";
        let pickle = Pickle::read(bytes, MEMORY).unwrap();
        let Value::Dict(items) = pickle.root() else { panic!("a dictionary") };
        let [(a, tuple), (b, list)] = items[..] else { panic!("two items") };
        assert_eq!((pickle.text(a), pickle.text(b)), (Some("a"), Some("b")));
        let numbers: Vec<_> = pickle.sequence(tuple).unwrap().iter().map(|&place| pickle.int(place)).collect();
        assert_eq!(numbers, [Some(1), Some(-2), Some(300)]);
        let values: Vec<_> = pickle.sequence(list).unwrap().iter().map(|&place| pickle.get(place).clone()).collect();
        assert_eq!(values, [Value::None, Value::Bool(true), Value::Float(1.5)]);
    }

    #[test]
    fn calls_are_written_down_and_not_made() {
        let pickle = Pickle::read(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.", MEMORY).unwrap();
        let Value::Call(function, arguments) = *pickle.root() else { panic!("a call") };
        assert_eq!(pickle.global(function).as_deref(), Some("os.system"));
        assert_eq!(pickle.sequence(arguments).unwrap().len(), 1);
    }

    #[test]
    fn what_is_no_pickle_is_refused() {
        for (bytes, why) in [
            (&b"\x80\x02}q\x00"[..], "it ends in mid-air"),
            (b"", "it ends in mid-air"),
            (b".", "its stack runs empty"),
            (b"(.", "its stack runs empty"),
            (b"u", "a mark is missing"),
            (b"h\x07", "it refers to a value that is not there"),
            (b"NN\x86a", "its stack runs empty"),
            (b"N(NNNu", "a key without a value"),
            (b"N(NNu", "no dictionary"),
            (b"\x8a\x09123456789.", "more than 64 bits"),
            (b"i", "operation 0x69 at byte 0"),
        ] {
            let error = Pickle::read(bytes, MEMORY).unwrap_err();
            assert!(error.contains(why), "{bytes:?}: {error}");
        }
    }

    #[test]
    fn memory_is_paid_for_whatever_takes_it() {
        let read = |bytes: &[u8]| Pickle::read(bytes, MEMORY).map(drop);
        let many = |start: &[u8], again: &[u8], end: &[u8]| [start, &again.repeat(2000), end].concat();
        for (what, bytes) in [
            ("values", many(b"", b"N", b".")),
            ("values that are dropped", many(b"", b"N0", b"N.")),
            ("marks", many(b"", b"(", b".")),
            ("the stack", many(b"]q\x00", b"h\x00", b".")),
            ("items", many(b"]q\x00", b"(h\x00h\x00e", b".")),
            ("items one by one", many(b"]q\x00", b"h\x00a", b".")),
            ("pairs", many(b"}q\x00", b"h\x00h\x00s", b".")),
            ("tuples in tuples", many(b")", b"\x85", b".")),
            (
                "the memo",
                [b"N".to_vec(), (0..2000u32).flat_map(|name| [&b"r"[..], &name.to_le_bytes()].concat()).collect(), b".".to_vec()].concat(),
            ),
            ("text", [&b"X\x10\x27\x00\x00"[..], &[b'a'; 10_000], b"."].concat()),
            ("names", [&b"c"[..], &[b'a'; 10_000], b"\nb\n."].concat()),
        ] {
            assert_eq!(read(&bytes), Err("it makes more values than the pickle of any model".into()), "{what}");
        }
        assert_eq!(read(b"(NNNNl."), Ok(()));
    }
}

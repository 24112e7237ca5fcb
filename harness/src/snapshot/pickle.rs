//! A pickle as it streams by. Nothing of it is executed: what would call something is refused.
//!
//! A pickle is a program for a stack machine, and a snapshot of 1 GB is one value. So that it needs no such memory, a dictionary becomes what it means as soon as it is
//! whole (`parts`), and is then gone. What is held meanwhile: each distinct text, frame and stack once, and 8 bytes for each dictionary and list, and for each
//! value that a later place of the pickle may refer to. That is a small part of the file, and a bound stands above it all.

use std::io::Read;
use std::ops::ControlFlow;

use super::parts::{Found, Parts};
use super::slots::{Slots, Value};

/// The most bytes of distinct texts, and of one text.
const MOST_TEXT: usize = 256 << 20;
/// The most values that are held.
const MOST_VALUES: usize = 100_000_000;

/// What reads a pickle.
pub(super) struct Machine<R> {
    input: R,
    stack: Vec<Value>,
    marks: Vec<usize>,
    /// What the pickle may refer to. Those who write one number them without gaps.
    memo: Vec<Value>,
    slots: Slots,
    parts: Parts,
}

/// What keeps a pickle from being read.
pub(super) type Refusal = String;

impl<R: Read> Machine<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, stack: Vec::new(), marks: Vec::new(), memo: Vec::new(), slots: Slots::default(), parts: Parts::default() }
    }

    /// Reads to the end, or until `see` has seen enough. It is told of each part as it is whole; the number is the list's that it stands in, among the lists around that.
    pub(super) fn run(mut self, see: &mut impl FnMut(&Parts, usize, Found) -> ControlFlow<()>) -> Result<Parts, Refusal> {
        loop {
            match self.byte()? {
                b'.' => return Ok(self.parts),
                0x80 => drop(self.byte()?),
                // A frame of the file's, which is there for those who read it in parts.
                0x95 => drop(self.array::<8>()?),
                b'(' => self.marks.push(self.stack.len()),
                b'}' => {
                    let dict = self.slots.dict();
                    self.push(dict)?;
                }
                b']' => {
                    let list = self.slots.list();
                    self.push(list)?;
                }
                b')' | b'N' | 0x88 | 0x89 => self.push(Value::Other)?,
                b'G' => {
                    self.array::<8>()?;
                    self.push(Value::Other)?;
                }
                b'K' => self.byte().and_then(|byte| self.push(Value::Int(byte.into())))?,
                b'M' => self.array().and_then(|bytes| self.push(Value::Int(u16::from_le_bytes(bytes).into())))?,
                b'J' => self.array().and_then(|bytes| self.push(Value::Int(i32::from_le_bytes(bytes).into())))?,
                0x8a => self.long()?,
                0x8c => self.byte().and_then(|length| self.text(length.into()))?,
                b'X' => self.array().and_then(|bytes| self.text(u32::from_le_bytes(bytes).into()))?,
                0x8d => self.array().and_then(|bytes| self.text(u64::from_le_bytes(bytes)))?,
                0x94 => self.remember(self.memo.len())?,
                b'q' => self.byte().and_then(|at| self.remember(at.into()))?,
                b'r' => self.array().and_then(|at| self.remember(u32::from_le_bytes(at) as usize))?,
                b'h' => self.byte().and_then(|at| self.recall(at.into()))?,
                b'j' => self.array().and_then(|at| self.recall(u32::from_le_bytes(at) as usize))?,
                0x85..=0x87 | b't' | b'0' if self.stack.is_empty() => return Err(torn()),
                operation @ 0x85..=0x87 => {
                    let left = self.stack.len().saturating_sub((operation - 0x84).into());
                    self.stack.truncate(left);
                    self.push(Value::Other)?;
                }
                b't' => {
                    let mark = self.marks.pop().ok_or_else(torn)?;
                    self.stack.truncate(mark);
                    self.push(Value::Other)?;
                }
                b'0' => drop(self.stack.pop()),
                b'a' => self.append(self.stack.len().saturating_sub(1))?,
                b'e' => self.marks.pop().ok_or_else(torn).and_then(|mark| self.append(mark))?,
                operation @ (b's' | b'u') => {
                    let from = if operation == b's' { self.stack.len().checked_sub(2) } else { self.marks.pop() };
                    if self.set_items(from.ok_or_else(torn)?, see)?.is_break() {
                        return Ok(self.parts);
                    }
                }
                operation => {
                    return Err(format!(
                        "it is no memory snapshot: it has an operation {operation:#04x}, which none needs and which is not run"
                    ));
                }
            }
        }
    }

    fn byte(&mut self) -> Result<u8, Refusal> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes).map_err(|error| format!("it ends before it is whole ({error})"))?;
        Ok(bytes)
    }

    fn push(&mut self, value: Value) -> Result<(), Refusal> {
        if self.stack.len() + self.slots.len() + self.memo.len() > MOST_VALUES {
            return Err(format!("it has more than {MOST_VALUES} values: record fewer events (max_entries)"));
        }
        self.stack.push(value);
        Ok(())
    }

    /// A whole number of so many bytes. An address above the half of what 64 bits hold wraps, as it does elsewhere.
    fn long(&mut self) -> Result<(), Refusal> {
        let length = usize::from(self.byte()?);
        let mut bytes = vec![0; length];
        self.input.read_exact(&mut bytes).map_err(|error| format!("it ends before it is whole ({error})"))?;
        let sign = if bytes.last().is_some_and(|last| last & 0x80 != 0) { 0xff } else { 0 };
        let mut whole = [sign; 8];
        whole.iter_mut().zip(&bytes).for_each(|(to, from)| *to = *from);
        self.push(Value::Int(i64::from_le_bytes(whole)))
    }

    fn text(&mut self, length: u64) -> Result<(), Refusal> {
        if length > MOST_TEXT as u64 {
            return Err("it has a text that is too long for a snapshot".to_owned());
        }
        let mut bytes = Vec::new();
        let read = (&mut self.input).take(length).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        if (read as u64) < length {
            return Err("it ends in the middle of a text".to_owned());
        }
        let number = self.parts.text(&String::from_utf8_lossy(&bytes), MOST_TEXT)?;
        self.push(Value::Text(number))
    }

    fn remember(&mut self, at: usize) -> Result<(), Refusal> {
        let value = *self.stack.last().ok_or_else(torn)?;
        let next = self.memo.len();
        match self.memo.get_mut(at) {
            Some(there) => *there = value,
            None if at == next => self.memo.push(value),
            None => return Err(torn()),
        }
        Ok(())
    }

    fn recall(&mut self, at: usize) -> Result<(), Refusal> {
        let value = *self.memo.get(at).ok_or_else(torn)?;
        self.push(value)
    }

    /// Adds what stands from there on to the list below.
    fn append(&mut self, from: usize) -> Result<(), Refusal> {
        if from == 0 || from > self.stack.len() {
            return Err(torn());
        }
        let items = self.stack.split_off(from);
        if let Some(list) = self.stack.last().and_then(|list| self.slots.items(*list)) {
            // What means nothing is not kept: a list of events is long.
            list.extend(items.into_iter().filter(|item| *item != Value::Other));
        }
        Ok(())
    }

    /// A dictionary's keys and values stand from there on. What it means is told, and takes its place.
    fn set_items(
        &mut self,
        from: usize,
        see: &mut impl FnMut(&Parts, usize, Found) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Refusal> {
        if from == 0 || from > self.stack.len() {
            return Err(torn());
        }
        let items = self.stack.split_off(from);
        let Some(&dict @ Value::Slot(_)) = self.stack.last() else { return Err(torn()) };
        let (found, slot) = self.parts.of_dict(&items, &mut self.slots);
        if let Some(slot) = slot {
            self.slots.turn_into(dict, slot);
        } else if found.is_some()
            && let Some(top) = self.stack.last_mut()
        {
            *top = Value::Other;
        }
        Ok(found.map_or(ControlFlow::Continue(()), |found| see(&self.parts, self.place(), found)))
    }

    /// Of the list that holds what is on top, how many values stand between it and the list around it.
    fn place(&self) -> usize {
        let is_list = |value: &Value| self.slots.is_list(*value);
        let below = self.stack.split_last().map(|(_, below)| below).unwrap_or_default();
        // A list of one item has no mark, and the first item of any stands beside its list.
        let innermost = if below.last().is_some_and(is_list) { below.len().checked_sub(1) } else { self.list_at_mark(below) };
        let Some(inner) = innermost else { return 0 };
        let around = below.get(..inner).unwrap_or_default();
        let before = around.iter().rev().take_while(|value| is_list(value)).count();
        before.saturating_sub(1)
    }

    /// Where the list is whose items stand behind the last mark: it need not be searched.
    fn list_at_mark(&self, below: &[Value]) -> Option<usize> {
        self.marks.last().and_then(|mark| mark.checked_sub(1)).filter(|at| *at < below.len())
    }
}

fn torn() -> Refusal {
    "it is no pickle, or a torn one".to_owned()
}

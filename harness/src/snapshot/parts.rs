//! What a dictionary of a snapshot is: an event, a block, a segment, or a frame of a stack. Texts, frames and stacks are there once each.

use std::collections::HashMap;

use super::slots::{Slot, Slots, Value};

/// Frames that are told of, of one stack.
const FRAMES: usize = 40;

/// What a dictionary was.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Found {
    Event {
        action: Action,
        address: i64,
        bytes: i64,
        by: By,
    },
    /// A block of a segment: what was asked for and what it takes, and whether it is in use.
    Block {
        asked: i64,
        bytes: i64,
        is_used: bool,
    },
    Segment {
        device: i64,
        bytes: i64,
    },
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Alloc,
    Free,
    /// More memory from the driver, or less.
    Reserve,
    GiveBack,
    OutOfMemory,
}

/// Who asked for memory: a label and a stack, each by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct By {
    label: Option<u32>,
    stack: Option<u32>,
}

/// All that is there once.
#[derive(Debug, Default)]
pub(super) struct Parts {
    texts: Vec<String>,
    numbers: HashMap<String, u32>,
    text_bytes: usize,
    /// Function, file and line.
    frames: Vec<(u32, u32, i64)>,
    frame_numbers: HashMap<(u32, u32, i64), u32>,
    stacks: Vec<Vec<u32>>,
    stack_numbers: HashMap<Vec<u32>, u32>,
}

impl Parts {
    /// The number of a text.
    pub(super) fn text(&mut self, text: &str, most: usize) -> Result<u32, String> {
        if let Some(number) = self.numbers.get(text) {
            return Ok(*number);
        }
        self.text_bytes += text.len();
        if self.text_bytes > most {
            return Err("its texts are too long for a snapshot".to_owned());
        }
        let number = self.texts.len() as u32;
        self.texts.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        Ok(number)
    }

    fn shown(&self, text: u32) -> &str {
        self.texts.get(text as usize).map(String::as_str).unwrap_or_default()
    }

    /// What a dictionary is, and what takes its place where others refer to it.
    pub(super) fn of_dict(&mut self, items: &[Value], slots: &mut Slots) -> (Option<Found>, Option<Slot>) {
        let get = |parts: &Self, key: &str| {
            let mut pairs = items.chunks_exact(2);
            pairs.find_map(|pair| matches!(pair, [Value::Text(text), _] if parts.shown(*text) == key).then(|| pair.get(1).copied())?)
        };
        let text = |parts: &Self, key: &str| match get(parts, key) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        };
        let int = |parts: &Self, key: &str| match get(parts, key) {
            Some(Value::Int(number)) => Some(number),
            _ => None,
        };
        let bytes = int(self, "size").unwrap_or(0);
        if let Some(action) = text(self, "action") {
            let action = match self.shown(action) {
                "alloc" => Action::Alloc,
                "free_completed" => Action::Free,
                "segment_alloc" | "segment_map" => Action::Reserve,
                "segment_free" | "segment_unmap" => Action::GiveBack,
                "oom" => Action::OutOfMemory,
                _ => return (None, None),
            };
            let label = text(self, "user_metadata").filter(|label| !self.shown(*label).is_empty());
            let stack = get(self, "frames").and_then(|frames| self.stack(frames, slots));
            return (Some(Found::Event { action, address: int(self, "addr").unwrap_or(0), bytes, by: By { label, stack } }), None);
        }
        if let Some(state) = text(self, "state") {
            let is_used = self.shown(state).starts_with("active");
            let asked = int(self, "requested_size").unwrap_or(bytes);
            return (Some(Found::Block { asked, bytes, is_used }), None);
        }
        if let Some(bytes) = int(self, "total_size") {
            return (Some(Found::Segment { device: int(self, "device").unwrap_or(0), bytes }), None);
        }
        if let (Some(file), Some(line)) = (text(self, "filename"), int(self, "line")) {
            let frame = (text(self, "name").unwrap_or(file), file, line);
            let next = self.frames.len() as u32;
            let number = *self.frame_numbers.entry(frame).or_insert(next);
            if number == next {
                self.frames.push(frame);
            }
            return (None, Some(Slot::Frame(number)));
        }
        (None, None)
    }

    /// The number of a stack; its list is given up for that.
    fn stack(&mut self, frames: Value, slots: &mut Slots) -> Option<u32> {
        if let Some(Slot::Stack(number)) = slots.get(frames) {
            return Some(number);
        }
        let items = std::mem::take(slots.items(frames)?);
        let numbers = items.into_iter().filter_map(|item| match slots.get(item) {
            Some(Slot::Frame(number)) => Some(number),
            _ => None,
        });
        let next = self.stacks.len() as u32;
        let number = *self.stack_numbers.entry(numbers.collect()).or_insert_with_key(|frames| {
            self.stacks.push(frames.clone());
            next
        });
        slots.turn_into(frames, Slot::Stack(number));
        Some(number)
    }

    /// The innermost frames of a stack, the innermost first.
    pub(super) fn frames_of(&self, by: By) -> Vec<String> {
        let stack = by.stack.and_then(|stack| self.stacks.get(stack as usize)).map(Vec::as_slice).unwrap_or_default();
        let frames = stack.iter().filter_map(|frame| self.frames.get(*frame as usize)).take(FRAMES);
        frames.map(|(name, file, line)| format!("{}:{line} {}", self.shown(*file), self.shown(*name))).collect()
    }

    /// Who asked, in words, and the module of it: a label and its part before the first `/`; else the innermost frame that is not PyTorch's own, and its file.
    pub(super) fn named(&self, by: By) -> (String, String) {
        if let Some(label) = by.label {
            let label = self.shown(label);
            return (label.to_owned(), label.split('/').next().unwrap_or(label).to_owned());
        }
        let stack = by.stack.and_then(|stack| self.stacks.get(stack as usize)).map(Vec::as_slice).unwrap_or_default();
        let frames: Vec<_> = stack.iter().filter_map(|frame| self.frames.get(*frame as usize)).collect();
        let is_own = |file: u32| ["/torch/", "<frozen"].iter().any(|own| self.shown(file).contains(own)) || self.shown(file).is_empty();
        match frames.iter().find(|(_, file, _)| !is_own(*file)).or(frames.first()) {
            Some((name, file, line)) => {
                let file = self.shown(*file);
                (format!("{}:{line} {}", short(file), self.shown(*name)), short(file).to_owned())
            }
            None => ("not told".to_owned(), "not told".to_owned()),
        }
    }
}

/// The end of a path: its file and the folder around it.
fn short(path: &str) -> &str {
    path.rmatch_indices('/').nth(1).map_or(path, |(at, _)| path.get(at + 1..).unwrap_or(path))
}

//! Values of a pickle: its lists and dictionaries have numbers, and are held until they are what they mean.

/// A value. What is large is held elsewhere, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Value {
    /// Nothing that matters here.
    Other,
    Int(i64),
    Text(u32),
    /// A list or dictionary: its number among the slots.
    Slot(u32),
}

/// A list or dictionary, or what became of it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Slot {
    /// A list, by its place among those that are still lists.
    List(u32),
    /// A dictionary that is not whole, or means nothing here.
    Dict,
    /// A frame of a stack, by its number.
    Frame(u32),
    /// A list of frames, by its number.
    Stack(u32),
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    lists: Vec<Vec<Value>>,
    /// Places of lists that have become stacks.
    free: Vec<u32>,
}

impl Slots {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// A new dictionary.
    pub(super) fn dict(&mut self) -> Value {
        self.push(Slot::Dict)
    }

    /// A new list.
    pub(super) fn list(&mut self) -> Value {
        let place = self.free.pop().unwrap_or_else(|| {
            self.lists.push(Vec::new());
            self.lists.len() as u32 - 1
        });
        self.push(Slot::List(place))
    }

    /// There are fewer than 32 bits count: the machine has a bound.
    fn push(&mut self, slot: Slot) -> Value {
        self.slots.push(slot);
        Value::Slot(self.slots.len() as u32 - 1)
    }

    pub(super) fn get(&self, value: Value) -> Option<Slot> {
        match value {
            Value::Slot(slot) => self.slots.get(slot as usize).copied(),
            _ => None,
        }
    }

    pub(super) fn is_list(&self, value: Value) -> bool {
        matches!(self.get(value), Some(Slot::List(_)))
    }

    /// What is in a list.
    pub(super) fn items(&mut self, value: Value) -> Option<&mut Vec<Value>> {
        match self.get(value)? {
            Slot::List(place) => self.lists.get_mut(place as usize),
            _ => None,
        }
    }

    /// It has become something else; a list's room is another one's then.
    pub(super) fn turn_into(&mut self, value: Value, slot: Slot) {
        if let Some(Slot::List(place)) = self.get(value) {
            if let Some(items) = self.lists.get_mut(place as usize) {
                items.clear();
            }
            self.free.push(place);
        }
        if let Value::Slot(number) = value
            && let Some(at) = self.slots.get_mut(number as usize)
        {
            *at = slot;
        }
    }
}

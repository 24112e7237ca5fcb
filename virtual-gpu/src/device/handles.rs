//! Opaque handles: numbers that stand for values here and are never an address.

use std::collections::BTreeMap;

use super::fault::Fault;

/// Values by handle. A handle is never used again, so one that was destroyed is always recognised, and the numbers are
/// the same in every run.
#[derive(Debug)]
pub struct Handles<T> {
    values: BTreeMap<u64, T>,
    next: u64,
}

impl<T> Handles<T> {
    /// The first handle. CUDA gives 0, 1 and 2 a meaning of their own as streams.
    const FIRST: u64 = 0x100;
    /// PyTorch keeps marks in the low bits of what it takes for an aligned pointer.
    const STEP: u64 = 0x100;

    /// Where the number of the device stands in a handle that belongs to one.
    const DEVICE_SHIFT: u32 = 40;

    /// No handles yet.
    pub const fn new() -> Self {
        Self { values: BTreeMap::new(), next: Self::FIRST }
    }

    /// No handles yet, and those to come belong to that device: none of another one is the same.
    pub const fn of_device(ordinal: u32) -> Self {
        Self { values: BTreeMap::new(), next: Self::FIRST + ((ordinal as u64) << Self::DEVICE_SHIFT) }
    }

    /// Keeps the value and gives its handle.
    pub fn insert(&mut self, value: T) -> u64 {
        let handle = self.next;
        self.next += Self::STEP;
        self.values.insert(handle, value);
        handle
    }

    /// The value of a handle that exists.
    pub fn get(&self, handle: u64) -> Result<&T, Fault> {
        self.values.get(&handle).ok_or(Fault::InvalidHandle)
    }

    /// The value of a handle that exists, to be changed.
    pub fn get_mut(&mut self, handle: u64) -> Result<&mut T, Fault> {
        self.values.get_mut(&handle).ok_or(Fault::InvalidHandle)
    }

    /// How many exist.
    pub fn count(&self) -> usize {
        self.values.len()
    }

    /// Destroys a handle.
    pub fn remove(&mut self, handle: u64) -> Result<T, Fault> {
        self.values.remove(&handle).ok_or(Fault::InvalidHandle)
    }
}

impl Handles<()> {
    /// The device that a handle belongs to. The numbers that CUDA gives a meaning of their own belong to none.
    pub fn device_of(handle: u64) -> Option<u32> {
        (handle >= Self::FIRST).then(|| u32::try_from(handle >> Self::DEVICE_SHIFT).unwrap_or(u32::MAX))
    }
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_says_whose_it_is() {
        let (mut first, mut second) = (Handles::of_device(0), Handles::of_device(1));
        let (a, b) = (first.insert('a'), second.insert('b'));
        assert_eq!((Handles::device_of(a), Handles::device_of(b), Handles::device_of(2)), (Some(0), Some(1), None));
        assert_eq!((first.get(b), second.get(b)), (Err(Fault::InvalidHandle), Ok(&'b')));
    }
}

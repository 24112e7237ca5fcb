//! Opaque handles: numbers that stand for values here and are never an address.

use std::collections::BTreeMap;

use super::Fault;

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

    /// No handles yet.
    pub const fn new() -> Self {
        Self { values: BTreeMap::new(), next: Self::FIRST }
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

    /// Destroys a handle.
    pub fn remove(&mut self, handle: u64) -> Result<T, Fault> {
        self.values.remove(&handle).ok_or(Fault::InvalidHandle)
    }
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self::new()
    }
}

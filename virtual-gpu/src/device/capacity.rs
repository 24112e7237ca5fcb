//! How much memory a device has, and how much of it is in use.

use super::fault::Fault;

/// How many of the device's bytes are in use: allocations, mapped memory and the context draw on the same sum.
pub struct Capacity {
    capacity_bytes: u64,
    used_bytes: u64,
    peak_bytes: u64,
    watch: Option<MemoryWatch>,
}

/// Is told how many bytes are in use.
pub type MemoryWatch = Box<dyn Fn(u64) + Send>;

impl Capacity {
    /// Nothing used.
    pub fn new(capacity_bytes: u64) -> Self {
        Self { capacity_bytes, used_bytes: 0, peak_bytes: 0, watch: None }
    }

    /// Has `watch` told now, and whenever it changes.
    pub fn watch(&mut self, watch: MemoryWatch) {
        self.watch = Some(watch);
        self.tell();
    }

    fn tell(&self) {
        if let Some(watch) = &self.watch {
            watch(self.used_bytes);
        }
    }

    /// Takes bytes, or none where they are not there.
    pub fn take(&mut self, bytes: u64) -> Result<(), Fault> {
        if bytes > self.free_bytes() {
            return Err(Fault::OutOfMemory);
        }
        self.used_bytes += bytes;
        self.peak_bytes = self.peak_bytes.max(self.used_bytes);
        self.tell();
        Ok(())
    }

    /// Gives bytes back that were taken.
    pub fn give(&mut self, bytes: u64) {
        self.used_bytes -= bytes;
        self.tell();
    }

    /// All of the device's memory.
    pub fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    /// In use, the context with it.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// The most that was in use.
    pub fn peak_bytes(&self) -> u64 {
        self.peak_bytes
    }

    /// What is left.
    pub fn free_bytes(&self) -> u64 {
        self.capacity_bytes - self.used_bytes
    }
}

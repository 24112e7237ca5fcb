//! How much memory a device has, and how much of it is in use.

use super::fault::Fault;

/// 16 TiB: more than any card has, and little beside a process's addresses.
const BEYOND_BYTES: u64 = 16 << 40;

/// How many of the device's bytes are in use: allocations, mapped memory and what the process itself holds draw on the same sum.
pub struct Capacity {
    capacity_bytes: u64,
    /// Where requests end: there, or beyond what there is.
    limit_bytes: u64,
    used_bytes: u64,
    peak_bytes: u64,
    process: ProcessShare,
    watch: Option<MemoryWatch>,
}

/// What the process itself holds: see [`super::process_memory`].
#[derive(Default)]
struct ProcessShare {
    bytes: u64,
    /// At the peak.
    peak_bytes: u64,
}

/// Is told how many bytes are in use.
pub type MemoryWatch = Box<dyn Fn(u64) + Send>;

impl Capacity {
    /// Nothing used.
    pub fn new(capacity_bytes: u64) -> Self {
        Self { capacity_bytes, limit_bytes: capacity_bytes, used_bytes: 0, peak_bytes: 0, process: ProcessShare::default(), watch: None }
    }

    /// Goes on where all is in use, with more than any card has.
    pub fn go_beyond(&mut self) {
        self.limit_bytes = BEYOND_BYTES;
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
        if bytes > self.limit_bytes.saturating_sub(self.used_bytes) {
            return Err(Fault::OutOfMemory);
        }
        self.used_bytes += bytes;
        if self.used_bytes > self.peak_bytes {
            self.peak_bytes = self.used_bytes;
            self.process.peak_bytes = self.process.bytes;
        }
        self.tell();
        Ok(())
    }

    /// The process itself holds so much from now on, or as much as before where that is not there.
    pub fn hold_for_process(&mut self, bytes: u64) -> Result<(), Fault> {
        let before = self.process.bytes;
        self.process.bytes = bytes;
        if bytes <= before {
            self.give(before - bytes);
            return Ok(());
        }
        self.take(bytes - before).inspect_err(|_| self.process.bytes = before)
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

    /// No request can be larger.
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// In use, with what the process itself holds.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// What of it the program allocated.
    pub fn allocated_bytes(&self) -> u64 {
        self.used_bytes - self.process.bytes
    }

    /// What of the peak the process itself held.
    pub fn process_bytes_at_peak(&self) -> u64 {
        self.process.peak_bytes
    }

    /// The most that was in use.
    pub fn peak_bytes(&self) -> u64 {
        self.peak_bytes
    }

    /// What is left.
    pub fn free_bytes(&self) -> u64 {
        self.capacity_bytes.saturating_sub(self.used_bytes)
    }
}

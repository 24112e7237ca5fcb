//! Device memory: who holds which bytes, and what is left.
//!
//! # Note: how an allocation is rounded
//! A GPU's memory is handed out in pages of 2 MiB. A request above 1 MiB gets pages of its own: it is rounded up to
//! 2 MiB. A request of up to 1 MiB is rounded up to 512 bytes, and such requests share pages, first fit by address; a
//! page goes back when the last of its blocks is freed. That is what `cudaMemGetInfo` shows on real devices to within
//! a page. PyTorch's caching allocator asks for 2 MiB and more, so of its requests only the first rule is ever used.

use std::collections::BTreeMap;

use super::Fault;

/// Pages of the device; the unit of every large allocation.
pub const LARGE_GRANULE_BYTES: u64 = 2 << 20;
/// The largest request that shares a page with others.
pub const SMALL_LIMIT_BYTES: u64 = 1 << 20;
/// The unit of allocations that share pages.
pub const SMALL_GRANULE_BYTES: u64 = 512;

/// Where addresses come from. Untouched address space costs no memory.
pub trait AddressSpace: Send + Sync {
    /// Reserves readable and writable bytes that start at a multiple of `alignment`, a power of two.
    fn reserve(&self, bytes: u64, alignment: u64) -> Option<u64>;
    /// Gives back all of what `reserve` gave.
    fn release(&self, address: u64, bytes: u64);
    /// Forgets what was written to part of it; it reads as zeros again.
    fn discard(&self, address: u64, bytes: u64);
}

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Its first address.
    pub address: u64,
    /// Its length as it was asked for.
    pub bytes: u64,
}

/// The block that holds this address, of blocks by their first address.
pub(super) fn block_at<T>(blocks: &BTreeMap<u64, T>, address: u64, bytes: impl Fn(&T) -> u64) -> Option<Block> {
    let (&start, block) = blocks.range(..=address).next_back()?;
    let bytes = bytes(block);
    (address - start < bytes).then_some(Block { address: start, bytes })
}

/// What the device's bytes are used for in sum: allocations, mapped memory and the context draw on the same capacity.
pub struct Ledger {
    capacity_bytes: u64,
    used_bytes: u64,
    peak_bytes: u64,
    watch: Option<Watch>,
}

/// Is told how many bytes are in use.
pub type Watch = Box<dyn Fn(u64) + Send>;

impl Ledger {
    /// Nothing used.
    pub fn new(capacity_bytes: u64) -> Self {
        Self { capacity_bytes, used_bytes: 0, peak_bytes: 0, watch: None }
    }

    /// Has `watch` told now, and whenever it changes.
    pub fn watch(&mut self, watch: Watch) {
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

/// A page that small allocations share: its blocks by offset, with their rounded lengths.
#[derive(Debug, Default)]
struct SharedPage {
    blocks: BTreeMap<u64, u64>,
}

impl SharedPage {
    /// The first gap that the bytes fit in.
    fn first_fit(&self, bytes: u64) -> Option<u64> {
        let mut offset = 0;
        for (&start, &length) in &self.blocks {
            if start - offset >= bytes {
                return Some(offset);
            }
            offset = start + length;
        }
        (LARGE_GRANULE_BYTES - offset >= bytes).then_some(offset)
    }
}

/// What `cudaMalloc` gave and `cudaFree` has not taken back.
#[derive(Debug, Default)]
pub struct DeviceMemory {
    /// Requested bytes by first address.
    blocks: BTreeMap<u64, u64>,
    /// Pages of small allocations by address.
    shared: BTreeMap<u64, SharedPage>,
}

impl DeviceMemory {
    /// Allocates; see the note at the top for the rounding. `bytes` must not be zero.
    pub fn allocate(&mut self, bytes: u64, ledger: &mut Ledger, space: &dyn AddressSpace) -> Result<u64, Fault> {
        let address = match bytes {
            0 => return Err(Fault::InvalidValue),
            1..=SMALL_LIMIT_BYTES => self.allocate_shared(bytes.next_multiple_of(SMALL_GRANULE_BYTES), ledger, space)?,
            _ => take_pages(bytes.checked_next_multiple_of(LARGE_GRANULE_BYTES).ok_or(Fault::OutOfMemory)?, ledger, space)?,
        };
        self.blocks.insert(address, bytes);
        Ok(address)
    }

    fn allocate_shared(&mut self, rounded: u64, ledger: &mut Ledger, space: &dyn AddressSpace) -> Result<u64, Fault> {
        let fit = self.shared.iter().find_map(|(&page, blocks)| Some((page, blocks.first_fit(rounded)?)));
        let (page, offset) = match fit {
            Some(fit) => fit,
            None => (take_pages(LARGE_GRANULE_BYTES, ledger, space)?, 0),
        };
        self.shared.entry(page).or_default().blocks.insert(offset, rounded);
        Ok(page + offset)
    }

    /// Frees a block by its first address. A second time, or any other address, is an invalid value.
    pub fn free(&mut self, address: u64, ledger: &mut Ledger, space: &dyn AddressSpace) -> Result<(), Fault> {
        let bytes = self.blocks.remove(&address).ok_or(Fault::InvalidValue)?;
        if bytes > SMALL_LIMIT_BYTES {
            give_pages(address, bytes.next_multiple_of(LARGE_GRANULE_BYTES), ledger, space);
            return Ok(());
        }
        let page = address - address % LARGE_GRANULE_BYTES;
        if let Some(shared) = self.shared.get_mut(&page) {
            shared.blocks.remove(&(address - page));
            if shared.blocks.is_empty() {
                self.shared.remove(&page);
                give_pages(page, LARGE_GRANULE_BYTES, ledger, space);
            }
        }
        Ok(())
    }

    /// Whether nothing is allocated.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The block that holds this address.
    pub fn block_at(&self, address: u64) -> Option<Block> {
        block_at(&self.blocks, address, |&bytes| bytes)
    }
}

fn take_pages(bytes: u64, ledger: &mut Ledger, space: &dyn AddressSpace) -> Result<u64, Fault> {
    ledger.take(bytes)?;
    space.reserve(bytes, LARGE_GRANULE_BYTES).ok_or_else(|| {
        ledger.give(bytes);
        Fault::OutOfMemory
    })
}

fn give_pages(address: u64, bytes: u64, ledger: &mut Ledger, space: &dyn AddressSpace) {
    space.release(address, bytes);
    ledger.give(bytes);
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Addresses that only count up.
    pub(crate) struct Counting(AtomicU64);

    impl Default for Counting {
        fn default() -> Self {
            Self(AtomicU64::new(1 << 40))
        }
    }

    impl AddressSpace for Counting {
        fn reserve(&self, bytes: u64, alignment: u64) -> Option<u64> {
            let start = self.0.load(Ordering::Relaxed).next_multiple_of(alignment);
            self.0.store(start + bytes, Ordering::Relaxed);
            Some(start)
        }

        fn release(&self, _address: u64, _bytes: u64) {}

        fn discard(&self, _address: u64, _bytes: u64) {}
    }

    const MIB: u64 = 1 << 20;

    fn memory(capacity_bytes: u64) -> (DeviceMemory, Ledger, Counting) {
        (DeviceMemory::default(), Ledger::new(capacity_bytes), Counting::default())
    }

    #[test]
    fn large_requests_take_whole_pages() {
        let (mut memory, mut ledger, space) = memory(100 * MIB);
        let block = memory.allocate(3 * MIB, &mut ledger, &space).expect("fits");
        assert_eq!(ledger.used_bytes(), 4 * MIB);
        assert_eq!(block % LARGE_GRANULE_BYTES, 0);
        let exact = memory.allocate(2 * MIB, &mut ledger, &space).expect("fits");
        assert_eq!(ledger.used_bytes(), 6 * MIB);
        memory.free(block, &mut ledger, &space).expect("allocated");
        memory.free(exact, &mut ledger, &space).expect("allocated");
        assert_eq!((ledger.used_bytes(), ledger.peak_bytes()), (0, 6 * MIB));
    }

    #[test]
    fn small_requests_share_a_page_and_reuse_its_gaps() {
        let (mut memory, mut ledger, space) = memory(100 * MIB);
        let first = memory.allocate(1, &mut ledger, &space).expect("fits");
        let second = memory.allocate(513, &mut ledger, &space).expect("fits");
        assert_eq!(second - first, 512);
        let third = memory.allocate(MIB, &mut ledger, &space).expect("fits");
        assert_eq!(third - first, 512 + 1024);
        assert_eq!(ledger.used_bytes(), 2 * MIB);
        memory.free(second, &mut ledger, &space).expect("allocated");
        assert_eq!(memory.allocate(1024, &mut ledger, &space), Ok(second));
        // 1 MiB does not fit in what is left of the page: 2 MiB - 1 MiB - 1.5 KiB.
        memory.allocate(MIB, &mut ledger, &space).expect("fits");
        assert_eq!(ledger.used_bytes(), 4 * MIB);
        for block in [first, second, third] {
            memory.free(block, &mut ledger, &space).expect("allocated");
        }
        assert_eq!(ledger.used_bytes(), 2 * MIB);
    }

    #[test]
    fn out_of_memory_comes_at_the_capacity_and_takes_nothing() {
        let (mut memory, mut ledger, space) = memory(10 * MIB);
        ledger.take(3 * MIB).expect("the context");
        memory.allocate(6 * MIB, &mut ledger, &space).expect("3 + 6 of 10");
        assert_eq!(memory.allocate(2 * MIB, &mut ledger, &space), Err(Fault::OutOfMemory));
        assert_eq!(memory.allocate(1, &mut ledger, &space), Err(Fault::OutOfMemory));
        assert_eq!(memory.allocate(u64::MAX, &mut ledger, &space), Err(Fault::OutOfMemory));
        assert_eq!((ledger.used_bytes(), ledger.free_bytes()), (9 * MIB, MIB));
    }

    #[test]
    fn a_second_free_and_an_inner_address_are_invalid() {
        let (mut memory, mut ledger, space) = memory(10 * MIB);
        let block = memory.allocate(2 * MIB, &mut ledger, &space).expect("fits");
        assert_eq!(memory.free(block + 1, &mut ledger, &space), Err(Fault::InvalidValue));
        assert_eq!(memory.free(block, &mut ledger, &space), Ok(()));
        assert_eq!(memory.free(block, &mut ledger, &space), Err(Fault::InvalidValue));
        assert_eq!(memory.allocate(0, &mut ledger, &space), Err(Fault::InvalidValue));
    }

    #[test]
    fn inner_addresses_belong_to_their_block() {
        let (mut memory, mut ledger, space) = memory(10 * MIB);
        let address = memory.allocate(3 * MIB, &mut ledger, &space).expect("fits");
        assert_eq!(memory.block_at(address + 3 * MIB - 1), Some(Block { address, bytes: 3 * MIB }));
        assert_eq!(memory.block_at(address + 3 * MIB), None);
        assert_eq!(memory.block_at(address - 1), None);
    }
}

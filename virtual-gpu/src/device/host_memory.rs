//! Pinned host memory: what was allocated pinned, and what was pinned afterwards. Both are counted, neither is touched.
//!
//! # Note: which blocks keep what is written
//! Programs pin weights by the tens of gigabytes and write all of them, though nothing is ever computed from them here. Such a block shares a little memory
//! with all others of its kind, so that it takes none of its own. Programs also pin what they decide by: sizes, flags, a batch of samples. So small blocks keep
//! what is written, and larger ones do as long as those that do are few: see [`SMALL_BYTES`] and [`MOST_KEPT_BYTES`]. What a program pins after it was
//! allocated is its own memory, and stays as it is.

use std::collections::BTreeMap;

use super::address_space::{AddressSpace, Block, Reservation, block_at};
use super::fault::Fault;

/// Pages of the host.
const PAGE_BYTES: u64 = 4096;
/// No process has addresses beyond.
const MOST_ADDRESS: u64 = 1 << 62;

/// A block of so many bytes keeps what is written in any case.
const SMALL_BYTES: u64 = 1 << 20;
/// A larger one does where it and the others that do come to no more.
const MOST_KEPT_BYTES: u64 = 512 << 20;

#[derive(Debug)]
struct Pinned {
    bytes: u64,
    /// So many of them keep what is written, in memory of ours.
    kept_bytes: u64,
    /// Address space of ours; else it is the process's own memory.
    ours: Option<Box<dyn Reservation>>,
}

/// The pinned blocks and their sum, in whole pages.
#[derive(Debug, Default)]
pub struct HostMemory {
    blocks: BTreeMap<u64, Pinned>,
    used_bytes: u64,
    peak_bytes: u64,
    kept_bytes: u64,
    /// No more than that; empty where nothing but memory limits it.
    most_bytes: Option<u64>,
}

impl HostMemory {
    /// From here on no more than `bytes` are pinned at a time.
    pub fn limit(&mut self, bytes: u64) {
        self.most_bytes = Some(bytes);
    }

    fn has_room_for(&self, bytes: u64) -> Result<(), Fault> {
        let pages = bytes.checked_next_multiple_of(PAGE_BYTES).and_then(|pages| pages.checked_add(self.used_bytes));
        if pages.is_some_and(|pages| self.most_bytes.is_none_or(|most| pages <= most)) { Ok(()) } else { Err(Fault::OutOfMemory) }
    }

    /// Allocates pinned memory.
    pub fn allocate(&mut self, bytes: u64, space: &dyn AddressSpace) -> Result<u64, Fault> {
        let rounded = bytes.checked_next_multiple_of(PAGE_BYTES).filter(|&rounded| rounded > 0).ok_or(Fault::InvalidValue)?;
        self.has_room_for(rounded)?;
        let is_kept = rounded <= SMALL_BYTES || self.kept_bytes + rounded <= MOST_KEPT_BYTES;
        let ours = if is_kept { space.reserve(rounded, PAGE_BYTES) } else { space.reserve_shared(rounded) }.ok_or(Fault::OutOfMemory)?;
        let address = ours.address();
        self.pin(address, Pinned { bytes, kept_bytes: if is_kept { rounded } else { 0 }, ours: Some(ours) });
        Ok(address)
    }

    /// Frees what `allocate` gave.
    pub fn free(&mut self, address: u64) -> Result<(), Fault> {
        self.blocks.get(&address).filter(|block| block.ours.is_some()).ok_or(Fault::InvalidValue)?;
        self.unpin(address);
        Ok(())
    }

    /// Pins memory of the process.
    pub fn register(&mut self, address: u64, bytes: u64) -> Result<(), Fault> {
        let end = address.checked_add(bytes).filter(|&end| address != 0 && bytes != 0 && end < MOST_ADDRESS).ok_or(Fault::InvalidValue)?;
        let before = self.blocks.range(..end).next_back();
        if before.is_some_and(|(&start, block)| start + block.bytes > address) {
            return Err(Fault::AlreadyRegistered);
        }
        self.has_room_for(bytes)?;
        self.pin(address, Pinned { bytes, kept_bytes: 0, ours: None });
        Ok(())
    }

    /// Undoes `register`.
    pub fn unregister(&mut self, address: u64) -> Result<(), Fault> {
        self.blocks.get(&address).filter(|block| block.ours.is_none()).ok_or(Fault::NotRegistered)?;
        self.unpin(address);
        Ok(())
    }

    fn pin(&mut self, address: u64, block: Pinned) {
        self.used_bytes += block.bytes.next_multiple_of(PAGE_BYTES);
        self.peak_bytes = self.peak_bytes.max(self.used_bytes);
        self.kept_bytes += block.kept_bytes;
        self.blocks.insert(address, block);
    }

    fn unpin(&mut self, address: u64) {
        if let Some(block) = self.blocks.remove(&address) {
            self.used_bytes -= block.bytes.next_multiple_of(PAGE_BYTES);
            self.kept_bytes -= block.kept_bytes;
        }
    }

    /// The block that holds this address.
    pub fn block_at(&self, address: u64) -> Option<Block> {
        block_at(&self.blocks, address, |block| block.bytes)
    }

    /// What is pinned now.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// The most that was pinned at one time.
    pub fn peak_bytes(&self) -> u64 {
        self.peak_bytes
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::super::address_space::tests::Counting;
    use super::*;

    #[test]
    fn pinned_bytes_are_counted_in_pages() {
        let (mut host, space) = (HostMemory::default(), Counting::default());
        let block = host.allocate(5000, &space).expect("address space");
        host.register(0x10_0000, 4096).expect("not pinned yet");
        assert_eq!(host.peak_bytes(), 8192 + 4096);
        assert_eq!(host.block_at(block + 4999), Some(Block { address: block, bytes: 5000 }));
        assert_eq!(host.free(block), Ok(()));
        assert_eq!(host.unregister(0x10_0000), Ok(()));
        assert_eq!((host.used_bytes(), host.peak_bytes()), (0, 8192 + 4096));
    }

    #[test]
    fn small_blocks_and_a_few_large_ones_keep_what_is_written() {
        let (mut host, space) = (HostMemory::default(), Counting::default());
        let shared = || space.shared_bytes.load(Ordering::Relaxed);
        let mut allocate = |bytes| host.allocate(bytes, &space).expect("address space");
        allocate(MOST_KEPT_BYTES + 1);
        assert_eq!(shared(), MOST_KEPT_BYTES + PAGE_BYTES, "too large by itself");
        let large = allocate(MOST_KEPT_BYTES);
        allocate(SMALL_BYTES);
        assert_eq!(shared(), MOST_KEPT_BYTES + PAGE_BYTES, "what is kept comes to just as much, and a small one is kept in any case");
        allocate(SMALL_BYTES + 1);
        assert_eq!(shared(), MOST_KEPT_BYTES + SMALL_BYTES + 2 * PAGE_BYTES);
        host.free(large).expect("it is there");
        host.allocate(MOST_KEPT_BYTES - SMALL_BYTES, &space).expect("address space");
        assert_eq!(shared(), MOST_KEPT_BYTES + SMALL_BYTES + 2 * PAGE_BYTES, "there is room again");
    }

    #[test]
    fn no_more_is_pinned_than_the_limit() {
        let (mut host, space) = (HostMemory::default(), Counting::default());
        host.limit(8192);
        let block = host.allocate(5000, &space).expect("just as much");
        assert_eq!(host.allocate(1, &space), Err(Fault::OutOfMemory));
        assert_eq!(host.register(0x10_0000, 1), Err(Fault::OutOfMemory));
        host.free(block).expect("it is there");
        assert_eq!(host.register(0x10_0000, 4096), Ok(()));
    }

    #[test]
    fn each_kind_is_given_back_its_own_way_and_once() {
        let (mut host, space) = (HostMemory::default(), Counting::default());
        let block = host.allocate(4096, &space).expect("address space");
        assert_eq!(host.unregister(block), Err(Fault::NotRegistered));
        host.register(0x10_0000, 4096).expect("not pinned yet");
        assert_eq!(host.register(0x10_0800, 16), Err(Fault::AlreadyRegistered));
        assert_eq!(host.free(0x10_0000), Err(Fault::InvalidValue));
        assert_eq!(host.free(block), Ok(()));
        assert_eq!(host.free(block), Err(Fault::InvalidValue));
        assert_eq!(host.register(0, 4096), Err(Fault::InvalidValue));
        assert_eq!(host.register(4096, u64::MAX - 4096), Err(Fault::InvalidValue));
        assert_eq!(host.allocate(0, &space), Err(Fault::InvalidValue));
    }
}

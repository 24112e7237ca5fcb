//! Pinned host memory: what was allocated pinned, and what was pinned afterwards. Both are counted, neither is touched.

use std::collections::BTreeMap;

use super::address_space::{AddressSpace, Block, Reservation, block_at};
use super::fault::Fault;

/// Pages of the host.
const PAGE_BYTES: u64 = 4096;
/// No process has addresses beyond.
const MOST_ADDRESS: u64 = 1 << 62;

#[derive(Debug)]
struct Pinned {
    bytes: u64,
    /// Address space of ours; else it is the process's own memory.
    ours: Option<Box<dyn Reservation>>,
}

/// The pinned blocks and their sum, in whole pages.
#[derive(Debug, Default)]
pub struct HostMemory {
    blocks: BTreeMap<u64, Pinned>,
    used_bytes: u64,
    peak_bytes: u64,
}

impl HostMemory {
    /// Allocates pinned memory.
    pub fn allocate(&mut self, bytes: u64, space: &dyn AddressSpace) -> Result<u64, Fault> {
        let rounded = bytes.checked_next_multiple_of(PAGE_BYTES).filter(|&rounded| rounded > 0).ok_or(Fault::InvalidValue)?;
        let ours = space.reserve(rounded, PAGE_BYTES).ok_or(Fault::OutOfMemory)?;
        let address = ours.address();
        self.pin(address, Pinned { bytes, ours: Some(ours) });
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
        self.pin(address, Pinned { bytes, ours: None });
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
        self.blocks.insert(address, block);
    }

    fn unpin(&mut self, address: u64) {
        if let Some(block) = self.blocks.remove(&address) {
            self.used_bytes -= block.bytes.next_multiple_of(PAGE_BYTES);
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

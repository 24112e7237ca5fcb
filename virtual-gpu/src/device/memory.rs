//! Device memory: who holds which bytes, and what is left.
//!
//! # Note: how an allocation is rounded
//! A GPU's memory is handed out in pages of 2 MiB. A request above 1 MiB gets pages of its own: it is rounded up to
//! 2 MiB. A request of up to 1 MiB is rounded up to 512 bytes, and such requests share pages, first fit by address; a
//! page goes back when the last of its blocks is freed. That is what `cudaMemGetInfo` shows on real devices to within
//! a page. PyTorch's caching allocator asks for 2 MiB and more, so of its requests only the first rule is ever used.

use std::collections::BTreeMap;

use super::address_space::{AddressSpace, Block, LARGE_GRANULE_BYTES, Reservation, block_at};
use super::capacity::Capacity;
use super::fault::Fault;

/// The largest request that shares a page with others.
pub const SMALL_LIMIT_BYTES: u64 = 1 << 20;
/// The unit of allocations that share pages.
pub const SMALL_GRANULE_BYTES: u64 = 512;

/// A page that small allocations share: its blocks by offset, with their rounded lengths.
#[derive(Debug)]
struct SharedPage {
    blocks: BTreeMap<u64, u64>,
    /// Its addresses, until nothing is on it any more.
    _addresses: Box<dyn Reservation>,
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

#[derive(Debug)]
struct Allocation {
    /// As many as were requested.
    bytes: u64,
    /// Pages of its own, where it shares none.
    own: Option<Box<dyn Reservation>>,
}

/// What `cudaMalloc` gave and `cudaFree` has not taken back.
#[derive(Debug, Default)]
pub struct DeviceMemory {
    /// By first address.
    allocations: BTreeMap<u64, Allocation>,
    /// Pages of small allocations by address.
    shared: BTreeMap<u64, SharedPage>,
}

impl DeviceMemory {
    /// Allocates; see the note at the top for the rounding. `bytes` must not be zero.
    pub fn allocate(&mut self, bytes: u64, capacity: &mut Capacity, space: &dyn AddressSpace) -> Result<u64, Fault> {
        let (address, own) = match bytes {
            0 => return Err(Fault::InvalidValue),
            1..=SMALL_LIMIT_BYTES => (self.allocate_shared(bytes.next_multiple_of(SMALL_GRANULE_BYTES), capacity, space)?, None),
            _ => {
                let pages = bytes.checked_next_multiple_of(LARGE_GRANULE_BYTES).ok_or(Fault::OutOfMemory)?;
                let own = take_pages(pages, capacity, space)?;
                (own.address(), Some(own))
            }
        };
        self.allocations.insert(address, Allocation { bytes, own });
        Ok(address)
    }

    fn allocate_shared(&mut self, rounded: u64, capacity: &mut Capacity, space: &dyn AddressSpace) -> Result<u64, Fault> {
        let fit = self.shared.iter_mut().find_map(|(&page, shared)| {
            let offset = shared.first_fit(rounded)?;
            shared.blocks.insert(offset, rounded);
            Some(page + offset)
        });
        if let Some(address) = fit {
            return Ok(address);
        }
        let addresses = take_pages(LARGE_GRANULE_BYTES, capacity, space)?;
        let page = addresses.address();
        self.shared.insert(page, SharedPage { blocks: BTreeMap::from([(0, rounded)]), _addresses: addresses });
        Ok(page)
    }

    /// Frees a block by its first address. A second time, or any other address, is an invalid value.
    pub fn free(&mut self, address: u64, capacity: &mut Capacity) -> Result<(), Fault> {
        let Allocation { bytes, own } = self.allocations.remove(&address).ok_or(Fault::InvalidValue)?;
        if own.is_some() {
            capacity.give(bytes.next_multiple_of(LARGE_GRANULE_BYTES));
            return Ok(());
        }
        let page = address - address % LARGE_GRANULE_BYTES;
        if let Some(shared) = self.shared.get_mut(&page) {
            shared.blocks.remove(&(address - page));
            if shared.blocks.is_empty() {
                self.shared.remove(&page);
                capacity.give(LARGE_GRANULE_BYTES);
            }
        }
        Ok(())
    }

    /// Whether nothing is allocated.
    pub fn is_empty(&self) -> bool {
        self.allocations.is_empty()
    }

    /// The block that holds this address.
    pub fn block_at(&self, address: u64) -> Option<Block> {
        block_at(&self.allocations, address, |allocation| allocation.bytes)
    }
}

fn take_pages(bytes: u64, capacity: &mut Capacity, space: &dyn AddressSpace) -> Result<Box<dyn Reservation>, Fault> {
    capacity.take(bytes)?;
    space.reserve(bytes, LARGE_GRANULE_BYTES).ok_or_else(|| {
        capacity.give(bytes);
        Fault::OutOfMemory
    })
}

#[cfg(test)]
mod tests {
    use super::super::address_space::tests::Counting;
    use super::*;

    const MIB: u64 = 1 << 20;

    fn memory(capacity_bytes: u64) -> (DeviceMemory, Capacity, Counting) {
        (DeviceMemory::default(), Capacity::new(capacity_bytes), Counting::default())
    }

    #[test]
    fn large_requests_take_whole_pages() {
        let (mut memory, mut capacity, space) = memory(100 * MIB);
        let block = memory.allocate(3 * MIB, &mut capacity, &space).expect("fits");
        assert_eq!(capacity.used_bytes(), 4 * MIB);
        assert_eq!(block % LARGE_GRANULE_BYTES, 0);
        let exact = memory.allocate(2 * MIB, &mut capacity, &space).expect("fits");
        assert_eq!(capacity.used_bytes(), 6 * MIB);
        memory.free(block, &mut capacity).expect("allocated");
        memory.free(exact, &mut capacity).expect("allocated");
        assert_eq!((capacity.used_bytes(), capacity.peak_bytes()), (0, 6 * MIB));
    }

    #[test]
    fn small_requests_share_a_page_and_reuse_its_gaps() {
        let (mut memory, mut capacity, space) = memory(100 * MIB);
        let first = memory.allocate(1, &mut capacity, &space).expect("fits");
        let second = memory.allocate(513, &mut capacity, &space).expect("fits");
        assert_eq!(second - first, 512);
        let third = memory.allocate(MIB, &mut capacity, &space).expect("fits");
        assert_eq!(third - first, 512 + 1024);
        assert_eq!(capacity.used_bytes(), 2 * MIB);
        memory.free(second, &mut capacity).expect("allocated");
        assert_eq!(memory.allocate(1024, &mut capacity, &space), Ok(second));
        // 1 MiB does not fit in what is left of the page: 2 MiB - 1 MiB - 1.5 KiB.
        memory.allocate(MIB, &mut capacity, &space).expect("fits");
        assert_eq!(capacity.used_bytes(), 4 * MIB);
        for block in [first, second, third] {
            memory.free(block, &mut capacity).expect("allocated");
        }
        assert_eq!(capacity.used_bytes(), 2 * MIB);
    }

    #[test]
    fn out_of_memory_comes_at_the_capacity_and_takes_nothing() {
        let (mut memory, mut capacity, space) = memory(10 * MIB);
        capacity.take(3 * MIB).expect("the context");
        memory.allocate(6 * MIB, &mut capacity, &space).expect("3 + 6 of 10");
        assert_eq!(memory.allocate(2 * MIB, &mut capacity, &space), Err(Fault::OutOfMemory));
        assert_eq!(memory.allocate(1, &mut capacity, &space), Err(Fault::OutOfMemory));
        assert_eq!(memory.allocate(u64::MAX, &mut capacity, &space), Err(Fault::OutOfMemory));
        assert_eq!((capacity.used_bytes(), capacity.free_bytes()), (9 * MIB, MIB));
    }

    #[test]
    fn a_second_free_and_an_inner_address_are_invalid() {
        let (mut memory, mut capacity, space) = memory(10 * MIB);
        let block = memory.allocate(2 * MIB, &mut capacity, &space).expect("fits");
        assert_eq!(memory.free(block + 1, &mut capacity), Err(Fault::InvalidValue));
        assert_eq!(memory.free(block, &mut capacity), Ok(()));
        assert_eq!(memory.free(block, &mut capacity), Err(Fault::InvalidValue));
        assert_eq!(memory.allocate(0, &mut capacity, &space), Err(Fault::InvalidValue));
    }

    #[test]
    fn inner_addresses_belong_to_their_block() {
        let (mut memory, mut capacity, space) = memory(10 * MIB);
        let address = memory.allocate(3 * MIB, &mut capacity, &space).expect("fits");
        assert_eq!(memory.block_at(address + 3 * MIB - 1), Some(Block { address, bytes: 3 * MIB }));
        assert_eq!(memory.block_at(address + 3 * MIB), None);
        assert_eq!(memory.block_at(address - 1), None);
    }
}

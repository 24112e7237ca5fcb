//! The device's memory pool: what `cudaMallocAsync` gives and `cudaFreeAsync` takes back, in the order of a stream.
//!
//! # Note: how the pool holds memory
//! The pool takes pages of 2 MiB from the device, 32 MiB at a time, and keeps what is freed up to its release threshold. A request is rounded as for `cudaMalloc`: above
//! 1 MiB it has pages of its own, up to 1 MiB it shares pages with requests on the same stream. Pages are mapped to addresses anew for each request, so unused ones need
//! not lie side by side: NVIDIA describes that the pool does so before it asks for more. A page that was freed on a stream is the next request's of that stream at once,
//! and another stream's once the host has waited for the first one, since what was put there before may still use it. Where the device has no more, pages freed on
//! other streams are taken too (the driver makes the streams wait for each other), and then the pool grows by what is missing alone.

use std::collections::BTreeMap;

use super::address_space::{AddressSpace, Block, LARGE_GRANULE_BYTES, block_at};
use super::capacity::Capacity;
use super::fault::Fault;
use super::memory::{DeviceMemory, SMALL_GRANULE_BYTES};

/// What the pool takes from the device at a time.
const POOL_GROWTH_BYTES: u64 = 32 << 20;

/// An amount and its highest value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Bytes now.
    pub current: u64,
    /// The most since the last reset.
    pub high: u64,
}

impl Amount {
    fn set(&mut self, bytes: u64) {
        self.current = bytes;
        self.high = self.high.max(bytes);
    }

    /// Begins a new high at what there is now.
    pub fn reset(&mut self) {
        self.high = self.current;
    }
}

#[derive(Debug)]
struct Allocation {
    bytes: u64,
    /// The stream that it was allocated on.
    stream: u64,
}

/// The default pool of a device.
pub struct MemoryPool {
    allocations: BTreeMap<u64, Allocation>,
    /// Per stream, what was allocated on it and how it lies in pages.
    streams: BTreeMap<u64, DeviceMemory>,
    /// Bytes of pages that allocations are in. It counts and has no end: the device's own capacity knows what is left.
    in_use: Capacity,
    /// Bytes of unused pages that any stream may take.
    idle_bytes: u64,
    /// Bytes of unused pages by the stream that they were freed on.
    freed_bytes: BTreeMap<u64, u64>,
    /// What is held from the device.
    pub reserved: Amount,
    /// What allocations hold, in multiples of 512 bytes.
    pub used: Amount,
    /// What may stay unused in the pool when the host waits.
    pub release_threshold_bytes: u64,
}

impl Default for MemoryPool {
    fn default() -> Self {
        Self {
            allocations: BTreeMap::new(),
            streams: BTreeMap::new(),
            in_use: Capacity::new(u64::MAX),
            idle_bytes: 0,
            freed_bytes: BTreeMap::new(),
            reserved: Amount::default(),
            used: Amount::default(),
            release_threshold_bytes: 0,
        }
    }
}

impl MemoryPool {
    /// `cudaMallocAsync`. `bytes` must not be zero.
    pub fn allocate(&mut self, bytes: u64, stream: u64, capacity: &mut Capacity, space: &dyn AddressSpace) -> Result<u64, Fault> {
        if bytes > capacity.limit_bytes() {
            return Err(Fault::OutOfMemory);
        }
        let before = self.in_use.used_bytes();
        let address = self.streams.entry(stream).or_default().allocate(bytes, &mut self.in_use, space)?;
        let wanted = self.in_use.used_bytes() - before;
        if let Err(fault) = self.find_pages(wanted, stream, capacity) {
            self.give_up(address, stream)?;
            return Err(fault);
        }
        self.allocations.insert(address, Allocation { bytes, stream });
        self.used.set(self.used.current + bytes.next_multiple_of(SMALL_GRANULE_BYTES));
        Ok(address)
    }

    /// `cudaFreeAsync` of an address that `allocate` gave, on `stream`, or where the host has waited for everything on none.
    pub fn free(&mut self, address: u64, stream: Option<u64>) -> Result<(), Fault> {
        let Allocation { bytes, stream: allocated_on } = self.allocations.remove(&address).ok_or(Fault::InvalidValue)?;
        let before = self.in_use.used_bytes();
        self.give_up(address, allocated_on)?;
        let freed = before - self.in_use.used_bytes();
        match stream {
            Some(stream) if freed > 0 => *self.freed_bytes.entry(stream).or_default() += freed,
            _ => self.idle_bytes += freed,
        }
        self.used.set(self.used.current - bytes.next_multiple_of(SMALL_GRANULE_BYTES));
        Ok(())
    }

    /// Takes back what was allocated on that stream, which is known here for as long as it has something.
    fn give_up(&mut self, address: u64, stream: u64) -> Result<(), Fault> {
        let memory = self.streams.get_mut(&stream).ok_or(Fault::InvalidValue)?;
        memory.free(address, &mut self.in_use)?;
        if memory.is_empty() {
            self.streams.remove(&stream);
        }
        Ok(())
    }

    /// Takes unused pages for `stream`, and where they are too few more of the device's.
    fn find_pages(&mut self, bytes: u64, stream: u64, capacity: &mut Capacity) -> Result<(), Fault> {
        let (own, common) = (self.freed_bytes.get(&stream).copied().unwrap_or(0), self.idle_bytes);
        let missing = bytes.saturating_sub(own + common);
        if missing > 0 {
            let growth = missing.next_multiple_of(POOL_GROWTH_BYTES);
            if self.grow(growth, capacity).is_err() {
                // Nothing but what is missing, and before that what other streams have freed.
                let others = self.unused_bytes() - own - common;
                self.grow(missing.saturating_sub(others), capacity)?;
                let streams: Vec<u64> = self.freed_bytes.keys().copied().filter(|&other| other != stream).collect();
                streams.into_iter().for_each(|other| self.waited_for(other));
            }
        }
        let from_own = own.min(bytes);
        if from_own < own {
            self.freed_bytes.insert(stream, own - from_own);
        } else {
            self.freed_bytes.remove(&stream);
        }
        self.idle_bytes -= bytes - from_own;
        Ok(())
    }

    fn grow(&mut self, bytes: u64, capacity: &mut Capacity) -> Result<(), Fault> {
        capacity.take(bytes)?;
        self.idle_bytes += bytes;
        self.reserved.set(self.reserved.current + bytes);
        Ok(())
    }

    /// Unused pages may be any stream's from here on: the host has waited for the one that freed them.
    fn waited_for(&mut self, stream: u64) {
        self.idle_bytes += self.freed_bytes.remove(&stream).unwrap_or(0);
    }

    fn unused_bytes(&self) -> u64 {
        self.idle_bytes + self.freed_bytes.values().sum::<u64>()
    }

    /// Says that the host has waited for `stream`, or for all of them. What is unused beyond the release threshold goes back to the device.
    pub fn synchronized(&mut self, stream: Option<u64>, capacity: &mut Capacity) {
        let streams: Vec<u64> = self.freed_bytes.keys().copied().filter(|&freed| stream.is_none_or(|stream| stream == freed)).collect();
        streams.into_iter().for_each(|freed| self.waited_for(freed));
        self.trim(self.release_threshold_bytes, capacity);
    }

    /// `cudaMemPoolTrimTo`: gives unused pages back until the pool holds at most `bytes`, or has none. Those that a stream may still use stay.
    pub fn trim(&mut self, bytes: u64, capacity: &mut Capacity) {
        let beyond = self.reserved.current.saturating_sub(bytes) / LARGE_GRANULE_BYTES * LARGE_GRANULE_BYTES;
        let given = beyond.min(self.idle_bytes);
        capacity.give(given);
        self.idle_bytes -= given;
        self.reserved.set(self.reserved.current - given);
    }

    /// The allocation that holds this address.
    pub fn block_at(&self, address: u64) -> Option<Block> {
        block_at(&self.allocations, address, |allocation| allocation.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::address_space::tests::Counting;
    use super::*;

    const MIB: u64 = 1 << 20;

    struct Fixture {
        pool: MemoryPool,
        capacity: Capacity,
        space: Counting,
    }

    impl Fixture {
        /// A device of so many MiB; torch asks for a pool that keeps everything.
        fn new(mib: u64) -> Self {
            let pool = MemoryPool { release_threshold_bytes: u64::MAX, ..MemoryPool::default() };
            Self { pool, capacity: Capacity::new(mib * MIB), space: Counting::default() }
        }

        fn allocate(&mut self, bytes: u64, stream: u64) -> Result<u64, Fault> {
            self.pool.allocate(bytes, stream, &mut self.capacity, &self.space)
        }

        fn free(&mut self, address: u64, stream: u64) {
            self.pool.free(address, Some(stream)).expect("allocated");
        }

        /// Reserved and used MiB.
        fn mib(&self) -> (u64, u64) {
            assert_eq!(self.capacity.used_bytes(), self.pool.reserved.current, "the device counts what the pool holds");
            (self.pool.reserved.current / MIB, self.pool.used.current / MIB)
        }
    }

    #[test]
    fn the_pool_grows_in_steps_and_keeps_what_is_freed() {
        let mut it = Fixture::new(1000);
        let small = it.allocate(1, 0).expect("fits");
        assert_eq!((it.mib(), it.pool.used.current), ((32, 0), 512));
        let large = it.allocate(30 * MIB, 0).expect("fits");
        assert_eq!(it.mib(), (32, 30));
        let more = it.allocate(33 * MIB, 0).expect("fits");
        assert_eq!(it.mib(), (32 + 64, 63));
        for address in [small, large, more] {
            it.free(address, 0);
        }
        assert_eq!(it.mib(), (96, 0));
        assert_eq!((it.pool.reserved.high, it.pool.used.high), (96 * MIB, 63 * MIB + 512));
        it.pool.reserved.reset();
        it.pool.used.reset();
        assert_eq!((it.pool.reserved.high, it.pool.used.high), (96 * MIB, 0));
    }

    #[test]
    fn unused_pages_need_not_lie_side_by_side() {
        let mut it = Fixture::new(1000);
        let blocks: Vec<u64> = (0..8).map(|_| it.allocate(8 * MIB, 0).expect("fits")).collect();
        assert_eq!(it.mib(), (64, 64));
        blocks.iter().step_by(2).for_each(|&address| it.free(address, 0));
        it.allocate(32 * MIB, 0).expect("four times 8 MiB");
        assert_eq!(it.mib(), (64, 64));
    }

    #[test]
    fn another_stream_has_what_was_freed_once_the_host_has_waited() {
        let mut it = Fixture::new(1000);
        let block = it.allocate(32 * MIB, 1).expect("fits");
        it.free(block, 1);
        let other = it.allocate(32 * MIB, 2).expect("fits");
        assert_eq!(it.mib(), (64, 32));
        it.free(other, 2);
        it.pool.synchronized(Some(1), &mut it.capacity);
        let (first, second) = (it.allocate(32 * MIB, 3).expect("what 1 freed"), it.allocate(32 * MIB, 2).expect("its own"));
        assert_eq!(it.mib(), (64, 64));
        it.free(first, 3);
        it.free(second, 2);
        it.pool.synchronized(None, &mut it.capacity);
        it.allocate(64 * MIB, 4).expect("all of it");
        assert_eq!(it.mib(), (64, 64));
    }

    #[test]
    fn a_full_device_lends_across_streams_and_then_has_no_more() {
        let mut it = Fixture::new(70);
        let first = it.allocate(40 * MIB, 1).expect("fits");
        assert_eq!(it.mib(), (64, 40));
        it.free(first, 1);
        // 6 MiB are left of the device, not 32.
        let whole = it.allocate(70 * MIB, 2).expect("all of the pool and what is left of the device");
        assert_eq!(it.mib(), (70, 70));
        assert_eq!(it.allocate(1, 2), Err(Fault::OutOfMemory));
        assert_eq!(it.allocate(u64::MAX, 2), Err(Fault::OutOfMemory));
        assert_eq!(it.mib(), (70, 70));
        it.free(whole, 2);
        assert_eq!(it.mib(), (70, 0));
        it.pool.trim(0, &mut it.capacity);
        assert_eq!(it.mib(), (70, 0), "stream 2 may still use them");
        it.pool.synchronized(None, &mut it.capacity);
        it.pool.trim(10 * MIB, &mut it.capacity);
        assert_eq!(it.mib(), (10, 0));
        it.pool.trim(0, &mut it.capacity);
        assert_eq!(it.mib(), (0, 0));
    }

    #[test]
    fn without_a_threshold_nothing_stays_when_the_host_has_waited() {
        let mut it = Fixture::new(100);
        it.pool.release_threshold_bytes = 0;
        let (kept, freed) = (it.allocate(4 * MIB, 0).expect("fits"), it.allocate(20 * MIB, 0).expect("fits"));
        it.free(freed, 0);
        assert_eq!(it.mib(), (32, 4));
        it.pool.synchronized(Some(0), &mut it.capacity);
        assert_eq!(it.mib(), (4, 4));
        assert_eq!(it.pool.free(kept + 1, Some(0)), Err(Fault::InvalidValue));
        it.free(kept, 0);
        assert_eq!(it.pool.free(kept, Some(0)), Err(Fault::InvalidValue));
    }

    #[test]
    fn of_streams_that_have_nothing_nothing_is_kept() {
        let mut it = Fixture::new(100);
        for stream in 0..100 {
            let (small, large) = (it.allocate(1, stream).expect("fits"), it.allocate(4 * MIB, stream).expect("fits"));
            it.free(small, stream);
            it.free(large, stream);
            it.pool.synchronized(None, &mut it.capacity);
        }
        assert_eq!(it.allocate(101 * MIB, 7), Err(Fault::OutOfMemory));
        assert!(it.pool.streams.is_empty() && it.pool.freed_bytes.is_empty());
        assert_eq!(it.mib(), (32, 0));
    }

    #[test]
    fn an_inner_address_belongs_to_its_allocation() {
        let mut it = Fixture::new(100);
        let address = it.allocate(3 * MIB, 0).expect("fits");
        assert_eq!(it.pool.block_at(address + 3 * MIB - 1), Some(Block { address, bytes: 3 * MIB }));
        assert_eq!(it.pool.block_at(address + 3 * MIB), None);
    }
}

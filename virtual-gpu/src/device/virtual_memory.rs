//! The driver's virtual-memory interface: addresses, memory and the mapping between them are made one by one.
//! PyTorch's `expandable_segments` is built on it. Memory that was made counts from `create` until it is neither held
//! nor mapped; addresses count for nothing.

use std::collections::BTreeMap;

use super::address_space::{AddressSpace, Block, LARGE_GRANULE_BYTES, Reservation, block_at};
use super::capacity::Capacity;
use super::fault::Fault;
use super::handles::Handles;

#[derive(Debug)]
struct Physical {
    bytes: u64,
    /// How often it is held by handle.
    holders: u32,
    /// How often it is mapped.
    mappings: u32,
}

#[derive(Debug)]
struct Reserved {
    bytes: u64,
    addresses: Box<dyn Reservation>,
}

#[derive(Debug)]
struct Mapping {
    bytes: u64,
    handle: u64,
}

/// Reserved addresses, memory by handle, and what is mapped where.
#[derive(Debug, Default)]
pub struct VirtualMemory {
    reservations: BTreeMap<u64, Reserved>,
    physical: Handles<Physical>,
    mappings: BTreeMap<u64, Mapping>,
}

fn whole_pages(bytes: u64) -> Result<u64, Fault> {
    if bytes > 0 && bytes.is_multiple_of(LARGE_GRANULE_BYTES) { Ok(bytes) } else { Err(Fault::InvalidValue) }
}

impl VirtualMemory {
    /// The memory of that device.
    pub fn of_device(ordinal: u32) -> Self {
        Self { physical: Handles::of_device(ordinal), ..Self::default() }
    }

    /// Whether the address is reserved here, mapped or not.
    pub fn has_reserved(&self, address: u64) -> bool {
        self.reservation_at(address).is_some()
    }

    /// How many reservations there are.
    pub fn reservations(&self) -> usize {
        self.reservations.len()
    }

    /// `cuMemAddressReserve`.
    pub fn reserve(&mut self, bytes: u64, alignment: u64, space: &dyn AddressSpace) -> Result<u64, Fault> {
        let alignment = alignment.max(LARGE_GRANULE_BYTES);
        if !alignment.is_power_of_two() {
            return Err(Fault::InvalidValue);
        }
        let addresses = space.reserve(whole_pages(bytes)?, alignment).ok_or(Fault::OutOfMemory)?;
        let address = addresses.address();
        self.reservations.insert(address, Reserved { bytes, addresses });
        Ok(address)
    }

    /// `cuMemAddressFree`: all of a reservation, with nothing mapped in it.
    pub fn free_reservation(&mut self, address: u64, bytes: u64) -> Result<(), Fault> {
        let reserved = self.reservations.get(&address).filter(|reserved| reserved.bytes == bytes).ok_or(Fault::InvalidValue)?;
        if self.mappings.range(address..address + reserved.bytes).next().is_some() {
            return Err(Fault::InvalidValue);
        }
        self.reservations.remove(&address);
        Ok(())
    }

    /// `cuMemCreate`: this is what takes memory.
    pub fn create(&mut self, bytes: u64, capacity: &mut Capacity) -> Result<u64, Fault> {
        capacity.take(whole_pages(bytes)?)?;
        Ok(self.physical.insert(Physical { bytes, holders: 1, mappings: 0 }))
    }

    /// `cuMemRetainAllocationHandle`: the handle of what is mapped at an address, held once more.
    pub fn retain(&mut self, address: u64) -> Result<u64, Fault> {
        let block = self.block_at(address).ok_or(Fault::InvalidValue)?;
        let handle = self.mappings.get(&block.address).ok_or(Fault::InvalidValue)?.handle;
        self.physical.get_mut(handle)?.holders += 1;
        Ok(handle)
    }

    /// `cuMemRelease`: the memory stays for as long as it is mapped.
    pub fn release(&mut self, handle: u64, capacity: &mut Capacity) -> Result<(), Fault> {
        let physical = self.physical.get_mut(handle).map_err(|_| Fault::InvalidValue)?;
        physical.holders = physical.holders.checked_sub(1).ok_or(Fault::InvalidValue)?;
        self.give_up_unused(handle, capacity)
    }

    /// `cuMemMap`: all of the memory, inside one reservation, where nothing is mapped yet.
    pub fn map(&mut self, address: u64, bytes: u64, offset: u64, handle: u64) -> Result<(), Fault> {
        let end = address.checked_add(whole_pages(bytes)?).ok_or(Fault::InvalidValue)?;
        let reservation = self.reservation_at(address).ok_or(Fault::InvalidValue)?;
        let inside = end <= reservation.address + reservation.bytes;
        let before = self.mappings.range(..end).next_back();
        let free = before.is_none_or(|(&start, mapping)| start + mapping.bytes <= address);
        let physical = self.physical.get_mut(handle).map_err(|_| Fault::InvalidValue)?;
        if !inside || !free || offset != 0 || bytes != physical.bytes || physical.holders == 0 {
            return Err(Fault::InvalidValue);
        }
        physical.mappings += 1;
        self.mappings.insert(address, Mapping { bytes, handle });
        Ok(())
    }

    /// `cuMemUnmap`: every mapping in the range, which must cover each of them whole.
    pub fn unmap(&mut self, address: u64, bytes: u64, capacity: &mut Capacity) -> Result<(), Fault> {
        let end = address.checked_add(bytes).ok_or(Fault::InvalidValue)?;
        let covered: u64 = self.mappings.range(address..end).map(|(_, mapping)| mapping.bytes).sum();
        if bytes == 0 || covered != bytes {
            return Err(Fault::InvalidValue);
        }
        let starts: Vec<u64> = self.mappings.range(address..end).map(|(&start, _)| start).collect();
        for start in starts {
            if let Some(mapping) = self.mappings.remove(&start) {
                if let Some((base, reserved)) = self.reservations.range(..=start).next_back() {
                    reserved.addresses.discard(start - base, mapping.bytes);
                }
                self.physical.get_mut(mapping.handle)?.mappings -= 1;
                self.give_up_unused(mapping.handle, capacity)?;
            }
        }
        Ok(())
    }

    /// Whether all of the range is mapped: access can be set only there.
    pub fn check_mapped(&self, address: u64, bytes: u64) -> Result<(), Fault> {
        let mut at = address;
        while at < address.saturating_add(bytes) {
            let block = self.block_at(at).ok_or(Fault::InvalidValue)?;
            at = block.address + block.bytes;
        }
        Ok(())
    }

    /// The mapping that holds this address.
    pub fn block_at(&self, address: u64) -> Option<Block> {
        block_at(&self.mappings, address, |mapping| mapping.bytes)
    }

    fn reservation_at(&self, address: u64) -> Option<Block> {
        block_at(&self.reservations, address, |reserved| reserved.bytes)
    }

    fn give_up_unused(&mut self, handle: u64, capacity: &mut Capacity) -> Result<(), Fault> {
        let physical = self.physical.get(handle)?;
        if physical.holders == 0 && physical.mappings == 0 {
            capacity.give(physical.bytes);
            self.physical.remove(handle)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::address_space::tests::Counting;
    use super::*;

    const PAGE: u64 = LARGE_GRANULE_BYTES;

    #[test]
    fn memory_counts_until_it_is_neither_held_nor_mapped() {
        let (mut memory, mut capacity, space) = (VirtualMemory::default(), Capacity::new(10 * PAGE), Counting::default());
        let base = memory.reserve(100 * PAGE, 0, &space).expect("addresses are free");
        assert_eq!(capacity.used_bytes(), 0);
        let handle = memory.create(4 * PAGE, &mut capacity).expect("fits");
        assert_eq!(capacity.used_bytes(), 4 * PAGE);
        memory.map(base + PAGE, 4 * PAGE, 0, handle).expect("free addresses");
        memory.release(handle, &mut capacity).expect("held");
        assert_eq!(capacity.used_bytes(), 4 * PAGE);
        assert_eq!(memory.check_mapped(base + PAGE, 4 * PAGE), Ok(()));
        assert_eq!(memory.check_mapped(base, 2 * PAGE), Err(Fault::InvalidValue));
        assert_eq!(memory.free_reservation(base, 100 * PAGE), Err(Fault::InvalidValue));
        memory.unmap(base + PAGE, 4 * PAGE, &mut capacity).expect("mapped");
        assert_eq!(capacity.used_bytes(), 0);
        assert_eq!(memory.free_reservation(base, 100 * PAGE), Ok(()));
    }

    #[test]
    fn misuse_is_an_invalid_value() {
        let (mut memory, mut capacity, space) = (VirtualMemory::default(), Capacity::new(4 * PAGE), Counting::default());
        let base = memory.reserve(4 * PAGE, 0, &space).expect("addresses are free");
        assert_eq!(memory.create(PAGE + 1, &mut capacity), Err(Fault::InvalidValue));
        assert_eq!(memory.create(5 * PAGE, &mut capacity), Err(Fault::OutOfMemory));
        let handle = memory.create(2 * PAGE, &mut capacity).expect("fits");
        assert_eq!(memory.map(base + 3 * PAGE, 2 * PAGE, 0, handle), Err(Fault::InvalidValue));
        assert_eq!(memory.map(base, 2 * PAGE, 0, handle), Ok(()));
        assert_eq!(memory.map(base + PAGE, 2 * PAGE, 0, handle), Err(Fault::InvalidValue));
        assert_eq!(memory.unmap(base, PAGE, &mut capacity), Err(Fault::InvalidValue));
        assert_eq!(memory.retain(base + PAGE), Ok(handle));
        assert_eq!(memory.release(handle, &mut capacity), Ok(()));
        assert_eq!(memory.release(handle, &mut capacity), Ok(()));
        assert_eq!(memory.release(handle, &mut capacity), Err(Fault::InvalidValue));
    }
}

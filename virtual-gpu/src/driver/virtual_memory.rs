//! Memory that is made, given addresses and mapped piece by piece.

use super::error::{answer, ready};
use crate::device::{Device, Fault, LARGE_GRANULE_BYTES};
use crate::devices::{activate, active_device, device_at, device_of, device_that};
use crate::ffi::{Address, Given, Out};
use crate::report::noted;

/// `CUmemLocation`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Location {
    kind: i32,
    id: i32,
}

/// `CUmemAllocationProp`.
#[repr(C)]
#[derive(Clone, Copy)]
struct AllocationProperties {
    kind: i32,
    handle_kinds: i32,
    location: Location,
    windows: u64,
    flags: u64,
}

/// `CU_MEM_LOCATION_TYPE_DEVICE`: memory of the device, and not of the host.
const ON_DEVICE: i32 = 1;
/// `CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR`: PyTorch always asks for memory that could be exported so; exporting it is
/// what is unsupported.
const AS_FILE: i32 = 1;

/// The device that memory of this kind is to be on.
fn device_for(properties: Given<AllocationProperties>) -> Result<&'static Device, Fault> {
    let properties = properties.get().ok_or(Fault::InvalidValue)?;
    if properties.handle_kinds & !AS_FILE != 0 || properties.location.kind != ON_DEVICE {
        return Err(Fault::NotSupported);
    }
    activate(device_at(properties.location.id)?)
}

/// The device that has reserved the address.
fn device_with(address: u64) -> Result<&'static Device, Fault> {
    device_that(|device| device.has_reserved(address))
}

exports! { answer, ready;
    fn cuMemGetAllocationGranularity(bytes: Out<usize>, properties: Given<AllocationProperties>, _option: i32) {
        device_for(properties)?;
        bytes.set(LARGE_GRANULE_BYTES as usize)
    }

    fn cuMemAddressReserve(address: Out<u64>, bytes: usize, alignment: usize, _wish: u64, _flags: u64) {
        let reserved = active_device()?.with_virtual_memory(|memory, _, space| memory.reserve(bytes as u64, alignment as u64, space))?;
        address.set(reserved)
    }

    fn cuMemAddressFree(address: u64, bytes: usize) {
        device_with(address)?.with_virtual_memory(|memory, _, _| memory.free_reservation(address, bytes as u64))
    }

    fn cuMemCreate(handle: Out<u64>, bytes: usize, properties: Given<AllocationProperties>, _flags: u64) {
        let device = device_for(properties)?;
        handle.set(noted(device, device.create(bytes as u64))?)
    }

    fn cuMemRetainAllocationHandle(handle: Out<u64>, address: Address) {
        let held = device_with(address)?.with_virtual_memory(|memory, _, _| memory.retain(address))?;
        handle.set(held)
    }

    fn cuMemRelease(handle: u64) {
        device_of(handle)?.with_virtual_memory(|memory, capacity, _| memory.release(handle, capacity))
    }

    fn cuMemMap(address: u64, bytes: usize, offset: usize, handle: u64, _flags: u64) {
        device_with(address)?.with_virtual_memory(|memory, _, _| memory.map(address, bytes as u64, offset as u64, handle))
    }

    fn cuMemUnmap(address: u64, bytes: usize) {
        device_with(address)?.with_virtual_memory(|memory, capacity, _| memory.unmap(address, bytes as u64, capacity))
    }

    fn cuMemSetAccess(address: u64, bytes: usize, _access: Address, _count: usize) {
        device_with(address)?.with_virtual_memory(|memory, _, _| memory.check_mapped(address, bytes as u64))
    }
}

const _: () = assert!(size_of::<AllocationProperties>() == 32, "as in cuda.h");

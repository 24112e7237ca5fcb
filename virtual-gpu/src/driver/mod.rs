//! `libcuda.so.1`: the driver interface. PyTorch asks for most of it by name, through `cudaGetDriverEntryPointByVersion`; Triton and programs in other
//! languages use it alone. Here are devices, contexts and memory that is mapped piece by piece.

mod launch;
mod memory;
mod stream;

use std::cell::RefCell;
use std::ffi::c_void;
use std::sync::Mutex;

use crate::cudart::{CUDA_VERSION, attribute, code_of, driver_texts, fill_words};
use crate::device::{Block, Device, Fault, LARGE_GRANULE_BYTES, Owner, lock};
use crate::ffi::{Given, GivenText, Out, OutText, StaticText, own_function};
use crate::process::{
    activate, active_device, current, device, device_at, device_count, device_of, device_that, noted, number_of, owner_of, set_current,
};
use crate::unsupported;

pub(crate) use launch::handles;

/// The primary context of the first device that the program sees; the others' follow it.
const CONTEXT: u64 = 0xC0DE_0000;
const NEXT_CONTEXT: u64 = 0x100;

fn context_of(ordinal: i32) -> u64 {
    CONTEXT + u64::from(ordinal.cast_unsigned()) * NEXT_CONTEXT
}

/// The number of the device whose context that is.
fn device_in(context: u64) -> Result<i32, Fault> {
    (0..device_count()).find(|&ordinal| context_of(ordinal) == context).ok_or(Fault::InvalidValue)
}

thread_local! {
    /// The devices that were this thread's before others were pushed in front.
    static PUSHED: RefCell<Vec<i32>> = const { RefCell::new(Vec::new()) };
}

/// What `cuCtxSetLimit` sets, as it is at first: a thread's stack, the buffer of `printf`, the heap of `malloc` in kernels. Nothing here takes memory by them.
static LIMITS: Mutex<[usize; 3]> = Mutex::new([1 << 10, 1 << 20, 8 << 20]);

fn limit_index(limit: i32) -> Result<usize, Fault> {
    usize::try_from(limit).map_err(|_| Fault::InvalidValue)
}

fn answer(result: Result<(), Fault>) -> i32 {
    result.map_or_else(code_of, |()| 0)
}

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

exports! { answer;
    fn cuInit(_flags: u32) {
        device().map(drop)
    }

    fn cuDriverGetVersion(version: Out<i32>) {
        version.set(CUDA_VERSION)
    }

    fn cuDeviceGetCount(count: Out<i32>) {
        count.set(device_count())
    }

    fn cuDeviceGet(device: Out<i32>, ordinal: i32) {
        device_at(ordinal)?;
        device.set(ordinal)
    }

    fn cuDeviceGetName(name: OutText, room: i32, ordinal: i32) {
        name.set(&device_at(ordinal)?.profile.device_name(), usize::try_from(room).map_err(|_| Fault::InvalidValue)?)
    }

    fn cuDeviceGetUuid(uuid: Out<[u8; 16]>, ordinal: i32) {
        uuid.set(device_at(ordinal)?.uuid())
    }

    fn cuDeviceGetUuid_v2(uuid: Out<[u8; 16]>, ordinal: i32) {
        uuid.set(device_at(ordinal)?.uuid())
    }

    fn cuDeviceTotalMem_v2(bytes: Out<usize>, ordinal: i32) {
        bytes.set(device_at(ordinal)?.profile.memory_bytes.value as usize)
    }

    fn cuDeviceGetAttribute(value: Out<i32>, number: i32, ordinal: i32) {
        value.set(attribute(device_at(ordinal)?, number))
    }

    fn cuDevicePrimaryCtxGetState(ordinal: i32, flags: Out<u32>, active: Out<i32>) {
        let device = device_at(ordinal)?;
        flags.set_if_wanted(0);
        active.set(i32::from(device.is_active()))
    }

    fn cuDevicePrimaryCtxRetain(context: Out<u64>, ordinal: i32) {
        activate(device_at(ordinal)?)?;
        context.set(context_of(ordinal))
    }

    fn cuCtxGetCurrent(context: Out<u64>) {
        context.set(if device()?.is_active() { context_of(current()?) } else { 0 })
    }

    fn cuCtxSetCurrent(context: u64) {
        if context == 0 { Ok(()) } else { set_current(device_in(context)?) }
    }

    fn cuCtxPushCurrent_v2(context: u64) {
        let before = current()?;
        set_current(device_in(context)?)?;
        PUSHED.with_borrow_mut(|pushed| pushed.push(before));
        Ok(())
    }

    fn cuCtxPopCurrent_v2(context: Out<u64>) {
        context.set_if_wanted(context_of(current()?));
        // What is popped without a push before it is the thread's first context, under which there is nothing to go back to.
        match PUSHED.with_borrow_mut(Vec::pop) {
            Some(before) => set_current(before),
            None => Ok(()),
        }
    }

    fn cuCtxGetDevice(ordinal: Out<i32>) {
        active_device()?;
        ordinal.set(current()?)
    }

    fn cuDevicePrimaryCtxRelease_v2(ordinal: i32) {
        // It stays: what was allocated in it may still be in use.
        device_at(ordinal).map(drop)
    }

    fn cuCtxGetLimit(value: Out<usize>, limit: i32) {
        value.set(*lock(&LIMITS).get(limit_index(limit)?).ok_or(Fault::NotSupported)?)
    }

    fn cuCtxSetLimit(limit: i32, value: usize) {
        *lock(&LIMITS).get_mut(limit_index(limit)?).ok_or(Fault::NotSupported)? = value;
        Ok(())
    }

    fn cuCtxSynchronize() {
        active_device()?.synchronize()
    }

    fn cuGetErrorString(code: i32, string: Out<StaticText>) {
        string.set(driver_texts(code).ok_or(Fault::InvalidValue)?.1)
    }

    fn cuGetErrorName(code: i32, name: Out<StaticText>) {
        name.set(driver_texts(code).ok_or(Fault::InvalidValue)?.0)
    }

    fn cuGetProcAddress_v2(name: GivenText, function: Out<u64>, _version: i32, _flags: u64, status: Out<i32>) {
        let name = name.get().ok_or(Fault::InvalidValue)?;
        let found = own_function(&name);
        if found.is_none() {
            unsupported::declined(&name);
        }
        function.set(found.unwrap_or(0))?;
        status.set_if_wanted(i32::from(found.is_none()));
        Ok(())
    }

    fn cuMemAlloc_v2(address: Out<u64>, bytes: usize) {
        let device = active_device()?;
        address.set(noted(device, device.allocate(bytes as u64))?)
    }

    fn cuMemFree_v2(address: u64) {
        let device = device_that(|device| matches!(device.owner_of(address), Owner::Device(_)))?;
        if address == 0 { Ok(()) } else { device.free(address) }
    }

    fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) {
        let (free_bytes, total_bytes) = active_device()?.free_and_total_bytes();
        free.set(free_bytes as usize)?;
        total.set(total_bytes as usize)
    }

    fn cuMemGetAddressRange_v2(base: Out<u64>, bytes: Out<usize>, address: u64) {
        let (_, Owner::Device(block)) = owner_of(address)? else { return Err(Fault::InvalidValue) };
        base.set_if_wanted(block.address);
        bytes.set_if_wanted(block.bytes as usize);
        Ok(())
    }

    fn cuMemsetD32Async(address: u64, value: u32, count: usize, stream: u64) {
        device_of(stream)?.streams().check(stream)?;
        fill_words(address, value, count, stream)
    }

    fn cuPointerGetAttribute(data: Out<c_void>, number: i32, address: u64) {
        let (device, owner) = owner_of(address)?;
        let (block, on_device) = match owner {
            Owner::Device(block) => (block, true),
            Owner::PinnedHost(block) => (block, false),
            Owner::Unregistered => return Err(Fault::InvalidValue),
        };
        let Block { address: start, bytes } = block;
        match number {
            1 => data.of::<u64>().set(context_of(number_of(device))),
            2 => data.of::<u32>().set(if on_device { 2 } else { 1 }),
            3 => data.of::<u64>().set(address),
            4 if !on_device => data.of::<u64>().set(address),
            6 | 8 | 10 | 15 => data.of::<u8>().set(0), // synchronous copies, managed, old IPC, RDMA
            7 => data.of::<u64>().set(start),
            9 => data.of::<i32>().set(number_of(device)),
            11 => data.of::<u64>().set(start),
            12 => data.of::<u64>().set(bytes),
            13 => data.of::<u8>().set(1),
            14 => data.of::<u64>().set(0),
            _ => Err(Fault::InvalidValue),
        }
    }

    fn cuMemGetAllocationGranularity(bytes: Out<usize>, properties: Given<AllocationProperties>, _option: i32) {
        device_for(properties)?;
        bytes.set(LARGE_GRANULE_BYTES as usize)
    }

    fn cuMemAddressReserve(address: Out<u64>, bytes: usize, alignment: usize, _wish: u64, _flags: u64) {
        let reserved = active_device()?.with_virtual_memory(|memory, _, space| memory.reserve(bytes as u64, alignment as u64, space))?;
        address.set(reserved)
    }

    fn cuMemAddressFree(address: u64, bytes: usize) {
        device_with(address)?.with_virtual_memory(|memory, _, space| memory.free_reservation(address, bytes as u64, space))
    }

    fn cuMemCreate(handle: Out<u64>, bytes: usize, properties: Given<AllocationProperties>, _flags: u64) {
        let device = device_for(properties)?;
        handle.set(noted(device, device.create(bytes as u64))?)
    }

    fn cuMemRetainAllocationHandle(handle: Out<u64>, address: u64) {
        let held = device_with(address)?.with_virtual_memory(|memory, _, _| memory.retain(address))?;
        handle.set(held)
    }

    fn cuMemRelease(handle: u64) {
        device_of(handle)?.with_virtual_memory(|memory, ledger, _| memory.release(handle, ledger))
    }

    fn cuMemMap(address: u64, bytes: usize, offset: usize, handle: u64, _flags: u64) {
        device_with(address)?.with_virtual_memory(|memory, _, _| memory.map(address, bytes as u64, offset as u64, handle))
    }

    fn cuMemUnmap(address: u64, bytes: usize) {
        device_with(address)?.with_virtual_memory(|memory, ledger, space| memory.unmap(address, bytes as u64, ledger, space))
    }

    fn cuMemSetAccess(address: u64, bytes: usize, _access: u64, _count: usize) {
        device_with(address)?.with_virtual_memory(|memory, _, _| memory.check_mapped(address, bytes as u64))
    }
}

const _: () = assert!(size_of::<AllocationProperties>() == 32, "as in cuda.h");

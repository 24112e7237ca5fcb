//! Devices, contexts, and memory by `cudaMalloc`'s rules.

use std::cell::RefCell;
use std::sync::Mutex;

use super::error::{answer, ready};
use crate::cudart::{CUDA_VERSION, attribute, driver_texts, fill_words};
use crate::device::{Block, Fault, Owner, lock};
use crate::devices::{
    activate, active_device, current, device, device_at, device_count, device_of, device_that, number_of, owner_of, set_current,
};
use crate::ffi::{GivenText, Handle, Out, OutText, StaticText, Untyped, own_function};
use crate::report::{asked_free, noted};
use crate::unsupported;

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

// These are answered before `cuInit` as well.
exports! { answer;
    fn cuInit(_flags: u32) {
        device().map(drop)
    }

    fn cuDriverGetVersion(version: Out<i32>) {
        version.set(CUDA_VERSION)
    }

    fn cuGetErrorString(code: i32, string: Out<StaticText>) {
        string.set(driver_texts(code).ok_or(Fault::InvalidValue)?.1)
    }

    fn cuGetErrorName(code: i32, name: Out<StaticText>) {
        name.set(driver_texts(code).ok_or(Fault::InvalidValue)?.0)
    }

    fn cuGetProcAddress_v2(name: GivenText, function: Out<u64>, version: i32, _flags: u64, status: Out<i32>) {
        let name = name.get().ok_or(Fault::InvalidValue)?;
        let found = own_function(&name, version >= CUDA_VERSION);
        if found.is_none() {
            unsupported::declined(&name);
        }
        function.set(found.unwrap_or(0))?;
        status.set_if_wanted(i32::from(found.is_none()));
        Ok(())
    }
}

exports! { answer, ready;
    fn cuDeviceGetCount(count: Out<i32>) {
        count.set(device_count())
    }

    fn cuDeviceGet(device: Out<i32>, ordinal: i32) {
        device_at(ordinal)?;
        device.set(ordinal)
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

    fn cuCtxSetCurrent(context: Handle) {
        if context == 0 { Ok(()) } else { set_current(device_in(context)?) }
    }

    fn cuCtxPushCurrent_v2(context: Handle) {
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

    fn cuMemAlloc_v2(address: Out<u64>, bytes: usize) {
        let device = active_device()?;
        address.set(noted(device, device.allocate(bytes as u64))?)
    }

    fn cuMemFree_v2(address: u64) {
        let device = device_that(|device| matches!(device.owner_of(address), Owner::Device(_) | Owner::Managed(_)))?;
        if address == 0 { Ok(()) } else { device.free(address) }
    }

    fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) {
        let device = active_device()?;
        asked_free(device);
        let (free_bytes, total_bytes) = device.free_and_total_bytes();
        free.set(free_bytes as usize)?;
        total.set(total_bytes as usize)
    }

    fn cuMemGetAddressRange_v2(base: Out<u64>, bytes: Out<usize>, address: u64) {
        let (_, Owner::Device(block)) = owner_of(address)? else { return Err(Fault::InvalidValue) };
        base.set_if_wanted(block.address);
        bytes.set_if_wanted(block.bytes as usize);
        Ok(())
    }
}

unsafe_exports! { answer, ready;
    fn cuDeviceGetName(name: OutText, room: i32, ordinal: i32) {
        name.set(&device_at(ordinal)?.name(), usize::try_from(room).map_err(|_| Fault::InvalidValue)?)
    }

    fn cuMemsetD32Async(address: u64, value: u32, count: usize, stream: Handle) {
        device_of(stream)?.streams().check(stream)?;
        fill_words(address, value, count, stream)
    }

    fn cuPointerGetAttribute(data: Untyped, number: i32, address: u64) {
        let (device, owner) = owner_of(address)?;
        let (block, on_device, is_managed) = match owner {
            Owner::Device(block) => (block, true, false),
            Owner::PinnedHost(block) => (block, false, false),
            // It counts as the device's, and the host reaches it as well.
            Owner::Managed(block) => (block, true, true),
            Owner::Unregistered => return Err(Fault::InvalidValue),
        };
        let Block { address: start, bytes } = block;
        // Each has the type that the header says: an address, an enumeration, a number or a truth.
        match number {
            1 => data.set(&context_of(number_of(device)).to_ne_bytes()),
            2 => data.set(&(if on_device { 2_u32 } else { 1 }).to_ne_bytes()),
            3 => data.set(&address.to_ne_bytes()),
            4 if !on_device || is_managed => data.set(&address.to_ne_bytes()),
            8 => data.set(&[u8::from(is_managed)]),
            6 | 10 | 15 => data.set(&[0]), // memory operations at once, old IPC, RDMA
            7 => data.set(&start.to_ne_bytes()),
            9 => data.set(&number_of(device).to_ne_bytes()),
            11 => data.set(&start.to_ne_bytes()),
            12 => data.set(&bytes.to_ne_bytes()),
            13 => data.set(&[1]),
            14 => data.set(&0_u64.to_ne_bytes()),
            _ => Err(Fault::InvalidValue),
        }
    }
}

//! Memory in the order of a stream, managed and page-locked memory, copies and fills.

use super::error::{answer, ready};
use crate::cudart::{
    BY_ADDRESS, DEVICE_TO_DEVICE, DEVICE_TO_HOST, HOST_TO_DEVICE, Location, advise, allocate_managed, copy_flat, fill, fill_words, prefetch,
};
use crate::device::{Fault, Owner};
use crate::devices::{active_device, device_of, device_that, host};
use crate::ffi::{Address, Handle, Out};
use crate::report::noted;

/// The stream of what is put on none.
const DEFAULT_STREAM: u64 = 0;

/// A copy that is over when the call returns.
///
/// # Safety
/// As for [`copy_flat`].
unsafe fn copy_now(to: u64, from: u64, bytes: usize, kind: i32) -> Result<(), Fault> {
    // SAFETY: as the caller says.
    unsafe { copy_flat(to, from, bytes, kind, DEFAULT_STREAM)? };
    active_device()?.synchronize_stream(DEFAULT_STREAM)
}

/// A copy in the order of a stream.
///
/// # Safety
/// As for [`copy_flat`].
unsafe fn copy_on(stream: u64, to: u64, from: u64, bytes: usize, kind: i32) -> Result<(), Fault> {
    device_of(stream)?.streams().check(stream)?;
    // SAFETY: as the caller says.
    unsafe { copy_flat(to, from, bytes, kind, stream) }
}

fn pin_new(address: Out<u64>, bytes: usize) -> Result<(), Fault> {
    address.set(host()?.pin_new(bytes as u64)?)
}

exports! { answer, ready;
    fn cuMemAllocAsync(address: Out<u64>, bytes: usize, stream: Handle) {
        let device = active_device()?;
        device.streams().check(stream)?;
        address.set(noted(device, device.allocate_async(bytes as u64, stream))?)
    }

    fn cuMemFreeAsync(address: u64, stream: Handle) {
        device_of(stream)?.streams().check(stream)?;
        device_that(|device| matches!(device.owner_of(address), Owner::Device(_)))?.free_async(address, stream)
    }

    fn cuMemAllocManaged(address: Out<u64>, bytes: usize, flags: u32) {
        allocate_managed(address, bytes, flags)
    }

    // The first version has the number of a device for the place; who was built for CUDA 13 means the second.
    fn cuMemPrefetchAsync(address: u64, bytes: usize, to: i32, stream: Handle) {
        prefetch(address, bytes, Location::of_device(to), stream)
    }

    fn cuMemPrefetchAsync_v2(address: u64, bytes: usize, to: Location, _flags: u32, stream: Handle) {
        prefetch(address, bytes, to, stream)
    }

    fn cuMemAdvise(address: u64, bytes: usize, _advice: i32, _device: i32) {
        advise(address, bytes)
    }

    fn cuMemAdvise_v2(address: u64, bytes: usize, _advice: i32, _place: Location) {
        advise(address, bytes)
    }

    fn cuStreamAttachMemAsync(stream: Handle, address: u64, _bytes: usize, _flags: u32) {
        device_of(stream)?.streams().check(stream)?;
        advise(address, 0)
    }

    fn cuMemHostAlloc(address: Out<u64>, bytes: usize, _flags: u32) {
        pin_new(address, bytes)
    }

    fn cuMemAllocHost_v2(address: Out<u64>, bytes: usize) {
        pin_new(address, bytes)
    }

    fn cuMemFreeHost(address: Address) {
        host()?.free_pinned(address)
    }

    fn cuMemHostRegister_v2(address: Address, bytes: usize, _flags: u32) {
        host()?.register_host(address, bytes as u64)
    }

    fn cuMemHostUnregister(address: Address) {
        host()?.unregister_host(address)
    }
}

unsafe_exports! { answer, ready;
    fn cuMemcpyHtoD_v2(to: u64, from: Address, bytes: usize) {
        copy_now(to, from, bytes, HOST_TO_DEVICE)
    }

    fn cuMemcpyDtoH_v2(to: Address, from: u64, bytes: usize) {
        copy_now(to, from, bytes, DEVICE_TO_HOST)
    }

    fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) {
        copy_now(to, from, bytes, DEVICE_TO_DEVICE)
    }

    fn cuMemcpy(to: u64, from: u64, bytes: usize) {
        copy_now(to, from, bytes, BY_ADDRESS)
    }

    fn cuMemcpyHtoDAsync_v2(to: u64, from: Address, bytes: usize, stream: Handle) {
        copy_on(stream, to, from, bytes, HOST_TO_DEVICE)
    }

    fn cuMemcpyDtoHAsync_v2(to: Address, from: u64, bytes: usize, stream: Handle) {
        copy_on(stream, to, from, bytes, DEVICE_TO_HOST)
    }

    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: Handle) {
        copy_on(stream, to, from, bytes, DEVICE_TO_DEVICE)
    }

    fn cuMemcpyAsync(to: u64, from: u64, bytes: usize, stream: Handle) {
        copy_on(stream, to, from, bytes, BY_ADDRESS)
    }

    fn cuMemcpyPeerAsync(to: u64, _to_context: Handle, from: u64, _from_context: Handle, bytes: usize, stream: Handle) {
        copy_on(stream, to, from, bytes, DEVICE_TO_DEVICE)
    }

    fn cuMemsetD8_v2(address: u64, value: u8, bytes: usize) {
        fill(address, value.into(), bytes, DEFAULT_STREAM)
    }

    fn cuMemsetD8Async(address: u64, value: u8, bytes: usize, stream: Handle) {
        device_of(stream)?.streams().check(stream)?;
        fill(address, value.into(), bytes, stream)
    }

    fn cuMemsetD32_v2(address: u64, value: u32, count: usize) {
        fill_words(address, value, count, DEFAULT_STREAM)
    }
}

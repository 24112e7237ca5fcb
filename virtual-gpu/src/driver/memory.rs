//! Memory in the order of a stream, page-locked memory, copies and fills.

use super::error::answer;
use crate::cudart::{BY_ADDRESS, DEVICE_TO_DEVICE, DEVICE_TO_HOST, HOST_TO_DEVICE, copy_flat, fill, fill_words};
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

exports! { answer;
    fn cuMemAllocAsync(address: Out<u64>, bytes: usize, stream: Handle) {
        let device = active_device()?;
        device.streams().check(stream)?;
        address.set(noted(device, device.allocate_async(bytes as u64, stream))?)
    }

    fn cuMemFreeAsync(address: u64, stream: Handle) {
        device_of(stream)?.streams().check(stream)?;
        device_that(|device| matches!(device.owner_of(address), Owner::Device(_)))?.free_async(address, stream)
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

unsafe_exports! { answer;
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

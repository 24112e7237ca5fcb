//! Managed memory: host and device reach it at the same address, and the driver moves it to where it is used.
//!
//! It lies on the host, and goes to the device as far as there is room, from where it is moved away again for what needs the room. So it takes nothing from the device's memory that a
//! program could lack, and is not counted there. A prefetch takes the time of a copy where the block is not there yet.

use super::error::answer;
use super::version::is_cuda_12;
use crate::device::{Engine, Fault, Owner};
use crate::devices::{active_device, device_at, device_of, host, owner_of};
use crate::ffi::{Address, Handle, Out};

/// `cudaMemAttachGlobal` and `cudaMemAttachHost`.
const ATTACH: std::ops::RangeInclusive<u32> = 1..=2;
/// `cudaMemLocationTypeDevice`, and the first and last of the host's.
const ON_DEVICE: i32 = 1;
const ON_HOST: std::ops::RangeInclusive<i32> = 2..=4;
/// `cudaCpuDeviceId`.
const HOST_ID: i32 = -1;

/// `cudaMemLocation`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Location {
    kind: i32,
    id: i32,
}

impl Location {
    /// The place of a device's number, as CUDA 12 says it.
    pub(crate) fn of_device(number: i32) -> Self {
        if number == HOST_ID { Self { kind: *ON_HOST.start(), id: 0 } } else { Self { kind: ON_DEVICE, id: number } }
    }

    /// Whether it is a device, which has to be there.
    fn is_device(self) -> Result<bool, Fault> {
        match self.kind {
            ON_DEVICE => device_at(self.id).map(|_| true),
            kind if ON_HOST.contains(&kind) => Ok(false),
            _ => Err(Fault::InvalidValue),
        }
    }
}

/// `cudaMallocManaged`.
pub(crate) fn allocate(address: Out<u64>, bytes: usize, flags: u32) -> Result<(), Fault> {
    active_device()?;
    if bytes == 0 || address.is_null() || !ATTACH.contains(&flags) {
        return Err(Fault::InvalidValue);
    }
    address.set(host()?.allocate_managed(bytes as u64)?)
}

/// The first address of the managed block that holds this range.
fn block(address: u64, bytes: usize) -> Result<u64, Fault> {
    match owner_of(address)? {
        (_, Owner::Managed(block)) if bytes as u64 <= block.bytes - (address - block.address) => Ok(block.address),
        _ => Err(Fault::InvalidValue),
    }
}

/// `cudaMemPrefetchAsync`.
pub(crate) fn prefetch(address: u64, bytes: usize, to: Location, stream: u64) -> Result<(), Fault> {
    let device = device_of(stream)?;
    device.streams().check(stream)?;
    let (block, to_device) = (block(address, bytes)?, to.is_device()?);
    if host()?.moves_managed(block, to_device) {
        let engine = if to_device { Engine::ToDevice } else { Engine::ToHost };
        device.transfer(stream, engine, bytes as u64, true, None)?;
    }
    Ok(())
}

/// `cudaMemAdvise`: where it is used most is no concern here.
pub(crate) fn advise(address: u64, bytes: usize) -> Result<(), Fault> {
    block(address, bytes).map(drop)
}

exports! { answer;
    fn cudaMallocManaged(address: Out<u64>, bytes: usize, flags: u32) {
        allocate(address, bytes, flags)
    }

    // CUDA 12 has the number of a device for the place, and then the stream.
    fn cudaMemPrefetchAsync(address: Address, bytes: usize, to: Location, flags_or_stream: u64, stream: Handle) {
        if is_cuda_12() {
            prefetch(address, bytes, Location::of_device(to.kind), flags_or_stream)
        } else {
            prefetch(address, bytes, to, stream)
        }
    }

    fn cudaMemPrefetchAsync_v2(address: Address, bytes: usize, to: Location, _flags: u32, stream: Handle) {
        prefetch(address, bytes, to, stream)
    }

    fn cudaMemAdvise(address: Address, bytes: usize, _advice: i32, _place: Location) {
        advise(address, bytes)
    }

    fn cudaMemAdvise_v2(address: Address, bytes: usize, _advice: i32, _place: Location) {
        advise(address, bytes)
    }

    fn cudaStreamAttachMemAsync(stream: Handle, address: Address, _bytes: usize, _flags: u32) {
        device_of(stream)?.streams().check(stream)?;
        block(address, 0).map(drop)
    }
}

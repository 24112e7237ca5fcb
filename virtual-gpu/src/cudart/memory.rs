//! Device memory, pinned host memory, and copies between them.
//!
//! # Note: which copies are done
//! A copy or a fill of up to 64 KiB is done: time steps, sigmas, sizes and flags travel to the device and back, and
//! programs decide by them. A larger one is skipped, because it is only data, and data means nothing here; doing it
//! would put memory behind address space that must stay free of charge. Both are checked and counted alike.

use super::error::answer;
use crate::decisions::value_read;
use crate::device::{Block, Deed, Device, Engine, Fault, Operation, Owner};
use crate::devices::{active_device, current, device_of, device_that, host, number_of, owner_of};
use crate::ffi::{Address, Handle, Out, clear, fill as fill_place, move_bytes};
use crate::operations::{reads_own_results, running_operation};
use crate::report::{asked_free, noted};

/// The largest copy or fill that is done.
pub(crate) const SMALL_COPY_BYTES: u64 = 64 << 10;

/// `cudaMemcpyKind`.
const HOST_TO_HOST: i32 = 0;
pub(crate) const HOST_TO_DEVICE: i32 = 1;
pub(crate) const DEVICE_TO_HOST: i32 = 2;
pub(crate) const DEVICE_TO_DEVICE: i32 = 3;
pub(crate) const BY_ADDRESS: i32 = 4;

/// The stream of what is put on none. A copy there is over when the call returns.
pub(super) const DEFAULT_STREAM: u64 = 0;

/// `cudaPointerAttributes` as CUDA 12 has it. CUDA 13's ends in 64 more bytes, which are reserved and left as they are: a program for CUDA 12 has no room for them.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct PointerAttributes {
    kind: i32,
    device: i32,
    device_pointer: u64,
    host_pointer: u64,
}

/// Whether the address is a device's; if so all of the range must be inside one of its blocks.
pub(crate) fn on_device(address: u64, bytes: u64) -> Result<bool, Fault> {
    match owner_of(address)? {
        (device, Owner::Device(Block { address: start, bytes: length })) => {
            if bytes <= length - (address - start) {
                Ok(true)
            } else {
                spans_mappings(device, address, bytes)
            }
        }
        (_, Owner::Managed(block)) if bytes <= block.bytes - (address - block.address) => Ok(true),
        (_, Owner::Managed(_)) => Err(Fault::InvalidValue),
        (_, Owner::PinnedHost(_) | Owner::Unregistered) => Ok(false),
    }
}

/// Whether the address is the host's: managed memory is both's.
fn on_host(address: u64) -> Result<bool, Fault> {
    Ok(!matches!(owner_of(address)?, (_, Owner::Device(_))))
}

/// Whether the address is one that we handed out, and has not been given back: what was captured may be done there.
fn is_ours(address: u64, bytes: u64) -> Result<bool, Fault> {
    Ok(match owner_of(address)? {
        (_, Owner::Unregistered) => false,
        (_, Owner::PinnedHost(block)) => bytes <= block.bytes - (address - block.address),
        _ => on_device(address, bytes)?,
    })
}

/// An expandable segment is many mappings side by side, and a copy may cross from one to the next.
fn spans_mappings(device: &Device, address: u64, bytes: u64) -> Result<bool, Fault> {
    device.with_virtual_memory(|memory, _, _| memory.check_mapped(address, bytes)).map(|()| true)
}

/// A copy of `rows` rows; one row is the plain copy.
pub(crate) struct Copy2d {
    pub(crate) destination: u64,
    pub(crate) destination_pitch: u64,
    pub(crate) source: u64,
    pub(crate) source_pitch: u64,
    pub(crate) row_bytes: u64,
    pub(crate) rows: u64,
    pub(crate) kind: i32,
    pub(crate) stream: u64,
}

/// Checks, counts and, where it is small, does a copy.
///
/// # Safety
/// What is not a device's holds the bytes that the copy says, and nobody frees or changes either side before it is done.
pub(crate) unsafe fn copy(copy: &Copy2d) -> Result<(), Fault> {
    let device = device_of(copy.stream)?;
    let bytes = copy.row_bytes.checked_mul(copy.rows).ok_or(Fault::InvalidValue)?;
    if bytes == 0 {
        return Ok(());
    }
    let reach = |pitch: u64| (copy.rows - 1).checked_mul(pitch).and_then(|all| all.checked_add(copy.row_bytes)).ok_or(Fault::InvalidValue);
    if copy.destination == 0 || copy.source == 0 {
        return Err(Fault::InvalidValue);
    }
    let (read, written) = (reach(copy.source_pitch)?, reach(copy.destination_pitch)?);
    let from_device = on_device(copy.source, read)?;
    let to_device = on_device(copy.destination, written)?;
    let in_host = on_host(copy.source)? && on_host(copy.destination)?;
    let as_told = match copy.kind {
        HOST_TO_HOST => in_host,
        HOST_TO_DEVICE => to_device,
        DEVICE_TO_HOST => from_device,
        DEVICE_TO_DEVICE => from_device && to_device,
        BY_ADDRESS => true,
        _ => return Err(Fault::InvalidDirection),
    };
    if !as_told {
        return Err(Fault::InvalidValue);
    }
    let is_small = bytes <= SMALL_COPY_BYTES;
    let deed = (is_small && is_ours(copy.source, read)? && is_ours(copy.destination, written)?).then_some(Deed::Copy {
        to: (copy.destination, copy.destination_pitch),
        from: (copy.source, copy.source_pitch),
        rows: (copy.row_bytes, copy.rows),
    });
    let mut is_done_now = true;
    let mut is_nothing = false;
    let (stream, reads, writes) = (copy.stream, [(copy.source, read)], [(copy.destination, written)]);
    let is_pinned = |address: u64| Ok(matches!(owner_of(address)?, (_, Owner::PinnedHost(_))));
    match (from_device, to_device) {
        (false, true) => {
            is_done_now = device.transfer(stream, Engine::ToDevice, bytes, is_pinned(copy.source)?, deed)?;
            device.counters.copied_to_device(bytes);
            device.trace.note(|| Operation::CopyToDevice { stream, writes });
        }
        (true, false) => {
            is_done_now = device.transfer(stream, Engine::ToHost, bytes, is_pinned(copy.destination)?, deed)?;
            device.counters.copied_to_host(bytes);
            if is_small && is_done_now {
                let operation = running_operation();
                value_read(operation.as_deref());
                device.counters.value_read(operation);
                is_nothing = copy.rows == 1 && reads_own_results();
            }
            device.trace.note(|| Operation::CopyToHost { stream, reads });
        }
        (true, true) => {
            is_done_now = device.transfer(stream, Engine::Compute, 2 * bytes, true, deed)?;
            device.trace.note(|| Operation::CopyOnDevice { stream, reads, writes });
        }
        (false, false) => {}
    }
    // Between two places of the host nothing is virtual.
    if is_nothing {
        // SAFETY: the caller has the place.
        unsafe { fill_place(copy.destination, 0_u8, copy.row_bytes as usize) };
    } else if is_done_now && (is_small || in_host) {
        // SAFETY: of a device's side the books have it, of the host's the caller.
        unsafe { move_rows((copy.destination, copy.destination_pitch), (copy.source, copy.source_pitch), (copy.row_bytes, copy.rows)) };
    }
    Ok(())
}

/// Moves rows of bytes.
///
/// # Safety
/// As for [`copy`].
unsafe fn move_rows(to: (u64, u64), from: (u64, u64), (row_bytes, rows): (u64, u64)) {
    for row in 0..rows {
        let place = |(start, pitch): (u64, u64)| start.wrapping_add(row.wrapping_mul(pitch));
        // SAFETY: as the caller says.
        unsafe { move_bytes(place(to), place(from), row_bytes as usize) };
    }
}

/// Does a copy that was captured, if both places are still there.
///
/// # Safety
/// As for [`copy`].
pub(super) unsafe fn copy_now(to: (u64, u64), from: (u64, u64), rows: (u64, u64)) -> Result<(), Fault> {
    let reach = |pitch: u64| (rows.1 - 1) * pitch + rows.0;
    if is_ours(to.0, reach(to.1))? && is_ours(from.0, reach(from.1))? {
        // SAFETY: the books have both places.
        unsafe { move_rows(to, from, rows) };
    }
    Ok(())
}

/// Does a fill that was captured, if the place is still there.
///
/// # Safety
/// As for [`fill`].
pub(super) unsafe fn fill_now(address: u64, value: u32, count: usize, wide: bool) -> Result<(), Fault> {
    let bytes = count as u64 * if wide { 4 } else { 1 };
    if is_ours(address, bytes)? {
        // SAFETY: the books have the place, which was seen to be aligned.
        unsafe { if wide { fill_place(address, value, count) } else { fill_place(address, value as u8, count) } };
    }
    Ok(())
}

/// A copy of bytes side by side.
///
/// # Safety
/// As for [`copy`].
pub(crate) unsafe fn copy_flat(destination: u64, source: u64, bytes: usize, kind: i32, stream: u64) -> Result<(), Fault> {
    let bytes = bytes as u64;
    let whole = Copy2d { destination, destination_pitch: bytes, source, source_pitch: bytes, row_bytes: bytes, rows: 1, kind, stream };
    // SAFETY: as the caller says.
    unsafe { copy(&whole) }
}

/// Checks a fill. True where it is small enough to be done, and not captured.
fn may_fill(address: u64, bytes: u64, stream: u64, deed: Deed) -> Result<bool, Fault> {
    let device = device_of(stream)?;
    let is_small = bytes <= SMALL_COPY_BYTES;
    if bytes > 0 {
        if on_device(address, bytes)? {
            if !device.fill(stream, bytes, is_small.then_some(deed)) {
                return Ok(false);
            }
            device.trace.note(|| Operation::Fill { stream, writes: [(address, bytes)] });
        } else if !is_pinned(address, bytes)? {
            return Err(Fault::InvalidValue);
        }
    }
    Ok(is_small)
}

/// Whether all of the range is page-locked memory of the host.
fn is_pinned(address: u64, bytes: u64) -> Result<bool, Fault> {
    let (_, Owner::PinnedHost(block)) = owner_of(address)? else { return Ok(false) };
    Ok(bytes <= block.bytes - (address - block.address))
}

/// A fill by bytes.
///
/// # Safety
/// Nobody frees the place, and nobody reads or changes it before this is done.
pub(crate) unsafe fn fill(address: u64, value: i32, bytes: usize, stream: u64) -> Result<(), Fault> {
    if may_fill(address, bytes as u64, stream, Deed::Fill { address, value: value.cast_unsigned(), count: bytes, wide: false })? {
        // As with C's memset, only the low byte of the value counts.
        // SAFETY: the books have the place, and the caller keeps it.
        unsafe { fill_place(address, value as u8, bytes) };
    }
    Ok(())
}

/// A fill by 32-bit words.
///
/// # Safety
/// As for [`fill`].
pub(crate) unsafe fn fill_words(address: u64, value: u32, count: usize, stream: u64) -> Result<(), Fault> {
    let bytes = (count as u64).checked_mul(4).filter(|_| address.is_multiple_of(4)).ok_or(Fault::InvalidValue)?;
    if may_fill(address, bytes, stream, Deed::Fill { address, value, count, wide: true })? {
        // SAFETY: as above, and the address is a multiple of 4.
        unsafe { fill_place(address, value, count) };
    }
    Ok(())
}

/// Forgets what was written to a place that the program's own allocator has given out anew, where that may have been looked at: it reads as zeros again.
///
/// # Safety
/// As for [`fill`].
pub(crate) unsafe fn forget(address: u64, bytes: usize) -> Result<(), Fault> {
    if bytes as u64 <= SMALL_COPY_BYTES && on_device(address, bytes as u64)? {
        // SAFETY: the books have the place, and the caller keeps it.
        unsafe { clear(address, bytes) };
    }
    Ok(())
}

fn check_stream(stream: u64) -> Result<(), Fault> {
    device_of(stream)?.streams().check(stream)
}

exports! { answer;
    fn cudaMalloc(address: Out<u64>, bytes: usize) {
        let device = active_device()?;
        if bytes == 0 {
            return address.set(0);
        }
        if address.is_null() {
            return Err(Fault::InvalidValue);
        }
        address.set(noted(device, device.allocate(bytes as u64))?)
    }

    fn cudaFree(address: Address) {
        let device = device_that(|device| matches!(device.owner_of(address), Owner::Device(_) | Owner::Managed(_)))?;
        if address == 0 { Ok(()) } else { device.free(address) }
    }

    fn cudaMemGetInfo(free: Out<usize>, total: Out<usize>) {
        let device = active_device()?;
        asked_free(device);
        let (free_bytes, total_bytes) = device.free_and_total_bytes();
        free.set(free_bytes as usize)?;
        total.set(total_bytes as usize)
    }

    fn cudaHostAlloc(address: Out<u64>, bytes: usize, _flags: u32) {
        pin_new(address, bytes)
    }

    fn cudaMallocHost(address: Out<u64>, bytes: usize) {
        pin_new(address, bytes)
    }

    fn cudaFreeHost(address: Address) {
        let host = host()?;
        if address == 0 { Ok(()) } else { host.free_pinned(address) }
    }

    fn cudaHostRegister(address: Address, bytes: usize, _flags: u32) {
        host()?.register_host(address, bytes as u64)
    }

    fn cudaHostUnregister(address: Address) {
        host()?.unregister_host(address)
    }

    fn cudaHostGetDevicePointer(on_device: Out<u64>, on_host: Address, _flags: u32) {
        match owner_of(on_host)? {
            (_, Owner::PinnedHost(_) | Owner::Managed(_)) => on_device.set(on_host),
            (_, Owner::Device(_) | Owner::Unregistered) => Err(Fault::InvalidValue),
        }
    }

    fn cudaPointerGetAttributes(attributes: Out<PointerAttributes>, address: Address) {
        // `cudaMemoryTypeUnregistered`, `Host`, `Device` and `Managed`; no device is -2 (`cudaInvalidDeviceId`).
        let (device, owner) = owner_of(address)?;
        let (kind, ordinal, device_pointer, host_pointer) = match owner {
            Owner::Unregistered => (0, -2, 0, address),
            Owner::PinnedHost(_) => (1, current()?, address, address),
            Owner::Device(_) => (2, number_of(device), address, 0),
            Owner::Managed(_) => (3, current()?, address, address),
        };
        attributes.set(PointerAttributes { kind, device: ordinal, device_pointer, host_pointer })
    }
}

unsafe_exports! { answer;
    fn cudaMemcpy(destination: Address, source: Address, bytes: usize, kind: i32) {
        copy_flat(destination, source, bytes, kind, DEFAULT_STREAM)?;
        active_device()?.synchronize_stream(DEFAULT_STREAM)
    }

    fn cudaMemcpyAsync(destination: Address, source: Address, bytes: usize, kind: i32, stream: Handle) {
        check_stream(stream)?;
        copy_flat(destination, source, bytes, kind, stream)
    }

    fn cudaMemcpyPeerAsync(destination: Address, _to: i32, source: Address, _from: i32, bytes: usize, stream: Handle) {
        check_stream(stream)?;
        copy_flat(destination, source, bytes, DEVICE_TO_DEVICE, stream)
    }

    fn cudaMemcpy2DAsync(
        destination: Address, destination_pitch: usize, source: Address, source_pitch: usize, row_bytes: usize, rows: usize, kind: i32,
        stream: Handle,
    ) {
        check_stream(stream)?;
        if rows > 1 && (destination_pitch < row_bytes || source_pitch < row_bytes) {
            return Err(Fault::InvalidValue);
        }
        copy(&Copy2d {
            destination,
            destination_pitch: destination_pitch as u64,
            source,
            source_pitch: source_pitch as u64,
            row_bytes: row_bytes as u64,
            rows: rows as u64,
            kind,
            stream,
        })
    }

    fn cudaMemset(address: Address, value: i32, bytes: usize) {
        fill(address, value, bytes, DEFAULT_STREAM)
    }

    fn cudaMemsetAsync(address: Address, value: i32, bytes: usize, stream: Handle) {
        check_stream(stream)?;
        fill(address, value, bytes, stream)
    }
}

fn pin_new(address: Out<u64>, bytes: usize) -> Result<(), Fault> {
    let host = host()?;
    if bytes == 0 {
        return address.set(0);
    }
    address.set(host.pin_new(bytes as u64)?)
}

//! `libnccl.so.2`: communicators and what they are asked for. Each call is checked, counted as work on its stream, and not carried out.
//!
//! # Note: ranks do not meet
//! A rank is often another process, and no call waits for one: nothing can hang, and nothing arrives. What a program reads back must still make
//! sense, since it decides by sizes and flags that it gathered. So up to 64 KiB a rank receives what it would if every rank had sent what it sent
//! itself: a gathering has as many copies, a reduction is the own part. What only another rank could know stays as it is: the result of a
//! broadcast on all ranks but the root, and of a receive.
//!
//! What NCCL takes of the device for its own buffers depends on channels and connections between real cards. It is not counted.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::process;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cudart::{SMALL_COPY_BYTES, on_device};
use crate::device::{Device, Fault, Handles, Owner, Work, lock};
use crate::ffi::{self, Given, Out, StaticText, text};
use crate::process::{active_device, current, device_that, launch_on, noted, number_of, set_current};

/// 2.29.7, the version that PyTorch 2.13 was built with.
const VERSION: i32 = 22907;
/// `ncclUnhandledCudaError`, `ncclInvalidArgument` and `ncclInvalidUsage`.
const CUDA_ERROR: i32 = 1;
const INVALID_ARGUMENT: i32 = 4;
const INVALID_USAGE: i32 = 5;

fn answer(result: Result<(), Fault>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(Fault::NoDevice | Fault::OutOfMemory | Fault::NotWhileCapturing) => CUDA_ERROR,
        Err(Fault::IllegalState | Fault::NotSupported) => INVALID_USAGE,
        Err(_) => INVALID_ARGUMENT,
    }
}

/// `ncclUniqueId`: what ranks find each other by.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct UniqueId([u8; 128]);

impl UniqueId {
    /// One that no other process of this machine makes at the same time, nor this one again.
    fn new() -> Self {
        static MADE: AtomicU64 = AtomicU64::new(1);
        let mut id = [0; 128];
        id[..8].copy_from_slice(&u64::from(process::id()).to_ne_bytes());
        id[8..16].copy_from_slice(&MADE.fetch_add(1, Ordering::Relaxed).to_ne_bytes());
        Self(id)
    }
}

/// One rank.
#[derive(Clone, Copy)]
struct Communicator {
    device: &'static Device,
    rank: i32,
    size: i32,
    is_finalized: bool,
}

static COMMUNICATORS: Mutex<Handles<Communicator>> = Mutex::new(Handles::new());

/// Communicators and reductions that were not destroyed.
pub(crate) fn handles() -> usize {
    lock(&COMMUNICATORS).count() + lock(&REDUCTIONS).count()
}

/// The ranks of this process, with their devices, by what they found each other by.
static RANKS: Mutex<BTreeMap<UniqueId, Vec<Communicator>>> = Mutex::new(BTreeMap::new());

/// Reductions that programs made themselves, after the five that NCCL has.
static REDUCTIONS: Mutex<Handles<()>> = Mutex::new(Handles::new());
const OWN_REDUCTIONS: i32 = 5;

/// `NCCL_SPLIT_NOCOLOR`: this rank is in no part.
const NO_COLOR: i32 = -1;

thread_local! {
    /// How many groups of calls are open.
    static GROUPS: Cell<u32> = const { Cell::new(0) };
}

/// A communicator that may still be used.
fn usable(handle: u64) -> Result<Communicator, Fault> {
    let communicator = *lock(&COMMUNICATORS).get(handle)?;
    if communicator.is_finalized { Err(Fault::IllegalState) } else { Ok(communicator) }
}

/// This thread's device as one rank. In one process neither a rank nor a device can be there twice.
fn join(id: UniqueId, rank: i32, size: i32) -> Result<u64, Fault> {
    let communicator = Communicator { device: active_device()?, rank, size, is_finalized: false };
    if !(0..size).contains(&rank) {
        return Err(Fault::InvalidValue);
    }
    let mut ranks = lock(&RANKS);
    let others = ranks.entry(id).or_default();
    if others.iter().any(|other| other.size != size) {
        return Err(Fault::InvalidValue);
    }
    if others.iter().any(|other| other.rank == rank || other.device.ordinal == communicator.device.ordinal) {
        return Err(Fault::IllegalState);
    }
    others.push(communicator);
    Ok(lock(&COMMUNICATORS).insert(communicator))
}

/// Each of the devices as one rank.
fn join_all(devices: &[i32]) -> Result<Vec<u64>, Fault> {
    let (before, id, size) = (current()?, UniqueId::new(), devices.len() as i32);
    let joined = (0..size).zip(devices).map(|(rank, &ordinal)| set_current(ordinal).and_then(|()| join(id, rank, size))).collect();
    set_current(before)?;
    joined
}

/// Bytes of an element of an `ncclDataType_t`.
fn element_bytes(data_type: i32) -> Result<u64, Fault> {
    Ok(match data_type {
        0 | 1 | 10 | 11 => 1, // integers and floats of 8 bits
        6 | 9 => 2,           // fp16, bf16
        2 | 3 | 7 => 4,
        4 | 5 | 8 => 8,
        _ => return Err(Fault::InvalidValue),
    })
}

/// A reduction is one of NCCL's or one of the program's.
fn check_reduction(operation: i32) -> Result<(), Fault> {
    if (0..OWN_REDUCTIONS).contains(&operation) {
        return Ok(());
    }
    lock(&REDUCTIONS).get(reduction_handle(operation)).copied()
}

fn reduction_handle(operation: i32) -> u64 {
    operation.saturating_sub(OWN_REDUCTIONS).cast_unsigned().into()
}

/// A call that is put on a stream of its communicator's device, once it was found to be right.
struct Call {
    communicator: Communicator,
    /// What each rank gives or gets.
    bytes: u64,
}

impl Call {
    fn new(handle: u64, count: usize, data_type: i32, stream: u64) -> Result<Self, Fault> {
        let communicator = usable(handle)?;
        let bytes = (count as u64).checked_mul(element_bytes(data_type)?).ok_or(Fault::InvalidValue)?;
        launch_on(communicator.device, stream, Work::UNKNOWN)?;
        Ok(Self { communicator, bytes })
    }

    /// As above, with a rank that the call names: a root or a partner.
    fn with(handle: u64, count: usize, data_type: i32, named: i32, stream: u64) -> Result<Self, Fault> {
        if !(0..usable(handle)?.size).contains(&named) {
            return Err(Fault::InvalidValue);
        }
        Self::new(handle, count, data_type, stream)
    }

    /// The part of a buffer that is that rank's.
    fn part(&self, buffer: u64, rank: i32) -> u64 {
        buffer + u64::from(rank.cast_unsigned()) * self.bytes
    }

    /// What arrives: see the note above.
    fn hand_over(&self, destination: u64, source: u64) -> Result<(), Fault> {
        if self.bytes == 0 || destination == source {
            return Ok(());
        }
        if on_device(destination, self.bytes)? && on_device(source, self.bytes)? && self.bytes <= SMALL_COPY_BYTES {
            ffi::move_bytes(destination, source, self.bytes as usize);
        }
        Ok(())
    }

    /// The same from every rank, each to its part.
    fn hand_over_from_all(&self, destination: u64, source: u64) -> Result<(), Fault> {
        (0..self.communicator.size).try_for_each(|rank| self.hand_over(self.part(destination, rank), source))
    }
}

exports! { answer;
    fn ncclGetVersion(version: Out<i32>) {
        version.set(VERSION)
    }

    fn ncclGetUniqueId(id: Out<UniqueId>) {
        id.set(UniqueId::new())
    }

    fn ncclCommInitAll(communicators: Out<u64>, count: i32, devices: Given<i32>) {
        let number = usize::try_from(count).ok().filter(|&count| count > 0 && !communicators.is_null()).ok_or(Fault::InvalidValue)?;
        let named = devices.to_vec(number);
        let devices = if named.is_empty() { (0..count).collect() } else { named };
        communicators.set_all(&join_all(&devices)?);
        Ok(())
    }

    fn ncclCommInitRank(communicator: Out<u64>, size: i32, id: UniqueId, rank: i32) {
        communicator.set(join(id, rank, size)?)
    }

    fn ncclCommInitRankConfig(communicator: Out<u64>, size: i32, id: UniqueId, rank: i32, _configuration: u64) {
        communicator.set(join(id, rank, size)?)
    }

    fn ncclCommInitRankScalable(communicator: Out<u64>, size: i32, rank: i32, _ids: i32, first: Given<UniqueId>, _configuration: u64) {
        communicator.set(join(first.get().ok_or(Fault::InvalidValue)?, rank, size)?)
    }

    // Who else has the colour is not known here: the part counts as large as the whole, and the key is the rank in it.
    fn ncclCommSplit(handle: u64, color: i32, key: i32, part: Out<u64>, _configuration: u64) {
        let whole = usable(handle)?;
        if color < NO_COLOR {
            return Err(Fault::InvalidValue);
        }
        let rank = if (0..whole.size).contains(&key) { key } else { whole.rank };
        part.set(if color == NO_COLOR { 0 } else { lock(&COMMUNICATORS).insert(Communicator { rank, ..whole }) })
    }

    fn ncclCommShrink(handle: u64, excluded: Given<i32>, count: i32, rest: Out<u64>, _configuration: u64, _flags: i32) {
        let whole = usable(handle)?;
        let excluded = excluded.to_vec(usize::try_from(count).map_err(|_| Fault::InvalidValue)?);
        if excluded.iter().any(|rank| !(0..whole.size).contains(rank) || *rank == whole.rank) {
            return Err(Fault::InvalidValue);
        }
        let before = excluded.iter().filter(|&&rank| rank < whole.rank).count() as i32;
        let communicator = Communicator { rank: whole.rank - before, size: whole.size - count, ..whole };
        rest.set(lock(&COMMUNICATORS).insert(communicator))
    }

    fn ncclCommFinalize(handle: u64) {
        usable(handle)?;
        lock(&COMMUNICATORS).get_mut(handle)?.is_finalized = true;
        Ok(())
    }

    fn ncclCommDestroy(handle: u64) {
        lock(&COMMUNICATORS).remove(handle).map(drop)
    }

    fn ncclCommAbort(handle: u64) {
        lock(&COMMUNICATORS).remove(handle).map(drop)
    }

    fn ncclCommGetAsyncError(handle: u64, error: Out<i32>) {
        lock(&COMMUNICATORS).get(handle)?;
        error.set(0)
    }

    fn ncclCommCount(handle: u64, size: Out<i32>) {
        size.set(lock(&COMMUNICATORS).get(handle)?.size)
    }

    fn ncclCommUserRank(handle: u64, rank: Out<i32>) {
        rank.set(lock(&COMMUNICATORS).get(handle)?.rank)
    }

    fn ncclCommCuDevice(handle: u64, device: Out<i32>) {
        device.set(number_of(lock(&COMMUNICATORS).get(handle)?.device))
    }

    fn ncclGroupStart() {
        GROUPS.set(GROUPS.get() + 1);
        Ok(())
    }

    fn ncclGroupEnd() {
        GROUPS.set(GROUPS.get().checked_sub(1).ok_or(Fault::IllegalState)?);
        Ok(())
    }

    fn ncclRedOpCreatePreMulSum(operation: Out<i32>, _scalar: u64, data_type: i32, _residence: i32, handle: u64) {
        usable(handle)?;
        element_bytes(data_type)?;
        operation.set(OWN_REDUCTIONS + lock(&REDUCTIONS).insert(()) as i32)
    }

    fn ncclRedOpDestroy(operation: i32, handle: u64) {
        lock(&COMMUNICATORS).get(handle)?;
        lock(&REDUCTIONS).remove(reduction_handle(operation))
    }

    fn ncclMemAlloc(address: Out<u64>, bytes: usize) {
        let device = active_device()?;
        address.set(noted(device, device.allocate(bytes as u64))?)
    }

    fn ncclMemFree(address: u64) {
        device_that(|device| matches!(device.owner_of(address), Owner::Device(_)))?.free(address)
    }

    fn ncclCommRegister(handle: u64, buffer: u64, bytes: usize, registration: Out<u64>) {
        usable(handle)?;
        on_device(buffer, bytes as u64)?;
        registration.set(buffer)
    }

    fn ncclCommDeregister(handle: u64, _registration: u64) {
        lock(&COMMUNICATORS).get(handle).map(drop)
    }

    fn ncclAllReduce(from: u64, to: u64, count: usize, data_type: i32, operation: i32, handle: u64, stream: u64) {
        check_reduction(operation)?;
        Call::new(handle, count, data_type, stream)?.hand_over(to, from)
    }

    fn ncclReduce(from: u64, to: u64, count: usize, data_type: i32, operation: i32, root: i32, handle: u64, stream: u64) {
        check_reduction(operation)?;
        let call = Call::with(handle, count, data_type, root, stream)?;
        if call.communicator.rank == root { call.hand_over(to, from) } else { Ok(()) }
    }

    fn ncclBroadcast(from: u64, to: u64, count: usize, data_type: i32, root: i32, handle: u64, stream: u64) {
        let call = Call::with(handle, count, data_type, root, stream)?;
        if call.communicator.rank == root { call.hand_over(to, from) } else { Ok(()) }
    }

    fn ncclBcast(_buffer: u64, count: usize, data_type: i32, root: i32, handle: u64, stream: u64) {
        Call::with(handle, count, data_type, root, stream).map(drop)
    }

    fn ncclAllGather(from: u64, to: u64, count: usize, data_type: i32, handle: u64, stream: u64) {
        Call::new(handle, count, data_type, stream)?.hand_over_from_all(to, from)
    }

    fn ncclGather(from: u64, to: u64, count: usize, data_type: i32, root: i32, handle: u64, stream: u64) {
        let call = Call::with(handle, count, data_type, root, stream)?;
        if call.communicator.rank == root { call.hand_over_from_all(to, from) } else { Ok(()) }
    }

    fn ncclScatter(from: u64, to: u64, count: usize, data_type: i32, root: i32, handle: u64, stream: u64) {
        let call = Call::with(handle, count, data_type, root, stream)?;
        if call.communicator.rank == root { call.hand_over(to, call.part(from, root)) } else { Ok(()) }
    }

    fn ncclReduceScatter(from: u64, to: u64, count: usize, data_type: i32, operation: i32, handle: u64, stream: u64) {
        check_reduction(operation)?;
        let call = Call::new(handle, count, data_type, stream)?;
        call.hand_over(to, call.part(from, call.communicator.rank))
    }

    fn ncclAlltoAll(from: u64, to: u64, count: usize, data_type: i32, handle: u64, stream: u64) {
        let call = Call::new(handle, count, data_type, stream)?;
        call.hand_over_from_all(to, call.part(from, call.communicator.rank))
    }

    fn ncclSend(_from: u64, count: usize, data_type: i32, to: i32, handle: u64, stream: u64) {
        Call::with(handle, count, data_type, to, stream).map(drop)
    }

    fn ncclRecv(_to: u64, count: usize, data_type: i32, from: i32, handle: u64, stream: u64) {
        Call::with(handle, count, data_type, from, stream).map(drop)
    }
}

#[unsafe(no_mangle)]
extern "C" fn ncclGetErrorString(code: i32) -> StaticText {
    text(match code {
        0 => c"no error",
        CUDA_ERROR => c"unhandled cuda error",
        INVALID_ARGUMENT => c"invalid argument",
        INVALID_USAGE => c"invalid usage, or not supported by the virtual GPU",
        _ => c"unrecognized error code",
    })
}

#[unsafe(no_mangle)]
extern "C" fn ncclGetLastError(_communicator: u64) -> StaticText {
    text(c"")
}

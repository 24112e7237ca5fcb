//! `libnccl.so.2`: communicators and what they are asked for. Each call is checked, counted as work on its stream, and not carried out.
//!
//! # Note: ranks exchange no data
//! A rank is often another process, and no call waits for its data: nothing arrives. (Its choice is waited for when a communicator is split, see `ranks`, and where the environment asks for that
//! its time, see `arrivals`.) What a program reads back must still make
//! sense, since it decides by sizes and flags that it gathered. So up to 64 KiB a rank receives what it would if every rank had sent what it sent
//! itself: a gathering has as many copies, a reduction is the own part. What only another rank could know stays as it is: the result of a
//! broadcast on all ranks but the root, and of a receive.
//!
//! What NCCL takes of the device for its own buffers depends on channels and connections between real cards. It is not counted.

mod arrivals;
mod ranks;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use ranks::{Rank, UniqueId, join, join_all, usable};

use crate::cudart::{SMALL_COPY_BYTES, on_device};
use crate::device::{Device, Fault, KernelWork, Owner};
use crate::devices::{active_device, device_that, launch_on, number_of};
use crate::ffi::{Address, Given, Handle, Out, StaticText, move_bytes, text};
use crate::handle_table::HandleTable;
use crate::report::noted;

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

/// Reductions that programs made themselves, after the five that NCCL has.
static REDUCTIONS: HandleTable<()> = HandleTable::of("nccl");
const OWN_REDUCTIONS: i32 = 5;

thread_local! {
    /// How many groups of calls are open.
    static GROUPS: Cell<u32> = const { Cell::new(0) };
    /// What the calls of the open groups send and receive.
    static TOGETHER: RefCell<Vec<Together>> = const { RefCell::new(Vec::new()) };
}

/// The bytes that a group of calls sends from a device and those that it receives there, which go at once.
struct Together {
    device: &'static Device,
    stream: u64,
    /// Sent, and received.
    bytes: [u64; 2],
    /// The communicator of the first of them.
    communicator: u64,
    /// The ranks of it that have to be there.
    partners: BTreeSet<i32>,
}

/// A group is over: what it sent and received takes as long as the larger of the two.
fn go_together() {
    for Together { device, stream, bytes: [sent, received], communicator, partners } in TOGETHER.take() {
        device.exchange(stream, sent.max(received), |own| ranks::all_there(communicator, own, partners.iter().copied()));
    }
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
    REDUCTIONS.lock().get(reduction_handle(operation)).copied()
}

fn reduction_handle(operation: i32) -> u64 {
    operation.saturating_sub(OWN_REDUCTIONS).cast_unsigned().into()
}

/// A call that is put on a stream of its communicator's device, once it was found to be right.
struct Call {
    communicator: u64,
    rank: Rank,
    /// What each rank gives or gets.
    bytes: u64,
    stream: u64,
}

impl Call {
    fn new(handle: u64, count: usize, data_type: i32, stream: u64) -> Result<Self, Fault> {
        let rank = usable(handle)?;
        let bytes = (count as u64).checked_mul(element_bytes(data_type)?).ok_or(Fault::InvalidValue)?;
        launch_on(rank.device, stream, KernelWork::UNKNOWN)?;
        Ok(Self { communicator: handle, rank, bytes, stream })
    }

    /// Takes the time in which so many times its bytes cross each rank's link, as NCCL's rings have it, where there are others to exchange them with.
    fn crossing(self, times: impl FnOnce(f64) -> f64) -> Result<Self, Fault> {
        if self.rank.size > 1 && self.bytes > 0 {
            let bytes = self.bytes as f64 * times(f64::from(self.rank.size));
            let Rank { device, number, size } = self.rank;
            let others = (0..size).filter(move |&other| other != number);
            device.exchange(self.stream, bytes as u64, |own| ranks::all_there(self.communicator, own, others));
        }
        Ok(self)
    }

    /// A send or a receive, which goes at the same time as the others of its group.
    fn go_with_group(self, partner: i32, is_received: bool) {
        let Self { communicator, rank: Rank { device, number, size }, bytes, stream } = self;
        if size == 1 || bytes == 0 {
            return;
        }
        TOGETHER.with_borrow_mut(|together| {
            let is_same = |other: &Together| other.device.ordinal == device.ordinal && other.stream == stream;
            let place = together.iter().position(is_same).unwrap_or_else(|| {
                together.push(Together { device, stream, bytes: [0; 2], communicator, partners: BTreeSet::new() });
                together.len() - 1
            });
            together[place].bytes[usize::from(is_received)] += bytes;
            if partner != number && together[place].communicator == communicator {
                together[place].partners.insert(partner);
            }
        });
        if GROUPS.get() == 0 {
            go_together();
        }
    }

    /// As [`Call::new`], with a rank that the call names: a root or a partner.
    fn with(handle: u64, count: usize, data_type: i32, named: i32, stream: u64) -> Result<Self, Fault> {
        if !(0..usable(handle)?.size).contains(&named) {
            return Err(Fault::InvalidValue);
        }
        Self::new(handle, count, data_type, stream)
    }

    /// The part of a buffer that is that rank's.
    fn part(&self, buffer: u64, rank: i32) -> u64 {
        buffer.wrapping_add(u64::from(rank.cast_unsigned()).wrapping_mul(self.bytes))
    }

    /// What arrives: see the note above.
    ///
    /// # Safety
    /// Nobody frees or changes what is sent and what is received meanwhile.
    unsafe fn hand_over(&self, destination: u64, source: u64) -> Result<(), Fault> {
        if self.bytes == 0 || destination == source {
            return Ok(());
        }
        if on_device(destination, self.bytes)? && on_device(source, self.bytes)? && self.bytes <= SMALL_COPY_BYTES {
            // SAFETY: the books have both places, and the caller keeps them.
            unsafe { move_bytes(destination, source, self.bytes as usize) };
        }
        Ok(())
    }

    /// The same from every rank, each to its part.
    ///
    /// # Safety
    /// As for [`Self::hand_over`].
    unsafe fn hand_over_from_all(&self, destination: u64, source: u64) -> Result<(), Fault> {
        // SAFETY: as the caller says.
        (0..self.rank.size).try_for_each(|rank| unsafe { self.hand_over(self.part(destination, rank), source) })
    }
}

exports! { answer;
    fn ncclGetVersion(version: Out<i32>) {
        version.set(VERSION)
    }

    fn ncclGetUniqueId(id: Out<UniqueId>) {
        id.set(UniqueId::new())
    }

    fn ncclCommInitRank(communicator: Out<u64>, size: i32, id: UniqueId, rank: i32) {
        communicator.set(join(id, rank, size)?)
    }

    fn ncclCommInitRankConfig(communicator: Out<u64>, size: i32, id: UniqueId, rank: i32, _configuration: Address) {
        communicator.set(join(id, rank, size)?)
    }

    fn ncclCommInitRankScalable(communicator: Out<u64>, size: i32, rank: i32, _ids: i32, first: Given<UniqueId>, _configuration: Address) {
        communicator.set(join(first.get().ok_or(Fault::InvalidValue)?, rank, size)?)
    }

    fn ncclCommSplit(handle: Handle, color: i32, key: i32, part: Out<u64>, _configuration: Address) {
        part.set(ranks::split(handle, color, key)?)
    }

    fn ncclCommFinalize(handle: Handle) {
        ranks::finalize(handle)
    }

    fn ncclCommDestroy(handle: Handle) {
        ranks::leave(handle)
    }

    fn ncclCommAbort(handle: Handle) {
        ranks::leave(handle)
    }

    fn ncclCommGetAsyncError(handle: Handle, error: Out<i32>) {
        ranks::check(handle)?;
        error.set(0)
    }

    fn ncclCommCount(handle: Handle, size: Out<i32>) {
        size.set(ranks::rank(handle)?.size)
    }

    fn ncclCommUserRank(handle: Handle, number: Out<i32>) {
        number.set(ranks::rank(handle)?.number)
    }

    fn ncclCommCuDevice(handle: Handle, device: Out<i32>) {
        device.set(number_of(ranks::device(handle)?))
    }

    fn ncclGroupStart() {
        GROUPS.set(GROUPS.get() + 1);
        Ok(())
    }

    fn ncclGroupEnd() {
        GROUPS.set(GROUPS.get().checked_sub(1).ok_or(Fault::IllegalState)?);
        if GROUPS.get() == 0 {
            go_together();
        }
        Ok(())
    }

    fn ncclRedOpCreatePreMulSum(operation: Out<i32>, _scalar: Address, data_type: i32, _residence: i32, handle: Handle) {
        usable(handle)?;
        element_bytes(data_type)?;
        operation.set(OWN_REDUCTIONS + REDUCTIONS.lock().insert(()) as i32)
    }

    fn ncclRedOpDestroy(operation: i32, handle: Handle) {
        ranks::check(handle)?;
        REDUCTIONS.lock().remove(reduction_handle(operation))
    }

    fn ncclMemAlloc(address: Out<u64>, bytes: usize) {
        let device = active_device()?;
        address.set(noted(device, device.allocate(bytes as u64))?)
    }

    fn ncclMemFree(address: Address) {
        device_that(|device| matches!(device.owner_of(address), Owner::Device(_)))?.free(address)
    }

    fn ncclCommRegister(handle: Handle, buffer: Address, bytes: usize, registration: Out<u64>) {
        usable(handle)?;
        on_device(buffer, bytes as u64)?;
        registration.set(buffer)
    }

    fn ncclCommDeregister(handle: Handle, _registration: Address) {
        ranks::check(handle)
    }

    fn ncclBcast(_buffer: Address, count: usize, data_type: i32, root: i32, handle: Handle, stream: Handle) {
        Call::with(handle, count, data_type, root, stream)?.crossing(|_| 1.0).map(drop)
    }

    fn ncclSend(_from: Address, count: usize, data_type: i32, to: i32, handle: Handle, stream: Handle) {
        Call::with(handle, count, data_type, to, stream)?.go_with_group(to, false);
        Ok(())
    }

    fn ncclRecv(_to: Address, count: usize, data_type: i32, from: i32, handle: Handle, stream: Handle) {
        Call::with(handle, count, data_type, from, stream)?.go_with_group(from, true);
        Ok(())
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
extern "C" fn ncclGetLastError(_communicator: Handle) -> StaticText {
    text(c"")
}

unsafe_exports! { answer;
    fn ncclCommInitAll(communicators: Out<u64>, count: i32, devices: Given<i32>) {
        let number = usize::try_from(count).ok().filter(|&count| count > 0 && !communicators.is_null()).ok_or(Fault::InvalidValue)?;
        let named = devices.to_vec(number);
        let devices = if named.is_empty() { (0..count).collect() } else { named };
        communicators.set_all(&join_all(&devices)?);
        Ok(())
    }

    fn ncclCommShrink(handle: Handle, excluded: Given<i32>, count: i32, rest: Out<u64>, _configuration: Address, _flags: i32) {
        let excluded = excluded.to_vec(usize::try_from(count).map_err(|_| Fault::InvalidValue)?);
        rest.set(ranks::shrink(handle, &excluded)?)
    }

    fn ncclAllReduce(from: Address, to: Address, count: usize, data_type: i32, operation: i32, handle: Handle, stream: Handle) {
        check_reduction(operation)?;
        // Once around to reduce, once around to gather, without one's own part.
        Call::new(handle, count, data_type, stream)?.crossing(|ranks| 2.0 * (ranks - 1.0) / ranks)?.hand_over(to, from)
    }

    fn ncclReduce(from: Address, to: Address, count: usize, data_type: i32, operation: i32, root: i32, handle: Handle, stream: Handle) {
        check_reduction(operation)?;
        let call = Call::with(handle, count, data_type, root, stream)?.crossing(|_| 1.0)?;
        if call.rank.number == root { call.hand_over(to, from) } else { Ok(()) }
    }

    fn ncclBroadcast(from: Address, to: Address, count: usize, data_type: i32, root: i32, handle: Handle, stream: Handle) {
        let call = Call::with(handle, count, data_type, root, stream)?.crossing(|_| 1.0)?;
        if call.rank.number == root { call.hand_over(to, from) } else { Ok(()) }
    }

    fn ncclAllGather(from: Address, to: Address, count: usize, data_type: i32, handle: Handle, stream: Handle) {
        Call::new(handle, count, data_type, stream)?.crossing(|ranks| ranks - 1.0)?.hand_over_from_all(to, from)
    }

    fn ncclGather(from: Address, to: Address, count: usize, data_type: i32, root: i32, handle: Handle, stream: Handle) {
        let call = Call::with(handle, count, data_type, root, stream)?.crossing(|ranks| ranks - 1.0)?;
        if call.rank.number == root { call.hand_over_from_all(to, from) } else { Ok(()) }
    }

    fn ncclScatter(from: Address, to: Address, count: usize, data_type: i32, root: i32, handle: Handle, stream: Handle) {
        let call = Call::with(handle, count, data_type, root, stream)?.crossing(|ranks| ranks - 1.0)?;
        if call.rank.number == root { call.hand_over(to, call.part(from, root)) } else { Ok(()) }
    }

    fn ncclReduceScatter(from: Address, to: Address, count: usize, data_type: i32, operation: i32, handle: Handle, stream: Handle) {
        check_reduction(operation)?;
        let call = Call::new(handle, count, data_type, stream)?.crossing(|ranks| ranks - 1.0)?;
        call.hand_over(to, call.part(from, call.rank.number))
    }

    fn ncclAlltoAll(from: Address, to: Address, count: usize, data_type: i32, handle: Handle, stream: Handle) {
        let call = Call::new(handle, count, data_type, stream)?.crossing(|ranks| ranks - 1.0)?;
        call.hand_over_from_all(to, call.part(from, call.rank.number))
    }
}

//! `libcufft.so.12`: plans that are made and run without computing.
//!
//! A plan's workspace is the caller's, who is told its size. NVIDIA documents that it depends on the shape and may be nothing; here it is one
//! copy of the transform in complex numbers, a figure that was not checked on a card.

use crate::device::{Fault, KernelWork};
use crate::devices::{active_device, launch};
use crate::ffi::{Address, Given, Handle, Out};
use crate::handle_table::HandleTable;

/// The stream of each plan.
static PLANS: HandleTable<u64> = HandleTable::of("cufft");

/// A plan is an `int`.
fn handle_of(plan: i32) -> u64 {
    u64::from(plan.cast_unsigned())
}

fn answer(result: Result<(), Fault>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(Fault::InvalidHandle) => 1, // CUFFT_INVALID_PLAN
        Err(Fault::OutOfMemory) => 2,
        Err(Fault::NoDevice) => 5, // CUFFT_INTERNAL_ERROR
        Err(Fault::NotSupported) => 16,
        Err(_) => 4, // CUFFT_INVALID_VALUE
    }
}

fn stream_of(plan: i32) -> Result<u64, Fault> {
    PLANS.lock().get(handle_of(plan)).copied()
}

/// Bytes of a complex number with parts of this `cudaDataType`, real or complex: fp16 and bf16, fp32, fp64.
fn complex_bytes(data_type: i32) -> Option<u64> {
    match data_type {
        2 | 6 | 14 | 15 => Some(4),
        0 | 4 => Some(8),
        1 | 5 => Some(16),
        _ => None,
    }
}

exports! { answer;
    fn cufftCreate(plan: Out<i32>) {
        active_device()?;
        plan.set(PLANS.lock().insert(0) as i32)
    }

    fn cufftDestroy(plan: i32) {
        PLANS.lock().remove(handle_of(plan)).map(drop)
    }

    fn cufftSetAutoAllocation(plan: i32, wanted: i32) {
        stream_of(plan)?;
        // PyTorch brings its own workspace; a plan with one of its own would have to take memory of the device.
        if wanted == 0 { Ok(()) } else { Err(Fault::NotSupported) }
    }

    fn cufftSetStream(plan: i32, stream: Handle) {
        active_device()?.streams().check(stream)?;
        *PLANS.lock().get_mut(handle_of(plan))? = stream;
        Ok(())
    }

    fn cufftSetWorkArea(plan: i32, _workspace: Address) {
        stream_of(plan).map(drop)
    }

    fn cufftXtExec(plan: i32, _from: u64, _to: u64, _direction: i32) {
        let stream = stream_of(plan)?;
        launch(stream, KernelWork::UNKNOWN)
    }
}

unsafe_exports! { answer;
    fn cufftXtMakePlanMany(
        plan: i32, rank: i32, sides: Given<i64>, _embedded_in: u64, _stride_in: i64, _distance_in: i64, _type_in: i32, _embedded_out: u64,
        _stride_out: i64, _distance_out: i64, _type_out: i32, count: i64, bytes: Out<usize>, type_inside: i32,
    ) {
        stream_of(plan)?;
        let rank = usize::try_from(rank).ok().filter(|rank| (1..=3).contains(rank)).ok_or(Fault::InvalidValue)?;
        let sides = sides.to_vec(rank).into_iter().chain([count]).map(|side| u64::try_from(side).ok().filter(|&side| side > 0));
        let numbers = sides.reduce(|all, side| all?.checked_mul(side?)).flatten().ok_or(Fault::InvalidValue)?;
        let whole = complex_bytes(type_inside).and_then(|size| size.checked_mul(numbers)).ok_or(Fault::InvalidValue)?;
        bytes.set(whole as usize)
    }
}

//! `libcufft.so.12`: plans that are made and run without computing.
//!
//! A plan's workspace is the caller's, who is told its size. NVIDIA documents that it depends on the shape and may be nothing; here it is one
//! copy of the transform in complex numbers, a figure that was not checked on a card.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::device::{Fault, Work, lock};
use crate::ffi::{Given, Out};
use crate::process::{active_device, launch};

/// The streams of the plans, by number, and the last number.
static PLANS: Mutex<(BTreeMap<i32, u64>, i32)> = Mutex::new((BTreeMap::new(), 0));

/// Plans that were not destroyed.
pub(crate) fn handles() -> usize {
    lock(&PLANS).0.len()
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
    lock(&PLANS).0.get(&plan).copied().ok_or(Fault::InvalidHandle)
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
        let mut plans = lock(&PLANS);
        plans.1 += 1;
        let number = plans.1;
        plans.0.insert(number, 0);
        plan.set(number)
    }

    fn cufftDestroy(plan: i32) {
        lock(&PLANS).0.remove(&plan).map(drop).ok_or(Fault::InvalidHandle)
    }

    fn cufftSetAutoAllocation(plan: i32, wanted: i32) {
        stream_of(plan)?;
        // PyTorch brings its own workspace; a plan with one of its own would have to take memory of the device.
        if wanted == 0 { Ok(()) } else { Err(Fault::NotSupported) }
    }

    fn cufftSetStream(plan: i32, stream: u64) {
        active_device()?.streams().check(stream)?;
        *lock(&PLANS).0.get_mut(&plan).ok_or(Fault::InvalidHandle)? = stream;
        Ok(())
    }

    fn cufftSetWorkArea(plan: i32, _workspace: u64) {
        stream_of(plan).map(drop)
    }

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

    fn cufftXtExec(plan: i32, _from: u64, _to: u64, _direction: i32) {
        let stream = stream_of(plan)?;
        launch(stream, Work::UNKNOWN)
    }
}

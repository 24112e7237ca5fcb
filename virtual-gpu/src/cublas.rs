//! `libcublas.so.13`: handles with their settings, and the products, which succeed without computing.
//! Workspaces are PyTorch's own, given with `cublasSetWorkspace`; nothing is allocated here.

use std::sync::Mutex;

use crate::device::{Fault, Handles, lock};
use crate::ffi::Out;
use crate::process::active_device;

#[derive(Default)]
struct Settings {
    stream: u64,
    math_mode: i32,
    pointer_mode: i32,
}

static HANDLES: Mutex<Handles<Settings>> = Mutex::new(Handles::new());

/// cuBLAS's codes; those of cuBLASLt are the same.
pub(crate) fn answer(result: Result<(), Fault>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(Fault::InvalidHandle | Fault::NoDevice) => 1, // CUBLAS_STATUS_NOT_INITIALIZED
        Err(Fault::OutOfMemory) => 3,
        Err(Fault::NotSupported) => 15,
        Err(_) => 7, // CUBLAS_STATUS_INVALID_VALUE
    }
}

fn change(handle: u64, change: impl FnOnce(&mut Settings)) -> Result<(), Fault> {
    change(lock(&HANDLES).get_mut(handle)?);
    Ok(())
}

exports! { answer;
    fn cublasCreate_v2(handle: Out<u64>) {
        active_device()?;
        handle.set(lock(&HANDLES).insert(Settings::default()))
    }

    fn cublasDestroy_v2(handle: u64) {
        lock(&HANDLES).remove(handle).map(drop)
    }

    fn cublasSetStream_v2(handle: u64, stream: u64) {
        active_device()?.streams().check(stream).map_err(|_| Fault::InvalidValue)?;
        change(handle, |settings| settings.stream = stream)
    }

    fn cublasGetStream_v2(handle: u64, stream: Out<u64>) {
        stream.set(lock(&HANDLES).get(handle)?.stream)
    }

    fn cublasSetMathMode(handle: u64, mode: i32) {
        change(handle, |settings| settings.math_mode = mode)
    }

    fn cublasGetMathMode(handle: u64, mode: Out<i32>) {
        mode.set(lock(&HANDLES).get(handle)?.math_mode)
    }

    fn cublasSetPointerMode_v2(handle: u64, mode: i32) {
        change(handle, |settings| settings.pointer_mode = mode)
    }

    fn cublasGetPointerMode_v2(handle: u64, mode: Out<i32>) {
        mode.set(lock(&HANDLES).get(handle)?.pointer_mode)
    }

    fn cublasSetWorkspace_v2(handle: u64, _workspace: u64, _bytes: usize) {
        lock(&HANDLES).get(handle).map(drop)
    }

    fn cublasSetSmCountTarget(handle: u64, _count: i32) {
        lock(&HANDLES).get(handle).map(drop)
    }
}

// Products of matrices with matrices and vectors, and triangular solves: their results are on the device.
count_as_launch! {
    cublasSgemm_v2 cublasDgemm_v2 cublasCgemm_v2 cublasZgemm_v2 cublasSgemmEx cublasGemmEx
    cublasSgemmBatched cublasDgemmBatched cublasCgemmBatched cublasZgemmBatched
    cublasSgemmStridedBatched cublasDgemmStridedBatched cublasCgemmStridedBatched cublasZgemmStridedBatched cublasGemmStridedBatchedEx
    cublasSgemv_v2 cublasDgemv_v2 cublasCgemv_v2 cublasZgemv_v2
    cublasStrsm_v2 cublasDtrsm_v2 cublasCtrsm_v2 cublasZtrsm_v2
    cublasStrsmBatched cublasDtrsmBatched cublasCtrsmBatched cublasZtrsmBatched
}

// Inner products: PyTorch takes their result on the device.
count_as_launch! {
    cublasSdot_v2 cublasDdot_v2 cublasDotEx cublasCdotu_v2 cublasCdotc_v2 cublasZdotu_v2 cublasZdotc_v2
}

//! `libcublasLt.so.13`: descriptors that keep what they are given, one algorithm, and a product that does not compute.
//!
//! The one algorithm needs no workspace: what PyTorch sets aside for cuBLASLt it allocates before it asks, whatever the
//! answer, so the figures are the same with any.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::cublas::answer;
use crate::device::{Fault, Handles, lock};
use crate::ffi::{Given, Out};
use crate::process::{active_device, launched};

/// cuBLASLt of CUDA 13.0.
const VERSION: usize = 130_000;

/// A description of a product, a matrix or a preference: what it was made with, and its attributes by number.
#[expect(dead_code, reason = "kept for the clock, which costs a product by its shape and types")]
struct Description {
    made_with: [u64; 4],
    attributes: BTreeMap<i32, Vec<u8>>,
}

static DESCRIPTIONS: Mutex<Handles<Description>> = Mutex::new(Handles::new());

/// `cublasLtMatmulHeuristicResult_t`.
#[repr(C)]
#[derive(Clone, Copy)]
struct HeuristicResult {
    algorithm: [u64; 8],
    workspace_bytes: usize,
    state: i32,
    waves: f32,
    reserved: [i32; 4],
}

const _: () = assert!(size_of::<HeuristicResult>() == 96, "as in cublasLt.h");

fn create(handle: Out<u64>, made_with: [u64; 4]) -> Result<(), Fault> {
    handle.set(lock(&DESCRIPTIONS).insert(Description { made_with, attributes: BTreeMap::new() }))
}

fn destroy(handle: u64) -> Result<(), Fault> {
    if handle == 0 { Ok(()) } else { lock(&DESCRIPTIONS).remove(handle).map(drop) }
}

fn set_attribute(handle: u64, number: i32, value: Given<u8>, bytes: usize) -> Result<(), Fault> {
    let value = value.to_vec(bytes);
    if value.is_empty() {
        return Err(Fault::InvalidValue);
    }
    lock(&DESCRIPTIONS).get_mut(handle)?.attributes.insert(number, value);
    Ok(())
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtGetVersion() -> usize {
    VERSION
}

exports! { answer;
    fn cublasLtCreate(handle: Out<u64>) {
        active_device()?;
        create(handle, [0; 4])
    }

    fn cublasLtDestroy(handle: u64) {
        destroy(handle)
    }

    fn cublasLtMatmulDescCreate(handle: Out<u64>, compute_type: i32, scale_type: i32) {
        create(handle, [compute_type as u64, scale_type as u64, 0, 0])
    }

    fn cublasLtMatmulDescDestroy(handle: u64) {
        destroy(handle)
    }

    fn cublasLtMatmulDescSetAttribute(handle: u64, number: i32, value: Given<u8>, bytes: usize) {
        set_attribute(handle, number, value, bytes)
    }

    fn cublasLtMatrixLayoutCreate(handle: Out<u64>, data_type: i32, rows: u64, columns: u64, leading: i64) {
        create(handle, [data_type as u64, rows, columns, leading as u64])
    }

    fn cublasLtMatrixLayoutDestroy(handle: u64) {
        destroy(handle)
    }

    fn cublasLtMatrixLayoutSetAttribute(handle: u64, number: i32, value: Given<u8>, bytes: usize) {
        set_attribute(handle, number, value, bytes)
    }

    fn cublasLtMatmulPreferenceCreate(handle: Out<u64>) {
        create(handle, [0; 4])
    }

    fn cublasLtMatmulPreferenceDestroy(handle: u64) {
        destroy(handle)
    }

    fn cublasLtMatmulPreferenceSetAttribute(handle: u64, number: i32, value: Given<u8>, bytes: usize) {
        set_attribute(handle, number, value, bytes)
    }

    fn cublasLtMatmulAlgoGetHeuristic(
        _handle: u64, product: u64, _a: u64, _b: u64, _c: u64, _d: u64, _preference: u64, wanted: i32, results: Out<HeuristicResult>,
        count: Out<i32>,
    ) {
        lock(&DESCRIPTIONS).get(product)?;
        if wanted < 1 {
            return Err(Fault::InvalidValue);
        }
        results.set(HeuristicResult { algorithm: [0; 8], workspace_bytes: 0, state: 0, waves: 1.0, reserved: [0; 4] })?;
        count.set(1)
    }

    fn cublasLtMatmul(_handle: u64, product: u64) {
        lock(&DESCRIPTIONS).get(product)?;
        launched();
        Ok(())
    }
}

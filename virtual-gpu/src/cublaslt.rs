//! `libcublasLt.so.13`: descriptors that keep what they are given, one algorithm, and a product that does not compute.
//!
//! The one algorithm needs no workspace: what PyTorch sets aside for cuBLASLt it allocates before it asks, whatever the
//! answer, so the figures are the same with any.

use std::collections::BTreeMap;

use virtual_gpu_protocol::WorkType;

use crate::cublas::{TF32_COMPUTE, answer, element_bytes, gemm, work_type};
use crate::device::{Device, Fault, KernelWork, Matrix, Operation};
use crate::devices::{active_device, launch};
use crate::ffi::{Address, Given, Handle, Out};
use crate::handle_table::HandleTable;

/// cuBLASLt of CUDA 13.0.
const VERSION: usize = 130_000;

/// A description of a product, a matrix or a preference: what it was made with, and its attributes by number.
struct Description {
    made_with: [u64; 4],
    attributes: BTreeMap<i32, Vec<u8>>,
}

/// `CUBLASLT_MATMUL_DESC_BIAS_POINTER`, and `CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT` and `_STRIDED_BATCH_OFFSET`.
const BIAS_POINTER: i32 = 8;
/// `CUBLASLT_MATMUL_DESC_TRANSA`.
const TRANSPOSES_A: i32 = 3;
const BATCH_COUNT: i32 = 5;
const BATCH_DISTANCE: i32 = 6;

impl Description {
    /// An attribute that is a number of up to 64 bits.
    fn number(&self, attribute: i32) -> Option<u64> {
        let given = self.attributes.get(&attribute)?;
        let mut bytes = [0; 8];
        bytes.get_mut(..given.len())?.copy_from_slice(given);
        Some(u64::from_le_bytes(bytes))
    }

    /// The matrix at `address`, where this describes how one lies.
    fn matrix(&self, address: u64) -> Matrix {
        let [data_type, rows, columns, leading] = self.made_with;
        let count = self.number(BATCH_COUNT).unwrap_or(1);
        let distance = self.number(BATCH_DISTANCE).unwrap_or(0);
        Matrix { address, rows, columns, leading, element_bytes: element_bytes(data_type as i32), count, distance }
    }
}

/// What a product reads and writes: the factors, what is added where it is another matrix than the result, the bias of its rows.
/// A matrix without a layout is left out.
fn product(description: u64, stream: u64, operands: [(u64, u64); 4]) -> Operation {
    let descriptions = DESCRIPTIONS.lock();
    let [a, b, added, result] = operands.map(|(address, layout)| Some(descriptions.get(layout).ok()?.matrix(address)));
    let added = added.filter(|added| added.address != operands[3].0 && added.address != 0);
    let bias = descriptions.get(description).ok().and_then(|product| product.number(BIAS_POINTER)).filter(|&address| address != 0);
    let bias = bias.and_then(|address| Some(Matrix { address, columns: 1, count: 1, ..result? }));
    let ranges = |matrices: &[Option<Matrix>]| matrices.iter().flatten().map(Matrix::range).collect();
    Operation::Product { stream, reads: ranges(&[a, b, added, bias]), writes: ranges(&[result]) }
}

/// What a product comes to.
fn work(description: u64, a: u64, b: u64, result: u64) -> Result<KernelWork, Fault> {
    let descriptions = DESCRIPTIONS.lock();
    let product = descriptions.get(description)?;
    let [a, b, result] = [descriptions.get(a)?, descriptions.get(b)?, descriptions.get(result)?];
    let matrices = [a.matrix(0), b.matrix(0), result.matrix(0)];
    let transposes = product.number(TRANSPOSES_A).unwrap_or(0) != 0;
    let inner = if transposes { matrices[0].rows } else { matrices[0].columns };
    let dtype = work_type(a.made_with[0] as i32, product.made_with[0] as i32 == TF32_COMPUTE);
    Ok(gemm(dtype, [matrices[2].rows, matrices[2].columns, inner], matrices[2].count, &matrices))
}

/// Whether that device has products in that type.
fn check(device: &Device, dtype: WorkType) -> Result<(), Fault> {
    if device.profile.capability() < Some(dtype.first_capability()) { Err(Fault::NotSupported) } else { Ok(()) }
}

static DESCRIPTIONS: HandleTable<Description> = HandleTable::of("cublaslt");

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
    handle.set(DESCRIPTIONS.lock().insert(Description { made_with, attributes: BTreeMap::new() }))
}

fn destroy(handle: u64) -> Result<(), Fault> {
    if handle == 0 { Ok(()) } else { DESCRIPTIONS.lock().remove(handle).map(drop) }
}

/// Keeps an attribute.
///
/// # Safety
/// The value has that many bytes.
unsafe fn set_attribute(handle: u64, number: i32, value: Given<u8>, bytes: usize) -> Result<(), Fault> {
    // SAFETY: as the caller says.
    let value = unsafe { value.to_vec(bytes) };
    if value.is_empty() {
        return Err(Fault::InvalidValue);
    }
    DESCRIPTIONS.lock().get_mut(handle)?.attributes.insert(number, value);
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

    fn cublasLtDestroy(handle: Handle) {
        destroy(handle)
    }

    fn cublasLtMatmulDescCreate(handle: Out<u64>, compute_type: i32, scale_type: i32) {
        create(handle, [compute_type as u64, scale_type as u64, 0, 0])
    }

    fn cublasLtMatmulDescDestroy(handle: Handle) {
        destroy(handle)
    }

    fn cublasLtMatrixLayoutCreate(handle: Out<u64>, data_type: i32, rows: u64, columns: u64, leading: i64) {
        create(handle, [data_type as u64, rows, columns, leading as u64])
    }

    fn cublasLtMatrixLayoutDestroy(handle: Handle) {
        destroy(handle)
    }

    fn cublasLtMatmulPreferenceCreate(handle: Out<u64>) {
        create(handle, [0; 4])
    }

    fn cublasLtMatmulPreferenceDestroy(handle: Handle) {
        destroy(handle)
    }

    fn cublasLtMatmulAlgoGetHeuristic(
        _handle: Handle, product: Handle, a: Handle, b: Handle, _c: Handle, result: Handle, _preference: Handle, wanted: i32, results: Out<HeuristicResult>,
        count: Out<i32>,
    ) {
        if wanted < 1 {
            return Err(Fault::InvalidValue);
        }
        check(active_device()?, work(product, a, b, result)?.dtype)?;
        results.set(HeuristicResult { algorithm: [0; 8], workspace_bytes: 0, state: 0, waves: 1.0, reserved: [0; 4] })?;
        count.set(1)
    }

    fn cublasLtMatmul(
        _handle: Handle, description: Handle, _alpha: Address, a: Address, layout_a: Handle, b: Address, layout_b: Handle, _beta: Address, c: Address, layout_c: Handle,
        d: Address, layout_d: Handle, _algorithm: Address, _workspace: Address, _workspace_bytes: usize, stream: Handle,
    ) {
        let device = active_device()?;
        let work = work(description, layout_a, layout_b, layout_d)?;
        check(device, work.dtype)?;
        launch(stream, work)?;
        let operands = [(a, layout_a), (b, layout_b), (c, layout_c), (d, layout_d)];
        device.trace.note(|| product(description, stream, operands));
        Ok(())
    }
}

unsafe_exports! { answer;
    fn cublasLtMatmulDescSetAttribute(handle: Handle, number: i32, value: Given<u8>, bytes: usize) {
        set_attribute(handle, number, value, bytes)
    }

    fn cublasLtMatrixLayoutSetAttribute(handle: Handle, number: i32, value: Given<u8>, bytes: usize) {
        set_attribute(handle, number, value, bytes)
    }

    fn cublasLtMatmulPreferenceSetAttribute(handle: Handle, number: i32, value: Given<u8>, bytes: usize) {
        set_attribute(handle, number, value, bytes)
    }
}

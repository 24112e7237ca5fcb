//! `libcublas.so.13`: handles with their settings, and the products, which succeed without computing.
//! What the products that PyTorch uses most read and write goes into the trace, from their shapes.
//! Workspaces are PyTorch's own, given with `cublasSetWorkspace`; nothing is allocated here.

use virtual_gpu_protocol::{WorkKind, WorkType};

use crate::cudart::fill_words;
use crate::device::{Fault, KernelWork, Matrix, Operation};
use crate::devices::{active_device, launch, launched};
use crate::ffi::{Address, Handle, Out, StaticText, text};
use crate::first_use;
use crate::handle_table::HandleTable;

#[derive(Default)]
struct Settings {
    stream: u64,
    math_mode: i32,
    pointer_mode: i32,
}

static HANDLES: HandleTable<Settings> = HandleTable::of("cublas");

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

#[unsafe(no_mangle)]
extern "C" fn cublasGetStatusName(code: i32) -> StaticText {
    text(match code {
        0 => c"CUBLAS_STATUS_SUCCESS",
        1 => c"CUBLAS_STATUS_NOT_INITIALIZED",
        3 => c"CUBLAS_STATUS_ALLOC_FAILED",
        7 => c"CUBLAS_STATUS_INVALID_VALUE",
        15 => c"CUBLAS_STATUS_NOT_SUPPORTED",
        _ => c"unrecognized error code",
    })
}

#[unsafe(no_mangle)]
extern "C" fn cublasGetStatusString(code: i32) -> StaticText {
    text(match code {
        0 => c"success",
        1 => c"the library was not initialized",
        3 => c"the resource allocation failed",
        7 => c"an unsupported value or parameter was passed to the function",
        15 => c"the functionality requested is not supported",
        _ => c"unrecognized error code",
    })
}

fn change(handle: u64, change: impl FnOnce(&mut Settings)) -> Result<(), Fault> {
    change(HANDLES.lock().get_mut(handle)?);
    Ok(())
}

/// Bytes of an element of a `cudaDataType`; one for the types that are smaller.
pub(crate) fn element_bytes(data_type: i32) -> u64 {
    match data_type {
        2 | 14 | 20 | 22 => 2,               // fp16, bf16, 16-bit integers
        0 | 6 | 10 | 12 | 15 | 21 | 23 => 4, // fp32, 32-bit integers, complex numbers of two 16-bit ones
        1 | 4 | 11 | 13 | 24 | 26 => 8,      // fp64, 64-bit integers, complex numbers of two 32-bit ones
        5 | 25 | 27 => 16,
        _ => 1,
    }
}

/// The type that a product is computed in: that of its factors, where fp32 ones may be rounded.
pub(crate) fn work_type(data_type: i32, rounds: bool) -> WorkType {
    match data_type {
        2 => WorkType::Fp16,
        14 => WorkType::Bf16,
        1 | 5 => WorkType::Fp64,
        3 | 8 => WorkType::Int8,
        28 | 29 => WorkType::Fp8,
        _ if rounds => WorkType::Tf32,
        _ => WorkType::Fp32,
    }
}

/// What a product of an m by k and a k by n matrix, `count` times, comes to, with the matrices that it reads and writes.
pub(crate) fn gemm(dtype: WorkType, shape: [u64; 3], count: u64, matrices: &[Matrix]) -> KernelWork {
    let [m, n, k] = shape.map(|side| side as f64);
    let bytes =
        matrices.iter().map(|matrix| matrix.element_bytes as f64 * matrix.rows as f64 * matrix.columns as f64 * matrix.count as f64).sum();
    KernelWork { kind: Some(WorkKind::Gemm), dtype, operations: 2.0 * m * n * k * count as f64, bytes, output: None }
}

/// One of the three matrices of a product: address, `cudaDataType`, distance of columns, distance of matrices.
type Operand = (u64, i32, i32, i64);

/// C = A B + C, `count` times, A and B each as it lies (operation 0) or the other way round.
struct Product {
    operations: [i32; 2],
    /// Rows of C, columns of C, columns of A.
    shape: [i32; 3],
    operands: [Operand; 3],
    count: i32,
    /// `cublasComputeType_t`, where the call has one.
    compute_type: Option<i32>,
}

/// `CUBLAS_TF32_TENSOR_OP_MATH` and `CUBLAS_COMPUTE_32F_FAST_TF32`.
const TF32_MATH: i32 = 3;
pub(crate) const TF32_COMPUTE: i32 = 77;

impl Product {
    /// Counts it, and notes what it reads and writes.
    fn run(self, handle: u64) -> Result<(), Fault> {
        let (stream, math_mode) = {
            let handles = HANDLES.lock();
            let settings = handles.get(handle)?;
            (settings.stream, settings.math_mode)
        };
        let device = active_device()?;
        let unsigned = |number: i32| number.max(0) as u64;
        let rounds = math_mode == TF32_MATH || self.compute_type == Some(TF32_COMPUTE);
        let dtype = work_type(self.operands[0].1, rounds);
        launch(stream, gemm(dtype, self.shape.map(unsigned), unsigned(self.count), &self.matrices()))?;
        device.trace.note(|| {
            let [a, b, c] = self.matrices();
            Operation::Product { stream, reads: vec![a.range(), b.range()], writes: vec![c.range()] }
        });
        Ok(())
    }

    fn matrices(&self) -> [Matrix; 3] {
        let unsigned = |number: i32| number.max(0) as u64;
        let [m, n, k] = self.shape.map(unsigned);
        let as_lies = |operation: i32, rows: u64, columns: u64| if operation == 0 { (rows, columns) } else { (columns, rows) };
        let shapes = [as_lies(self.operations[0], m, k), as_lies(self.operations[1], k, n), (m, n)];
        std::array::from_fn(|index| {
            let (address, data_type, leading, distance) = self.operands[index];
            Matrix {
                address,
                rows: shapes[index].0,
                columns: shapes[index].1,
                leading: unsigned(leading),
                element_bytes: element_bytes(data_type),
                count: unsigned(self.count),
                distance: distance.max(0) as u64,
            }
        })
    }
}

/// `CUDA_R_32F` and `CUDA_R_64F`.
const FP32: i32 = 0;
const FP64: i32 = 1;

/// The products whose type is in their name.
macro_rules! products_of {
    ($data_type:expr, $one:ident, $strided:ident) => {
        exports! { answer;
            fn $one(
                handle: Handle, op_a: i32, op_b: i32, m: i32, n: i32, k: i32, _alpha: Address, a: Address, lda: i32, b: Address, ldb: i32, _beta: Address,
                c: Address, ldc: i32,
            ) {
                let operands = [(a, $data_type, lda, 0), (b, $data_type, ldb, 0), (c, $data_type, ldc, 0)];
                Product { operations: [op_a, op_b], shape: [m, n, k], operands, count: 1, compute_type: None }.run(handle)
            }

            fn $strided(
                handle: Handle, op_a: i32, op_b: i32, m: i32, n: i32, k: i32, _alpha: Address, a: Address, lda: i32, next_a: i64, b: Address, ldb: i32,
                next_b: i64, _beta: Address, c: Address, ldc: i32, next_c: i64, count: i32,
            ) {
                let operands = [(a, $data_type, lda, next_a), (b, $data_type, ldb, next_b), (c, $data_type, ldc, next_c)];
                Product { operations: [op_a, op_b], shape: [m, n, k], operands, count, compute_type: None }.run(handle)
            }
        }
    };
}

products_of! { FP32, cublasSgemm_v2, cublasSgemmStridedBatched }
products_of! { FP64, cublasDgemm_v2, cublasDgemmStridedBatched }

exports! { answer;
    fn cublasGemmEx(
        handle: Handle, op_a: i32, op_b: i32, m: i32, n: i32, k: i32, _alpha: Address, a: Address, type_a: i32, lda: i32, b: Address, type_b: i32,
        ldb: i32, _beta: Address, c: Address, type_c: i32, ldc: i32, compute_type: i32,
        _algorithm: i32,
    ) {
        let operands = [(a, type_a, lda, 0), (b, type_b, ldb, 0), (c, type_c, ldc, 0)];
        Product { operations: [op_a, op_b], shape: [m, n, k], operands, count: 1, compute_type: Some(compute_type) }.run(handle)
    }

    fn cublasGemmStridedBatchedEx(
        handle: Handle, op_a: i32, op_b: i32, m: i32, n: i32, k: i32, _alpha: Address, a: Address, type_a: i32, lda: i32, next_a: i64, b: Address,
        type_b: i32, ldb: i32, next_b: i64, _beta: Address, c: Address, type_c: i32, ldc: i32, next_c: i64, count: i32,
        compute_type: i32, _algorithm: i32,
    ) {
        let operands = [(a, type_a, lda, next_a), (b, type_b, ldb, next_b), (c, type_c, ldc, next_c)];
        Product { operations: [op_a, op_b], shape: [m, n, k], operands, count, compute_type: Some(compute_type) }.run(handle)
    }
}

exports! { answer;
    fn cublasCreate_v2(handle: Out<u64>) {
        active_device()?;
        first_use::cublas();
        handle.set(HANDLES.lock().insert(Settings::default()))
    }

    fn cublasDestroy_v2(handle: Handle) {
        HANDLES.lock().remove(handle).map(drop)
    }

    fn cublasSetStream_v2(handle: Handle, stream: Handle) {
        active_device()?.streams().check(stream).map_err(|_| Fault::InvalidValue)?;
        change(handle, |settings| settings.stream = stream)
    }

    fn cublasGetStream_v2(handle: Handle, stream: Out<u64>) {
        stream.set(HANDLES.lock().get(handle)?.stream)
    }

    fn cublasSetMathMode(handle: Handle, mode: i32) {
        change(handle, |settings| settings.math_mode = mode)
    }

    fn cublasGetMathMode(handle: Handle, mode: Out<i32>) {
        mode.set(HANDLES.lock().get(handle)?.math_mode)
    }

    fn cublasSetPointerMode_v2(handle: Handle, mode: i32) {
        change(handle, |settings| settings.pointer_mode = mode)
    }

    fn cublasGetPointerMode_v2(handle: Handle, mode: Out<i32>) {
        mode.set(HANDLES.lock().get(handle)?.pointer_mode)
    }

    fn cublasSetWorkspace_v2(handle: Handle, _workspace: Address, _bytes: usize) {
        HANDLES.lock().get(handle).map(drop)
    }

    fn cublasSetSmCountTarget(handle: Handle, _count: i32) {
        HANDLES.lock().get(handle).map(drop)
    }
}

/// Exported library calls that would have run kernels: they are counted and succeed.
macro_rules! count_as_launch {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        extern "C" fn $name() -> i32 {
            launched();
            0
        }
    )*};
}

// Other products of matrices with matrices and vectors, and triangular solves: their results are on the device.
count_as_launch! {
    cublasCgemm_v2 cublasZgemm_v2 cublasSgemmEx
    cublasSgemmBatched cublasDgemmBatched cublasCgemmBatched cublasZgemmBatched
    cublasCgemmStridedBatched cublasZgemmStridedBatched
    cublasSgemv_v2 cublasDgemv_v2 cublasCgemv_v2 cublasZgemv_v2
    cublasStrsm_v2 cublasDtrsm_v2 cublasCtrsm_v2 cublasZtrsm_v2
    cublasStrsmBatched cublasDtrsmBatched cublasCtrsmBatched cublasZtrsmBatched
}

// Inner products: PyTorch takes their result on the device.
count_as_launch! {
    cublasSdot_v2 cublasDdot_v2 cublasDotEx cublasCdotu_v2 cublasCdotc_v2 cublasZdotu_v2 cublasZdotc_v2
}

/// Counts a factorisation or a solve of many matrices.
fn solve(handle: u64) -> Result<u64, Fault> {
    let stream = HANDLES.lock().get(handle)?.stream;
    launch(stream, KernelWork::UNKNOWN)?;
    Ok(stream)
}

/// Batched factorisations and solves: they say that all went well, some on the device and for each matrix, others on the host and at once.
macro_rules! solves_of {
    ($factor:ident $solve:ident $orthogonal:ident $least_squares:ident) => {
        unsafe_exports! { answer;
            fn $factor(handle: Handle, _n: i32, _a: Address, _lda: i32, _pivots: Address, infos: Address, count: i32) {
                let stream = solve(handle)?;
                fill_words(infos, 0, usize::try_from(count).map_err(|_| Fault::InvalidValue)?, stream)
            }

            fn $least_squares(
                handle: Handle, _operation: i32, _m: i32, _n: i32, _sides: i32, _a: Address, _lda: i32, _c: Address, _ldc: i32, info: Out<i32>,
                infos: Address, count: i32,
            ) {
                let stream = solve(handle)?;
                info.set(0)?;
                if infos == 0 {
                    return Ok(());
                }
                fill_words(infos, 0, usize::try_from(count).map_err(|_| Fault::InvalidValue)?, stream)
            }
        }

        exports! { answer;
            fn $solve(
                handle: Handle, _operation: i32, _n: i32, _sides: i32, _a: Address, _lda: i32, _pivots: Address, _b: Address, _ldb: i32, info: Out<i32>,
                _count: i32,
            ) {
                solve(handle)?;
                info.set(0)
            }

            fn $orthogonal(handle: Handle, _m: i32, _n: i32, _a: Address, _lda: i32, _tau: Address, info: Out<i32>, _count: i32) {
                solve(handle)?;
                info.set(0)
            }
        }
    };
}

solves_of! { cublasSgetrfBatched cublasSgetrsBatched cublasSgeqrfBatched cublasSgelsBatched }
solves_of! { cublasDgetrfBatched cublasDgetrsBatched cublasDgeqrfBatched cublasDgelsBatched }
solves_of! { cublasCgetrfBatched cublasCgetrsBatched cublasCgeqrfBatched cublasCgelsBatched }
solves_of! { cublasZgetrfBatched cublasZgetrsBatched cublasZgeqrfBatched cublasZgelsBatched }

//! `libcusparse.so.12`: products with sparse matrices, sums of them and triangular solves. They are counted as work of their handle's stream, and not computed.
//!
//! # Note: the structure of a result, and buffers
//! How many entries a product or a sum of two sparse matrices has depends on where theirs are, which are values and not known. It is taken to be what is
//! to be expected if the entries lie at random. The buffer of such a product holds an index and a value for each product of two entries that there is to
//! sum; all other functions need no buffer. NVIDIA documents neither, and neither was checked on a card.

use crate::cublas::element_bytes;
use crate::device::{Fault, KernelWork};
use crate::devices::{active_device, launch};
use crate::ffi::{Address, Handle, Out, StaticText, Untyped, text};
use crate::handle_table::HandleTable;

fn answer(result: Result<(), Fault>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(Fault::NoDevice) => 1, // CUSPARSE_STATUS_NOT_INITIALIZED
        Err(Fault::OutOfMemory) => 2,
        Err(Fault::NotSupported) => 10,
        Err(_) => 3, // CUSPARSE_STATUS_INVALID_VALUE
    }
}

/// cuSPARSE handles, each with its stream.
static HANDLES: HandleTable<u64> = HandleTable::of("cusparse");

/// A sparse matrix.
#[derive(Debug, Clone, Copy)]
struct Sparse {
    rows: i64,
    columns: i64,
    entries: i64,
    value_type: i32,
}

static MATRICES: HandleTable<Sparse> = HandleTable::of("cusparse");

/// Descriptors of dense matrices and vectors, of older matrices, of products and of solves. What stands on them changes nothing here.
static DESCRIPTORS: HandleTable<()> = HandleTable::of("cusparse");

/// The index of an entry, in 32 bits.
const INDEX_BYTES: u64 = 4;

/// Counts what would have run on the handle's stream.
fn run(handle: u64) -> Result<(), Fault> {
    let stream = *HANDLES.lock().get(handle)?;
    launch(stream, KernelWork::UNKNOWN)
}

impl Sparse {
    fn density(&self) -> f64 {
        self.entries as f64 / (self.rows as f64 * self.columns as f64).max(1.0)
    }

    /// As many entries as are to be expected in a product: see the note above.
    fn product_entries(&self, other: &Self) -> i64 {
        let is_empty = (1.0 - self.density() * other.density()).powf(self.columns as f64);
        (self.rows as f64 * other.columns as f64 * (1.0 - is_empty)).round() as i64
    }

    /// How many products of two entries there are to sum.
    fn product_terms(&self, other: &Self) -> u64 {
        (self.entries as f64 * other.entries as f64 / (self.columns as f64).max(1.0)).round() as u64
    }
}

/// As many entries as are to be expected in a sum of matrices of that size with so many entries.
fn sum_entries(rows: i32, columns: i32, entries: [i32; 2]) -> i32 {
    let all = (f64::from(rows) * f64::from(columns)).max(1.0);
    let is_empty: f64 = entries.iter().map(|&entries| 1.0 - f64::from(entries) / all).product();
    (all * (1.0 - is_empty)).round() as i32
}

exports! { answer;
    fn cusparseCreate(handle: Out<u64>) {
        active_device()?;
        handle.set(HANDLES.lock().insert(0))
    }

    fn cusparseDestroy(handle: Handle) {
        HANDLES.lock().remove(handle).map(drop)
    }

    fn cusparseSetStream(handle: Handle, stream: Handle) {
        active_device()?.streams().check(stream)?;
        *HANDLES.lock().get_mut(handle)? = stream;
        Ok(())
    }

    fn cusparseSetPointerMode(handle: Handle, _mode: i32) {
        HANDLES.lock().get(handle).map(drop)
    }

    fn cusparseCreateCsr(
        matrix: Out<u64>, rows: i64, columns: i64, entries: i64, _offsets: Address, _indices: Address, _values: Address, _offset_type: i32,
        _index_type: i32, _base: i32, value_type: i32,
    ) {
        matrix.set(MATRICES.lock().insert(Sparse { rows, columns, entries, value_type }))
    }

    fn cusparseCreateCoo(
        matrix: Out<u64>, rows: i64, columns: i64, entries: i64, _row_indices: Address, _column_indices: Address, _values: Address, _index_type: i32, _base: i32,
        value_type: i32,
    ) {
        matrix.set(MATRICES.lock().insert(Sparse { rows, columns, entries, value_type }))
    }

    fn cusparseDestroySpMat(matrix: Handle) {
        MATRICES.lock().remove(matrix).map(drop)
    }

    fn cusparseSpMatGetSize(matrix: Handle, rows: Out<i64>, columns: Out<i64>, entries: Out<i64>) {
        let matrix = *MATRICES.lock().get(matrix)?;
        rows.set(matrix.rows)?;
        columns.set(matrix.columns)?;
        entries.set(matrix.entries)
    }

    fn cusparseSpMatSetAttribute(matrix: Handle, _attribute: i32, _data: Untyped, _bytes: usize) {
        MATRICES.lock().get(matrix).map(drop)
    }

    fn cusparseCsrSetPointers(matrix: Handle, _offsets: Address, _indices: Address, _values: Address) {
        MATRICES.lock().get(matrix).map(drop)
    }

    fn cusparseCsrSetStridedBatch(matrix: Handle, _count: i32, _offsets: i64, _entries: i64) {
        MATRICES.lock().get(matrix).map(drop)
    }

    fn cusparseCreateDnMat(matrix: Out<u64>, _rows: i64, _columns: i64, _leading: i64, _values: Address, _value_type: i32, _order: i32) {
        matrix.set(DESCRIPTORS.lock().insert(()))
    }

    fn cusparseCreateDnVec(vector: Out<u64>, _size: i64, _values: Address, _value_type: i32) {
        vector.set(DESCRIPTORS.lock().insert(()))
    }

    fn cusparseSpMV_bufferSize(
        handle: Handle, _operation: i32, _alpha: Address, _a: Handle, _x: Handle, _beta: Address, _y: Handle, _type: i32, _algorithm: i32, bytes: Out<usize>,
    ) {
        no_buffer(handle, bytes)
    }

    fn cusparseSpMM_bufferSize(
        handle: Handle, _op_a: i32, _op_b: i32, _alpha: Address, _a: Handle, _b: Handle, _beta: Address, _c: Handle, _type: i32, _algorithm: i32, bytes: Out<usize>,
    ) {
        no_buffer(handle, bytes)
    }

    fn cusparseSDDMM_bufferSize(
        handle: Handle, _op_a: i32, _op_b: i32, _alpha: Address, _a: Handle, _b: Handle, _beta: Address, _c: Handle, _type: i32, _algorithm: i32, bytes: Out<usize>,
    ) {
        no_buffer(handle, bytes)
    }

    fn cusparseSpSV_bufferSize(
        handle: Handle, _operation: i32, _alpha: Address, _a: Handle, _x: Handle, _y: Handle, _type: i32, _algorithm: i32, _solve: Handle, bytes: Out<usize>,
    ) {
        no_buffer(handle, bytes)
    }

    fn cusparseSpSM_bufferSize(
        handle: Handle, _op_a: i32, _op_b: i32, _alpha: Address, _a: Handle, _b: Handle, _c: Handle, _type: i32, _algorithm: i32, _solve: Handle, bytes: Out<usize>,
    ) {
        no_buffer(handle, bytes)
    }

    fn cusparseSpGEMM_workEstimation(
        handle: Handle, _op_a: i32, _op_b: i32, _alpha: Address, _a: Handle, _b: Handle, _beta: Address, _c: Handle, _type: i32, _algorithm: i32, product: Handle,
        bytes: Out<usize>, _buffer: Address,
    ) {
        DESCRIPTORS.lock().get(product)?;
        no_buffer(handle, bytes)
    }

    // Asked for without a buffer, how large it is to be; with one, the product, whose size is then known.
    fn cusparseSpGEMM_compute(
        handle: Handle, _op_a: i32, _op_b: i32, _alpha: Address, a: Handle, b: Handle, _beta: Address, c: Handle, _type: i32, _algorithm: i32, _product: Handle,
        bytes: Out<usize>, buffer: Address,
    ) {
        let mut matrices = MATRICES.lock();
        let (a, b) = (*matrices.get(a)?, *matrices.get(b)?);
        let c = matrices.get_mut(c)?;
        c.entries = a.product_entries(&b);
        let value_bytes = element_bytes(c.value_type);
        drop(matrices);
        if buffer == 0 { bytes.set(a.product_terms(&b).saturating_mul(INDEX_BYTES + value_bytes) as usize) } else { run(handle) }
    }

    fn cusparseXcsrgeam2Nnz(
        handle: Handle, rows: i32, columns: i32, _a: Handle, a_entries: i32, _a_offsets: Address, _a_indices: Address, _b: Handle, b_entries: i32,
        _b_offsets: Address, _b_indices: Address, _c: Handle, _c_offsets: Address, entries: Out<i32>, _buffer: Address,
    ) {
        run(handle)?;
        entries.set(sum_entries(rows, columns, [a_entries, b_entries]))
    }

    fn cusparseXcsrsort_bufferSizeExt(
        handle: Handle, _rows: i32, _columns: i32, _entries: i32, _offsets: Address, _indices: Address, bytes: Out<usize>,
    ) {
        no_buffer(handle, bytes)
    }

    fn cusparseXcoosort_bufferSizeExt(
        handle: Handle, _rows: i32, _columns: i32, _entries: i32, _row_indices: Address, _column_indices: Address, bytes: Out<usize>,
    ) {
        no_buffer(handle, bytes)
    }

    fn cusparseXbsrsv2_zeroPivot(handle: Handle, _solve: Handle, place: Out<i32>) {
        no_zero_pivot(handle, place)
    }

    fn cusparseXbsrsm2_zeroPivot(handle: Handle, _solve: Handle, place: Out<i32>) {
        no_zero_pivot(handle, place)
    }
}

fn no_buffer(handle: u64, bytes: Out<usize>) -> Result<(), Fault> {
    HANDLES.lock().get(handle)?;
    bytes.set(0)
}

/// A solve says that all went well.
fn no_zero_pivot(handle: u64, place: Out<i32>) -> Result<(), Fault> {
    HANDLES.lock().get(handle)?;
    place.set(-1)
}

/// Functions that make a descriptor of which only the address is known.
macro_rules! create {
    ($($create:ident)*) => {
        exports! { answer;
            $(fn $create(descriptor: Out<u64>) {
                descriptor.set(DESCRIPTORS.lock().insert(()))
            })*
        }
    };
}

/// Functions that destroy one.
macro_rules! destroy {
    ($($destroy:ident)*) => {
        exports! { answer;
            $(fn $destroy(descriptor: Handle) {
                DESCRIPTORS.lock().remove(descriptor)
            })*
        }
    };
}

/// Functions that compute: their first parameter is the handle, the others change nothing here.
macro_rules! computes {
    ($($name:ident)*) => {
        exports! { answer;
            $(fn $name(handle: Handle) {
                run(handle)
            })*
        }
    };
}

create! {
    cusparseCreateMatDescr cusparseSpGEMM_createDescr cusparseSpSV_createDescr cusparseSpSM_createDescr cusparseCreateBsrsv2Info
    cusparseCreateBsrsm2Info
}

destroy! {
    cusparseDestroyDnMat cusparseDestroyDnVec cusparseDestroyMatDescr cusparseSpGEMM_destroyDescr cusparseSpSV_destroyDescr
    cusparseSpSM_destroyDescr cusparseDestroyBsrsv2Info cusparseDestroyBsrsm2Info
}

succeed! { cusparseDnMatSetStridedBatch cusparseSetMatType cusparseSetMatFillMode cusparseSetMatDiagType cusparseSetMatIndexBase }

computes! {
    cusparseSpMV cusparseSpMM cusparseSDDMM_preprocess cusparseSDDMM cusparseSpSV_analysis cusparseSpSV_solve cusparseSpSM_analysis
    cusparseSpSM_solve cusparseSpGEMM_copy cusparseXcsrsort cusparseXcoosortByRow cusparseXcoo2csr cusparseCreateIdentityPermutation
}

/// Sums, and products and solves of matrices in blocks, in one of the four types.
macro_rules! of_type {
    ($sum_buffer:ident $vector_buffer:ident $matrix_buffer:ident; $($computes:ident)*) => {
        exports! { answer;
            fn $sum_buffer(
                handle: Handle, _m: i32, _n: i32, _alpha: Address, _a: Handle, _a_entries: i32, _a_values: Address, _a_offsets: Address, _a_indices: Address,
                _beta: Address, _b: Handle, _b_entries: i32, _b_values: Address, _b_offsets: Address, _b_indices: Address, _c: Handle, _c_values: Address,
                _c_offsets: Address, _c_indices: Address, bytes: Out<usize>,
            ) {
                no_buffer(handle, bytes)
            }

            fn $vector_buffer(
                handle: Handle, _order: i32, _operation: i32, _rows: i32, _entries: i32, _a: Handle, _values: Address, _offsets: Address, _indices: Address,
                _block: i32, _solve: Handle, bytes: Out<i32>,
            ) {
                HANDLES.lock().get(handle)?;
                bytes.set(0)
            }

            fn $matrix_buffer(
                handle: Handle, _order: i32, _op_a: i32, _op_x: i32, _rows: i32, _sides: i32, _entries: i32, _a: Handle, _values: Address,
                _offsets: Address, _indices: Address, _block: i32, _solve: Handle, bytes: Out<i32>,
            ) {
                HANDLES.lock().get(handle)?;
                bytes.set(0)
            }
        }
        computes! { $($computes)* }
    };
}

of_type! { cusparseScsrgeam2_bufferSizeExt cusparseSbsrsv2_bufferSize cusparseSbsrsm2_bufferSize;
cusparseScsrgeam2 cusparseSbsrmv cusparseSbsrmm cusparseSbsrsv2_analysis cusparseSbsrsv2_solve cusparseSbsrsm2_analysis cusparseSbsrsm2_solve }
of_type! { cusparseDcsrgeam2_bufferSizeExt cusparseDbsrsv2_bufferSize cusparseDbsrsm2_bufferSize;
cusparseDcsrgeam2 cusparseDbsrmv cusparseDbsrmm cusparseDbsrsv2_analysis cusparseDbsrsv2_solve cusparseDbsrsm2_analysis cusparseDbsrsm2_solve }
of_type! { cusparseCcsrgeam2_bufferSizeExt cusparseCbsrsv2_bufferSize cusparseCbsrsm2_bufferSize;
cusparseCcsrgeam2 cusparseCbsrmv cusparseCbsrmm cusparseCbsrsv2_analysis cusparseCbsrsv2_solve cusparseCbsrsm2_analysis cusparseCbsrsm2_solve }
of_type! { cusparseZcsrgeam2_bufferSizeExt cusparseZbsrsv2_bufferSize cusparseZbsrsm2_bufferSize;
cusparseZcsrgeam2 cusparseZbsrmv cusparseZbsrmm cusparseZbsrsv2_analysis cusparseZbsrsv2_solve cusparseZbsrsm2_analysis cusparseZbsrsm2_solve }

#[unsafe(no_mangle)]
extern "C" fn cusparseGetErrorName(code: i32) -> StaticText {
    text(match code {
        0 => c"CUSPARSE_STATUS_SUCCESS",
        1 => c"CUSPARSE_STATUS_NOT_INITIALIZED",
        2 => c"CUSPARSE_STATUS_ALLOC_FAILED",
        3 => c"CUSPARSE_STATUS_INVALID_VALUE",
        10 => c"CUSPARSE_STATUS_NOT_SUPPORTED",
        _ => c"unrecognized error code",
    })
}

#[unsafe(no_mangle)]
extern "C" fn cusparseGetErrorString(code: i32) -> StaticText {
    text(match code {
        0 => c"success",
        1 => c"initialization error",
        2 => c"out of memory",
        3 => c"invalid value",
        10 => c"operation not supported",
        _ => c"unrecognized error code",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sparse(rows: i64, columns: i64, entries: i64) -> Sparse {
        Sparse { rows, columns, entries, value_type: 0 }
    }

    #[test]
    fn results_have_as_many_entries_as_are_to_be_expected() {
        // One entry in each row of one and each column of the other: the product of two permutations has 1000 entries, or by chance a few less.
        let entries = sparse(1000, 1000, 1000).product_entries(&sparse(1000, 1000, 1000));
        assert!((999..=1000).contains(&entries), "{entries}");
        // Full matrices have full products, empty ones empty ones.
        assert_eq!(sparse(4, 8, 32).product_entries(&sparse(8, 2, 16)), 8);
        assert_eq!(sparse(4, 8, 0).product_entries(&sparse(8, 2, 16)), 0);
        assert_eq!(sparse(4, 8, 32).product_terms(&sparse(8, 2, 16)), 4 * 8 * 2);
        // Half and half: a quarter of the places stays empty.
        assert_eq!((sum_entries(10, 10, [50, 50]), sum_entries(10, 10, [0, 7]), sum_entries(0, 0, [0, 0])), (75, 7, 0));
    }
}

//! `libcusolver.so.12`: dense factorisations and solves. They succeed without computing, with a status of 0 where the caller looks for one.
//!
//! Workspaces are the caller's, who asks for their size first. NVIDIA does not document it; here it is as large as the matrix, a figure that
//! was not checked on a card. (PyTorch's are part of what it allocates, and are freed at the end of each call.)

use crate::cublas::element_bytes;
use crate::cudart::fill_words;
use crate::device::{Fault, KernelWork};
use crate::devices::{active_device, launch};
use crate::ffi::{Handle, Out};
use crate::handle_table::HandleTable;

/// The stream of each handle.
static HANDLES: HandleTable<u64> = HandleTable::of("cusolver");
/// Settings that have handles of their own, none of which changes anything here.
static SETTINGS: HandleTable<()> = HandleTable::of("cusolver");

fn answer(result: Result<(), Fault>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(Fault::InvalidHandle | Fault::NoDevice) => 1, // CUSOLVER_STATUS_NOT_INITIALIZED
        Err(Fault::OutOfMemory) => 2,
        Err(Fault::NotSupported) => 9,
        Err(_) => 3, // CUSOLVER_STATUS_INVALID_VALUE
    }
}

/// The parameters are the header's in their order: each of them takes one place of 64 bits, whatever its type, of which an `int` has the lower half.
fn int(place: u64) -> u64 {
    u64::from((place as u32).cast_signed().max(0).cast_unsigned())
}

/// Counts a call, and says that all went well: in as many numbers on the device as there are matrices.
///
/// # Safety
/// Nobody frees or changes those numbers meanwhile.
unsafe fn compute(handle: u64, info: u64, matrices: u64) -> Result<(), Fault> {
    let stream = *HANDLES.lock().get(handle)?;
    launch(stream, KernelWork::UNKNOWN)?;
    // SAFETY: as the caller says.
    unsafe { fill_words(info, 0, matrices as usize, stream) }
}

/// Functions that compute, by the parameters after the handle. `info` is where the status goes; where there is a `count`, or a `wide_count` of 64 bits,
/// it is the number of matrices.
macro_rules! computes {
    ($($parameters:tt $($name:ident)*;)*) => {$($(computes! { @one $name $parameters })*)*};
    (@one $name:ident ($($before:ident)*; info $($after:ident)*)) => {
        unsafe_exports! { answer;
            fn $name(handle: u64, $($before: u64,)* info: u64, $($after: u64),*) {
                let _ = ($($before,)* $($after,)*);
                compute(handle, info, 1)
            }
        }
    };
    (@one $name:ident ($($before:ident)*; info $($after:ident)*; count)) => {
        unsafe_exports! { answer;
            fn $name(handle: u64, $($before: u64,)* info: u64, $($after: u64,)* count: u64) {
                let _ = ($($before,)* $($after,)*);
                compute(handle, info, int(count))
            }
        }
    };
    (@one $name:ident ($($before:ident)*; info $($after:ident)*; wide_count)) => {
        unsafe_exports! { answer;
            fn $name(handle: u64, $($before: u64,)* info: u64, $($after: u64,)* count: i64) {
                let _ = ($($before,)* $($after,)*);
                compute(handle, info, u64::try_from(count).map_err(|_| Fault::InvalidValue)?)
            }
        }
    };
}

computes! {
    (m n a lda work pivots; info) cusolverDnSgetrf cusolverDnDgetrf cusolverDnCgetrf cusolverDnZgetrf;
    (transposed n sides a lda pivots b ldb; info) cusolverDnSgetrs cusolverDnDgetrs cusolverDnCgetrs cusolverDnZgetrs;
    (uplo n a lda work lwork; info) cusolverDnSpotrf cusolverDnDpotrf cusolverDnCpotrf cusolverDnZpotrf;
    (uplo n sides a lda b ldb; info) cusolverDnSpotrs cusolverDnDpotrs cusolverDnCpotrs cusolverDnZpotrs;
    (uplo n a lda; info; count) cusolverDnSpotrfBatched cusolverDnDpotrfBatched cusolverDnCpotrfBatched cusolverDnZpotrfBatched;
    (uplo n sides a lda b ldb; info matrices)
        cusolverDnSpotrsBatched cusolverDnDpotrsBatched cusolverDnCpotrsBatched cusolverDnZpotrsBatched;
    (m n a lda tau work lwork; info) cusolverDnSgeqrf cusolverDnDgeqrf cusolverDnCgeqrf cusolverDnZgeqrf;
    (m n k a lda tau work lwork; info) cusolverDnSorgqr cusolverDnDorgqr cusolverDnCungqr cusolverDnZungqr;
    (side transposed m n k a lda tau c ldc work lwork; info)
        cusolverDnSormqr cusolverDnDormqr cusolverDnCunmqr cusolverDnZunmqr;
    (uplo n a lda pivots work lwork; info) cusolverDnSsytrf cusolverDnDsytrf cusolverDnCsytrf cusolverDnZsytrf;
    (jobu jobvt m n a lda s u ldu vt ldvt work lwork rwork; info)
        cusolverDnSgesvd cusolverDnDgesvd cusolverDnCgesvd cusolverDnZgesvd;
    (job economy m n a lda s u ldu v ldv work lwork; info params)
        cusolverDnSgesvdj cusolverDnDgesvdj cusolverDnCgesvdj cusolverDnZgesvdj;
    (job m n a lda s u ldu v ldv work lwork; info params; count)
        cusolverDnSgesvdjBatched cusolverDnDgesvdjBatched cusolverDnCgesvdjBatched cusolverDnZgesvdjBatched;
    (job rank m n a lda next_a s next_s u ldu next_u v ldv next_v work lwork; info residuals; count)
        cusolverDnSgesvdaStridedBatched cusolverDnDgesvdaStridedBatched cusolverDnCgesvdaStridedBatched cusolverDnZgesvdaStridedBatched;
    (job uplo n a lda w work lwork; info) cusolverDnSsyevd cusolverDnDsyevd cusolverDnCheevd cusolverDnZheevd;
    (job uplo n a lda w work lwork; info params) cusolverDnSsyevj cusolverDnDsyevj cusolverDnCheevj cusolverDnZheevj;
    (job uplo n a lda w work lwork; info params; count)
        cusolverDnSsyevjBatched cusolverDnDsyevjBatched cusolverDnCheevjBatched cusolverDnZheevjBatched;
    (params m n type_a a lda type_tau tau compute_type work bytes host_work host_bytes; info) cusolverDnXgeqrf;
    (params uplo n type_a a lda compute_type work bytes host_work host_bytes; info) cusolverDnXpotrf;
    (params uplo n sides type_a a lda type_b b ldb; info) cusolverDnXpotrs;
    (params job uplo n type_a a lda type_w w compute_type work bytes host_work host_bytes; info) cusolverDnXsyevd;
    (params job uplo n type_a a lda type_w w compute_type work bytes host_work host_bytes; info; wide_count) cusolverDnXsyevBatched;
    (params left right n type_a a lda type_w w type_vl vl ldvl type_vr vr ldvr compute_type work bytes host_work host_bytes; info)
        cusolverDnXgeev;
    (uplo n sides type_a a lda pivots type_b b ldb work bytes host_work host_bytes; info) cusolverDnXsytrs;
}

/// Functions that answer with a size of workspace in elements, for a matrix of so many rows by so many columns.
macro_rules! asks_for_elements {
    ($($parameters:tt $rows:ident by $columns:ident: $($name:ident)*;)*) => {
        $($(asks_for_elements! { @one $name $rows $columns $parameters })*)*
    };
    (@one $name:ident $rows:ident $columns:ident ($($before:ident)*; lwork $($after:ident)*)) => {
        exports! { answer;
            fn $name(handle: u64, $($before: u64,)* lwork: Out<i32>, $($after: u64),*) {
                let _ = ($($before,)* $($after,)*);
                HANDLES.lock().get(handle)?;
                let elements = int($rows).saturating_mul(int($columns)).max(1);
                lwork.set(i32::try_from(elements).map_err(|_| Fault::InvalidValue)?)
            }
        }
    };
}

asks_for_elements! {
    (m n a lda; lwork) m by n:
        cusolverDnSgetrf_bufferSize cusolverDnDgetrf_bufferSize cusolverDnCgetrf_bufferSize cusolverDnZgetrf_bufferSize
        cusolverDnSgeqrf_bufferSize cusolverDnDgeqrf_bufferSize cusolverDnCgeqrf_bufferSize cusolverDnZgeqrf_bufferSize;
    (uplo n a lda; lwork) n by n:
        cusolverDnSpotrf_bufferSize cusolverDnDpotrf_bufferSize cusolverDnCpotrf_bufferSize cusolverDnZpotrf_bufferSize;
    (m n k a lda tau; lwork) m by n:
        cusolverDnSorgqr_bufferSize cusolverDnDorgqr_bufferSize cusolverDnCungqr_bufferSize cusolverDnZungqr_bufferSize;
    (side transposed m n k a lda tau c ldc; lwork) m by n:
        cusolverDnSormqr_bufferSize cusolverDnDormqr_bufferSize cusolverDnCunmqr_bufferSize cusolverDnZunmqr_bufferSize;
    (n a lda; lwork) n by n:
        cusolverDnSsytrf_bufferSize cusolverDnDsytrf_bufferSize cusolverDnCsytrf_bufferSize cusolverDnZsytrf_bufferSize;
    (m n; lwork) m by n:
        cusolverDnSgesvd_bufferSize cusolverDnDgesvd_bufferSize cusolverDnCgesvd_bufferSize cusolverDnZgesvd_bufferSize;
    (job economy m n a lda s u ldu v ldv; lwork params) m by n:
        cusolverDnSgesvdj_bufferSize cusolverDnDgesvdj_bufferSize cusolverDnCgesvdj_bufferSize cusolverDnZgesvdj_bufferSize;
    (job m n a lda s u ldu v ldv; lwork params count) m by n:
        cusolverDnSgesvdjBatched_bufferSize cusolverDnDgesvdjBatched_bufferSize cusolverDnCgesvdjBatched_bufferSize
        cusolverDnZgesvdjBatched_bufferSize;
    (job rank m n a lda next_a s next_s u ldu next_u v ldv next_v; lwork count) m by n:
        cusolverDnSgesvdaStridedBatched_bufferSize cusolverDnDgesvdaStridedBatched_bufferSize
        cusolverDnCgesvdaStridedBatched_bufferSize cusolverDnZgesvdaStridedBatched_bufferSize;
    (job uplo n a lda w; lwork) n by n:
        cusolverDnSsyevd_bufferSize cusolverDnDsyevd_bufferSize cusolverDnCheevd_bufferSize cusolverDnZheevd_bufferSize;
    (job uplo n a lda w; lwork params) n by n:
        cusolverDnSsyevj_bufferSize cusolverDnDsyevj_bufferSize cusolverDnCheevj_bufferSize cusolverDnZheevj_bufferSize;
    (job uplo n a lda w; lwork params count) n by n:
        cusolverDnSsyevjBatched_bufferSize cusolverDnDsyevjBatched_bufferSize cusolverDnCheevjBatched_bufferSize
        cusolverDnZheevjBatched_bufferSize;
}

/// Functions that answer with the bytes of workspace on the device and on the host. Sides are 64 bits wide here.
macro_rules! asks_for_bytes {
    ($($parameters:tt $rows:ident by $columns:ident of $kind:ident: $name:ident;)*) => {
        $(asks_for_bytes! { @one $name $rows $columns $kind $parameters })*
    };
    (@one $name:ident $rows:ident $columns:ident $kind:ident ($($before:ident)*; bytes $($after:ident)*)) => {
        exports! { answer;
            fn $name(handle: u64, $($before: u64,)* bytes: Out<usize>, host_bytes: Out<usize>, $($after: u64),*) {
                let _ = ($($before,)* $($after,)*);
                HANDLES.lock().get(handle)?;
                let elements = $rows.saturating_mul($columns).max(1);
                bytes.set(elements.saturating_mul(element_bytes($kind as i32)) as usize)?;
                host_bytes.set(0)
            }
        }
    };
}

asks_for_bytes! {
    (params m n type_a a lda type_tau tau compute_type; bytes) m by n of type_a: cusolverDnXgeqrf_bufferSize;
    (params uplo n type_a a lda compute_type; bytes) n by n of type_a: cusolverDnXpotrf_bufferSize;
    (params job uplo n type_a a lda type_w w compute_type; bytes) n by n of type_a: cusolverDnXsyevd_bufferSize;
    (params job uplo n type_a a lda type_w w compute_type; bytes count) n by n of type_a: cusolverDnXsyevBatched_bufferSize;
    (params left right n type_a a lda type_w w type_vl vl ldvl type_vr vr ldvr compute_type; bytes) n by n of type_a: cusolverDnXgeev_bufferSize;
    (uplo n sides type_a a lda pivots type_b b ldb; bytes) n by n of type_a: cusolverDnXsytrs_bufferSize;
}

exports! { answer;
    fn cusolverDnCreate(handle: Out<u64>) {
        active_device()?;
        handle.set(HANDLES.lock().insert(0))
    }

    fn cusolverDnDestroy(handle: Handle) {
        HANDLES.lock().remove(handle).map(drop)
    }

    fn cusolverDnSetStream(handle: Handle, stream: Handle) {
        active_device()?.streams().check(stream).map_err(|_| Fault::InvalidValue)?;
        *HANDLES.lock().get_mut(handle)? = stream;
        Ok(())
    }

    fn cusolverDnCreateParams(settings: Out<u64>) {
        settings.set(SETTINGS.lock().insert(()))
    }

    fn cusolverDnDestroyParams(settings: Handle) {
        SETTINGS.lock().remove(settings)
    }

    fn cusolverDnCreateGesvdjInfo(settings: Out<u64>) {
        settings.set(SETTINGS.lock().insert(()))
    }

    fn cusolverDnDestroyGesvdjInfo(settings: Handle) {
        SETTINGS.lock().remove(settings)
    }

    fn cusolverDnCreateSyevjInfo(settings: Out<u64>) {
        settings.set(SETTINGS.lock().insert(()))
    }

    fn cusolverDnDestroySyevjInfo(settings: Handle) {
        SETTINGS.lock().remove(settings)
    }
}

succeed! { cusolverDnXgesvdjSetMaxSweeps cusolverDnXgesvdjSetSortEig cusolverDnXgesvdjSetTolerance }

//! Error codes, their names, and the last error of each thread.

use std::cell::Cell;
use std::ffi::CStr;

use crate::device::Fault;
use crate::ffi::{StaticText, text};
use crate::unsupported_calls;

thread_local! {
    static LAST_ERROR: Cell<i32> = const { Cell::new(0) };
}

/// A result as the runtime gives it; an error stays the thread's last error until it is asked for.
pub(super) fn answer(result: Result<(), Fault>) -> i32 {
    let Err(fault) = result else { return 0 };
    let code = code_of(fault);
    // That something is not over yet is an answer and no error, as in CUDA.
    if fault != Fault::NotReady {
        LAST_ERROR.set(code);
    }
    code
}

/// An error that stays however often it is asked for.
fn lasting() -> Option<i32> {
    unsupported_calls::check().err().map(code_of)
}

/// The driver has the same numbers.
pub(crate) fn code_of(fault: Fault) -> i32 {
    match fault {
        Fault::InvalidValue => 1,
        Fault::OutOfMemory => 2,
        Fault::NotInitialised => 3,
        Fault::InvalidSymbol => 13,
        Fault::InvalidDirection => 21,
        Fault::MissingConfiguration => 52,
        Fault::NoDevice => 100,
        Fault::InvalidDevice => 101,
        Fault::InvalidHandle => 400,
        Fault::PeerAccess => 217,
        Fault::PeerAccessEnabled => 704,
        Fault::AlreadyRegistered => 712,
        Fault::NotRegistered => 713,
        Fault::NotSupported => 801,
        Fault::IllegalState => 401,
        Fault::NotReady => 600,
        Fault::NotWhileCapturing => 900,
        Fault::CaptureBroken => 901,
        Fault::CaptureUnmatched => 903,
        Fault::CaptureUnjoined => 904,
        Fault::CaptureIsolation => 905,
        Fault::CapturedEvent => 907,
    }
}

/// Code, the runtime's name, the driver's name, and what both say about it.
const ERRORS: [(i32, &CStr, &CStr, &CStr); 24] = [
    (0, c"cudaSuccess", c"CUDA_SUCCESS", c"no error"),
    (1, c"cudaErrorInvalidValue", c"CUDA_ERROR_INVALID_VALUE", c"invalid argument"),
    (2, c"cudaErrorMemoryAllocation", c"CUDA_ERROR_OUT_OF_MEMORY", c"out of memory"),
    (3, c"cudaErrorInitializationError", c"CUDA_ERROR_NOT_INITIALIZED", c"initialization error"),
    (13, c"cudaErrorInvalidSymbol", c"CUDA_ERROR_INVALID_SYMBOL", c"invalid device symbol"),
    // The driver has no copies of a kind.
    (21, c"cudaErrorInvalidMemcpyDirection", c"CUDA_ERROR_INVALID_VALUE", c"invalid copy direction for memcpy"),
    (52, c"cudaErrorMissingConfiguration", c"CUDA_ERROR_MISSING_CONFIGURATION", c"__global__ function call is not configured"),
    // Never answered here: PyTorch's own device code says it of a kernel for which it has no tuning.
    (98, c"cudaErrorInvalidDeviceFunction", c"CUDA_ERROR_INVALID_DEVICE_FUNCTION", c"invalid device function"),
    (100, c"cudaErrorNoDevice", c"CUDA_ERROR_NO_DEVICE", c"no CUDA-capable device is detected"),
    (101, c"cudaErrorInvalidDevice", c"CUDA_ERROR_INVALID_DEVICE", c"invalid device ordinal"),
    (
        217,
        c"cudaErrorPeerAccessUnsupported",
        c"CUDA_ERROR_PEER_ACCESS_UNSUPPORTED",
        c"peer access is not supported between these two devices",
    ),
    (400, c"cudaErrorInvalidResourceHandle", c"CUDA_ERROR_INVALID_HANDLE", c"invalid resource handle"),
    (600, c"cudaErrorNotReady", c"CUDA_ERROR_NOT_READY", c"device not ready"),
    (704, c"cudaErrorPeerAccessAlreadyEnabled", c"CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED", c"peer access is already enabled"),
    (
        712,
        c"cudaErrorHostMemoryAlreadyRegistered",
        c"CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED",
        c"part or all of the requested memory range is already mapped",
    ),
    (
        713,
        c"cudaErrorHostMemoryNotRegistered",
        c"CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED",
        c"pointer does not correspond to a registered memory region",
    ),
    (401, c"cudaErrorIllegalState", c"CUDA_ERROR_ILLEGAL_STATE", c"the operation cannot be performed in the present state"),
    (801, c"cudaErrorNotSupported", c"CUDA_ERROR_NOT_SUPPORTED", c"operation not supported"),
    (
        900,
        c"cudaErrorStreamCaptureUnsupported",
        c"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
        c"operation not permitted when stream is capturing",
    ),
    (
        901,
        c"cudaErrorStreamCaptureInvalidated",
        c"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
        c"operation failed due to a previous error during capture",
    ),
    (903, c"cudaErrorStreamCaptureUnmatched", c"CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", c"capture was not initiated in this stream"),
    (904, c"cudaErrorStreamCaptureUnjoined", c"CUDA_ERROR_STREAM_CAPTURE_UNJOINED", c"capturing stream has unjoined work"),
    (
        905,
        c"cudaErrorStreamCaptureIsolation",
        c"CUDA_ERROR_STREAM_CAPTURE_ISOLATION",
        c"dependency created on uncaptured work in another stream",
    ),
    (
        907,
        c"cudaErrorCapturedEvent",
        c"CUDA_ERROR_CAPTURED_EVENT",
        c"operation not permitted on an event last recorded in a capturing stream",
    ),
];

/// The driver's name of a code, and what it means.
pub(crate) fn driver_texts(code: i32) -> Option<(StaticText, StaticText)> {
    ERRORS.iter().find(|error| error.0 == code).map(|error| (text(error.2), text(error.3)))
}

#[unsafe(no_mangle)]
extern "C" fn cudaGetLastError() -> i32 {
    lasting().unwrap_or_else(|| LAST_ERROR.replace(0))
}

#[unsafe(no_mangle)]
extern "C" fn cudaPeekAtLastError() -> i32 {
    lasting().unwrap_or_else(|| LAST_ERROR.get())
}

#[unsafe(no_mangle)]
extern "C" fn cudaGetErrorName(code: i32) -> StaticText {
    text(ERRORS.iter().find(|error| error.0 == code).map_or(c"unrecognized error code", |error| error.1))
}

#[unsafe(no_mangle)]
extern "C" fn cudaGetErrorString(code: i32) -> StaticText {
    text(ERRORS.iter().find(|error| error.0 == code).map_or(c"unrecognized error code", |error| error.3))
}

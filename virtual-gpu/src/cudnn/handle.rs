//! cuDNN's handles, its version, and how its functions answer.

use crate::device::{Fault, KernelWork};
use crate::devices::{active_device, launch};
use crate::ffi::{Handle, Out, OutText, StaticText, text};
use crate::handle_table::HandleTable;

/// 9.20.0, the version that PyTorch 2.13 was built with.
const VERSION: usize = 92000;

/// cuDNN handles, each with its stream.
static HANDLES: HandleTable<u64> = HandleTable::of("cudnn");

pub(super) fn answer(result: Result<(), Fault>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(Fault::NoDevice) => 1001,     // CUDNN_STATUS_NOT_INITIALIZED
        Err(Fault::NotSupported) => 3000, // CUDNN_STATUS_NOT_SUPPORTED
        Err(Fault::OutOfMemory) => 4002,  // CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED
        Err(_) => 2000,                   // CUDNN_STATUS_BAD_PARAM
    }
}

#[unsafe(no_mangle)]
extern "C" fn cudnnGetVersion() -> usize {
    VERSION
}

#[unsafe(no_mangle)]
extern "C" fn cudnnGetCudartVersion() -> usize {
    crate::cudart::CUDA_VERSION as usize
}

#[unsafe(no_mangle)]
extern "C" fn cudnnGetErrorString(code: i32) -> StaticText {
    text(match code {
        0 => c"CUDNN_STATUS_SUCCESS",
        1001 => c"CUDNN_STATUS_NOT_INITIALIZED",
        2000 => c"CUDNN_STATUS_BAD_PARAM",
        3000 => c"CUDNN_STATUS_NOT_SUPPORTED",
        _ => c"unrecognized error code",
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cudnnGetLastErrorString(message: OutText, room: usize) {
    // Null or no room is the caller's own doing, and there is nothing to answer with.
    // SAFETY: by the header there is that much room.
    let _ = unsafe { message.set("", room) };
}

/// Puts what would have run on the handle's stream.
pub(super) fn run(handle: u64, work: KernelWork) -> Result<(), Fault> {
    let stream = *HANDLES.lock().get(handle)?;
    launch(stream, work)
}

exports! { answer;
    fn cudnnCreate(handle: Out<u64>) {
        active_device()?;
        handle.set(HANDLES.lock().insert(0))
    }

    fn cudnnDestroy(handle: Handle) {
        HANDLES.lock().remove(handle).map(drop)
    }

    fn cudnnSetStream(handle: Handle, stream: Handle) {
        active_device()?.streams().check(stream)?;
        *HANDLES.lock().get_mut(handle)? = stream;
        Ok(())
    }

    fn cudnnGetStream(handle: Handle, stream: Out<u64>) {
        stream.set(*HANDLES.lock().get(handle)?)
    }

    fn cudnnGetProperty(number: i32, value: Out<i32>) {
        // `MAJOR_VERSION`, `MINOR_VERSION`, `PATCH_LEVEL`.
        let version = VERSION as i32;
        value.set(match number {
            0 => version / 10000,
            1 => version / 100 % 100,
            2 => version % 100,
            _ => return Err(Fault::InvalidValue),
        })
    }
}

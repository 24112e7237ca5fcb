//! `libnccl.so.2`: version and texts. Communicators are unsupported.

use crate::device::Fault;
use crate::ffi::{Out, StaticText, text};

/// 2.29.7, the version that PyTorch 2.13 was built with.
const VERSION: i32 = 22907;
/// `ncclInvalidArgument`.
const INVALID_ARGUMENT: i32 = 4;

fn answer(result: Result<(), Fault>) -> i32 {
    result.map_or(INVALID_ARGUMENT, |()| 0)
}

exports! { answer;
    fn ncclGetVersion(version: Out<i32>) {
        version.set(VERSION)
    }
}

#[unsafe(no_mangle)]
extern "C" fn ncclGetErrorString(code: i32) -> StaticText {
    text(match code {
        0 => c"no error",
        INVALID_ARGUMENT => c"invalid argument",
        5 => c"invalid usage: not supported by the virtual GPU",
        _ => c"unrecognized error code",
    })
}

#[unsafe(no_mangle)]
extern "C" fn ncclGetLastError(_communicator: u64) -> StaticText {
    text(c"")
}

//! `libnvrtc.so.13`: the run-time compiler. There is nothing to compile for; it says so itself.

use crate::device::Fault;
use crate::ffi::{Out, StaticText, text};

/// NVRTC of CUDA 13.0.
const VERSION: (i32, i32) = (13, 0);
/// `NVRTC_ERROR_INVALID_INPUT`.
const INVALID_INPUT: i32 = 3;

fn answer(result: Result<(), Fault>) -> i32 {
    result.map_or(INVALID_INPUT, |()| 0)
}

exports! { answer;
    fn nvrtcVersion(major: Out<i32>, minor: Out<i32>) {
        major.set(VERSION.0)?;
        minor.set(VERSION.1)
    }
}

#[unsafe(no_mangle)]
extern "C" fn nvrtcGetErrorString(code: i32) -> StaticText {
    text(match code {
        0 => c"NVRTC_SUCCESS",
        INVALID_INPUT => c"NVRTC_ERROR_INVALID_INPUT",
        11 => c"NVRTC_ERROR_INTERNAL_ERROR",
        _ => c"unrecognized error code",
    })
}

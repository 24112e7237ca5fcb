//! `libcusparse.so.12`: the one function that cannot answer with a status. All others are unsupported.

use crate::ffi::{StaticText, text};

#[unsafe(no_mangle)]
extern "C" fn cusparseGetErrorString(code: i32) -> StaticText {
    text(match code {
        0 => c"success",
        10 => c"operation not supported",
        _ => c"unrecognized error code",
    })
}

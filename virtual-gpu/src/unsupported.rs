//! What the virtual GPU does not do. Every function that PyTorch's libraries ask for and that no other module has is
//! here, generated from `unsupported.txt`: it answers its library's own "not supported", writes its name once to
//! standard error, and is counted for the report.
//!
//! Programs may overlook such an answer. Where the environment asks for strictness, the first one stays: from then on everything
//! that needs the device fails with it, so that PyTorch raises an error close to the place.

use crate::environment::is_strict;
use crate::report;
use crate::unsupported_calls::{count, stop};

/// Counts a call of something unsupported, and says so the first time.
pub(crate) fn met(name: &str) {
    note(name, is_strict);
}

/// Counts a question to which "not there" is an ordinary answer, and says so the first time: the look-up of a function that may be
/// missing, a sensor that a device may lack.
pub(crate) fn declined(name: &str) {
    note(name, || false);
}

fn note(name: &str, stops: impl FnOnce() -> bool) {
    if !count(name) {
        return;
    }
    report::write();
    report::write_at_exit();
    if stops() && stop() {
        eprintln!("lowmem: virtual GPU: not supported: {name}. Since --strict was asked for, the GPU fails from here on");
    } else {
        eprintln!("lowmem: virtual GPU: not supported: {name}");
    }
}

include!(concat!(env!("OUT_DIR"), "/unsupported.rs"));

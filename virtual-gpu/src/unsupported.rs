//! What the virtual GPU does not do. Every function that PyTorch's libraries ask for and that no other module has is
//! here, generated from `unsupported.txt`: it answers its library's own "not supported", writes its name once to
//! standard error, and is counted for the report.
//!
//! Programs may overlook such an answer. Where the environment asks for strictness, the first one stays: from then on everything
//! that needs the device fails with it, so that PyTorch raises an error close to the place.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::device::{Fault, lock};
use crate::process;

static CALLS: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());
static FAILED: AtomicBool = AtomicBool::new(false);

/// Counts a call of something unsupported, and says so the first time.
pub(crate) fn met(name: &str) {
    if count(name) {
        if process::is_strict() && !FAILED.swap(true, Ordering::Relaxed) {
            eprintln!("lowmem: virtual GPU: not supported: {name}. Since --strict was asked for, the GPU fails from here on");
        } else {
            eprintln!("lowmem: virtual GPU: not supported: {name}");
        }
    }
}

/// Counts a question to which "not there" is an ordinary answer, and says so the first time: the look-up of a function that may be
/// missing, a sensor that a device may lack.
pub(crate) fn declined(name: &str) {
    if count(name) {
        eprintln!("lowmem: virtual GPU: not supported: {name}");
    }
}

/// Fails once something unsupported was met, where the environment asks for that.
pub(crate) fn check() -> Result<(), Fault> {
    if FAILED.load(Ordering::Relaxed) { Err(Fault::NotSupported) } else { Ok(()) }
}

/// True the first time.
fn count(name: &str) -> bool {
    let first = {
        let mut calls = lock(&CALLS);
        match calls.get_mut(name) {
            Some(count) => {
                *count += 1;
                false
            }
            None => calls.insert(name.to_owned(), 1).is_none(),
        }
    };
    if first {
        process::write_report();
        process::report_at_exit();
    }
    first
}

/// Calls so far, by name.
pub(crate) fn calls() -> BTreeMap<String, u64> {
    lock(&CALLS).clone()
}

include!(concat!(env!("OUT_DIR"), "/unsupported.rs"));

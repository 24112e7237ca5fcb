//! What the virtual GPU does not do. Every function that PyTorch's libraries ask for and that no other module has is
//! here, generated from `unsupported.txt`: it answers its library's own "not supported", writes its name once to
//! standard error, and is counted for the report.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::device::lock;
use crate::process;

static CALLS: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

/// Counts a call of something unsupported, and says so the first time.
pub(crate) fn met(name: &str) {
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
        eprintln!("lowmem: virtual GPU: not supported: {name}");
        process::write_report();
        process::report_at_exit();
    }
}

/// Calls so far, by name.
pub(crate) fn calls() -> BTreeMap<String, u64> {
    lock(&CALLS).clone()
}

include!(concat!(env!("OUT_DIR"), "/unsupported.rs"));

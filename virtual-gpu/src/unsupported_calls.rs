//! The calls of functions that the virtual GPU does not support: how many there were, and whether one of them made everything fail that came after it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::device::{Fault, lock};

static CALLS: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());
static STOPPED: AtomicBool = AtomicBool::new(false);

/// Counts one. True the first time that the name is met.
pub(crate) fn count(name: &str) -> bool {
    let mut calls = lock(&CALLS);
    match calls.get_mut(name) {
        Some(count) => {
            *count += 1;
            false
        }
        None => calls.insert(name.to_owned(), 1).is_none(),
    }
}

/// Calls so far, by name.
pub(crate) fn calls() -> BTreeMap<String, u64> {
    lock(&CALLS).clone()
}

/// Has everything fail from here on. True the first time.
pub(crate) fn stop() -> bool {
    !STOPPED.swap(true, Ordering::Relaxed)
}

/// Fails once everything is to fail.
pub(crate) fn check() -> Result<(), Fault> {
    if STOPPED.load(Ordering::Relaxed) { Err(Fault::NotSupported) } else { Ok(()) }
}

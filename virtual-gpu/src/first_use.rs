//! What happens once in a process, while the host waits: a kernel is loaded when it is first launched, a library makes itself ready, cuDNN builds a plan.
//!
//! The times are what an H100's host was seen to take (November 2026): a first encode that computes for 10 ms took 0.26 s, a first sampler step 0.1 to 0.3 s longer than
//! the next. How they are shared between kernels, libraries and plans is a rule; a process whose files are not in the page cache takes more than a second longer.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::device::{Span, lock};
use crate::machine::host_clock;

/// Machine code of a kernel.
const KERNEL_SECS: Span = Span([0.2e-3, 2e-3, 20e-3]);
/// cuBLAS, its handle and what its first product needs.
const CUBLAS_SECS: Span = Span([0.05, 0.17, 1.0]);
/// A plan of cuDNN's: a shape of a convolution or of attention.
const PLAN_SECS: Span = Span([1e-3, 5e-3, 50e-3]);

/// A kernel is launched.
pub(crate) fn kernel(function: u64) {
    static LOADED: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());
    if lock(&LOADED).insert(function) {
        host_clock().spend(KERNEL_SECS);
    }
}

/// cuBLAS is used.
pub(crate) fn cublas() {
    static IS_READY: AtomicBool = AtomicBool::new(false);
    if !IS_READY.swap(true, Ordering::Relaxed) {
        host_clock().spend(CUBLAS_SECS);
    }
}

/// cuDNN builds a plan.
pub(crate) fn plan() {
    host_clock().spend(PLAN_SECS);
}

//! Another program in the worker's place, which is how tests make faults. It brings a device of its own.

use std::env;
use std::path::PathBuf;

/// Names the program.
const WORKER: &str = "LOWMEM_WORKER";

/// The program, where there is one.
pub(crate) fn worker() -> Option<PathBuf> {
    env::var_os(WORKER).map(PathBuf::from)
}

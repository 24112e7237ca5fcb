//! PyTorch's own history of the GPU's memory, written as the snapshot that its tools read (`python -m torch.cuda._memory_viz`, pytorch.org/memory_viz). Each allocation has
//! its label of `attribution` as user metadata. The engine has no Python frames, and frames of C++ would take longer than what they stand for.

use std::fs;
use std::path::Path;

use engine_protocol::unfinished;

use super::ffi;
use crate::attribution;
use crate::error::{Error, Result};

/// The newest events that are kept: allocations and their ends. A snapshot takes about 2 KiB of RAM for each while it is made.
const MOST_EVENTS: usize = 500_000;

/// Keeps the history from here on.
///
/// # Errors
/// libtorch's.
pub(crate) fn start() -> Result<()> {
    ffi::record_history(MOST_EVENTS)?;
    attribution::listen(ffi::annotate);
    Ok(())
}

/// Writes what there is and was into a file: whole, or not at all.
///
/// # Errors
/// libtorch's, and where the file cannot be written.
pub(crate) fn write(path: &Path) -> Result<()> {
    let unfinished = unfinished(path);
    let bytes = ffi::snapshot()?;
    let written = fs::write(&unfinished, bytes).and_then(|()| fs::rename(&unfinished, path));
    written.map_err(|error| Error::file(path, error))
}

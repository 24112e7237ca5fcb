//! `lowmem setup`: fetches PyTorch, which lowmem needs and does not bring.

use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::pytorch;

/// Fetches it, once.
pub(crate) fn run() -> Result<ExitCode, Error> {
    let folder = pytorch::fetch()?;
    say!("PyTorch is in {}. Try: lowmem autotune --gpu 24GB", folder.display());
    Ok(ExitCode::Done)
}

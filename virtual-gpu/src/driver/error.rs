//! How the driver's functions answer, and that they do not before `cuInit`.

use crate::cudart::code_of;
use crate::device::Fault;
use crate::devices::is_initialised;

/// Fails as long as neither the program nor the runtime, which does it by itself, has called `cuInit`.
pub(super) fn ready() -> Result<(), Fault> {
    if is_initialised() { Ok(()) } else { Err(Fault::NotInitialised) }
}

pub(super) fn answer(result: Result<(), Fault>) -> i32 {
    result.map_or_else(code_of, |()| 0)
}

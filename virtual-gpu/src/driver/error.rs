//! How the driver's functions answer.

use crate::cudart::code_of;
use crate::device::Fault;

pub(super) fn answer(result: Result<(), Fault>) -> i32 {
    result.map_or_else(code_of, |()| 0)
}

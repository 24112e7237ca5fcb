//! Attribution: each allocation on the GPU belongs to a purpose, so that a peak can be taken apart.
//!
//! Code says what it allocates for ([`within`]), and libtorch's caching allocator says what it allocates: it reports each block with the bytes that
//! it counts for it (see `cuda`). Nothing here moves, changes or asks for memory, so models may use it as they use names. On the CPU nothing
//! is reported, and all of this does nothing.
//!
//! Note: what an operation allocates.
//! A convolution, a matrix product and attention allocate their result and, beside it, memory for themselves, in an order of their own. All of it counts
//! as workspace while they run; then the result is [`retag`]ged, at the peaks that it was part of too.

mod course;
mod live_allocations;
mod place;

use std::cell::Cell;
use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, PoisonError};

use engine_protocol::{MemoryCourse, PeakParts};
use tch::Tensor;

pub use engine_protocol::Purpose;

use crate::error::Result;
use live_allocations::LiveAllocations;
pub(crate) use place::{listen, operation_begins, operation_ends};

/// One for the process, as the caching allocator is.
static LIVE: Mutex<LiveAllocations> = Mutex::new(LiveAllocations::new());

thread_local! {
    /// What this thread allocates for.
    static CURRENT: Cell<Purpose> = const { Cell::new(Purpose::Activations) };
}

fn live() -> MutexGuard<'static, LiveAllocations> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sets the purpose back to what it was, whichever way its scope is left.
struct Restore(Purpose);

impl Drop for Restore {
    fn drop(&mut self) {
        CURRENT.set(self.0);
        place::tell(self.0);
    }
}

/// Runs `body`, whose allocations belong to `purpose` where it does not say otherwise itself.
pub fn within<R>(purpose: Purpose, body: impl FnOnce() -> R) -> R {
    let _restore = Restore(CURRENT.replace(purpose));
    place::tell(purpose);
    body()
}

/// What is allocated from here on belongs to that stage.
pub(crate) fn in_stage(name: &'static str) {
    place::in_stage(name, CURRENT.get());
}

/// Runs `body`, in which a model uses the weights of the group of that name.
pub(crate) fn in_group<R>(name: impl Display, body: impl FnOnce() -> R) -> R {
    place::in_group(name, CURRENT.get(), body)
}

/// Runs one operation of libtorch: what it allocates beside its result is workspace.
///
/// # Errors
/// The operation's.
pub fn operation(body: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
    let result = within(Purpose::Workspace, body)?;
    retag(&result, CURRENT.get());
    Ok(result)
}

/// Says that the memory of `tensor`, which begins where its allocation does, belongs to `purpose`, and did from its first moment. Others, and those
/// that are not on the GPU, are left alone.
pub fn retag(tensor: &Tensor, purpose: Purpose) {
    if tensor.device().is_cuda() {
        live().retag(tensor.data_ptr() as usize, purpose);
    }
}

/// The allocator reports a block of so many bytes at `address`, or, where `bytes` is negative, that it is free; `reserved` bytes are held from the driver.
pub(crate) fn report(address: usize, bytes: i64, reserved: u64) {
    match u64::try_from(bytes) {
        Ok(bytes) => live().allocated(address, bytes, reserved, CURRENT.get(), place::place()),
        Err(_) => live().freed(address, reserved),
    }
}

/// An operation has made or written a tensor of that shape, which is all of the allocation at `address`.
pub(crate) fn shaped(address: usize, shape: &[i64]) {
    live().shaped(address, shape, place::operation);
}

/// The allocator reports that an allocation failed while it held so many bytes from the driver.
pub(crate) fn report_out_of_memory(reserved: u64) {
    live().ran_out(reserved);
}

/// Begins the peaks of a stage and of its first step, with so many bytes held from the driver.
pub(crate) fn begin_stage(reserved: u64) {
    live().begin_stage(reserved);
}

/// The parts of the stage's peak until now, for which libtorch counted these two. Empty where not all of it was reported here: a thread that nobody listens
/// to has allocated too.
pub(crate) fn stage_parts(peak_allocated: u64, peak_reserved: u64) -> Option<PeakParts> {
    let parts = live().stage();
    let slack_bytes = peak_reserved.saturating_sub(peak_allocated);
    (parts.allocated_bytes() == peak_allocated).then_some(PeakParts { slack_bytes, ..parts })
}

/// The peak of the step that ends here, and how memory went, where anything was allocated; and begins the next one. `allocated` and `reserved` are libtorch's counts of now; empty as in [`stage_parts`].
pub(crate) fn end_step(allocated: u64, reserved: u64) -> Option<(PeakParts, Option<MemoryCourse>)> {
    let mut live = live();
    let (parts, course) = (live.step(), live.course());
    live.begin_step(reserved);
    (live.allocated_bytes() == allocated).then_some((parts, course))
}

/// What was allocated when an allocation of this stage failed; empty where none did.
pub(crate) fn parts_at_failure() -> Option<PeakParts> {
    live().failure().map(|(parts, _)| *parts)
}

/// How memory went until then, since the step began.
pub(crate) fn course_at_failure() -> Option<MemoryCourse> {
    live().failure().and_then(|(_, course)| course.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_ends_whichever_way_it_is_left() {
        within(Purpose::Frames, || {
            let failed = operation(|| {
                assert_eq!(CURRENT.get(), Purpose::Workspace);
                Err(crate::Error::Input("stop".into()))
            });
            assert!(failed.is_err());
            assert_eq!(CURRENT.get(), Purpose::Frames);
            let _ = std::panic::catch_unwind(|| within(Purpose::Weights, || panic!("on purpose")));
            assert_eq!(CURRENT.get(), Purpose::Frames);
        });
        assert_eq!(CURRENT.get(), Purpose::Activations);
    }
}

//! Which kernels attention came to: those that were asked for, and what `sdpa` picked.

use std::cell::RefCell;
use std::collections::BTreeSet;

use engine_protocol::{AttentionKernel, AttnType};
use tch::Tensor;

use crate::error::Result;

thread_local! {
    /// Since they were last taken.
    static CALLED: RefCell<BTreeSet<AttentionKernel>> = const { RefCell::new(BTreeSet::new()) };
}

/// Notes that attention came to `kernel`.
pub(super) fn note(kernel: AttentionKernel) {
    CALLED.with_borrow_mut(|called| called.insert(kernel));
}

/// Notes what an operator of libtorch comes to for these inputs.
///
/// # Errors
/// libtorch's.
pub(super) fn note_named(kind: AttnType, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<()> {
    let kernel = match kind {
        AttnType::Sdpa => picked(q, k, v)?,
        AttnType::Flash => Some(AttentionKernel::Flash),
        AttnType::Cudnn => Some(AttentionKernel::Cudnn),
        AttnType::MemEfficient => Some(AttentionKernel::MemEfficient),
        AttnType::Sage => Some(AttentionKernel::Sage),
        AttnType::Sparge => Some(AttentionKernel::Sparge),
        AttnType::Math => Some(AttentionKernel::Math),
    };
    kernel.into_iter().for_each(note);
    Ok(())
}

/// The kernels of this thread's attention since the last call, each once.
pub(crate) fn take_kernels() -> Vec<AttentionKernel> {
    CALLED.take().into_iter().collect()
}

/// What libtorch picks: it asks the same function. Nothing for a kernel of which we do not know.
fn picked(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Option<AttentionKernel>> {
    // The numbers of `at::SDPBackend` (ATen/SDPBackend.h).
    Ok(match Tensor::f_internal_fused_sdp_choice::<Tensor>(q, k, v, None, 0.0, false, None, false)? {
        0 => Some(AttentionKernel::Math),
        1 => Some(AttentionKernel::Flash),
        2 => Some(AttentionKernel::MemEfficient),
        3 => Some(AttentionKernel::Cudnn),
        _ => None,
    })
}

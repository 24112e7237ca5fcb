//! What may leave blocks out of a pass, and adds something in their place. What it adds, and where that is kept, is not known here.

use tch::Tensor;

use crate::error::Result;

/// Told of the hidden state at three places of a pass. It may change it there.
///
/// # Shapes
/// `hidden` is `[B, L, dim]`.
pub trait PassCache {
    /// Before the blocks: the first block to run, or as many as there are where none is.
    ///
    /// # Errors
    /// libtorch's.
    fn begin(&mut self, hidden: &Tensor) -> Result<u32>;

    /// After a block: whether those after it are left out.
    ///
    /// # Errors
    /// libtorch's.
    fn after_block(&mut self, block: u32, hidden: &Tensor) -> Result<bool>;

    /// After the blocks.
    ///
    /// # Errors
    /// libtorch's.
    fn end(&mut self, hidden: &Tensor) -> Result<()>;
}

/// No cache: all blocks run.
#[derive(Debug, Clone, Copy)]
pub struct NoCache;

impl PassCache for NoCache {
    fn begin(&mut self, _hidden: &Tensor) -> Result<u32> {
        Ok(0)
    }

    fn after_block(&mut self, _block: u32, _hidden: &Tensor) -> Result<bool> {
        Ok(false)
    }

    fn end(&mut self, _hidden: &Tensor) -> Result<()> {
        Ok(())
    }
}

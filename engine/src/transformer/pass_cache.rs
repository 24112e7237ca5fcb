//! What may leave blocks out of a pass, or parts of blocks, and adds something in their place. What it adds, and where that is kept, is not known here.

use engine_protocol::PARTS_OF_A_BLOCK;
use tch::Tensor;

use crate::error::Result;

/// A part of a block: what it gives is added to the hidden state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Self-attention.
    SelfAttention,
    /// Cross-attention.
    CrossAttention,
    /// Feed-forward.
    FeedForward,
}

impl Part {
    /// In the order in which a block runs them.
    pub const ALL: [Part; PARTS_OF_A_BLOCK as usize] = [Part::SelfAttention, Part::CrossAttention, Part::FeedForward];

    /// What it is called in a checkpoint, and its group of weights.
    pub fn name(self) -> &'static str {
        match self {
            Part::SelfAttention => "attn1",
            Part::CrossAttention => "attn2",
            Part::FeedForward => "ffn",
        }
    }
}

/// Told of the hidden state at three places of a pass, which it may change there, and of what parts of blocks give.
///
/// # Shapes
/// `hidden` is `[B, L, dim]`.
pub trait PassCache {
    /// Before the blocks: the first block to run, or as many as there are where none is.
    ///
    /// # Errors
    /// libtorch's.
    fn begin(&mut self, _hidden: &Tensor) -> Result<u32> {
        Ok(0)
    }

    /// Whether that part of every block is left out of this pass.
    fn leaves_out(&self, _part: Part) -> bool {
        false
    }

    /// Whether it makes anything of what parts give: else they need not be made by themselves.
    fn takes_parts(&self) -> bool {
        false
    }

    /// After a part of `block` that runs, where the cache takes them: what it gives for the tokens from `start` on, before its gate.
    ///
    /// # Shapes
    /// `given` is `[B, n, dim]`.
    ///
    /// # Errors
    /// libtorch's.
    fn after_part(&mut self, _block: u32, _part: Part, _start: i64, _given: &Tensor) -> Result<()> {
        Ok(())
    }

    /// In place of a part of `block` that is left out: adds to the tokens from `start` on what is kept, times `gate` where it has one.
    ///
    /// # Shapes
    /// `hidden` is `[B, n, dim]`.
    ///
    /// # Errors
    /// libtorch's.
    fn in_place_of_part(&mut self, _block: u32, _part: Part, _start: i64, _hidden: &Tensor, _gate: Option<&Tensor>) -> Result<()> {
        Ok(())
    }

    /// Whether it looks at the hidden state after `block`.
    fn looks_after(&self, _block: u32) -> bool {
        false
    }

    /// After a block where it looks: whether those after it are left out.
    ///
    /// # Errors
    /// libtorch's.
    fn after_block(&mut self, _block: u32, _hidden: &Tensor) -> Result<bool> {
        Ok(false)
    }

    /// After the blocks.
    ///
    /// # Errors
    /// libtorch's.
    fn end(&mut self, _hidden: &Tensor) -> Result<()> {
        Ok(())
    }
}

/// A cache, as a part of a block tells it what it gives.
pub(super) struct Told<'a, C> {
    cache: &'a mut C,
    block: u32,
    pub(super) part: Part,
}

impl<'a, C: PassCache> Told<'a, C> {
    /// Of the first part of `block`.
    pub(super) fn new(cache: &'a mut C, block: u32) -> Self {
        Self { cache, block, part: Part::SelfAttention }
    }

    pub(super) fn is_left_out(&self) -> bool {
        self.cache.leaves_out(self.part)
    }

    /// Whether the cache makes anything of it.
    pub(super) fn is_of_use(&self) -> bool {
        self.cache.takes_parts()
    }

    /// That the tokens from `start` on were given that, before the gate.
    ///
    /// # Errors
    /// The cache's.
    pub(super) fn of(&mut self, start: i64, given: &Tensor) -> Result<()> {
        self.cache.after_part(self.block, self.part, start, given)
    }

    /// Has it add to `hidden`, the tokens from `start` on, what it keeps of a part that is left out.
    ///
    /// # Errors
    /// The cache's.
    pub(super) fn in_place(&mut self, start: i64, hidden: &Tensor, gate: Option<&Tensor>) -> Result<()> {
        self.cache.in_place_of_part(self.block, self.part, start, hidden, gate)
    }
}

/// No cache: all blocks run.
#[derive(Debug, Clone, Copy)]
pub struct NoCache;

impl PassCache for NoCache {}

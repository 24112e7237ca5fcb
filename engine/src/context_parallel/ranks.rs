//! Which ranks do what: the groups that cond and uncond are on, and within each the split of the sequence.

use std::sync::Arc;

use engine_protocol::Split;

use super::sequence::Sequence;
use super::shares::Shares;
use crate::collectives::{Alone, Group};
use crate::error::{Error, Result};

/// All ranks of a video, as one of them sees them.
#[derive(Debug, Clone)]
pub struct Ranks {
    /// All of them.
    pub all: Group,
    /// The ranks that have the same part of the sequence: cond first, then uncond; or one where it has both.
    pub guidance: Group,
    /// Those that have one prediction's parts.
    pub sequence: Sequence,
    /// The same ones once more, where each holds a part of the weights: what they say of those is in no order with all else.
    pub weights: Option<Group>,
}

impl Default for Ranks {
    fn default() -> Self {
        Self::alone()
    }
}

impl Ranks {
    /// One that does all.
    pub fn alone() -> Self {
        Self { all: Arc::new(Alone), guidance: Arc::new(Alone), sequence: Sequence::whole_on_one(), weights: None }
    }

    /// The ranks of `all`, which are as many as `split` has, with such shares of a sequence. Those that exchange heads stand side by side, since they exchange most; then those of a ring.
    ///
    /// # Errors
    /// Another number of ranks, and what the group says.
    pub fn new(all: Group, split: Split, shares: Shares) -> Result<Self> {
        let (ulysses, parts) = (split.cp_ulysses as usize, split.cp_size() as usize);
        if all.size() != split.ranks() as usize {
            return Err(Error::Ranks(format!("{split} takes {} ranks, and there are {}", split.ranks(), all.size())));
        }
        let rank = all.rank();
        let (first, part) = (rank / parts * parts, rank % parts);
        let group = |members: Vec<usize>| all.split(&members);
        Ok(Self {
            guidance: group((0..split.cfg_size as usize).map(|guidance| guidance * parts + part).collect())?,
            sequence: Sequence {
                parts: group((first..first + parts).collect())?,
                ulysses: group((0..ulysses).map(|place| rank - part % ulysses + place).collect())?,
                ring: group((0..split.cp_ring as usize).map(|place| first + place * ulysses + part % ulysses).collect())?,
                shares,
            },
            all,
            weights: None,
        })
    }

    /// The same where each holds a part of the weights, and `all` speak of those.
    ///
    /// # Errors
    /// What the group says.
    pub fn with_weights(self, all: &Group) -> Result<Self> {
        let parts = self.sequence.group().size();
        let first = self.all.rank() / parts * parts;
        Ok(Self { weights: Some(all.split(&(first..first + parts).collect::<Vec<_>>())?), ..self })
    }
}

//! Which keys attention leaves out, where it does.

use super::table::Config;
use crate::BlockChoice;
use crate::flag_values::AttnType;

impl Config {
    /// How keys are chosen, where they are.
    pub fn block_choice(&self) -> Option<BlockChoice> {
        let choice = BlockChoice {
            topk: self.attn_topk.unwrap_or(1.0),
            similarity: self.attn_similarity.unwrap_or(-1.0),
            pv_threshold: self.attn_pv_threshold.unwrap_or(f64::MAX),
        };
        (self.attn_type == AttnType::Sparge).then_some(choice)
    }

    /// The same without what means something with such a choice alone.
    pub(crate) fn without_choice(self) -> Self {
        Self { attn_topk: None, attn_similarity: None, attn_pv_threshold: None, ..self }
    }
}

//! What encoding prompts holds beside the weights, and how much work it is, computed from shapes alone.
//!
//! Note: what exists at once.
//! Beside the hidden state and its norm a layer has the largest of three moments: queries and keys in fp32, each with the copy that a batched matrix
//! product takes, and their scores; the scores, their softmax and the weights in the compute type; the feed-forward layer's two inner tensors.
//! For short prompts what is handed on, padded to the model's limit, is more than any of them. Left out are tensors of one number a token.

use super::umt5::TextEncoder;

const FP32: i64 = 4;

impl TextEncoder {
    /// The most bytes that [`TextEncoder::prompt_embedding`] of so many prompts holds at once beside weights, the longest prompt having `tokens` tokens.
    /// `bytes` are those of one number in the compute type.
    pub fn activation_bytes(&self, prompts: i64, tokens: i64, bytes: i64) -> i64 {
        let spec = &self.spec;
        let rows = prompts * tokens;
        let hidden = rows * spec.d_model * bytes;
        let scores = rows * tokens * spec.num_heads;
        let queries_and_keys = 4 * rows * spec.num_heads * spec.d_kv * FP32 + scores * FP32;
        let weights = scores * (2 * FP32 + if bytes == FP32 { 0 } else { bytes });
        let feed_forward = 2 * rows * spec.d_ff * bytes;
        let layer = 2 * hidden + queries_and_keys.max(weights).max(feed_forward);
        let handed_on = 2 * hidden + prompts * spec.max_tokens * spec.d_model * bytes;
        layer.max(handed_on)
    }

    /// Of encoding so many prompts, the longest of which has `tokens` tokens: operations of the linear layers, which are nearly all there are, and
    /// numbers in their weights.
    pub fn linear_work(&self, prompts: i64, tokens: i64) -> (f64, f64) {
        let spec = &self.spec;
        let attention = 4 * spec.d_model * spec.num_heads * spec.d_kv;
        let feed_forward = 3 * spec.d_model * spec.d_ff;
        let numbers = (spec.num_layers * (attention + feed_forward)) as f64;
        (2.0 * (prompts * tokens) as f64 * numbers, numbers)
    }
}

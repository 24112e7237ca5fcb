//! Attention: softmax(q kᵀ / √D) v, one file a back end.
//!
//! All back ends give the same values up to rounding. They differ in what they allocate: `math` holds the whole score matrix, the others
//! a few numbers a row. A back end calls its own operator of libtorch and falls back on no other: where the operator has no kernel for a device
//! or a type, that is an error.

mod cudnn;
mod flash;
mod math;
mod mem_efficient;
mod picked;
mod scores;
mod sdpa;

use engine_protocol::AttnType;
use tch::{Device, Tensor};

use crate::attribution::operation;
use crate::error::Result;
use crate::finite;

pub(crate) use picked::take_kernels;
pub use scores::AttentionShape;

/// Attention of `q` over all of `k` and `v`, without a mask.
///
/// # Shapes
/// `q` is `[B, heads, Lq, D]`, `k` and `v` are `[B, heads, Lk, D]`, with any strides that keep `D` dense; the result is `[B, heads, Lq, D]`.
/// Back ends without a score matrix lay the result out as `[B, Lq, heads, D]`, so that joining the heads copies nothing.
///
/// # Errors
/// libtorch's, a back end that has no kernel for the device, and on the CPU queries and keys that are not finite.
pub fn attend(kind: AttnType, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    // libtorch's kernel for the CPU takes a row whose scores are NaN for one that a mask hides, and makes zeros of it: what is wrong would not be seen any more.
    if q.device() == Device::Cpu {
        finite::check(q, || "the queries of attention".into())?;
        finite::check(k, || "the keys of attention".into())?;
    }
    picked::note(kind, q, k, v)?;
    operation(|| match kind {
        AttnType::Sdpa => sdpa::attend(q, k, v),
        AttnType::Flash => flash::attend(q, k, v),
        AttnType::Cudnn => cudnn::attend(q, k, v),
        AttnType::MemEfficient => mem_efficient::attend(q, k, v),
        AttnType::Math => math::attend(q, k, v),
    })
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    /// `q`, `k` and `v` as a model hands them over: views of `[B, L, heads, D]`.
    fn inputs() -> [Tensor; 3] {
        tch::manual_seed(3);
        [7, 5, 5].map(|length| Tensor::randn([2, length, 3, 8], (Kind::Float, Device::Cpu)).transpose(1, 2))
    }

    #[test]
    fn back_ends_agree_on_the_cpu() {
        let [q, k, v] = inputs();
        let scores = q.matmul(&k.transpose(-2, -1)) / 8f64.sqrt();
        let wanted = scores.softmax(-1, Kind::Float).matmul(&v);
        for kind in [AttnType::Sdpa, AttnType::Flash, AttnType::Math] {
            let got = attend(kind, &q, &k, &v).unwrap();
            assert_eq!(got.size(), [2, 3, 7, 8], "{}", kind.name());
            let error = (got - &wanted).abs().max().double_value(&[]);
            assert!(error < 1e-6, "{} is off by {error}", kind.name());
        }
    }

    #[test]
    fn what_is_nan_is_not_taken_for_what_is_hidden() {
        for kind in [AttnType::Sdpa, AttnType::Flash, AttnType::Math] {
            for (place, part) in ["the queries", "the keys"].into_iter().enumerate() {
                let inputs = inputs();
                let _ = inputs[place].narrow(3, 2, 1).fill_(f64::NAN);
                let [q, k, v] = inputs;
                let said = attend(kind, &q, &k, &v).unwrap_err().to_string();
                assert_eq!(said, format!("{part} of attention hold NaN"), "{}", kind.name());
            }
        }
    }

    #[test]
    fn a_back_end_without_a_kernel_for_the_cpu_says_what_to_use() {
        let [q, k, v] = inputs();
        for kind in [AttnType::MemEfficient, AttnType::Cudnn] {
            let message = attend(kind, &q, &k, &v).unwrap_err().to_string();
            assert_eq!(message, format!("attn_type={} has no kernel for the CPU: use sdpa, flash or math", kind.name()));
        }
    }
}

//! Attention: softmax(q kᵀ / √D) v, one file a back end.
//!
//! All back ends but `sage` give the same values up to rounding; that comes near them. They differ in what they allocate: `math` holds the whole score matrix, the others
//! a few numbers a row, `sage` keys and values in 8 bits. A back end calls its own operator of libtorch, or kernel of ours, and falls back on no other: where there is none for a
//! device or a type, that is an error.

mod cudnn;
mod flash;
mod math;
mod mem_efficient;
mod merged;
mod picked;
mod sage;
mod scores;
mod sdpa;

use engine_protocol::{AttentionKernel, AttnType, BlockChoice, Config, Purpose};
use tch::{Device, Kind, Tensor};

use crate::attribution::{operation, retag, within};
use crate::error::{Error, Result};
use crate::finite;

use sage::{PackedKeys, PackedValues};

pub use merged::{InPart, Merged};
pub(crate) use picked::take_kernels;
pub use scores::{AttentionHolds, AttentionShape, KeyBytes};

/// A back end, and which keys it may leave out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attention {
    kind: AttnType,
    choice: Option<BlockChoice>,
}

impl Attention {
    /// The one that `config` means for self-attention.
    pub fn of(config: &Config) -> Self {
        Self { kind: config.attn_type, choice: config.block_choice() }
    }

    /// The same that attends to all keys: for cross-attention, which has few.
    #[must_use]
    pub fn to_all_keys(self) -> Self {
        Self { choice: None, ..self }
    }

    /// Whether it packs keys and values. Then values had better be packed before there are any keys: there need be room for one of the two alone.
    pub fn packs(self) -> bool {
        self.kind.is_in_8_bits()
    }
}

impl From<BlockChoice> for Attention {
    fn from(choice: BlockChoice) -> Self {
        Self { kind: AttnType::Sparge, choice: Some(choice) }
    }
}

impl From<AttnType> for Attention {
    fn from(kind: AttnType) -> Self {
        Self { kind, choice: None }
    }
}

/// Values, as a back end takes them for all queries.
#[derive(Debug)]
pub struct Values {
    attention: Attention,
    held: HeldValues,
}

#[derive(Debug)]
enum HeldValues {
    AsTheyAre(Tensor),
    Packed(PackedValues),
}

impl Values {
    /// Values `v` for a back end. Where that packs them, they go with this call.
    ///
    /// # Shapes
    /// `[B, heads, Lk, D]`, with any strides that keep `D` dense.
    ///
    /// # Errors
    /// libtorch's, and a back end that has no kernel for the device.
    pub fn new(attention: impl Into<Attention>, v: Tensor) -> Result<Self> {
        let attention = attention.into();
        let held = if attention.packs() {
            HeldValues::Packed(within(Purpose::Workspace, || PackedValues::new(v, attention.kind))?)
        } else {
            HeldValues::AsTheyAre(v)
        };
        Ok(Self { attention, held })
    }

    /// They themselves.
    ///
    /// # Errors
    /// They are packed.
    pub fn as_they_are(self) -> Result<Tensor> {
        match self.held {
            HeldValues::AsTheyAre(v) => Ok(v),
            HeldValues::Packed(_) => Err(Error::Input("values that are packed cannot go round a ring: use attn_type=sdpa".into())),
        }
    }
}

/// Keys and values, as a back end takes them for all queries.
#[derive(Debug)]
pub struct Keys {
    kind: AttnType,
    held: Held,
}

#[derive(Debug)]
enum Held {
    AsTheyAre([Tensor; 2]),
    Packed(PackedKeys),
}

impl Keys {
    /// Keys `k` and values `v` for a back end. Where that packs them, they go with this call.
    ///
    /// # Shapes
    /// Both are `[B, heads, Lk, D]`, with any strides that keep `D` dense.
    ///
    /// # Errors
    /// libtorch's, a back end that has no kernel for the device, and on the CPU keys that are not finite.
    pub fn new(attention: impl Into<Attention>, k: Tensor, v: Tensor) -> Result<Self> {
        Self::with_values(k, Values::new(attention, v)?)
    }

    /// The same with values that are ready, for the back end that they are ready for.
    ///
    /// # Errors
    /// Those of [`Keys::new`].
    pub fn with_values(k: Tensor, v: Values) -> Result<Self> {
        let Attention { kind, choice } = v.attention;
        // libtorch's kernel for the CPU takes a row whose scores are NaN for one that a mask hides, and makes zeros of it: what is wrong would not be seen any more.
        if k.device() == Device::Cpu {
            finite::check(&k, || "the keys of attention".into())?;
        }
        let held = match v.held {
            HeldValues::Packed(values) => Held::Packed(within(Purpose::Workspace, || PackedKeys::new(k, values, choice))?),
            HeldValues::AsTheyAre(v) => Held::AsTheyAre([k, v]),
        };
        Ok(Self { kind, held })
    }

    /// Attention of `q` over all of them, without a mask.
    ///
    /// # Shapes
    /// `q` is `[B, heads, Lq, D]`, with any strides that keep `D` dense; so is the result.
    /// Back ends without a score matrix lay the result out as `[B, Lq, heads, D]`, so that joining the heads copies nothing.
    ///
    /// # Errors
    /// libtorch's, a back end that has no kernel for the device, and on the CPU queries that are not finite.
    pub fn attend(&self, q: &Tensor) -> Result<Tensor> {
        if q.device() == Device::Cpu {
            finite::check(q, || "the queries of attention".into())?;
        }
        let [k, v] = match &self.held {
            Held::AsTheyAre(tensors) => tensors,
            Held::Packed(packed) => {
                picked::note(if packed.are_chosen() { AttentionKernel::Sparge } else { AttentionKernel::Sage });
                return operation(|| packed.attend(q));
            }
        };
        picked::note_named(self.kind, q, k, v)?;
        operation(|| match self.kind {
            AttnType::Sdpa => sdpa::attend(q, k, v),
            AttnType::Flash => flash::attend(q, k, v),
            AttnType::Cudnn => cudnn::attend(q, k, v),
            AttnType::MemEfficient => mem_efficient::attend(q, k, v),
            AttnType::Math => math::attend(q, k, v),
            AttnType::Sage | AttnType::Sparge => unreachable!("their keys are packed"),
        })
    }

    /// Attention of `q` over all of them, as a part of attention over more keys: see [`Merged`].
    ///
    /// # Shapes
    /// `q` is `[B, heads, Lq, D]`, with any strides that keep `D` dense.
    ///
    /// # Errors
    /// Those of [`Keys::attend`], and back ends outside [`AttnType::IN_PARTS`], which keep no sums of their rows.
    pub fn attend_in_part(&self, q: &Tensor) -> Result<InPart> {
        if q.device() == Device::Cpu {
            finite::check(q, || "the queries of attention".into())?;
        }
        let Held::AsTheyAre([k, v]) = &self.held else { return Err(cannot_attend_in_parts(self.kind)) };
        // What libtorch picks is not asked for: it gives the result alone.
        let kind = match self.kind {
            AttnType::Sdpa if q.device().is_cuda() && q.kind() == Kind::Float => AttnType::MemEfficient,
            AttnType::Sdpa => AttnType::Flash,
            other => other,
        };
        picked::note_named(kind, q, k, v)?;
        let part = within(Purpose::Workspace, || match kind {
            AttnType::Flash => flash::attend_in_part(q, k, v),
            AttnType::MemEfficient => mem_efficient::attend_in_part(q, k, v),
            other => Err(cannot_attend_in_parts(other)),
        })?;
        retag(&part.attended, Purpose::Activations);
        Ok(part)
    }
}

fn cannot_attend_in_parts(kind: AttnType) -> Error {
    let legal = AttnType::IN_PARTS.map(AttnType::name).join(", ");
    Error::Input(format!("attn_type={} keeps no sums of its rows, so keys cannot come in parts: use {legal}", kind.name()))
}

/// Attention of `q` over all of `k` and `v`, for one use of those: see [`Keys`].
///
/// # Errors
/// Those of [`Keys::new`] and [`Keys::attend`].
pub fn attend(kind: AttnType, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    Keys::new(kind, k.shallow_clone(), v.shallow_clone())?.attend(q)
}

#[cfg(test)]
mod tests {
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
    fn parts_of_the_keys_merge_to_all() {
        let [q, k, v] = inputs();
        let wanted = attend(AttnType::Sdpa, &q, &k, &v).unwrap();
        for kind in [AttnType::Sdpa, AttnType::Flash] {
            let mut merged = Merged::default();
            for (start, length) in [(3, 2), (0, 1), (1, 2)] {
                let [k, v] = [&k, &v].map(|x| x.narrow(2, start, length));
                merged.add(Keys::new(kind, k, v).unwrap().attend_in_part(&q).unwrap()).unwrap();
            }
            let error = (merged.rounded().unwrap() - &wanted).abs().max().double_value(&[]);
            assert!(error < 1e-6, "{} is off by {error}", kind.name());
        }
        let said = Keys::new(AttnType::Math, k, v).unwrap().attend_in_part(&q).unwrap_err().to_string();
        assert_eq!(said, "attn_type=math keeps no sums of its rows, so keys cannot come in parts: use sdpa, flash, mem_efficient");
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

//! Attention in 8 bits, by a kernel of our own: no score matrix, and near the result.
//!
//! Values are packed once, then keys, after which theirs may go; queries are rounded by the kernel as it begins. What that does, and where it comes from, is at the
//! top of `attention.cuh` and `quantise.cuh`; docs/kernels.md has the whole.

use engine_protocol::{AttnType, BlockChoice, has_sage, sage_refusal};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::kernels::sage::{KEY_TILE, Packed, Variant, attend, can_be_read, key_tiles, quantise_keys, quantise_values};
use crate::kernels::sparge::{KeyMeans, choose, key_means};

/// Values, packed.
#[derive(Debug)]
pub(super) struct PackedValues {
    variant: Variant,
    values: Tensor,
    scales: Tensor,
    /// How many there are.
    tokens: i64,
}

impl PackedValues {
    /// Packs values for that attention.
    ///
    /// # Shapes
    /// `[B, heads, L, D]`.
    ///
    /// # Errors
    /// libtorch's, a GPU without a kernel, and heads that no kernel is for.
    pub(super) fn new(v: Tensor, attention: AttnType) -> Result<Self> {
        check_device(v.device(), attention)?;
        let [batch, heads, tokens, channels] = [0, 1, 2, 3].map(|axis| v.size()[axis]);
        let variant = Variant::new(v.kind(), channels)?;
        let v = readable(v)?;
        let values = Tensor::f_empty([batch, heads, variant.head(), key_tiles(tokens), KEY_TILE], (Kind::Uint8, v.device()))?;
        let scales = Tensor::f_empty([batch, heads, key_tiles(tokens), variant.head()], (Kind::Float, v.device()))?;
        quantise_values(variant, &v, &values, &scales)?;
        Ok(Self { variant, values, scales, tokens })
    }
}

/// Keys and values, packed.
#[derive(Debug)]
pub(super) struct PackedKeys {
    variant: Variant,
    packed: Packed,
    /// Where some are left out: how they are chosen, and by what.
    choice: Option<(BlockChoice, KeyMeans)>,
}

impl PackedKeys {
    /// Packs keys beside their values.
    ///
    /// # Shapes
    /// Keys are `[B, heads, L, D]`, and so were the values.
    ///
    /// # Errors
    /// libtorch's.
    ///
    /// # Panics
    /// When values are not as many, or of another type.
    pub(super) fn new(
        k: Tensor,
        PackedValues { variant, values, scales, tokens }: PackedValues,
        choice: Option<BlockChoice>,
    ) -> Result<Self> {
        let [batch, heads, ..] = [0, 1, 2, 3].map(|axis| k.size()[axis]);
        let k = readable(k)?;
        // Without what all of them share.
        let means = mean_of_tokens(&k)?;
        let keys = Tensor::f_empty([batch, heads, key_tiles(tokens), KEY_TILE, variant.head()], (Kind::Uint8, k.device()))?;
        let key_scales = Tensor::f_empty([batch, heads, key_tiles(tokens)], (Kind::Float, k.device()))?;
        quantise_keys(variant, &k, &means, &keys, &key_scales)?;
        let choice = choice.map(|choice| Ok::<_, Error>((choice, key_means(variant, &k, &means)?))).transpose()?;
        Ok(Self { variant, packed: Packed { keys, key_scales, values, value_scales: scales, tokens }, choice })
    }

    /// Whether some may be left out.
    pub(super) fn are_chosen(&self) -> bool {
        self.choice.is_some()
    }

    /// Attention of `q` over them, or over those that are chosen for it.
    ///
    /// # Shapes
    /// `q` and the result are `[B, heads, L, D]`, the result laid out as `[B, L, heads, D]`.
    ///
    /// # Errors
    /// libtorch's, the compiler's and the driver's.
    pub(super) fn attend(&self, q: &Tensor) -> Result<Tensor> {
        let q = readable(q.shallow_clone())?;
        let [batch, heads, tokens, channels] = [0, 1, 2, 3].map(|axis| q.size()[axis]);
        let result = Tensor::f_empty([batch, tokens, heads, channels], (q.kind(), q.device()))?.f_transpose(1, 2)?;
        let chosen = self.choice.as_ref().map(|(by, means)| choose(self.variant, &q, means, *by)).transpose()?;
        attend(self.variant, &q, &self.packed, chosen.as_ref(), &result)?;
        Ok(result)
    }
}

/// The bytes of packed keys and values, their scales among them: of so many heads in all and tokens.
pub(super) fn packed_bytes(heads: i64, tokens: i64, channels: i64) -> [i64; 2] {
    const FP32: i64 = 4;
    let (head, tiles) = (Variant::head_for(channels), heads * key_tiles(tokens));
    [tiles * (KEY_TILE * head + FP32), tiles * (KEY_TILE * head + head * FP32)]
}

/// That there is a kernel of that attention for the device.
fn check_device(device: Device, attention: AttnType) -> Result<()> {
    if device == Device::Cpu {
        return Ok(());
    }
    let (major, minor) = crate::kernels::capability()?;
    if has_sage((major, minor)) {
        return Ok(());
    }
    Err(Error::Input(sage_refusal(attention, &format!("{major}.{minor}"))))
}

/// The mean of all tokens in fp32, `[B, heads, 1, D]`. They are summed some thousand at a time: libtorch reduces long ones in a buffer that grows with their length, and comes to more than
/// the packed keys.
fn mean_of_tokens(x: &Tensor) -> Result<Tensor> {
    const AT_A_TIME: i64 = 4096;
    let tokens = x.size()[2];
    let part = |first: i64| {
        let some = x.f_narrow(2, first, AT_A_TIME.min(tokens - first))?;
        some.f_sum_dim_intlist([2].as_slice(), true, Kind::Float)
    };
    let mut sum = part(0)?;
    for first in (AT_A_TIME..tokens).step_by(AT_A_TIME as usize) {
        sum = sum.f_add(&part(first)?)?;
    }
    Ok(sum.f_div_scalar(tokens)?.f_contiguous()?)
}

/// The tensor as kernels can read it: as it lies, where that will do.
fn readable(tensor: Tensor) -> Result<Tensor> {
    if can_be_read(&tensor) { Ok(tensor) } else { Ok(tensor.f_contiguous()?) }
}

#[cfg(test)]
mod sparge_tests;
#[cfg(test)]
mod tests;

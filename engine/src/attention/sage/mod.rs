//! Attention in 8 bits, by a kernel of our own: no score matrix, and near the result.
//!
//! Keys and values are packed once, after which theirs may go; queries are rounded by the kernel as it begins. What that does, and where it comes from, is at the
//! top of `attention.cuh` and `quantise.cuh`; docs/kernels.md has the whole.

use engine_protocol::{AttnType, BlockChoice, SageValues};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::kernels::sage::{KEY_TILE, Packed, Variant, attend, can_be_read, key_tiles, pack_values, quantise_keys};
use crate::kernels::sparge::{KeyMeans, choose, key_means};

/// Keys and values, packed.
#[derive(Debug)]
pub(super) struct PackedKeys {
    variant: Variant,
    packed: Packed,
    /// Where some are left out: how they are chosen, and by what.
    choice: Option<(BlockChoice, KeyMeans)>,
}

impl PackedKeys {
    /// Packs keys and values as the GPU at hand multiplies them; on the CPU in fp16. Each goes as soon as it is packed.
    ///
    /// # Shapes
    /// Both are `[B, heads, L, D]`.
    ///
    /// # Errors
    /// libtorch's, a GPU without a kernel, and heads that no kernel is for.
    pub(super) fn new(k: Tensor, v: Tensor, choice: Option<BlockChoice>) -> Result<Self> {
        let values = values_on(k.device(), if choice.is_some() { AttnType::Sparge } else { AttnType::Sage })?;
        Self::with(values, k, v, choice)
    }

    /// The same, with values kept so.
    pub(super) fn with(values: SageValues, k: Tensor, v: Tensor, choice: Option<BlockChoice>) -> Result<Self> {
        let [batch, heads, tokens, channels] = [0, 1, 2, 3].map(|axis| k.size()[axis]);
        let variant = Variant::new(k.kind(), channels, values)?;
        let (tiles, device) = (key_tiles(tokens), k.device());
        let bytes = |shape: &[i64]| Tensor::f_empty(shape, (Kind::Uint8, device));

        // 1. Keys, without what all of them share.
        let k = readable(k)?;
        let sums = over_tokens(&k, |part| Ok(part.f_sum_dim_intlist([2].as_slice(), true, Kind::Float)?), Tensor::f_add)?;
        let means = sums.f_div_scalar(tokens)?.f_contiguous()?;
        let keys = bytes(&[batch, heads, tiles, KEY_TILE, variant.head()])?;
        let key_scales = Tensor::f_empty([batch, heads, tiles], (Kind::Float, device))?;
        quantise_keys(variant, &k, &means, &keys, &key_scales)?;
        let choice = choice.map(|choice| Ok::<_, Error>((choice, key_means(variant, &k, &means)?))).transpose()?;
        drop((k, means));

        // 2. Values, each channel over its scale.
        let v = readable(v)?;
        let value_scales = scales(values, &v)?;
        let packed_values = bytes(&[batch, heads, variant.head(), tiles * KEY_TILE * values.bytes()])?;
        pack_values(variant, &v, &packed_values, &value_scales)?;
        Ok(Self { variant, packed: Packed { keys, key_scales, values: packed_values, value_scales, tokens }, choice })
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
pub(super) fn packed_bytes(values: SageValues, heads: i64, tokens: i64, channels: i64) -> [i64; 2] {
    const FP32: i64 = 4;
    let head = Variant::head_for(channels);
    let tiles = key_tiles(tokens);
    [heads * (tiles * KEY_TILE * head + tiles * FP32), heads * (tiles * KEY_TILE * head * values.bytes() + channels * FP32)]
}

/// How values are kept on the device by that attention, which is named where there is no kernel.
fn values_on(device: Device, attention: AttnType) -> Result<SageValues> {
    if device == Device::Cpu {
        return Ok(SageValues::Fp16);
    }
    let (major, minor) = crate::kernels::capability()?;
    SageValues::on((major, minor)).ok_or_else(|| Error::Input(SageValues::refusal(attention, &format!("{major}.{minor}"))))
}

/// What each channel of the values is divided by: its largest number comes to the largest that sums hold.
fn scales(values: SageValues, v: &Tensor) -> Result<Tensor> {
    // See `values.cuh`.
    let most = match values {
        SageValues::Fp16 => return Ok(Tensor::f_ones([v.size()[0], v.size()[1], 1, v.size()[3]], (Kind::Float, v.device()))?),
        SageValues::Fp8 => 448.0,
        SageValues::Fp8InHalf => 2.25,
    };
    let largest = over_tokens(v, |part| Ok(part.f_amax([2].as_slice(), true)?), Tensor::f_maximum)?;
    let smallest = over_tokens(v, |part| Ok(part.f_amin([2].as_slice(), true)?), Tensor::f_minimum)?;
    let largest = largest.f_maximum(&smallest.f_neg()?)?.f_to_kind(Kind::Float)?;
    // A channel of zeros is divided by something.
    Ok(largest.f_div_scalar(most)?.f_clamp_min(1e-7)?.f_contiguous()?)
}

/// What `reduce` makes of all tokens, some thousand at a time, and `join` of two such results: libtorch reduces long ones in a buffer that grows with their length, and comes to
/// more than the packed keys.
fn over_tokens(
    x: &Tensor,
    reduce: impl Fn(&Tensor) -> Result<Tensor>,
    join: impl Fn(&Tensor, &Tensor) -> std::result::Result<Tensor, tch::TchError>,
) -> Result<Tensor> {
    const AT_A_TIME: i64 = 4096;
    let tokens = x.size()[2];
    let part = |first: i64| -> Result<Tensor> { reduce(&x.f_narrow(2, first, AT_A_TIME.min(tokens - first))?) };
    let mut whole = part(0)?;
    for first in (AT_A_TIME..tokens).step_by(AT_A_TIME as usize) {
        whole = join(&whole, &part(first)?)?;
    }
    Ok(whole)
}

/// The tensor as kernels can read it: as it lies, where that will do.
fn readable(tensor: Tensor) -> Result<Tensor> {
    if can_be_read(&tensor) { Ok(tensor) } else { Ok(tensor.f_contiguous()?) }
}

#[cfg(test)]
mod sparge_tests;
#[cfg(test)]
mod tests;

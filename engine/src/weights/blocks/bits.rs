//! Numbers of a few bits within bytes, taken out and put in by libtorch, on whichever device; and the numbers in 16 bits that stand before them.

use tch::{Kind, Tensor};

use crate::error::Result;

/// The bytes of each block from `first` on: `[blocks, count]`.
pub(super) fn bytes(blocks: &Tensor, first: i64, count: i64) -> Result<Tensor> {
    Ok(blocks.f_narrow(1, first, count)?)
}

/// The number in 16 bits at byte `at` of each block: `[blocks, 1]`, fp32.
pub(super) fn half(blocks: &Tensor, at: i64) -> Result<Tensor> {
    Ok(bytes(blocks, at, 2)?.f_view_dtype(Kind::Half)?.f_to_kind(Kind::Float)?)
}

/// The numbers of `width` bits in `bytes`, `[blocks, runs * run]`: of each run of bytes first the lowest numbers of all, then the next ones, as bytes of
/// `[blocks, numbers]`.
pub(super) fn spread(bytes: &Tensor, run: i64, width: i64) -> Result<Tensor> {
    let (blocks, each) = (bytes.size()[0], 8 / width);
    // Made on the device: a copy from the host would have it wait.
    let shifts = Tensor::f_arange_start_step(0, 8, width, (Kind::Uint8, bytes.device()))?.f_view([1, 1, each, 1])?;
    let mut numbers = bytes.f_view([blocks, -1, 1, run])?.f_bitwise_right_shift(&shifts)?;
    let _ = numbers.f_bitwise_and_((1 << width) - 1)?;
    Ok(numbers.f_view([blocks, -1])?)
}

/// `low` with the bits of `high` above its own `width`, in place.
pub(super) fn with_high(mut low: Tensor, mut high: Tensor, width: i64) -> Result<Tensor> {
    let _ = high.f_bitwise_left_shift_tensor_scalar_(width)?;
    Ok(low.f_bitwise_or_tensor_(&high)?)
}

/// What [`spread`] takes apart, put together.
pub(super) fn gathered(numbers: &Tensor, run: i64, width: i64) -> Result<Tensor> {
    let (blocks, each) = (numbers.size()[0], 8 / width);
    let parts = numbers.f_view([blocks, -1, each, run])?;
    let mut bytes = parts.f_select(2, 0)?.f_contiguous()?;
    for part in 1..each {
        bytes = with_high(bytes, parts.f_select(2, part)?.f_contiguous()?, part * width)?;
    }
    Ok(bytes.f_view([blocks, -1])?)
}

/// The lowest `width` bits.
pub(super) fn low(numbers: &Tensor, width: i64) -> Result<Tensor> {
    Ok(numbers.f_bitwise_and((1 << width) - 1)?)
}

/// The bits above the lowest `width`.
pub(super) fn high(numbers: &Tensor, width: i64) -> Result<Tensor> {
    Ok(numbers.f_bitwise_right_shift_tensor_scalar(width)?)
}

/// `values`, `[blocks, 1]`, as two bytes each; and what those are in fp32.
pub(super) fn rounded_to_half(values: &Tensor) -> Result<(Tensor, Tensor)> {
    let half = values.f_to_kind(Kind::Half)?;
    Ok((half.f_view_dtype(Kind::Uint8)?, half.f_to_kind(Kind::Float)?))
}

/// `values` by `scale`, rounded, within `least..=most`, and so much more: as bytes. What has no scale is zero before that.
pub(super) fn rounded(values: &Tensor, scale: &Tensor, [least, most]: [i64; 2], more: i64) -> Result<Tensor> {
    let whole = values.f_div(scale)?.f_nan_to_num(0.0, 0.0, 0.0)?.f_round()?.f_clamp(least, most)?;
    Ok(whole.f_add_scalar(more)?.f_to_kind(Kind::Uint8)?)
}

/// Along the last side, the value that is furthest from zero, with its sign.
pub(super) fn furthest(values: &Tensor) -> Result<Tensor> {
    let (least, most) = values.f_aminmax(-1, true)?;
    Ok(least.f_where_self(&least.f_neg()?.f_gt_tensor(&most)?, &most)?)
}

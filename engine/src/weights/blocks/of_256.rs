//! Blocks of 256 numbers, those of K and `iq4_xs`: parts of 16 or 32 numbers have scales of a few bits, and one scale in 16 bits is for those.
//!
//! Layouts from ggml's `ggml-common.h` and `gguf-py/gguf/quants.py`.

use tch::{Kind, Tensor};

use super::bits::{bytes, furthest, gathered, half, high, low, rounded, rounded_to_half, spread, with_high};
use super::of_32::{nearest_steps, steps};
use crate::error::{Error, Result};

/// The scale of each part, or its least value: a number of its own times the one in 16 bits of the block. `[blocks, parts, 1]`.
fn of_parts(whole: &Tensor, parts: &Tensor, zero: i64) -> Result<Tensor> {
    let mut values = parts.f_to_kind(Kind::Float)?;
    let _ = values.f_sub_scalar_(zero)?;
    Ok(values.f_mul_(whole)?.f_unsqueeze(-1)?)
}

/// Numbers less `zero`, times the scales of their parts, less what those have to be taken off.
fn unpacked(numbers: &Tensor, zero: i64, scales: &Tensor, less: Option<&Tensor>) -> Result<Tensor> {
    let [blocks, parts] = [scales.size()[0], scales.size()[1]];
    let mut values = numbers.f_to_kind(Kind::Float)?.f_view([blocks, parts, -1])?;
    if zero != 0 {
        let _ = values.f_sub_scalar_(zero)?;
    }
    let _ = values.f_mul_(scales)?;
    if let Some(less) = less {
        let _ = values.f_sub_(less)?;
    }
    Ok(values.f_view([blocks, -1])?)
}

pub(super) fn unpack_q2_k(blocks: &Tensor) -> Result<Tensor> {
    let both = bytes(blocks, 0, 16)?;
    let scales = of_parts(&half(blocks, 80)?, &low(&both, 4)?, 0)?;
    let less = of_parts(&half(blocks, 82)?, &high(&both, 4)?, 0)?;
    unpacked(&spread(&bytes(blocks, 16, 64)?, 32, 2)?, 0, &scales, Some(&less))
}

pub(super) fn unpack_q3_k(blocks: &Tensor) -> Result<Tensor> {
    let parts = with_high(spread(&bytes(blocks, 96, 8)?, 8, 4)?, spread(&bytes(blocks, 104, 4)?, 4, 2)?, 4)?;
    let scales = of_parts(&half(blocks, 108)?, &parts, 32)?;
    let numbers = with_high(spread(&bytes(blocks, 32, 64)?, 32, 2)?, spread(&bytes(blocks, 0, 32)?, 32, 1)?, 2)?;
    unpacked(&numbers, 4, &scales, None)
}

/// The 8 scales and the 8 least values of `q4_k` and `q5_k`, 6 bits each in 12 bytes.
fn six_bits(blocks: &Tensor) -> Result<[Tensor; 2]> {
    let part = |index: i64| bytes(blocks, 4 + 4 * index, 4);
    let (scales, less, both) = (part(0)?, part(1)?, part(2)?);
    let all = |first: &Tensor, rest: Tensor| {
        // The two highest bits of the second four lie above the six of the first four.
        Ok::<_, Error>(Tensor::f_cat(&[low(first, 6)?, with_high(rest, high(first, 6)?, 4)?], 1)?)
    };
    Ok([all(&scales, low(&both, 4)?)?, all(&less, high(&both, 4)?)?])
}

/// `q4_k` or `q5_k`, whose numbers these are.
fn unpacked_of_6_bits(blocks: &Tensor, numbers: &Tensor) -> Result<Tensor> {
    let [scales, less] = six_bits(blocks)?;
    let (scales, less) = (of_parts(&half(blocks, 0)?, &scales, 0)?, of_parts(&half(blocks, 2)?, &less, 0)?);
    unpacked(numbers, 0, &scales, Some(&less))
}

pub(super) fn unpack_q4_k(blocks: &Tensor) -> Result<Tensor> {
    unpacked_of_6_bits(blocks, &spread(&bytes(blocks, 16, 128)?, 32, 4)?)
}

pub(super) fn unpack_q5_k(blocks: &Tensor) -> Result<Tensor> {
    let numbers = with_high(spread(&bytes(blocks, 48, 128)?, 32, 4)?, spread(&bytes(blocks, 16, 32)?, 32, 1)?, 4)?;
    unpacked_of_6_bits(blocks, &numbers)
}

pub(super) fn unpack_q6_k(blocks: &Tensor) -> Result<Tensor> {
    let numbers = with_high(spread(&bytes(blocks, 0, 128)?, 64, 4)?, spread(&bytes(blocks, 128, 64)?, 32, 2)?, 4)?;
    let parts = bytes(blocks, 192, 16)?.f_view_dtype(Kind::Int8)?;
    unpacked(&numbers, 32, &of_parts(&half(blocks, 208)?, &parts, 0)?, None)
}

pub(super) fn unpack_iq4_xs(blocks: &Tensor) -> Result<Tensor> {
    // Low halves come byte by byte, as do two bits of the high ones.
    let parts = with_high(spread(&bytes(blocks, 4, 4)?, 1, 4)?, spread(&bytes(blocks, 2, 2)?, 1, 2)?, 4)?;
    let scales = of_parts(&half(blocks, 0)?, &parts, 32)?;
    let values = steps(&spread(&bytes(blocks, 8, 128)?, 16, 4)?)?.f_view([blocks.size()[0], 8, 32])?.f_mul_(&scales)?;
    Ok(values.f_view([blocks.size()[0], -1])?)
}

/// `values` as `[blocks, parts, numbers]`.
fn in_parts(values: &Tensor, parts: i64) -> Result<Tensor> {
    Ok(values.f_view([values.size()[0], parts, -1])?)
}

/// Numbers in `0..=most` of each part, with its scale and its least value in `0..=most_scale`; and the two numbers in 16 bits.
fn from_least(values: &Tensor, parts: i64, most: i64, most_scale: i64) -> Result<([Tensor; 3], Tensor)> {
    let values = in_parts(values, parts)?;
    let (least, largest) = values.f_aminmax(-1, true)?;
    let less = least.f_neg()?.f_clamp_min(0.0)?;
    let scale = largest.f_add(&less)?.f_div_scalar(most)?;
    let of_block = |each: &Tensor| {
        let each = each.f_squeeze_dim(-1)?;
        let (bytes, whole) = rounded_to_half(&each.f_amax([1], true)?.f_div_scalar(most_scale)?)?;
        let numbers = rounded(&each, &whole, [0, most_scale], 0)?;
        let back = of_parts(&whole, &numbers, 0)?;
        Ok::<_, Error>((bytes, numbers, back))
    };
    let (scale_bytes, scales, scale) = of_block(&scale)?;
    let (less_bytes, lesses, less) = of_block(&less)?;
    let numbers = rounded(&values.f_add(&less)?, &scale, [0, most], 0)?.f_view([-1, 256])?;
    Ok(([numbers, scales, lesses], Tensor::f_cat(&[scale_bytes, less_bytes], 1)?))
}

/// The scale of each part with which its value furthest from zero becomes `last`, as a number in `-most_scale..most_scale` with `more` added; what it is; and the
/// number in 16 bits.
fn scales_to(values: &Tensor, last: f64, most_scale: i64, more: i64) -> Result<(Tensor, Tensor, Tensor)> {
    let each = furthest(values)?.f_div_scalar(last)?.f_squeeze_dim(-1)?;
    let (bytes, whole) = rounded_to_half(&furthest(&each)?.f_div_scalar(-most_scale)?)?;
    let numbers = rounded(&each, &whole, [-most_scale, most_scale - 1], most_scale)?;
    let back = of_parts(&whole, &numbers, most_scale)?;
    let numbers = if more == most_scale { numbers } else { numbers.f_bitwise_xor(most_scale)? };
    Ok((numbers, back, bytes))
}

pub(super) fn pack_q2_k(values: &Tensor) -> Result<Tensor> {
    let ([numbers, scales, lesses], whole) = from_least(values, 16, 3, 15)?;
    Ok(Tensor::f_cat(&[with_high(scales, lesses, 4)?, gathered(&numbers, 32, 2)?, whole], 1)?)
}

pub(super) fn pack_q3_k(values: &Tensor) -> Result<Tensor> {
    let values = in_parts(values, 16)?;
    let (parts, scales, whole) = scales_to(&values, -4.0, 32, 32)?;
    let numbers = rounded(&values, &scales, [-4, 3], 4)?.f_view([-1, 256])?;
    let (lows, tops) = (gathered(&low(&parts, 4)?, 8, 4)?, gathered(&high(&parts, 4)?, 4, 2)?);
    Ok(Tensor::f_cat(&[gathered(&high(&numbers, 2)?, 32, 1)?, gathered(&low(&numbers, 2)?, 32, 2)?, lows, tops, whole], 1)?)
}

/// The 12 bytes that [`six_bits`] reads.
fn to_six_bits(scales: &Tensor, lesses: &Tensor) -> Result<Tensor> {
    let halves = |all: &Tensor| Ok::<_, Error>([all.f_narrow(1, 0, 4)?.f_contiguous()?, all.f_narrow(1, 4, 4)?.f_contiguous()?]);
    let ([scale, second_scale], [less, second_less]) = (halves(scales)?, halves(lesses)?);
    let both = with_high(low(&second_scale, 4)?, low(&second_less, 4)?, 4)?;
    Ok(Tensor::f_cat(&[with_high(scale, high(&second_scale, 4)?, 6)?, with_high(less, high(&second_less, 4)?, 6)?, both], 1)?)
}

pub(super) fn pack_q4_k(values: &Tensor) -> Result<Tensor> {
    let ([numbers, scales, lesses], whole) = from_least(values, 8, 15, 63)?;
    Ok(Tensor::f_cat(&[whole, to_six_bits(&scales, &lesses)?, gathered(&numbers, 32, 4)?], 1)?)
}

pub(super) fn pack_q5_k(values: &Tensor) -> Result<Tensor> {
    let ([numbers, scales, lesses], whole) = from_least(values, 8, 31, 63)?;
    let (fifth, others) = (gathered(&high(&numbers, 4)?, 32, 1)?, gathered(&low(&numbers, 4)?, 32, 4)?);
    Ok(Tensor::f_cat(&[whole, to_six_bits(&scales, &lesses)?, fifth, others], 1)?)
}

pub(super) fn pack_q6_k(values: &Tensor) -> Result<Tensor> {
    let values = in_parts(values, 16)?;
    let (parts, scales, whole) = scales_to(&values, -32.0, 128, 0)?;
    let numbers = rounded(&values, &scales, [-32, 31], 32)?.f_view([-1, 256])?;
    Ok(Tensor::f_cat(&[gathered(&low(&numbers, 4)?, 64, 4)?, gathered(&high(&numbers, 4)?, 32, 2)?, parts, whole], 1)?)
}

pub(super) fn pack_iq4_xs(values: &Tensor) -> Result<Tensor> {
    let values = in_parts(values, 8)?;
    let (parts, scales, whole) = scales_to(&values, -127.0, 32, 32)?;
    let numbers = nearest_steps(&values.f_div(&scales)?.f_nan_to_num(0.0, 0.0, 0.0)?)?.f_view([-1, 256])?;
    let (lows, tops) = (gathered(&low(&parts, 4)?, 1, 4)?, gathered(&high(&parts, 4)?, 1, 2)?);
    Ok(Tensor::f_cat(&[whole, tops, lows, gathered(&numbers, 16, 4)?], 1)?)
}

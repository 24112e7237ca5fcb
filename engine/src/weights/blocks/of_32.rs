//! Blocks of 32 numbers: one scale in 16 bits, with some the least value beside it, and numbers of 4, 5 or 8 bits.
//!
//! Layouts from ggml's `ggml-common.h` and `gguf-py/gguf/quants.py`. Numbers of 4 bits lie so: the first 16 in the low halves of 16 bytes, the others in the high ones.

use tch::{Kind, Tensor};

use super::bits::{bytes, furthest, gathered, half, high, low, rounded, rounded_to_half, spread, with_high};
use crate::error::Result;

/// What numbers of 4 bits mean in `iq4_nl` and `iq4_xs`: steps that are finer near zero, where most weights are.
const STEPS: [i64; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// 16 bytes with 32 numbers of 4 bits.
fn nibbles(blocks: &Tensor, at: i64) -> Result<Tensor> {
    spread(&bytes(blocks, at, 16)?, 16, 4)
}

/// 32 numbers of 5 bits: the fifth ones in 4 bytes at `at`, the others behind them.
fn of_5_bits(blocks: &Tensor, at: i64) -> Result<Tensor> {
    with_high(nibbles(blocks, at + 4)?, spread(&bytes(blocks, at, 4)?, 1, 1)?, 4)
}

/// Numbers times the scale at the beginning of their block, those above `zero` being positive.
fn around(blocks: &Tensor, numbers: &Tensor, zero: i64) -> Result<Tensor> {
    let mut values = numbers.f_to_kind(Kind::Float)?;
    if zero != 0 {
        let _ = values.f_sub_scalar_(zero)?;
    }
    Ok(values.f_mul_(&half(blocks, 0)?)?)
}

/// Numbers times the scale at the beginning of their block, from the least value behind it.
fn from_least(blocks: &Tensor, numbers: &Tensor) -> Result<Tensor> {
    let mut values = numbers.f_to_kind(Kind::Float)?;
    let _ = values.f_mul_(&half(blocks, 0)?)?;
    Ok(values.f_add_(&half(blocks, 2)?)?)
}

pub(super) fn unpack_q4_0(blocks: &Tensor) -> Result<Tensor> {
    around(blocks, &nibbles(blocks, 2)?, 8)
}

pub(super) fn unpack_q4_1(blocks: &Tensor) -> Result<Tensor> {
    from_least(blocks, &nibbles(blocks, 4)?)
}

pub(super) fn unpack_q5_0(blocks: &Tensor) -> Result<Tensor> {
    around(blocks, &of_5_bits(blocks, 2)?, 16)
}

pub(super) fn unpack_q5_1(blocks: &Tensor) -> Result<Tensor> {
    from_least(blocks, &of_5_bits(blocks, 4)?)
}

pub(super) fn unpack_q8_0(blocks: &Tensor) -> Result<Tensor> {
    around(blocks, &bytes(blocks, 2, 32)?.f_view_dtype(Kind::Int8)?, 0)
}

pub(super) fn unpack_iq4_nl(blocks: &Tensor) -> Result<Tensor> {
    Ok(steps(&nibbles(blocks, 2)?)?.f_mul_(&half(blocks, 0)?)?)
}

/// What numbers of 4 bits mean, in fp32.
pub(super) fn steps(numbers: &Tensor) -> Result<Tensor> {
    // Written one by one on the device: a copy from the host would have it wait.
    let table = Tensor::f_empty([STEPS.len() as i64], (Kind::Float, numbers.device()))?;
    for (at, step) in (0..).zip(STEPS) {
        let _ = table.f_narrow(0, at, 1)?.f_fill_(step)?;
    }
    let index = numbers.f_view([-1])?.f_to_kind(Kind::Int)?;
    Ok(table.f_index_select(0, &index)?.f_view(numbers.size().as_slice())?)
}

/// The number of 4 bits whose step is nearest to each of `values`, which are between the first step and the last.
pub(super) fn nearest_steps(values: &Tensor) -> Result<Tensor> {
    let borders: Vec<f32> = STEPS.array_windows().map(|[a, b]| (a + b) as f32 / 2.0).collect();
    Ok(values.f_bucketize(&Tensor::f_from_slice(&borders)?, true, false)?.f_to_kind(Kind::Uint8)?)
}

/// A scale with which the value furthest from zero becomes `last`, and the bytes before it.
fn scale_to(values: &Tensor, last: f64) -> Result<(Tensor, Tensor)> {
    rounded_to_half(&furthest(values)?.f_div_scalar(last)?)
}

/// Scale and least value of a block whose numbers go to `most`: the bytes of both, and both.
fn scale_and_least(values: &Tensor, most: f64) -> Result<(Tensor, [Tensor; 2])> {
    let (least, largest) = values.f_aminmax(1, true)?;
    let (scale_bytes, scale) = rounded_to_half(&largest.f_sub(&least)?.f_div_scalar(most)?)?;
    let (least_bytes, least) = rounded_to_half(&least)?;
    Ok((Tensor::f_cat(&[scale_bytes, least_bytes], 1)?, [scale, least]))
}

/// 32 numbers of 5 bits, the fifth ones before the others.
fn to_5_bits(numbers: &Tensor) -> Result<Tensor> {
    let (fifth, others) = (high(numbers, 4)?, low(numbers, 4)?);
    Ok(Tensor::f_cat(&[gathered(&fifth, 1, 1)?, gathered(&others, 16, 4)?], 1)?)
}

pub(super) fn pack_q4_0(values: &Tensor) -> Result<Tensor> {
    let (before, scale) = scale_to(values, -8.0)?;
    Ok(Tensor::f_cat(&[before, gathered(&rounded(values, &scale, [-8, 7], 8)?, 16, 4)?], 1)?)
}

pub(super) fn pack_q4_1(values: &Tensor) -> Result<Tensor> {
    let (before, [scale, least]) = scale_and_least(values, 15.0)?;
    Ok(Tensor::f_cat(&[before, gathered(&rounded(&values.f_sub(&least)?, &scale, [0, 15], 0)?, 16, 4)?], 1)?)
}

pub(super) fn pack_q5_0(values: &Tensor) -> Result<Tensor> {
    let (before, scale) = scale_to(values, -16.0)?;
    Ok(Tensor::f_cat(&[before, to_5_bits(&rounded(values, &scale, [-16, 15], 16)?)?], 1)?)
}

pub(super) fn pack_q5_1(values: &Tensor) -> Result<Tensor> {
    let (before, [scale, least]) = scale_and_least(values, 31.0)?;
    Ok(Tensor::f_cat(&[before, to_5_bits(&rounded(&values.f_sub(&least)?, &scale, [0, 31], 0)?)?], 1)?)
}

pub(super) fn pack_q8_0(values: &Tensor) -> Result<Tensor> {
    let (before, scale) = scale_to(values, 127.0)?;
    // Two's complement: the same bits as of a number of 0 to 255 whose highest bit is turned over.
    let numbers = rounded(values, &scale, [-127, 127], 128)?.f_bitwise_xor(128)?;
    Ok(Tensor::f_cat(&[before, numbers], 1)?)
}

pub(super) fn pack_iq4_nl(values: &Tensor) -> Result<Tensor> {
    let (before, scale) = scale_to(values, -127.0)?;
    let numbers = nearest_steps(&values.f_div(&scale)?.f_nan_to_num(0.0, 0.0, 0.0)?)?;
    Ok(Tensor::f_cat(&[before, gathered(&numbers, 16, 4)?], 1)?)
}

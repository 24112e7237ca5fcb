//! Rotary position embedding over frames, rows and columns (3D RoPE): each pair of neighbouring channels is turned by an angle that grows with
//! the token's place on one of the three axes.

use tch::{Device, Kind, Tensor};

use super::slices::{slice, slices};
use crate::error::Result;

/// The slowest frequency is about one over this.
const THETA: f64 = 10_000.0;

/// So many tokens are turned at a time where that takes an fp32 copy: 40 MiB for the 14B model, and long enough to keep a GPU busy.
pub(super) const TOKENS_AT_A_TIME: i64 = 2048;

/// Cosine and sine of every token's angles, in fp32: `[L, head_dim / 2, 2]`. Computed in fp64 on the CPU, one axis at a time.
///
/// # Errors
/// libtorch's.
pub(super) fn table(head_dim: i64, grid: [i64; 3], device: Device) -> Result<Tensor> {
    // 1. Rows and columns get a third of the pairs each, rounded down; frames get the rest.
    let side = head_dim / 6;
    let pairs = [head_dim / 2 - 2 * side, side, side];

    // 2. One small table an axis, spread over the other two.
    let [frames, height, width] = grid;
    let mut spread = Vec::with_capacity(3);
    for axis in 0..3 {
        let mut shape = [1, 1, 1, pairs[axis], 2];
        shape[axis] = grid[axis];
        let turns = Tensor::f_from_slice(&axis_table(pairs[axis], grid[axis]))?.f_view(shape)?.f_to_device(device)?;
        spread.push(turns.f_expand([frames, height, width, pairs[axis], 2], false)?);
    }
    Ok(Tensor::f_cat(&spread, 3)?.f_view([frames * height * width, head_dim / 2, 2])?)
}

/// Cosines and sines, interleaved, of `pairs` frequencies at each of `length` positions.
fn axis_table(pairs: i64, length: i64) -> Vec<f32> {
    let mut values = Vec::with_capacity((length * pairs * 2) as usize);
    for position in 0..length {
        for pair in 0..pairs {
            let (sin, cos) = (position as f64 / THETA.powf(pair as f64 / pairs as f64)).sin_cos();
            values.extend([cos as f32, sin as f32]);
        }
    }
    values
}

/// Turns the channels of `x` in place: a pair of channels is a complex number, and turning it a product.
///
/// # Shapes
/// `x` is `[B, n, dim]` with any number of heads in `dim`, `table` is `[n, head_dim / 2, 2]`: the rows that belong to these tokens.
///
/// # Errors
/// libtorch's.
pub(super) fn turn(x: &Tensor, table: &Tensor) -> Result<()> {
    let [batch, tokens, dim] = [x.size()[0], x.size()[1], x.size()[2]];
    let pairs = table.size()[1];
    // The same turn for every head: `[n, 1, pairs]`.
    let turns = table.f_view_as_complex()?.f_unsqueeze(1)?;

    // 1. fp32 is turned where it lies.
    if x.kind() == Kind::Float {
        let numbers = x.f_view([batch, tokens, dim / (2 * pairs), pairs, 2])?.f_view_as_complex()?;
        return turn_numbers(numbers, &turns);
    }
    // 2. Other types go through fp32, some tokens at a time.
    for (start, length) in slices(tokens, Some(TOKENS_AT_A_TIME)) {
        let mut part = slice(x, start, length)?;
        let wide = part.f_to_kind(Kind::Float)?.f_contiguous()?;
        let numbers = wide.f_view([batch, length, dim / (2 * pairs), pairs, 2])?.f_view_as_complex()?;
        turn_numbers(numbers, &turns.f_narrow(0, start, length)?)?;
        part.f_copy_(&wide)?;
    }
    Ok(())
}

fn turn_numbers(mut numbers: Tensor, turns: &Tensor) -> Result<()> {
    let _ = numbers.f_mul_(turns)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_token_is_not_turned_and_lengths_are_kept() {
        tch::manual_seed(1);
        let table = table(24, [2, 3, 4], Device::Cpu).unwrap();
        assert_eq!(table.size(), [24, 12, 2]);
        let x = Tensor::randn([2, 24, 48], (Kind::Float, Device::Cpu));
        let turned = x.copy();
        turn(&turned, &table).unwrap();
        assert_eq!(turned.narrow(1, 0, 1), x.narrow(1, 0, 1));
        assert_ne!(turned, x);
        let difference = (turned.norm() - x.norm()).abs().double_value(&[]);
        assert!(difference < 1e-4, "{difference}");
    }

    #[test]
    fn half_types_are_turned_like_fp32() {
        let table = table(12, [1, 100, 50], Device::Cpu).unwrap();
        let wide = Tensor::randn([1, 5000, 12], (Kind::BFloat16, Device::Cpu)).to_kind(Kind::Float);
        let half = wide.to_kind(Kind::BFloat16);
        turn(&wide, &table).unwrap();
        turn(&half, &table).unwrap();
        assert_eq!(half, wide.to_kind(Kind::BFloat16));
    }
}

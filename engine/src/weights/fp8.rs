//! Weights in 8 bits: e4m3, e5m2 or whole numbers with a scale for each output, made the type of arithmetic again before they are used.
//!
//! Of whole numbers the largest weight of each output is 127. In the others our scales are powers of two, so multiplying by them rounds nothing, and the largest weight of each output uses the type's whole range: published
//! weights are about 0.02, where e4m3 by itself has two bits left. What a file has stays as it is, with the file's scale for each output. Type: P. Micikevicius et al., "FP8 formats for deep learning", 2022, table 1.

use engine_protocol::WeightDtype;
use tch::{Kind, Tensor};

use crate::error::Result;

/// Types of 8 bits, and the largest number of each.
const TYPES: [(WeightDtype, Kind, f64); 3] = [
    (WeightDtype::Fp8E4m3, Kind::Float8e4m3fn, 448.0),
    (WeightDtype::Fp8E5m2, Kind::Float8e5m2, 57344.0),
    (WeightDtype::Int8, Kind::Int8, 127.0),
];

/// libtorch's name of a type of 8 bits.
pub(super) fn kind_of(dtype: WeightDtype) -> Option<Kind> {
    TYPES.iter().find(|known| known.0 == dtype).map(|known| known.1)
}

/// Our name of a type of 8 bits.
pub(super) fn dtype_of(kind: Kind) -> Option<WeightDtype> {
    TYPES.iter().find(|known| known.1 == kind).map(|known| known.0)
}

/// The largest number of a type of 8 bits.
fn limit_of(kind: Kind) -> f64 {
    TYPES.iter().find(|known| known.1 == kind).map_or(1.0, |known| known.2)
}

/// Writes `values` into `numbers` in their 8 bits, and the scale of each output into `scale`.
///
/// # Errors
/// libtorch's.
pub(super) fn pack(values: &Tensor, numbers: &mut Tensor, scale: &mut Tensor) -> Result<()> {
    let is_whole = numbers.kind() == Kind::Int8;
    let scales = scales(&values.f_abs()?.f_amax([1], true)?, numbers.kind())?;
    // Of two tensors the wider type counts, so this is fp32.
    let mut scaled = values.f_div(&scales)?;
    if is_whole {
        let _ = scaled.f_round_()?;
    }
    numbers.f_copy_(&scaled)?;
    Ok(scale.f_copy_(&scales)?)
}

/// Writes `numbers` times their scales into `target`.
///
/// # Errors
/// libtorch's.
pub(super) fn unpack(numbers: &Tensor, scale: &Tensor, target: &mut Tensor) -> Result<()> {
    target.f_copy_(numbers)?;
    let _ = target.f_mul_(scale)?;
    Ok(())
}

/// The scales of rows whose largest numbers are these, in fp32: of whole numbers that over 127, and otherwise the smallest power of two that brings it into the range of the
/// type. A row of zeros keeps them with any scale.
///
/// # Errors
/// libtorch's.
pub(super) fn scales(largest: &Tensor, kind: Kind) -> Result<Tensor> {
    let share = largest.f_to_kind(Kind::Float)?.f_clamp_min(1e-30)?.f_div_scalar(limit_of(kind))?;
    if kind == Kind::Int8 {
        return Ok(share);
    }
    Ok(share.f_log2()?.f_ceil()?.f_clamp(-126.0, 127.0)?.f_exp2()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_of_zeros_stays_zero() {
        let of = |largest: &[f32]| scales(&Tensor::from_slice(largest), Kind::Float8e4m3fn).unwrap();
        assert_eq!(of(&[0.0, 0.0]).isfinite().all(), Tensor::from(true));
        let powers: Vec<f32> = Vec::try_from(of(&[448.0, 449.0, 0.01])).unwrap();
        assert_eq!(powers, [1.0, 2.0, 2f32.powi(-15)]);
    }
}

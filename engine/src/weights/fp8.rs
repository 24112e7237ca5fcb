//! Weights in 8 bits: e4m3 or whole numbers with a scale for each output, made the type of arithmetic again before they are used.
//!
//! Of whole numbers the largest weight of each output is 127. In e4m3 our scales are powers of two, so multiplying by them rounds nothing, and the largest weight of each output uses the type's whole range: published
//! weights are about 0.02, where e4m3 by itself has two bits left. What a file has stays as it is, with the file's scale for each output. Type: P. Micikevicius et al., "FP8 formats for deep learning", 2022, table 1.

use tch::{Kind, Tensor};

use crate::error::Result;

/// The largest number of e4m3.
const LARGEST: f64 = 448.0;

/// The largest whole number.
const LARGEST_WHOLE: f64 = 127.0;

/// Writes `values` into `numbers` in their 8 bits, and the scale of each output into `scale`.
///
/// # Errors
/// libtorch's.
pub(super) fn pack(values: &Tensor, numbers: &mut Tensor, scale: &mut Tensor) -> Result<()> {
    let is_whole = numbers.kind() == Kind::Int8;
    let scales = if is_whole { largest(values)?.f_div_scalar(LARGEST_WHOLE)? } else { scales(values)? };
    let mut scaled = values.f_to_kind(Kind::Float)?.f_div(&scales)?;
    if is_whole {
        let _ = scaled.f_round_()?;
    }
    numbers.f_copy_(&scaled.f_to_kind(numbers.kind())?)?;
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

/// Per output the smallest power of two that brings its weights into the range: `[outputs, 1]`, fp32.
fn scales(values: &Tensor) -> Result<Tensor> {
    let exponent = largest(values)?.f_div_scalar(LARGEST)?.f_log2()?.f_ceil()?;
    Ok(exponent.f_clamp(-126.0, 127.0)?.f_exp2()?)
}

/// Per output the largest weight, and a little for one without weights: it keeps its zeros with any scale.
fn largest(values: &Tensor) -> Result<Tensor> {
    Ok(values.f_abs()?.f_amax([1], true)?.f_to_kind(Kind::Float)?.f_clamp_min(1e-30)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn an_output_of_zeros_stays_zero() {
        assert_eq!(scales(&Tensor::zeros([2, 3], (Kind::Float, Device::Cpu))).unwrap().isfinite().all(), Tensor::from(true));
        let powers: Vec<f32> =
            Vec::try_from(scales(&Tensor::from_slice2(&[[448f32, 1.0], [-449.0, 0.0], [0.01, 0.0]])).unwrap().view(-1)).unwrap();
        assert_eq!(powers, [1.0, 2.0, 2f32.powi(-15)]);
    }
}

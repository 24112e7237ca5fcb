//! Whether values are numbers: NaN or infinity in one place is in all that is computed from it, and no kernel says so.

use engine_protocol::Dtype;
use tch::Tensor;

use crate::error::{Error, Result};

/// Refuses values of which one is NaN or infinite. `what` they are is said then.
///
/// Where they are on the GPU this waits for it, so it is asked where the host waits anyway.
///
/// # Errors
/// [`Error::NotFinite`], without a cause, and libtorch's.
pub fn check(values: &Tensor, what: impl FnOnce() -> String) -> Result<()> {
    match not_finite(values)? {
        None => Ok(()),
        Some(first) => Err(Error::NotFinite { what: format!("{} hold {first}", what()), cause: String::new() }),
    }
}

/// The same error, which says in which step of how many it came.
#[must_use]
pub(crate) fn in_step(error: Error, step: u32, total: u32) -> Error {
    match error {
        Error::NotFinite { what, cause } => Error::NotFinite { what: format!("{what} in step {step} of {total}"), cause },
        other => other,
    }
}

/// What of values is no finite number, in a word; nothing where all are.
///
/// # Errors
/// libtorch's.
pub(crate) fn not_finite(values: &Tensor) -> Result<Option<&'static str>> {
    if values.numel() == 0 {
        return Ok(None);
    }
    // One pass and one number: the largest of all, which is NaN where one is.
    let largest = values.f_norm_scalaropt_dim(f64::INFINITY, [] as [i64; 0], false)?.f_double_value(&[])?;
    Ok(if largest.is_nan() {
        Some("NaN")
    } else if largest.is_infinite() {
        Some("infinity")
    } else {
        None
    })
}

/// Why values may have come to be no numbers, and what to do, where the weights are finite.
pub(crate) fn cause_in_arithmetic(dtype: Dtype) -> String {
    match dtype {
        Dtype::Fp16 => "the likely cause is fp16, which ends at 65504: use dtype=bf16, or fp32".into(),
        other => format!(
            "the cause is not known: the weights are finite, and {} does not overflow easily: try another seed, and fp32",
            other.name()
        ),
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn one_value_is_enough() {
        for kind in [Kind::Float, Kind::Half, Kind::BFloat16] {
            let values = || Tensor::full([7, 1000], -3.0, (kind, Device::Cpu));
            assert_eq!(not_finite(&values()).unwrap(), None);
            for (value, said) in [(f64::NAN, "NaN"), (f64::INFINITY, "infinity"), (f64::NEG_INFINITY, "infinity")] {
                let values = values();
                let _ = values.narrow(0, 3, 1).narrow(1, 500, 1).fill_(value);
                assert_eq!(not_finite(&values).unwrap(), Some(said), "{kind:?}");
                // Also where the elements do not lie in order.
                assert_eq!(not_finite(&values.tr()).unwrap(), Some(said), "{kind:?}");
                let error = check(&values, || "the latents".into()).unwrap_err();
                assert_eq!(error.to_string(), format!("the latents hold {said}"));
            }
        }
        assert_eq!(not_finite(&Tensor::zeros([0], (Kind::Float, Device::Cpu))).unwrap(), None);
    }
}

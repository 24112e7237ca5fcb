//! Measures what this machine's processor reaches in linear layers, through libtorch as the text encoder uses it.

use std::time::Instant;

use engine_protocol::{Dtype, DtypeRates, HostRates};
use tch::{Device, Kind, Tensor};

use crate::error::Result;
use crate::weights::kind_of;

/// A layer of umT5-XXL's feed-forward: its two sides.
const SIDES: [i64; 2] = [4096, 10240];
/// Rows that make arithmetic the limit: a prompt of the model's length.
const MANY_ROWS: i64 = 512;
/// Rows that make reading the weights the limit.
const FEW_ROWS: i64 = 4;
/// Measurements of each, after one that is not counted.
const REPEATS: usize = 3;

/// Measures all types, which takes a few seconds.
///
/// # Errors
/// libtorch's: memory that the host has not.
pub fn measure(processor: String) -> Result<HostRates> {
    let rates = [Dtype::Bf16, Dtype::Fp16, Dtype::Fp32].map(measure_dtype);
    let rates = rates.into_iter().collect::<Result<_>>()?;
    Ok(HostRates { processor, threads: tch::get_num_threads() as usize, rates })
}

fn measure_dtype(dtype: Dtype) -> Result<DtypeRates> {
    let kind = kind_of(dtype);
    let [inner, outer] = SIDES;
    // Several layers, so that few of their bytes are in the processor's caches when their turn comes again.
    let layers = (0..4).map(|_| Ok(Tensor::f_ones([outer, inner], (kind, Device::Cpu))?)).collect::<Result<Vec<_>>>()?;
    let numbers = (layers.len() as i64 * inner * outer) as f64;
    let bytes = numbers * kind.elt_size_in_bytes() as f64;
    Ok(DtypeRates {
        dtype,
        operations_per_sec: sorted(rounds(&layers, MANY_ROWS, kind)?.map(|secs| 2.0 * numbers * MANY_ROWS as f64 / secs)),
        weight_bytes_per_sec: sorted(rounds(&layers, FEW_ROWS, kind)?.map(|secs| bytes / secs)),
    })
}

/// Seconds that `rows` rows take through all layers, several times.
fn rounds(layers: &[Tensor], rows: i64, kind: Kind) -> Result<[f64; REPEATS]> {
    let input = Tensor::f_ones([rows, SIDES[0]], (kind, Device::Cpu))?;
    let round = || -> Result<f64> {
        let begun = Instant::now();
        for layer in layers {
            let _ = input.f_linear::<Tensor>(layer, None)?;
        }
        Ok(begun.elapsed().as_secs_f64())
    };
    round()?;
    let mut secs = [0.0; REPEATS];
    for secs in &mut secs {
        *secs = round()?;
    }
    Ok(secs)
}

/// The slowest, the median and the fastest.
fn sorted(mut rates: [f64; REPEATS]) -> [f64; 3] {
    rates.sort_by(f64::total_cmp);
    [rates[0], rates[REPEATS / 2], rates[REPEATS - 1]]
}

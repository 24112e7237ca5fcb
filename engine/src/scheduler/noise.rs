//! Noise from a seed: what PyTorch's CPU generator draws in fp32.

use std::sync::{Mutex, PoisonError};

use tch::{Device, Kind, Tensor};

use crate::error::Result;

/// The noise of `seed` in this shape, on the CPU.
///
/// # Errors
/// libtorch's.
pub fn noise(seed: i64, shape: &[i64]) -> Result<Tensor> {
    // PyTorch's generator is one for the whole process.
    static GENERATOR: Mutex<()> = Mutex::new(());
    let _alone = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    tch::manual_seed(seed);
    Ok(Tensor::f_randn(shape, (Kind::Float, Device::Cpu))?)
}

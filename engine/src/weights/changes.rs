//! What is added to a file's weights as they are loaded: differences, and products of two narrow matrices (LoRA).

use tch::{Device, Kind, Tensor};

use super::mapped::StoredTensor;
use crate::error::Result;

/// What is added to a tensor, so many times.
#[derive(Debug, Clone)]
pub struct Change {
    /// How many times it is added.
    pub times: f64,
    /// What is added.
    pub difference: Difference,
}

/// What is added to a tensor once.
#[derive(Debug, Clone)]
pub enum Difference {
    /// As large as the tensor itself.
    Whole(StoredTensor),
    /// `up`, `[outputs, rank]`, times `down`, `[rank, inputs]`; of a convolution its sides count as inputs.
    Product {
        /// The left one.
        up: StoredTensor,
        /// The right one.
        down: StoredTensor,
    },
}

fn fp32(stored: &StoredTensor) -> Result<Tensor> {
    let mut values = Tensor::f_empty(stored.shape(), (Kind::Float, Device::Cpu))?;
    stored.copy_to(&mut values)?;
    Ok(values)
}

impl Change {
    /// Adds it to `values`, which are in fp32 and lie in order.
    ///
    /// # Errors
    /// A file that cannot be read, and libtorch's.
    pub(super) fn add_to(&self, values: &Tensor) -> Result<()> {
        match (&self.difference, self.factors()?) {
            (Difference::Whole(stored), _) => {
                let _ = values.f_view([-1])?.f_add_(&fp32(stored)?.f_view([-1])?.f_mul_scalar(self.times)?)?;
            }
            (_, Some([up, down])) => {
                let _ = values.f_view([up.size()[0], down.size()[1]])?.f_addmm_(&up, &down)?;
            }
            (_, None) => {}
        }
        Ok(())
    }

    /// The two matrices whose product it is, the left one so many times; nothing where it is no product.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn factors(&self) -> Result<Option<[Tensor; 2]>> {
        let Difference::Product { up, down } = &self.difference else { return Ok(None) };
        let (up, down) = (fp32(up)?, fp32(down)?);
        let (outputs, rank) = (up.size()[0], down.size()[0]);
        Ok(Some([up.f_view([outputs, rank])?.f_mul_scalar(self.times)?, down.f_view([rank, -1])?]))
    }
}

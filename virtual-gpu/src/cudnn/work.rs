//! What a convolution comes to, for the clock.

use virtual_gpu_protocol::{WorkKind, WorkType};

use super::workspace::{Convolution, Operand};
use crate::device::KernelWork;

impl Convolution {
    /// For each element of the output a product and a sum for each element of the filter that belongs to its channel; a gradient comes to as much. In fp32 it is
    /// rounded to TF32, as PyTorch lets cuDNN do.
    pub(super) fn work(&self) -> KernelWork {
        let [filter, input, output] = &self.operands;
        let elements = |operand: &Operand| operand.sizes.iter().map(|&size| size as f64).product::<f64>();
        let channels = filter.sizes.first().map_or(1.0, |&channels| channels.max(1) as f64);
        let (dtype, element_bytes) = match input.data_type {
            2 => (WorkType::Fp16, 2.0),
            9 => (WorkType::Bf16, 2.0),
            1 => (WorkType::Fp64, 8.0),
            _ => (WorkType::Tf32, 4.0),
        };
        KernelWork {
            kind: Some(WorkKind::Convolution),
            dtype,
            operations: 2.0 * elements(output) * elements(filter) / channels,
            bytes: self.operands.iter().map(elements).sum::<f64>() * element_bytes,
            output: Some([elements(output) / channels, channels]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::workspace::Computes;
    use super::*;

    #[test]
    fn work_is_a_product_and_a_sum_for_each_element_of_the_filter() {
        const BFLOAT16: i32 = 9;
        // 5 output channels of 3*2*2 places, each the sum over 4 input channels of 27 places.
        let sizes: [&[i64]; 3] = [&[5, 4, 3, 3, 3], &[1, 4, 5, 4, 4], &[1, 5, 3, 2, 2]];
        let operands = sizes.map(|sizes| Operand { data_type: BFLOAT16, sizes: sizes.to_vec(), strides: vec![1; sizes.len()] });
        let work = Convolution { computes: Computes::Output, operands }.work();
        assert_eq!((work.operations, work.dtype), (2.0 * 60.0 * 108.0, WorkType::Bf16));
        assert_eq!(work.bytes, 2.0 * (540.0 + 320.0 + 60.0));
        assert_eq!(work.output, Some([12.0, 5.0]));
    }
}

//! How much workspace a convolution asks for: a model, stated here in full.
//!
//! # Note: the model
//! Convolutions in bf16 and fp16 run on the tensor cores, whose kernels want the channels innermost. An operand
//! (input, filter, output) that lies in memory with its channels further out is copied into that order, inside the
//! workspace. So the workspace is the sum of those copies, each rounded up to 512 bytes; an operand whose channels
//! are innermost, or that has only one channel, needs none. In fp32 and all other types it is 0.
//!
//! What it leaves out: cuDNN chooses among algorithms by speed, and some of them want more (Winograd, FFT, split-K).
//! How far the model is off has not been measured yet.

/// Alignment of each copy.
const ALIGNMENT_BYTES: u64 = 512;
/// `CUDNN_DATA_HALF` and `CUDNN_DATA_BFLOAT16`.
const SIXTEEN_BIT_TYPES: [i32; 2] = [2, 9];

/// A tensor of a convolution: batch (of a filter: output channels), channels, then the spatial dimensions.
pub(super) struct Operand {
    pub(super) data_type: i32,
    pub(super) sizes: Vec<i64>,
    pub(super) strides: Vec<i64>,
}

impl Operand {
    fn copy_bytes(&self) -> u64 {
        let (Some(&channels), Some(&channel_stride)) = (self.sizes.get(1), self.strides.get(1)) else { return 0 };
        if !SIXTEEN_BIT_TYPES.contains(&self.data_type) || channels == 1 || channel_stride == 1 {
            return 0;
        }
        let elements: u64 = self.sizes.iter().map(|&size| size.unsigned_abs()).product();
        (elements * 2).next_multiple_of(ALIGNMENT_BYTES)
    }
}

/// Workspace of one convolution, by the model above.
pub(super) fn workspace_bytes(operands: &[Operand]) -> u64 {
    operands.iter().map(Operand::copy_bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOAT: i32 = 0;
    const BFLOAT16: i32 = 9;

    fn contiguous(data_type: i32, sizes: &[i64]) -> Operand {
        let strides = (0..sizes.len()).map(|axis| sizes[axis + 1..].iter().product()).collect();
        Operand { data_type, sizes: sizes.to_vec(), strides }
    }

    #[test]
    fn sixteen_bit_operands_with_outer_channels_are_copied() {
        let convolution = |data_type| {
            [
                contiguous(data_type, &[96, 96, 3, 3, 3]),
                contiguous(data_type, &[1, 96, 6, 66, 66]),
                contiguous(data_type, &[1, 96, 4, 64, 64]),
            ]
        };
        // 96*96*27*2 = 497,664; 96*6*66*66*2 = 5,018,112; 96*4*64*64*2 = 3,145,728: all multiples of 512.
        assert_eq!(workspace_bytes(&convolution(BFLOAT16)), 497_664 + 5_018_112 + 3_145_728);
        assert_eq!(workspace_bytes(&convolution(FLOAT)), 0);
    }

    #[test]
    fn channels_that_are_innermost_or_single_need_no_copy() {
        let channels_last = Operand { data_type: BFLOAT16, sizes: vec![1, 3, 5, 5], strides: vec![75, 1, 15, 3] };
        assert_eq!(workspace_bytes(&[channels_last]), 0);
        assert_eq!(workspace_bytes(&[contiguous(BFLOAT16, &[1, 1, 5, 5])]), 0);
        assert_eq!(workspace_bytes(&[contiguous(BFLOAT16, &[1, 3, 5, 5])]), 512); // 150 bytes
    }
}

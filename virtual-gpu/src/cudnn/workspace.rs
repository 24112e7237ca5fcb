//! How much workspace a convolution asks for: a model, stated here in full.
//!
//! # Note: the model
//! Convolutions run on the tensor cores, whose kernels want the channels innermost and as many of them as fill 16 bytes. An operand (input, filter,
//! output) that lies in memory otherwise is copied into that order, inside the workspace. In 16 bits that is all.
//!
//! Tensor cores multiply fp32 as TF32. Those of compute capability 9.0 read fp32 as it is. For all others both factors are rounded first, into copies, wherever
//! their channels are; in return the kernels of a forward convolution write an output whose channels are further out directly.
//!
//! The workspace is the sum of those copies, and 16 bytes to align them by. Beside that kernel there is always one that uses no tensor core and
//! no workspace. PyTorch takes it where the workspace does not fit, and where TF32 is not allowed. In all other types there is only this one.
//!
//! # How it was found
//! cuDNN's own heuristics can be asked about a device that is not there (`CUDNN_ATTR_ENGINEHEUR_DEVICEPROP`), on a machine without a GPU. The workspaces that
//! cuDNN 9.20 answers with are these sums, to the byte. Which of them it prefers for a convolution depends on more than is said here; what the model leaves
//! out besides are partial sums (split-K) on top of the copies. `docs/virtual-gpu.md` has how far that is off.

/// What all copies are aligned by.
const ALIGNMENT_BYTES: u64 = 16;

/// `cudnnDataType_t`.
const FLOAT: i32 = 0;
const HALF: i32 = 2;
const BFLOAT16: i32 = 9;

/// A tensor of a convolution: batch (of a filter: output channels), channels, then the spatial dimensions.
pub(super) struct Operand {
    pub(super) data_type: i32,
    pub(super) sizes: Vec<i64>,
    pub(super) strides: Vec<i64>,
}

impl Operand {
    /// Elements that fill the 16 bytes that a tensor core's kernel loads at once; none in a type that has no such kernel.
    fn channels_at_once(&self) -> Option<u64> {
        match self.data_type {
            FLOAT => Some(4),
            HALF | BFLOAT16 => Some(8),
            _ => None,
        }
    }

    fn channels(&self) -> u64 {
        self.sizes.get(1).map_or(1, |channels| channels.unsigned_abs())
    }

    /// Whether it lies in memory as a tensor core's kernel wants it.
    fn is_innermost(&self, at_once: u64) -> bool {
        let channels = self.channels();
        channels == 1 || (self.strides.get(1) == Some(&1) && channels.is_multiple_of(at_once))
    }

    fn copy_bytes(&self, at_once: u64) -> u64 {
        let others = self.sizes.iter().enumerate().filter(|&(axis, _)| axis != 1).map(|(_, size)| size.unsigned_abs());
        let others = others.fold(1, u64::saturating_mul);
        let channels = self.channels().checked_next_multiple_of(at_once).unwrap_or(u64::MAX);
        others.saturating_mul(channels).saturating_mul(16 / at_once)
    }
}

/// Which of its three tensors a convolution computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Computes {
    Output,
    GradientOfInput,
    GradientOfFilter,
}

/// A convolution, or one of its gradients.
pub(super) struct Convolution {
    pub(super) computes: Computes,
    /// Filter, input, output, or their gradients.
    pub(super) operands: [Operand; 3],
}

impl Convolution {
    /// Workspace of the kernel on the tensor cores of a device of that major compute capability, by the model above; none where there is no such kernel.
    pub(super) fn tensor_core_workspace_bytes(&self, major: u32) -> Option<u64> {
        let at_once = self.operands[0].channels_at_once()?;
        let rounds = self.operands[0].data_type == FLOAT && major != 9;
        let result = match self.computes {
            Computes::GradientOfFilter => 0,
            Computes::GradientOfInput => 1,
            Computes::Output => 2,
        };
        let is_copied = |(index, operand): &(usize, &Operand)| {
            let is_written_directly = rounds && self.computes == Computes::Output && operand.channels().is_multiple_of(at_once);
            match *index == result {
                true => !operand.is_innermost(at_once) && !is_written_directly,
                false => rounds || !operand.is_innermost(at_once),
            }
        };
        let copies = self.operands.iter().enumerate().filter(is_copied).map(|(_, operand)| operand.copy_bytes(at_once));
        let copies = copies.fold(0, u64::saturating_add);
        Some(if copies > 0 { copies.saturating_add(ALIGNMENT_BYTES) } else { 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOUBLE: i32 = 1;

    fn channels_first(data_type: i32, sizes: &[i64]) -> Operand {
        let strides = (0..sizes.len()).map(|axis| sizes[axis + 1..].iter().product()).collect();
        Operand { data_type, sizes: sizes.to_vec(), strides }
    }

    fn channels_last(data_type: i32, sizes: &[i64]) -> Operand {
        let mut operand = channels_first(data_type, sizes);
        operand.strides =
            (0..sizes.len()).map(|axis| if axis == 1 { 1 } else { sizes[axis + 1..].iter().product::<i64>() * sizes[1] }).collect();
        operand.strides[0] = sizes[1..].iter().product();
        operand
    }

    /// 96 channels to 96, 3x3x3, over 6 frames of 480x832 and their borders: Wan's decoder. 995,328, 926,180,352 and 613,416,960 bytes in fp32.
    const WAN: [&[i64]; 3] = [&[96, 96, 3, 3, 3], &[1, 96, 6, 482, 834], &[1, 96, 4, 480, 832]];

    fn workspace(computes: Computes, lies: fn(i32, &[i64]) -> Operand, data_type: i32, sizes: [&[i64]; 3], major: u32) -> Option<u64> {
        Convolution { computes, operands: sizes.map(|sizes| lies(data_type, sizes)) }.tensor_core_workspace_bytes(major)
    }

    #[test]
    fn sixteen_bits_with_outer_channels_are_copied() {
        let bytes = (995_328 + 926_180_352 + 613_416_960) / 2 + 16;
        for (major, computes) in [(8, Computes::Output), (9, Computes::GradientOfInput), (12, Computes::GradientOfFilter)] {
            assert_eq!(workspace(computes, channels_first, BFLOAT16, WAN, major), Some(bytes));
            assert_eq!(workspace(computes, channels_last, HALF, WAN, major), Some(0));
        }
    }

    #[test]
    fn fp32_is_rounded_where_tensor_cores_do_not_read_it() {
        let (filter, input, output) = (995_328, 926_180_352, 613_416_960);
        for (computes, lies, on_ada, on_hopper) in [
            (Computes::Output, channels_first as fn(i32, &[i64]) -> Operand, input + filter, input + filter + output),
            (Computes::Output, channels_last, input + filter, 0),
            (Computes::GradientOfInput, channels_first, input + filter + output, input + filter + output),
            (Computes::GradientOfInput, channels_last, filter + output, 0),
            (Computes::GradientOfFilter, channels_last, input + output, 0),
        ] {
            assert_eq!(workspace(computes, lies, FLOAT, WAN, 8), Some(on_ada + 16), "{computes:?}");
            assert_eq!(workspace(computes, lies, FLOAT, WAN, 9), Some(if on_hopper > 0 { on_hopper + 16 } else { 0 }), "{computes:?}");
        }
    }

    #[test]
    fn channels_are_filled_up_to_sixteen_bytes() {
        // To 3 channels, which become 8 in 16 bits and 4 in 32: 1024 * 1024 * 16 bytes either way.
        let last: [&[i64]; 3] = [&[3, 128, 3, 3], &[1, 128, 1024, 1024], &[1, 3, 1024, 1024]];
        assert_eq!(workspace(Computes::Output, channels_last, BFLOAT16, last, 9), Some((16 << 20) + 16));
        let copies = 3 * 128 * 9 * 4 + (512 << 20) + (16 << 20);
        assert_eq!(workspace(Computes::Output, channels_first, FLOAT, last, 8), Some(copies + 16));
    }

    #[test]
    fn a_filter_of_one_point_and_a_single_channel_lie_right() {
        let point: [&[i64]; 3] = [&[640, 320, 1, 1], &[2, 320, 128, 128], &[2, 640, 128, 128]];
        assert_eq!(workspace(Computes::Output, channels_first, BFLOAT16, point, 8), Some((20 << 20) + (40 << 20) + 16));
        assert_eq!(workspace(Computes::Output, channels_first, BFLOAT16, [&[1, 1, 3, 3], &[1, 1, 5, 5], &[1, 1, 3, 3]], 8), Some(0));
    }

    #[test]
    fn other_types_have_no_kernel_on_tensor_cores() {
        assert_eq!(workspace(Computes::Output, channels_first, DOUBLE, WAN, 8), None);
    }
}

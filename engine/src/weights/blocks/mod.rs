//! Weights in blocks, as GGUF files have them: so many numbers in so many bytes, with scales of their own. They are unpacked by libtorch's operations on whichever
//! device they lie, in parts, so that little memory is taken beside the result.
//!
//! What is packed here is rounded plainly: the value furthest from zero, or the least and the largest one, say the scale. Programs that make GGUF files search for better
//! scales, so their files are a little nearer to the weights that they were made from.

mod bits;
mod of_256;
mod of_32;

use std::fmt;

use engine_protocol::WeightDtype;
use tch::{Kind, Tensor};

use crate::attribution::{Purpose, within};
use crate::error::Result;

/// Makes other numbers of all blocks.
type Convert = fn(&Tensor) -> Result<Tensor>;

/// A type of block.
pub struct BlockType {
    /// What it is called.
    pub dtype: WeightDtype,
    /// Numbers of a block.
    pub numbers: i64,
    /// Bytes of a block.
    pub bytes: i64,
    /// Its number in GGUF files.
    number: u32,
    /// Bytes that unpacking takes in passing for each 16 numbers: these as bytes, where steps are looked up as 4 bytes each too, what they are in fp32, and the scales of their parts.
    passing: i64,
    /// From `[blocks, bytes]` to `[blocks, numbers]` in fp32.
    unpack: Convert,
    /// From `[blocks, numbers]` in fp32 to `[blocks, bytes]`.
    pack: Convert,
}

/// All of them: name, number in files, numbers and bytes of a block, what unpacking takes, and how it is unpacked and packed.
#[rustfmt::skip]
static ALL: [BlockType; 12] = [
    block_type(WeightDtype::Q4_0, 2, 32, 18, 82, of_32::unpack_q4_0, of_32::pack_q4_0),
    block_type(WeightDtype::Q4_1, 3, 32, 20, 82, of_32::unpack_q4_1, of_32::pack_q4_1),
    block_type(WeightDtype::Q5_0, 6, 32, 22, 82, of_32::unpack_q5_0, of_32::pack_q5_0),
    block_type(WeightDtype::Q5_1, 7, 32, 24, 82, of_32::unpack_q5_1, of_32::pack_q5_1),
    block_type(WeightDtype::Q8_0, 8, 32, 34, 66, of_32::unpack_q8_0, of_32::pack_q8_0),
    block_type(WeightDtype::Iq4Nl, 20, 32, 18, 146, of_32::unpack_iq4_nl, of_32::pack_iq4_nl),
    block_type(WeightDtype::Q2K, 10, 256, 84, 88, of_256::unpack_q2_k, of_256::pack_q2_k),
    block_type(WeightDtype::Q3K, 11, 256, 110, 88, of_256::unpack_q3_k, of_256::pack_q3_k),
    block_type(WeightDtype::Q4K, 12, 256, 144, 88, of_256::unpack_q4_k, of_256::pack_q4_k),
    block_type(WeightDtype::Q5K, 13, 256, 176, 88, of_256::unpack_q5_k, of_256::pack_q5_k),
    block_type(WeightDtype::Q6K, 14, 256, 210, 88, of_256::unpack_q6_k, of_256::pack_q6_k),
    block_type(WeightDtype::Iq4Xs, 23, 256, 136, 149, of_256::unpack_iq4_xs, of_256::pack_iq4_xs),
];

const fn block_type(dtype: WeightDtype, number: u32, numbers: i64, bytes: i64, passing: i64, unpack: Convert, pack: Convert) -> BlockType {
    BlockType { dtype, numbers, bytes, number, passing, unpack, pack }
}

/// Numbers that are unpacked or packed at a time.
const AT_A_TIME: i64 = 4 << 20;

impl BlockType {
    /// The one of that name; nothing where weights of that name are not in blocks.
    pub fn of(dtype: WeightDtype) -> Option<&'static Self> {
        ALL.iter().find(|known| known.dtype == dtype)
    }

    /// The one that has this number in GGUF files.
    pub(super) fn numbered(number: u32) -> Option<&'static Self> {
        ALL.iter().find(|known| known.number == number)
    }

    /// Its number in GGUF files.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Bytes of so many numbers; nothing where those are no whole blocks.
    pub fn bytes_of(&self, numbers: i64) -> Option<i64> {
        (numbers % self.numbers == 0).then(|| numbers / self.numbers * self.bytes)
    }

    /// Bytes that unpacking so many numbers takes in passing, beside its result.
    pub fn unpacking_bytes(&self, numbers: i64) -> i64 {
        numbers.min(AT_A_TIME) * self.passing / 16
    }

    /// Writes the numbers of `packed`, bytes of whole blocks, into `target`, which has as many and one type or another: each in fp32 first, and rounded once.
    ///
    /// # Errors
    /// libtorch's.
    pub fn unpack(&self, packed: &Tensor, target: &Tensor) -> Result<()> {
        let (blocks, flat) = (packed.f_view([-1, self.bytes])?, target.f_view([-1])?);
        within(Purpose::Workspace, || {
            self.in_parts(blocks.size()[0], |first, count| {
                let values = (self.unpack)(&blocks.f_narrow(0, first, count)?)?;
                Ok(flat.f_narrow(0, first * self.numbers, count * self.numbers)?.f_copy_(&values.f_view([-1])?)?)
            })
        })
    }

    /// Writes `values`, on the host, into the bytes of `target`.
    ///
    /// # Errors
    /// libtorch's.
    pub fn pack(&self, values: &Tensor, target: &Tensor) -> Result<()> {
        let (blocks, flat) = (values.f_view([-1, self.numbers])?, target.f_view([-1, self.bytes])?);
        self.in_parts(blocks.size()[0], |first, count| {
            let packed = (self.pack)(&blocks.f_narrow(0, first, count)?.f_to_kind(Kind::Float)?)?;
            Ok(flat.f_narrow(0, first, count)?.f_copy_(&packed)?)
        })
    }

    /// So many blocks a few at a time: the first of them and how many.
    fn in_parts(&self, blocks: i64, mut take: impl FnMut(i64, i64) -> Result<()>) -> Result<()> {
        let most = AT_A_TIME / self.numbers;
        (0..blocks).step_by(most as usize).try_for_each(|first| take(first, most.min(blocks - first)))
    }
}

impl PartialEq for BlockType {
    fn eq(&self, other: &Self) -> bool {
        self.dtype == other.dtype
    }
}

impl fmt::Debug for BlockType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.dtype.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    /// How far a value may come back, in shares of the largest of its block.
    fn bound(dtype: WeightDtype) -> f64 {
        match dtype {
            WeightDtype::Q8_0 => 0.005,
            WeightDtype::Q6K => 0.04,
            WeightDtype::Iq4Xs => 0.16,
            WeightDtype::Q5_0 | WeightDtype::Q5_1 | WeightDtype::Q5K => 0.07,
            WeightDtype::Q3K => 0.27,
            WeightDtype::Q2K => 0.4,
            _ => 0.14,
        }
    }

    #[test]
    fn what_is_packed_comes_back_within_its_steps() {
        tch::manual_seed(5);
        let values = Tensor::randn([64, 512], (Kind::Float, Device::Cpu)) * 0.02;
        let _ = values.narrow(0, 3, 1).zero_();
        for kind in &ALL {
            let packed = Tensor::zeros([kind.bytes_of(64 * 512).unwrap()], (Kind::Uint8, Device::Cpu));
            let back = Tensor::full([64, 512], f64::NAN, (Kind::Float, Device::Cpu));
            kind.pack(&values, &packed).unwrap();
            kind.unpack(&packed, &back).unwrap();
            assert_eq!(back.narrow(0, 3, 1).abs().max().double_value(&[]), 0.0, "{kind:?}: zeros stay zero");
            let of_block = |tensor: &Tensor| tensor.view([-1, kind.numbers]).abs().amax([1], false);
            let off = (of_block(&(&back - &values)) / of_block(&values).clamp_min(1e-9)).max().double_value(&[]);
            assert!(off < bound(kind.dtype) && off > 1e-4, "{kind:?}: {off}");
        }
    }

    #[test]
    fn parts_make_the_whole() {
        let kind = BlockType::of(WeightDtype::Q8_0).unwrap();
        let numbers = AT_A_TIME + 64;
        let packed = Tensor::zeros([kind.bytes_of(numbers).unwrap()], (Kind::Uint8, Device::Cpu));
        let values = Tensor::ones([numbers], (Kind::Float, Device::Cpu));
        let back = values.zeros_like();
        kind.pack(&values, &packed).unwrap();
        kind.unpack(&packed, &back).unwrap();
        assert!((back - values).abs().max().double_value(&[]) < 1e-3);
        assert_eq!(kind.bytes_of(40), None);
    }
}

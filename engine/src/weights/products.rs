//! Linear layers whose products are in 8 bits: `linear_dtype`.
//!
//! Note: what is computed.
//! Of each token the inputs are made 8 bits with a scale of their own, as weights are with one for each output (`fp8::pack`): a power of two in FP8, so that dividing by it rounds
//! nothing, and the largest input over 127 in whole numbers. The product of the numbers is summed in fp32 or int32, multiplied with both scales, and rounded once, with the bias.
//! What LoRAs add to the weight is a product of its own, in the type of arithmetic.
//!
//! On a GPU libtorch multiplies: `_scaled_mm` with scales by row, and `_int_mm`, which gives sums in int32 that are scaled some tokens at a time. On the CPU it has the second one
//! alone; FP8 is multiplied in fp32 there, which holds each product of two numbers exactly.

use tch::{Kind, Tensor};

use super::fp8;
use crate::error::Result;

/// So many tokens are made whole numbers at a time, and their sums scaled: what that takes in fp32 stays small beside the tensors themselves.
const TOKENS_AT_A_TIME: i64 = 1024;

/// `_int_mm` takes more rows than this on a GPU.
const TOO_FEW_ROWS: i64 = 16;

/// Bytes of a number in fp32, and of one in int32.
const WIDE: i64 = 4;

/// The weight of a linear layer as it waits in 8 bits.
pub(super) struct Packed<'a> {
    /// `[outputs, inputs]`, in 8 bits.
    pub(super) numbers: Tensor,
    /// `[outputs, 1]`, fp32.
    pub(super) scale: Tensor,
    /// `[outputs]`, in the type of arithmetic.
    pub(super) bias: Option<&'a Tensor>,
    /// The two matrices of LoRAs: `[outputs, rank]` and `[rank, inputs]`.
    pub(super) lora: Option<[Tensor; 2]>,
}

impl Packed<'_> {
    /// `x` through the layer.
    ///
    /// # Shapes
    /// `[.., inputs]` to `[.., outputs]`, in `x`'s type.
    ///
    /// # Errors
    /// libtorch's.
    pub(super) fn linear(&self, x: &Tensor) -> Result<Tensor> {
        let (inputs, outputs) = (self.numbers.size()[1], self.numbers.size()[0]);
        let rows = x.f_reshape([-1, inputs])?;
        let (numbers, scale) = self.in_8_bits(&rows)?;
        let mut result = if numbers.kind() == Kind::Float8e4m3fn && x.device().is_cuda() {
            let scale_of_outputs = self.scale.f_view([1, outputs])?;
            let weight = self.numbers.f_transpose(0, 1)?;
            numbers.f_internal_scaled_mm(&weight, &scale, &scale_of_outputs, self.bias, None, x.kind(), false)?
        } else {
            self.in_pieces(&numbers, &scale, x.kind())?
        };
        drop((numbers, scale));
        if let Some([up, down]) = &self.lora {
            let narrow = rows.f_matmul(&down.f_transpose(0, 1)?)?;
            let _ = result.f_addmm_(&narrow, &up.f_transpose(0, 1)?)?;
        }
        let mut shape = x.size();
        *shape.last_mut().expect("a linear layer's input has channels") = outputs;
        Ok(result.f_view(shape.as_slice())?)
    }

    /// Each row in 8 bits, and its scale: as weights are packed, without tensors of the same size in passing.
    fn in_8_bits(&self, rows: &Tensor) -> Result<(Tensor, Tensor)> {
        let kind = self.numbers.kind();
        let largest = rows.f_linalg_norm(f64::INFINITY, [1].as_slice(), true, rows.kind())?;
        let scale = fp8::scales(&largest, kind)?;
        let numbers = Tensor::f_empty(rows.size(), (kind, rows.device()))?;
        if kind != Kind::Int8 {
            // A power of two is one in 16 bits too, and of a wider type fp32 is what counts.
            let divisor = if rows.kind() == Kind::BFloat16 { scale.f_to_kind(Kind::BFloat16)? } else { scale.shallow_clone() };
            let _ = rows.f_div_out(&numbers, &divisor)?;
            return Ok((numbers, scale));
        }
        for (start, length) in pieces(rows.size()[0]) {
            let part = |x: &Tensor| x.f_narrow(0, start, length);
            let mut scaled = part(rows)?.f_div(&part(&scale)?)?;
            part(&numbers)?.f_copy_(&scaled.f_round_()?)?;
        }
        Ok((numbers, scale))
    }

    /// The product, some rows at a time.
    fn in_pieces(&self, numbers: &Tensor, scale: &Tensor, kind: Kind) -> Result<Tensor> {
        let outputs = self.numbers.size()[0];
        let result = Tensor::f_empty([numbers.size()[0], outputs], (kind, numbers.device()))?;
        let scale_of_outputs = self.scale.f_view([1, outputs])?;
        for (start, length) in pieces(numbers.size()[0]) {
            let part = |x: &Tensor| x.f_narrow(0, start, length);
            let (target, scaled) = (part(&result)?, self.sums(&part(numbers)?)?.f_mul(&part(scale)?)?);
            let _ = match self.bias {
                Some(bias) => bias.f_addcmul_out(&target, &scaled, &scale_of_outputs)?,
                None => scaled.f_mul_out(&target, &scale_of_outputs)?,
            };
        }
        Ok(result)
    }

    /// The products of the numbers alone, summed: in int32, or in fp32 where they are FP8.
    fn sums(&self, numbers: &Tensor) -> Result<Tensor> {
        if numbers.kind() != Kind::Int8 {
            let [numbers, weight] = [numbers, &self.numbers].map(|x| x.f_to_kind(Kind::Float));
            return Ok(numbers?.f_matmul(&weight?.f_transpose(0, 1)?)?);
        }
        let weight = self.numbers.f_transpose(0, 1)?;
        let rows = numbers.size()[0];
        if rows > TOO_FEW_ROWS {
            return Ok(numbers.f_internal_int_mm(&weight)?);
        }
        let filled = numbers.f_constant_pad_nd([0, 0, 0, TOO_FEW_ROWS + 1 - rows])?;
        Ok(filled.f_internal_int_mm(&weight)?.f_narrow(0, 0, rows)?)
    }
}

/// The first of each piece's rows, and how many it has.
fn pieces(rows: i64) -> impl Iterator<Item = (i64, i64)> {
    (0..rows).step_by(TOKENS_AT_A_TIME as usize).map(move |start| (start, TOKENS_AT_A_TIME.min(rows - start)))
}

/// Bytes that a layer takes on a GPU beside its input and its result, for so many rows: before there is a result, and beside it.
pub fn product_bytes(kind: Kind, rows: i64, inputs: i64, outputs: i64) -> [i64; 2] {
    let packed = rows * (inputs + WIDE);
    let piece = rows.min(TOKENS_AT_A_TIME);
    let [scaled, sums] = if kind == Kind::Int8 { [piece * inputs, 2 * piece * outputs].map(|numbers| numbers * WIDE) } else { [0; 2] };
    [packed + scaled, packed + sums]
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    /// A layer of 48 inputs and 32 outputs, and what it is made of in fp32.
    fn layer(kind: Kind) -> (Packed<'static>, Tensor) {
        tch::manual_seed(5);
        let weight = Tensor::randn([32, 48], (Kind::Float, Device::Cpu));
        let (mut numbers, mut scale) = (Tensor::empty([32, 48], (kind, Device::Cpu)), Tensor::empty([32, 1], (Kind::Float, Device::Cpu)));
        fp8::pack(&weight, &mut numbers, &mut scale).unwrap();
        (Packed { numbers, scale, bias: None, lora: None }, weight)
    }

    fn error(got: &Tensor, wanted: &Tensor) -> f64 {
        ((got - wanted).norm() / wanted.norm()).double_value(&[])
    }

    /// The bounds are what rounding makes: e4m3 is off by 2.65% in the mean of squares, so a product of two by 3.7%, and its sum as much where numbers have no mean. Of
    /// int8 a step is the largest number of 48 over 127, 2 in 127, and rounding is off by 0.29 of one: 0.5% each.
    #[test]
    fn near_the_exact_product() {
        for (kind, most) in [(Kind::Float8e4m3fn, 0.045), (Kind::Int8, 0.012)] {
            let (packed, weight) = layer(kind);
            // More than one piece: of few rows the mean is no mean.
            let x = Tensor::randn([1, TOKENS_AT_A_TIME + 3, 48], (Kind::Float, Device::Cpu));
            let all = packed.linear(&x).unwrap();
            let off = error(&all, &x.matmul(&weight.tr()));
            assert!(off > 1e-4 && off < most, "{kind:?}: {off}");
            // Fewer rows than a GPU takes in whole numbers.
            for rows in [1, 5, 17] {
                let few = packed.linear(&x.narrow(1, 0, rows)).unwrap();
                assert!(error(&few, &all.narrow(1, 0, rows)) < 1e-6, "{kind:?}, {rows} rows");
            }
        }
    }

    /// Rows have scales of their own: a token that is a thousand times as large changes no bit of the others.
    #[test]
    fn a_row_is_computed_by_itself() {
        for kind in [Kind::Float8e4m3fn, Kind::Int8] {
            let (packed, _) = layer(kind);
            let x = Tensor::randn([40, 48], (Kind::Float, Device::Cpu));
            let all = packed.linear(&x).unwrap();
            let _ = x.get(7).g_mul_scalar_(1000.0);
            let with = packed.linear(&x).unwrap();
            assert_eq!([all.narrow(0, 0, 7), all.narrow(0, 8, 32)], [with.narrow(0, 0, 7), with.narrow(0, 8, 32)]);
            // Sums in fp32 may come in another order where there are few rows.
            assert!(error(&packed.linear(&x.narrow(0, 3, 2)).unwrap(), &with.narrow(0, 3, 2)) < 1e-6, "{kind:?}");
        }
    }

    #[test]
    fn loras_and_bias_are_added() {
        for kind in [Kind::Float8e4m3fn, Kind::Int8] {
            let (plain, _) = layer(kind);
            let [up, down] = [[32, 4], [4, 48]].map(|shape| Tensor::randn(shape, (Kind::Float, Device::Cpu)));
            let bias = Tensor::randn([32], (Kind::Float, Device::Cpu));
            let x = Tensor::randn([20, 48], (Kind::Float, Device::Cpu));
            let wanted = plain.linear(&x).unwrap() + x.matmul(&up.matmul(&down).tr()) + &bias;
            let with = Packed { bias: Some(&bias), lora: Some([up, down]), ..plain };
            assert!(error(&with.linear(&x).unwrap(), &wanted) < 1e-6, "{kind:?}");
        }
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        for kind in [Kind::Float8e4m3fn, Kind::Int8] {
            let (packed, _) = layer(kind);
            for bad in [f64::NAN, f64::INFINITY] {
                let x = Tensor::randn([20, 48], (Kind::Float, Device::Cpu));
                let _ = x.get(3).get(5).fill_(bad);
                let finite = packed.linear(&x).unwrap().isfinite();
                assert!(!bool::try_from(finite.get(3).any()).unwrap(), "{kind:?} of {bad}");
                assert!(bool::try_from(finite.narrow(0, 4, 16).all()).unwrap());
            }
        }
    }
}

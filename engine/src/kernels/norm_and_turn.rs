//! RMS norm and turn (RoPE) of queries or keys in one kernel, where they lie: on a GPU launched, on the CPU run from the same source.
#![expect(unsafe_code, reason = "the kernel reads and writes memory by address: what it is given is held against what it does")]

use std::ffi::{c_int, c_void};
use std::ptr;

use engine_protocol::WorkKind;
use tch::{Kind, Tensor};

use super::by_element::{ByElement, Piece, check_apart, check_place, element_of};
use super::element::bytes_of;
use super::loaded::Loaded;
use super::nvrtc;
use crate::error::Result;

pub(super) static KERNEL: ByElement = ByElement {
    name: "norm_and_turn",
    source: &[
        ("norm_and_turn.cu", include_str!("norm_and_turn/norm_and_turn.cu")),
        ("norm_and_turn.cuh", include_str!("norm_and_turn/norm_and_turn.cuh")),
        nvrtc::ELEMENTS,
        nvrtc::WARP,
    ],
    shown: c"lowmem::norm_and_turn",
    kind: WorkKind::Pointwise,
    piece: Piece::OfWarp,
    on_cpu: lowmem_norm_and_turn_on_cpu,
    loaded: Loaded::new(),
};

unsafe extern "C" {
    fn lowmem_norm_and_turn_on_cpu(element: c_int, given: *const c_void, first: i64, last: i64) -> c_int;
}

/// `NormAndTurn` of `norm_and_turn.cuh`.
#[repr(C)]
struct Given {
    numbers: *mut c_void,
    weight: *const c_void,
    scales: *const c_void,
    turns: *const c_void,
    rows: i64,
    tokens: i64,
    channels: i64,
    head: i64,
    eps: f64,
}

/// Norms each token's channels by their root mean square times `weight`, and turns each pair of them, in place. Where `scales` has what each token is multiplied by, its channels here
/// may be some of them.
///
/// # Shapes
/// `x` is `[B, n, channels]` with any number of heads in `channels`, `weight` `[channels]` in the same type; `scales` `[B, n, 1]` and `turns` `[n, head / 2, 2]` are in fp32. All lie
/// whole, one number after the other.
///
/// # Errors
/// The compiler's and the driver's, and a type of numbers that there is no kernel for.
pub fn norm_and_turn(x: &Tensor, weight: &Tensor, scales: Option<&Tensor>, turns: &Tensor, eps: f64) -> Result<()> {
    let [batch, tokens, channels] = <[i64; 3]>::try_from(x.size()).expect("[batch, tokens, channels]");
    let element = element_of(x)?;
    let head = 2 * turns.size()[1];
    assert!(head > 0 && channels % head == 0, "whole heads");
    check_place(x, x, x.kind(), &[batch, tokens, channels], 2);
    check_place(x, weight, x.kind(), &[channels], 2);
    check_place(x, turns, Kind::Float, &[tokens, head / 2, 2], 1);
    check_apart(x, [weight, turns].into_iter().chain(scales));
    if let Some(scales) = scales {
        check_place(x, scales, Kind::Float, &[batch, tokens, 1], 1);
    }
    let given = Given {
        numbers: x.data_ptr(),
        weight: weight.data_ptr(),
        scales: scales.map_or(ptr::null(), |scales| scales.data_ptr().cast_const()),
        turns: turns.data_ptr(),
        rows: batch * tokens,
        tokens,
        channels,
        head,
        eps,
    };
    // Each number is read and written, and each turn is read.
    let bytes = bytes_of(&[x, x, turns]);
    // SAFETY: it is what the kernel takes, and sizes are those of the tensors, as just checked.
    unsafe { KERNEL.run((element, x.device()), given.rows, bytes, &given) }
}

#[cfg(test)]
mod tests {
    use super::super::ptx;
    use super::*;
    use tch::Device;

    /// Two videos of seven tokens, with two heads of twelve channels; a weight; and the turns of the tokens, of which the angles do not matter.
    fn given(kind: Kind) -> [Tensor; 3] {
        tch::manual_seed(3);
        let angles = Tensor::randn([7, 6], (Kind::Float, Device::Cpu));
        let [x, weight] = [&[2, 7, 24][..], &[24]].map(|size| Tensor::randn(size, (Kind::Float, Device::Cpu)).to_kind(kind));
        [x * 3.0, weight, Tensor::stack(&[angles.cos(), angles.sin()], -1)]
    }

    /// The same by libtorch's operators, in fp64.
    fn wanted([x, weight, turns]: &[Tensor; 3], scales: Option<&Tensor>) -> Tensor {
        let [x, weight] = [x, weight].map(|tensor| tensor.to_kind(Kind::Double));
        let scales =
            scales.map_or_else(|| (x.square().mean_dim(-1, true, Kind::Double) + 1e-6).rsqrt(), |scales| scales.to_kind(Kind::Double));
        let pairs = (x * scales * weight).view([2, 7, 2, 6, 2]);
        let [a, b] = [0, 1].map(|place| pairs.select(-1, place));
        let [cosine, sine] = [0, 1].map(|place| turns.to_kind(Kind::Double).select(-1, place).unsqueeze(1));
        Tensor::stack(&[&a * &cosine - &b * &sine, a * sine + b * cosine], -1).view([2, 7, 24])
    }

    #[test]
    fn it_is_the_norm_and_the_turn_rounded_once() {
        is_rounded_once();
    }

    #[test]
    #[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
    fn its_instructions_do_the_same() {
        let test = "kernels::norm_and_turn::tests::its_instructions_do_the_same";
        ptx::with_nvidias_compiler(test, || ptx::by_instructions(is_rounded_once));
    }

    fn is_rounded_once() {
        // Half of a unit in the last place.
        for (kind, most) in [(Kind::Float, 1e-6), (Kind::BFloat16, 1.0 / 256.0), (Kind::Half, 1.0 / 2048.0)] {
            for is_known in [false, true] {
                let given = given(kind);
                let scales = is_known.then(|| Tensor::rand([2, 7, 1], (Kind::Float, Device::Cpu)) + 0.5);
                let wanted = wanted(&given, scales.as_ref());
                let [x, weight, turns] = &given;
                norm_and_turn(x, weight, scales.as_ref(), turns, 1e-6).unwrap();
                // Over the length of the pair, which a turn does not change: of one number little may be left.
                let lengths = |x: &Tensor| x.view([2, 7, 12, 2]).square().sum_dim_intlist([-1].as_slice(), false, Kind::Double).sqrt();
                let off = (lengths(&(x.to_kind(Kind::Double) - &wanted)) / lengths(&wanted)).max().double_value(&[]);
                assert!(off <= most, "{kind:?}, scales {is_known}: {off:e}");
            }
        }
    }

    #[test]
    fn scales_may_begin_at_any_token() {
        for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
            let [x, weight, turns] = given(kind);
            let scales = Tensor::rand([1, 7, 1], (Kind::Float, Device::Cpu)) + 0.5;
            let tokens = |tensor: &Tensor, first: i64, count: i64| tensor.narrow(-2, first, count);
            let whole = x.narrow(0, 0, 1).copy();
            norm_and_turn(&whole, &weight, Some(&scales), &turns, 1e-6).unwrap();
            for first in 0..7 {
                let part = tokens(&x.narrow(0, 0, 1), first, 1).copy();
                norm_and_turn(&part, &weight, Some(&tokens(&scales, first, 1)), &turns.narrow(0, first, 1), 1e-6).unwrap();
                assert_eq!(part, tokens(&whole, first, 1), "{kind:?}, token {first}");
            }
        }
    }

    #[test]
    fn other_types_are_refused() {
        let [x, weight, turns] = given(Kind::Double);
        assert!(norm_and_turn(&x, &weight, None, &turns, 1e-6).is_err_and(|error| error.to_string().contains("fused=true takes fp32")));
    }
}

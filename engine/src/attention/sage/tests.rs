//! The kernels' source on the CPU, warp by warp: near attention in fp32, and to rounding what the formula gives that it stands for.

use engine_protocol::{AttnType, BlockChoice};
use tch::{Device, Kind, Tensor};

use super::{PackedKeys, PackedValues, packed_bytes};
use crate::error::Result;
use crate::kernels::ptx::{by_instructions, with_nvidias_compiler};
use crate::kernels::sage::with_warps_in_turns;

/// Batch, heads, queries, keys, channels: whole tiles, tails of all of them, the prompt's few keys, one query, one key, channels that are padded.
pub(super) const SHAPES: [[i64; 5]; 8] = [
    [1, 1, 128, 64, 128],
    [2, 3, 200, 333, 64],
    [1, 2, 129, 65, 128],
    [2, 1, 37, 7, 128],
    [1, 2, 300, 512, 64],
    [1, 1, 1, 1, 64],
    [1, 2, 50, 100, 24],
    [1, 1, 70, 130, 72],
];

/// Half of the keys, of which values that count for little are left out.
const HALF: BlockChoice = BlockChoice { topk: 0.5, similarity: -0.1, pv_threshold: 1.0 };

/// `q`, `k` and `v` as a model hands them over: views of `[B, L, heads, D]`.
pub(super) fn inputs(shape: [i64; 5], kind: Kind, outliers: bool) -> [Tensor; 3] {
    tch::manual_seed(7);
    let [batch, heads, queries, keys, channels] = shape;
    let [q, k, v] = [queries, keys, keys].map(|tokens| Tensor::randn([batch, heads, tokens, channels], (Kind::Float, Device::Cpu)));
    if outliers {
        // What real models have: channels of keys that are far from zero for all tokens, and values of which some are ten times as large as others.
        for channel in (0..channels).step_by(13) {
            let _ = k.narrow(3, channel, 1).g_add_scalar_(12.0);
            let _ = v.narrow(3, channel, 1).g_mul_scalar_(10.0);
        }
        let _ = q.narrow(3, 3, 1).g_mul_scalar_(2.0);
    }
    [q, k, v].map(|tensor| tensor.transpose(1, 2).contiguous().to_kind(kind).transpose(1, 2))
}

/// Keys and values, packed.
pub(super) fn packed(k: Tensor, v: Tensor, choice: Option<BlockChoice>) -> Result<PackedKeys> {
    PackedKeys::new(k, PackedValues::new(v, AttnType::Sage)?, choice)
}

pub(super) fn sage([q, k, v]: &[Tensor; 3]) -> Tensor {
    packed(k.shallow_clone(), v.shallow_clone(), None).unwrap().attend(q).unwrap()
}

pub(super) fn sparge([q, k, v]: &[Tensor; 3], choice: BlockChoice) -> Tensor {
    packed(k.shallow_clone(), v.shallow_clone(), Some(choice)).unwrap().attend(q).unwrap()
}

pub(super) fn exact([q, k, v]: &[Tensor; 3]) -> Tensor {
    let [q, k, v] = [q, k, v].map(|tensor| tensor.to_kind(Kind::Double));
    let channels = q.size()[3] as f64;
    (q.matmul(&k.transpose(-2, -1)) / channels.sqrt()).softmax(-1, Kind::Double).matmul(&v)
}

/// One minus the cosine, the sum of differences over the sum of sizes, and the same of squares.
pub(super) fn errors(got: &Tensor, wanted: &Tensor) -> [f64; 3] {
    let [got, wanted] = [got, wanted].map(|tensor| tensor.to_kind(Kind::Double));
    let sum = |tensor: Tensor| tensor.sum(Kind::Double).double_value(&[]);
    let cosine = sum(&got * &wanted) / (sum(&got * &got) * sum(&wanted * &wanted)).sqrt();
    let difference = &got - &wanted;
    [1.0 - cosine, sum(difference.abs()) / sum(wanted.abs()), (sum(&difference * &difference) / sum(&wanted * &wanted)).sqrt()]
}

#[test]
fn it_is_near_attention_in_fp32() {
    for shape in SHAPES {
        for outliers in [false, true] {
            let inputs = inputs(shape, Kind::Float, outliers);
            let [angle, difference, _] = errors(&sage(&inputs), &exact(&inputs));
            println!("{shape:?} outliers {outliers}: cosine {:.6}, L1 {:.2}%", 1.0 - angle, 100.0 * difference);
            assert!(angle < 0.0005 && difference < 0.02, "{shape:?} {outliers}: {angle} {difference}");
        }
    }
}

/// Numbers over `scale`, rounded to whole ones, halves away from zero.
fn whole(x: &Tensor, scale: &Tensor) -> Tensor {
    let scaled = x * scale.reciprocal();
    (scaled.abs() + 0.5).floor() * scaled.sign()
}

/// The same formula by libtorch's operators, a tile of keys at a time.
fn plain([q, k, v]: &[Tensor; 3]) -> Tensor {
    let [q, k, v] = [q, k, v].map(|tensor| tensor.to_kind(Kind::Float));
    let (queries, keys, channels) = (q.size()[2], k.size()[2], q.size()[3]);
    let int8_scale = |x: &Tensor, over: &[i64]| x.abs().amax(over, true) / 127.0 + 1e-7;
    let centred = &k - k.mean_dim([2].as_slice(), true, Kind::Float);
    let parts = |length: i64, step: i64| (0..length).step_by(step as usize).map(move |first| (first, step.min(length - first)));
    let results = parts(queries, 32).map(|(first, count)| {
        let q = q.narrow(2, first, count);
        let q_scale = int8_scale(&q, &[2, 3]);
        let q_whole = whole(&q, &q_scale);
        let mut largest = Tensor::full([1], -1e30, (Kind::Float, Device::Cpu));
        let (mut total, mut sums) = (Tensor::zeros([1], (Kind::Float, Device::Cpu)), Tensor::zeros([1], (Kind::Float, Device::Cpu)));
        for (first, count) in parts(keys, 64) {
            let (k, v) = (centred.narrow(2, first, count), v.narrow(2, first, count));
            let (k_scale, v_scale) = (int8_scale(&k, &[2, 3]), int8_scale(&v, &[2]));
            let scale = &q_scale * &k_scale * (std::f64::consts::LOG2_E / (channels as f64).sqrt());
            let scores = q_whole.matmul(&whole(&k, &k_scale).transpose(-2, -1)) * scale;
            let of_tile = scores.amax([3].as_slice(), true);
            let larger = of_tile.maximum(&largest);
            let (shrinks, share) = ((&largest - &larger).exp2(), (&of_tile - &larger).exp2());
            let probabilities = ((&scores - &of_tile).exp2() * 255.0).round();
            total = total * &shrinks + probabilities.sum_dim_intlist([3].as_slice(), true, Kind::Float) * &share;
            sums = sums * shrinks + probabilities.matmul(&whole(&v, &v_scale)) * v_scale * share;
            largest = larger;
        }
        sums / total
    });
    Tensor::cat(&results.collect::<Vec<_>>(), 2)
}

#[test]
fn it_is_the_formula_to_rounding() {
    for shape in SHAPES {
        for outliers in [false, true] {
            let inputs = inputs(shape, Kind::Float, outliers);
            // A last bit may turn one probability of a thousand to its neighbour.
            let [.., difference] = errors(&sage(&inputs), &plain(&inputs));
            println!("{shape:?} outliers {outliers}: {difference:.1e}");
            assert!(difference < 3e-4, "{shape:?} {outliers}: {difference}");
        }
    }
}

/// As on a GPU, where warps run at once and copies take time: a meeting of warps that is missing, or a wait for a copy, would show.
#[test]
fn warps_that_take_turns_change_no_bit() {
    for shape in SHAPES {
        let inputs = inputs(shape, Kind::Float, true);
        let with_half = || sparge(&inputs, HALF);
        let (of_all, of_half) = (sage(&inputs), with_half());
        for (from_last, copies_late) in [(false, false), (false, true), (true, false), (true, true)] {
            let said = || format!("{shape:?}, from the last {from_last}, copies late {copies_late}");
            assert_eq!(with_warps_in_turns(from_last, copies_late, || sage(&inputs)), of_all, "{}", said());
            assert_eq!(with_warps_in_turns(from_last, copies_late, with_half), of_half, "{}", said());
        }
    }
}

/// What only a compiler for GPUs sees of the source, by the instructions that NVIDIA's makes of it.
#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn its_instructions_do_the_same() {
    with_nvidias_compiler("attention::sage::tests::its_instructions_do_the_same", || {
        for (number, shape) in SHAPES.into_iter().enumerate() {
            // Compiling takes longest: each type once with heads of 64 channels, and the one of real models with both.
            let kinds: &[Kind] = if number == 1 { &[Kind::Float, Kind::Half, Kind::BFloat16] } else { &[Kind::BFloat16] };
            for &kind in kinds {
                let inputs = inputs(shape, kind, true);
                let of_all = || sage(&inputs);
                let of_half = || sparge(&inputs, HALF);
                for run in [&of_all as &dyn Fn() -> Tensor, &of_half] {
                    // A last bit of a power, or of a sum that is rounded once in place of twice.
                    let most = if kind == Kind::Float { 1e-5 } else { 1e-4 };
                    let [.., difference] = errors(&by_instructions(run), &run());
                    println!("{shape:?} {kind:?}: {difference:.1e}");
                    assert!(difference < most, "{shape:?} {kind:?}: {difference}");
                }
            }
        }
    });
}

/// What a scale for all tokens would lose: a token whose values are thirty times as large spoils those of its own tile alone, and keys of which none is attended to much keep what they weigh together.
#[test]
fn a_tile_has_scales_of_its_own() {
    let [q, k, v] = inputs([1, 2, 128, 1024, 64], Kind::Float, false);
    let _ = v.narrow(2, 5, 1).g_mul_scalar_(30.0);
    k.narrow(2, 5, 1).copy_(&(q.mean_dim([2].as_slice(), true, Kind::Float) * -20.0));
    let inputs = [q, k, v];
    let [angle, difference, _] = errors(&sage(&inputs), &exact(&inputs));
    assert!(angle < 0.001 && difference < 0.03, "{angle} {difference}");
}

#[test]
fn sixteen_bits_are_read_and_written() {
    for (kind, most) in [(Kind::BFloat16, 0.004), (Kind::Half, 0.001)] {
        let inputs = inputs([2, 3, 150, 100, 64], kind, false);
        let got = sage(&inputs);
        assert_eq!((got.kind(), got.size()), (kind, vec![2, 3, 150, 64]));
        assert!(got.transpose(1, 2).is_contiguous(), "heads lie side by side");
        let [.., difference] = errors(&got, &plain(&inputs));
        assert!(difference < most, "{kind:?}: {difference}");
    }
}

/// What lies in no way that the kernels read is copied first.
#[test]
fn any_layout_is_read() {
    let inputs = inputs([1, 2, 40, 70, 64], Kind::Float, false);
    let wanted = sage(&inputs);
    let turned = inputs.each_ref().map(|tensor| tensor.transpose(2, 3).contiguous().transpose(2, 3));
    assert_eq!(sage(&turned), wanted);
    let apart = inputs.each_ref().map(|tensor| Tensor::cat(&[tensor.narrow(3, 0, 1), tensor.shallow_clone()], 3).narrow(3, 1, 64));
    assert_eq!(sage(&apart), wanted);
}

#[test]
fn what_it_holds_is_what_is_planned() {
    for [batch, heads, _, keys, channels] in SHAPES {
        let [_, k, v] = inputs([batch, heads, 1, keys, channels], Kind::Float, false);
        let packed = packed(k, v, None).unwrap().packed;
        let bytes = |tensor: &Tensor| (tensor.numel() * tensor.kind().elt_size_in_bytes()) as i64;
        let held = [bytes(&packed.keys) + bytes(&packed.key_scales), bytes(&packed.values) + bytes(&packed.value_scales)];
        assert_eq!(held, packed_bytes(batch * heads, keys, channels));
    }
}

#[test]
fn heads_without_a_kernel_are_refused() {
    for (channels, says) in [(136, "8 to 128 channels, a multiple of 8, and not 136"), (12, "and not 12: use attn_type=sdpa")] {
        let [_, k, v] = inputs([1, 1, 1, 4, channels], Kind::Float, false);
        let said = packed(k, v, None).unwrap_err().to_string();
        assert!(said.contains(says), "{said}");
    }
    let [_, k, v] = inputs([1, 1, 1, 4, 64], Kind::Double, false);
    let said = packed(k, v, None).unwrap_err().to_string();
    assert_eq!(said, "attention in 8 bits takes fp32, bf16 and fp16, and not Double");
}

//! The kernels' source on the CPU, warp by warp: near attention in fp32, and to rounding what the formula gives that it stands for.

use engine_protocol::SageValues;
use tch::{Device, Kind, Tensor};

use super::{PackedKeys, packed_bytes};

pub(super) const VALUES: [SageValues; 3] = [SageValues::Fp16, SageValues::Fp8, SageValues::Fp8InHalf];

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

pub(super) fn sage(values: SageValues, [q, k, v]: &[Tensor; 3]) -> Tensor {
    PackedKeys::with(values, k.shallow_clone(), v.shallow_clone(), None).unwrap().attend(q).unwrap()
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
            let wanted = exact(&inputs);
            for values in VALUES {
                // A number in e4m3 is off by 2.65% in the mean of squares, and two such factors by 3.7%: where values have no mean, sums are no better.
                let most = if values == SageValues::Fp16 { 0.03 } else { 0.04 };
                let [angle, difference, _] = errors(&sage(values, &inputs), &wanted);
                println!("{shape:?} outliers {outliers} {values:?}: cosine {:.6}, L1 {:.2}%", 1.0 - angle, 100.0 * difference);
                assert!(angle < 0.001 && difference < most, "{shape:?} {outliers} {values:?}: {angle} {difference}");
            }
        }
    }
}

/// Numbers over `scale`, rounded to whole ones, halves away from zero.
fn whole(x: &Tensor, scale: &Tensor) -> Tensor {
    let scaled = x * scale.reciprocal();
    (scaled.abs() + 0.5).floor() * scaled.sign()
}

/// The same formula by libtorch's operators, a tile of keys at a time.
fn plain(values: SageValues, [q, k, v]: &[Tensor; 3]) -> Tensor {
    let [q, k, v] = [q, k, v].map(|tensor| tensor.to_kind(Kind::Float));
    let (queries, keys, channels) = (q.size()[2], k.size()[2], q.size()[3]);
    let int8_scale = |x: &Tensor| x.abs().amax([2, 3].as_slice(), true) / 127.0 + 1e-7;
    let rounded = |x: Tensor| match values {
        SageValues::Fp16 => x.to_kind(Kind::Half).to_kind(Kind::Float),
        SageValues::Fp8 | SageValues::Fp8InHalf => x.to_kind(Kind::Float8e4m3fn).to_kind(Kind::Float),
    };
    let (shift, value_scale) = match values {
        SageValues::Fp16 => (0.0, Tensor::ones([1], (Kind::Float, Device::Cpu))),
        SageValues::Fp8 => (448f64.log2(), (v.abs().amax([2].as_slice(), true) / 448.0).clamp_min(1e-7)),
        SageValues::Fp8InHalf => (448f64.log2(), (v.abs().amax([2].as_slice(), true) / 2.25).clamp_min(1e-7)),
    };
    let centred = &k - k.mean_dim([2].as_slice(), true, Kind::Float);
    let parts = |length: i64, step: i64| (0..length).step_by(step as usize).map(move |first| (first, step.min(length - first)));
    let results = parts(queries, 32).map(|(first, count)| {
        let q = q.narrow(2, first, count);
        let q_scale = int8_scale(&q);
        let q_whole = whole(&q, &q_scale);
        let mut largest = Tensor::full([1], -1e30, (Kind::Float, Device::Cpu));
        let (mut total, mut sums) = (Tensor::zeros([1], (Kind::Float, Device::Cpu)), Tensor::zeros([1], (Kind::Float, Device::Cpu)));
        for (first, count) in parts(keys, 64) {
            let k = centred.narrow(2, first, count);
            let k_scale = int8_scale(&k);
            let scale = &q_scale * &k_scale * (std::f64::consts::LOG2_E / (channels as f64).sqrt());
            let scores = q_whole.matmul(&whole(&k, &k_scale).transpose(-2, -1)) * scale;
            let larger = scores.amax([3].as_slice(), true).maximum(&largest);
            let shrinks = (&largest - &larger).exp2();
            let probabilities = (&scores - &larger + shift).exp2();
            total = total * &shrinks + probabilities.sum_dim_intlist([3].as_slice(), true, Kind::Float);
            let tile = rounded(probabilities).matmul(&rounded(v.narrow(2, first, count) / &value_scale));
            sums = sums * shrinks + tile;
            largest = larger;
        }
        sums / total * &value_scale
    });
    Tensor::cat(&results.collect::<Vec<_>>(), 2)
}

#[test]
fn it_is_the_formula_to_rounding() {
    for shape in SHAPES {
        for outliers in [false, true] {
            let inputs = inputs(shape, Kind::Float, outliers);
            for values in VALUES {
                // A last bit may turn one number of a thousand to its neighbour, which in FP8 is a sixteenth away; sums in fp16 are rounded after each product.
                let most = match values {
                    SageValues::Fp16 => 5e-5,
                    SageValues::Fp8 => 5e-4,
                    SageValues::Fp8InHalf => 1e-3,
                };
                let [.., difference] = errors(&sage(values, &inputs), &plain(values, &inputs));
                println!("{shape:?} outliers {outliers} {values:?}: {difference:.1e}");
                assert!(difference < most, "{shape:?} {outliers} {values:?}: {difference}");
            }
        }
    }
}

#[test]
fn sixteen_bits_are_read_and_written() {
    for (kind, most) in [(Kind::BFloat16, 0.004), (Kind::Half, 0.001)] {
        let inputs = inputs([2, 3, 150, 100, 64], kind, false);
        let got = sage(SageValues::Fp16, &inputs);
        assert_eq!((got.kind(), got.size()), (kind, vec![2, 3, 150, 64]));
        assert!(got.transpose(1, 2).is_contiguous(), "heads lie side by side");
        let [.., difference] = errors(&got, &plain(SageValues::Fp16, &inputs));
        assert!(difference < most, "{kind:?}: {difference}");
    }
}

/// What lies in no way that the kernels read is copied first.
#[test]
fn any_layout_is_read() {
    let inputs = inputs([1, 2, 40, 70, 64], Kind::Float, false);
    let wanted = sage(SageValues::Fp16, &inputs);
    let turned = inputs.each_ref().map(|tensor| tensor.transpose(2, 3).contiguous().transpose(2, 3));
    assert_eq!(sage(SageValues::Fp16, &turned), wanted);
    let apart = inputs.each_ref().map(|tensor| Tensor::cat(&[tensor.narrow(3, 0, 1), tensor.shallow_clone()], 3).narrow(3, 1, 64));
    assert_eq!(sage(SageValues::Fp16, &apart), wanted);
}

#[test]
fn what_it_holds_is_what_is_planned() {
    for [batch, heads, _, keys, channels] in SHAPES {
        let [_, k, v] = inputs([batch, heads, 1, keys, channels], Kind::Float, false);
        for values in VALUES {
            let packed = PackedKeys::with(values, k.shallow_clone(), v.shallow_clone(), None).unwrap().packed;
            let bytes = |tensor: &Tensor| (tensor.numel() * tensor.kind().elt_size_in_bytes()) as i64;
            let held = [bytes(&packed.keys) + bytes(&packed.key_scales), bytes(&packed.values) + bytes(&packed.value_scales)];
            assert_eq!(held, packed_bytes(values, batch * heads, keys, channels));
        }
    }
}

#[test]
fn heads_without_a_kernel_are_refused() {
    for (channels, says) in [(136, "8 to 128 channels, a multiple of 8, and not 136"), (12, "and not 12: use attn_type=sdpa")] {
        let [_, k, v] = inputs([1, 1, 1, 4, channels], Kind::Float, false);
        let said = PackedKeys::with(SageValues::Fp16, k, v, None).unwrap_err().to_string();
        assert!(said.contains(says), "{said}");
    }
    let [_, k, v] = inputs([1, 1, 1, 4, 64], Kind::Double, false);
    let said = PackedKeys::with(SageValues::Fp16, k, v, None).unwrap_err().to_string();
    assert_eq!(said, "attention in 8 bits takes fp32, bf16 and fp16, and not Double");
}

//! Attention in 8 bits against attention in fp32: on a GPU the kernel, which has run on none so far; on the CPU the same source, warp by warp.

use engine::attention::{Keys, attend};
use engine_protocol::{AttnType, BlockChoice};
use tch::{Kind, Tensor};

use crate::resident::device;

/// Batch, heads, queries, keys, channels: tails of all tiles, the prompt's keys, both sizes of heads, and one that is padded.
const SHAPES: [[i64; 5]; 5] = [[1, 2, 300, 1000, 128], [2, 3, 129, 65, 64], [1, 2, 200, 512, 128], [1, 1, 1, 1, 64], [1, 2, 100, 100, 24]];

/// The cosine, and the sum of differences over the sum of sizes.
fn near(got: &Tensor, wanted: &Tensor) -> [f64; 2] {
    let [got, wanted] = [got, wanted].map(|tensor| tensor.to_kind(Kind::Double));
    let sum = |tensor: Tensor| tensor.sum(Kind::Double).double_value(&[]);
    [sum(&got * &wanted) / (sum(&got * &got) * sum(&wanted * &wanted)).sqrt(), sum((&got - &wanted).abs()) / sum(wanted.abs())]
}

#[test]
fn eight_bits_are_near_fp32() {
    for kind in [Kind::BFloat16, Kind::Half, Kind::Float] {
        for shape in SHAPES {
            tch::manual_seed(11);
            let [batch, heads, queries, keys, channels] = shape;
            let [q, k, v] = [queries, keys, keys]
                .map(|tokens| Tensor::randn([batch, tokens, heads, channels], (Kind::Float, device().torch)).to_kind(kind).transpose(1, 2));
            let [exact_q, exact_k, exact_v] = [&q, &k, &v].map(|tensor| tensor.to_kind(Kind::Float));
            let wanted = attend(AttnType::Math, &exact_q, &exact_k, &exact_v).unwrap();
            let packed = Keys::new(AttnType::Sage, k, v).unwrap();
            // Queries come in slices, as `sequence_chunk` has them; whole tiles of 32 have scales of their own, so slices of those change nothing.
            let slices: Vec<_> =
                (0..queries).step_by(128).map(|first| packed.attend(&q.narrow(2, first, 128.min(queries - first))).unwrap()).collect();
            let sliced = Tensor::cat(&slices, 2);
            let got = packed.attend(&q).unwrap();
            assert_eq!(sliced, got, "{kind:?} {shape:?}");
            let [cosine, difference] = near(&got, &wanted);
            println!("{kind:?} {shape:?}: cosine {cosine:.6}, L1 {:.2}%", 100.0 * difference);
            assert!(cosine > 0.999 && difference < 0.03, "{kind:?} {shape:?}: {cosine} {difference}");
        }
    }
}

#[test]
fn over_chosen_keys_slices_choose_as_the_whole_does_and_all_keys_change_no_bit() {
    for shape in SHAPES {
        tch::manual_seed(13);
        let [batch, heads, queries, keys, channels] = shape;
        let [q, k, v] = [queries, keys, keys].map(|tokens| {
            Tensor::randn([batch, tokens, heads, channels], (Kind::Float, device().torch)).to_kind(Kind::BFloat16).transpose(1, 2)
        });
        let over = |topk| {
            let choice = BlockChoice { topk, similarity: -0.1, pv_threshold: 50.0 };
            Keys::new(choice, k.shallow_clone(), v.shallow_clone()).unwrap()
        };
        let all = Keys::new(AttnType::Sage, k.shallow_clone(), v.shallow_clone()).unwrap();
        assert_eq!(over(1.0).attend(&q).unwrap(), all.attend(&q).unwrap(), "{shape:?}");
        // Tiles of 128 queries choose by themselves.
        let half = over(0.5);
        let slices: Vec<_> =
            (0..queries).step_by(128).map(|first| half.attend(&q.narrow(2, first, 128.min(queries - first))).unwrap()).collect();
        assert_eq!(Tensor::cat(&slices, 2), half.attend(&q).unwrap(), "{shape:?}");
    }
}

//! Attention in 8 bits over chosen keys, on the CPU: the choice is the formula's, with all keys it is attention in 8 bits to the bit, and where what is near is alike little is lost.

use engine_protocol::BlockChoice;
use tch::{Device, Kind, Tensor};

use super::tests::{SHAPES, errors, exact, inputs, packed, sage, sparge};
use crate::kernels::sage::{KEY_TILE, QUERY_TILE, key_tiles, query_tiles};
use crate::kernels::sparge::{choose, chosen_bytes, means_bytes};

const DEFAULT: BlockChoice = BlockChoice { topk: 0.5, similarity: -0.1, pv_threshold: 50.0 };

/// The tiles that are chosen for each tile of queries: of each head of each video, one after the other.
fn chosen([q, k, v]: &[Tensor; 3], choice: BlockChoice) -> Vec<Vec<i64>> {
    let packed = packed(k.shallow_clone(), v.shallow_clone(), Some(choice)).unwrap();
    let (by, means) = packed.choice.as_ref().unwrap();
    let tiles = choose(packed.variant, q, means, *by).unwrap().tiles();
    let rows = tiles.view([-1, tiles.size()[3]]);
    (0..rows.size()[0])
        .map(|row| {
            let row = Vec::<i64>::try_from(rows.get(row).to_kind(Kind::Int64)).unwrap();
            row[1..=row[0] as usize].to_vec()
        })
        .collect()
}

/// The mean of each tile of so many tokens, in fp64.
fn means(x: &Tensor, tile: i64) -> Tensor {
    let tokens = x.size()[2];
    let parts: Vec<_> = (0..tokens)
        .step_by(tile as usize)
        .map(|first| x.narrow(2, first, tile.min(tokens - first)).mean_dim([2].as_slice(), true, Kind::Double))
        .collect();
    Tensor::cat(&parts, 2)
}

/// Queries, keys and values of which tokens side by side are alike, as those of a video are: each run of 128 tokens is near a direction of its own, which its queries look for.
fn local(tokens: i64) -> [Tensor; 3] {
    tch::manual_seed(5);
    let normal = |size: &[i64]| Tensor::randn(size, (Kind::Float, Device::Cpu));
    let directions = normal(&[1, 2, query_tiles(tokens), 64]).repeat_interleave_self_int(QUERY_TILE, 2, None).narrow(2, 0, tokens);
    let near = |noise: f64| &directions + normal(&[1, 2, tokens, 64]) * noise;
    [near(0.5) * 2.0, near(0.5), near(1.0)]
}

#[test]
fn with_all_keys_it_is_attention_in_8_bits_to_the_bit() {
    for shape in SHAPES {
        let inputs = inputs(shape, Kind::Float, true);
        let wanted = sage(&inputs);
        for pv_threshold in [50.0, 1e9] {
            assert_eq!(sparge(&inputs, BlockChoice { topk: 1.0, pv_threshold, ..DEFAULT }), wanted, "{shape:?}");
        }
    }
}

#[test]
fn those_are_chosen_whose_mean_is_nearest() {
    for (queries, keys, channels) in [(300, 1000, 64), (128, 640, 128), (65, 64, 24)] {
        let inputs = inputs([2, 2, queries, keys, channels], Kind::Float, true);
        let [q, k, _] = &inputs;
        let products = means(q, QUERY_TILE).matmul(&means(k, KEY_TILE).transpose(-2, -1));
        for topk in [0.0, 0.3, 0.5, 1.0] {
            let choice = BlockChoice { topk, ..DEFAULT };
            let count = choice.count(key_tiles(keys));
            let (_, best) = products.topk(count, -1, true, true);
            let best = best.sort(-1, false).0.view([-1, count]);
            let wanted: Vec<Vec<i64>> = (0..best.size()[0]).map(|row| Vec::try_from(best.get(row)).unwrap()).collect();
            assert_eq!(chosen(&inputs, choice), wanted, "{queries} {keys} {topk}");
        }
    }
}

#[test]
fn of_equal_tiles_the_first_are_chosen() {
    let [q, k, v] = inputs([1, 1, 128, 640, 64], Kind::Float, false);
    let same = [q, k.zeros_like(), v];
    assert_eq!(chosen(&same, DEFAULT), [[0, 1, 2, 3, 4]]);
}

/// A mean says nothing of vectors that point everywhere.
#[test]
fn what_is_not_alike_is_not_judged_by_its_mean() {
    let [q, k, v] = local(1024);
    let choice = BlockChoice { topk: 0.1, similarity: 0.3, ..DEFAULT };
    let alike = chosen(&[q.shallow_clone(), k.shallow_clone(), v.shallow_clone()], choice);
    assert!(alike.iter().all(|tiles| tiles.len() == 2), "two of sixteen: {alike:?}");
    let (scattered_q, scattered_k) = (q.copy(), k.copy());
    let _ = scattered_k.narrow(2, 3 * KEY_TILE, KEY_TILE).normal_(0.0, 1.0);
    let with_keys = chosen(&[q, scattered_k, v.shallow_clone()], choice);
    assert!(with_keys.iter().all(|tiles| tiles.contains(&3)), "{with_keys:?}");
    let _ = scattered_q.narrow(2, 2 * QUERY_TILE, QUERY_TILE).normal_(0.0, 1.0);
    let with_queries = chosen(&[scattered_q, k, v], choice);
    let all: Vec<i64> = (0..16).collect();
    assert!(with_queries.iter().enumerate().all(|(row, tiles)| (row % 8 == 2) == (*tiles == all)), "{with_queries:?}");
}

#[test]
fn where_what_is_near_is_alike_little_is_lost() {
    let local = local(2000);
    let scattered = inputs([1, 2, 2000, 2000, 64], Kind::Float, false);
    let off = |inputs: &[Tensor; 3], topk: f64| errors(&sparge(inputs, BlockChoice { topk, ..DEFAULT }), &exact(inputs));
    for topk in [0.25, 0.5] {
        let [angle, difference, _] = off(&local, topk);
        println!("{topk} of the keys: cosine {:.6}, L1 {:.2}%", 1.0 - angle, 100.0 * difference);
        assert!(angle < 0.001 && difference < 0.012, "{topk}: {angle} {difference}");
    }
    let [_, difference, _] = off(&scattered, 0.5);
    assert!(difference > 0.5, "of numbers without any order half of the keys are no use: {difference}");
}

#[test]
fn values_that_count_for_nothing_are_left_out() {
    let local = local(1024);
    let with = |pv_threshold| sparge(&local, BlockChoice { pv_threshold, ..DEFAULT });
    let all = with(1e9);
    assert_eq!(with(50.0), all, "beside the others they change no bit of fp32");
    let few = with(1.0);
    assert_ne!(few, all);
    let [angle, ..] = errors(&few, &all);
    assert!(angle < 0.01, "{angle}");
}

#[test]
fn what_it_holds_is_what_is_planned() {
    for [batch, heads, queries, keys, channels] in SHAPES {
        let [q, k, v] = inputs([batch, heads, queries, keys, channels], Kind::Float, false);
        let packed = packed(k, v, Some(DEFAULT)).unwrap();
        let (by, means) = packed.choice.as_ref().unwrap();
        let bytes = |tensor: &Tensor| (tensor.numel() * tensor.kind().elt_size_in_bytes()) as i64;
        assert_eq!(bytes(&means.means) + bytes(&means.likeness), means_bytes(batch * heads, keys, packed.variant.head()));
        assert_eq!(bytes(&choose(packed.variant, &q, means, *by).unwrap().tiles()), chosen_bytes(batch * heads, [queries, keys]));
    }
}

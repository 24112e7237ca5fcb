//! Several ranks give what one gives: threads on the CPU, each with a part of the token sequence, or one of the two predictions of guidance.

use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use engine::collectives::{Collectives, Group, Threads};
use engine::context_parallel::{Ranks, Shares};
use engine::cuda::CopyStream;
use engine::transformer::{Timestep, Transformer};
use engine_protocol::{AttnType, ModelSpec, Split, TransformerSpec};
use rstest::rstest;
use tch::{Device, Kind, Tensor};

use crate::image_to_video;
use crate::pipeline;
use crate::resident::{Fixture, Resident, assert_close};

const HEADS: i64 = 12;

/// What each rank of `split` comes to. What it needs is made here, one after the other; `over` may stand between it and its group.
fn each<I: Send, T: Send>(
    split: Split,
    input: impl Fn() -> I,
    over: impl Fn(Group) -> Group,
    run: impl Fn(I, Ranks) -> T + Sync,
) -> Vec<T> {
    let shares = Shares::even(split.cp_size() as usize, split.cp_ulysses as usize);
    each_with(split, &shares, input, over, run)
}

/// The same where parts of the sequence have such shares.
fn each_with<I: Send, T: Send>(
    split: Split,
    shares: &Shares,
    input: impl Fn() -> I,
    over: impl Fn(Group) -> Group,
    run: impl Fn(I, Ranks) -> T + Sync,
) -> Vec<T> {
    let groups: Vec<_> = Threads::new(split.ranks() as usize).into_iter().map(|group| (over(Arc::new(group)), input())).collect();
    thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = groups
            .into_iter()
            .map(|(group, input)| scope.spawn(move || run(input, Ranks::new(group, split, shares.clone()).expect("as many ranks"))))
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no rank panics")).collect()
    })
}

/// All ways of so many ranks of which heads allow Ulysses.
fn splits(ranks: u32, heads: i64, guidance: &[u32]) -> Vec<Split> {
    let of = |cfg_size: u32| {
        let legal = (1..=ranks).filter(move |ulysses| ranks.is_multiple_of(cfg_size * ulysses) && heads % i64::from(*ulysses) == 0);
        legal.map(move |cp_ulysses| Split { cfg_size, cp_ulysses, cp_ring: ranks / cfg_size / cp_ulysses })
    };
    guidance.iter().filter(|cfg_size| ranks.is_multiple_of(**cfg_size)).flat_map(|&cfg_size| of(cfg_size)).collect()
}

fn spec() -> TransformerSpec {
    let spec: TransformerSpec = Fixture::open("transformer").fact("spec");
    TransformerSpec { num_attention_heads: HEADS, attention_head_dim: 12, ..spec }
}

/// Numbers between -1 and 1 that look like chance and are the same each time.
fn numbers(shape: &[i64], seed: f64) -> Tensor {
    let count: i64 = shape.iter().product();
    let places = Tensor::arange(count, (Kind::Double, Device::Cpu)) * 12.9898 + seed;
    (places.sin() * 43_758.545_3).frac().to_kind(Kind::Float).view(shape)
}

/// What a pass is given beside its weights.
#[derive(Clone, Copy)]
struct Case {
    batch: i64,
    /// Frames, height and width of the latents.
    latents: [i64; 3],
    given_frames: i64,
    sequence_chunk: Option<i64>,
    head_chunk: Option<i64>,
}

impl Case {
    fn weights() -> Resident {
        Resident::made_up(&Transformer::groups(&spec()), |shape, place| numbers(shape, place as f64) * 0.3)
    }

    /// The prediction as one of `ranks`.
    fn predict(self, mut weights: Resident, ranks: &Ranks) -> engine::Result<Tensor> {
        let spec = spec();
        let [frames, height, width] = self.latents;
        let latents = numbers(&[self.batch, spec.in_channels, frames, height, width], 0.5);
        let prompt = numbers(&[self.batch, 5, spec.text_dim], 0.7);
        let transformer = Transformer::new(&spec, AttnType::Sdpa, self.sequence_chunk).with_head_chunk(self.head_chunk);
        let transformer = transformer.with_sequence(ranks.sequence.clone());
        transformer.forward(&mut weights, &latents, Timestep { value: 700.0, given_frames: self.given_frames }, &prompt)
    }

    fn alone(self) -> Tensor {
        self.predict(Self::weights(), &Ranks::alone()).expect("a prediction")
    }
}

/// 45 tokens, which 2 and 4 do not divide; of two videos; with a first frame that is given; and 4 tokens on 3 ranks, of which one has padding alone.
const VIDEOS: [(i64, [i64; 3], i64); 4] = [(1, [3, 6, 10], 0), (2, [3, 6, 10], 0), (1, [3, 6, 10], 1), (1, [1, 4, 4], 0)];

#[rstest]
#[case::two(2)]
#[case::three(3)]
#[case::four(4)]
fn parts_of_a_sequence_come_to_the_whole(#[case] ranks: u32) {
    for (batch, latents, given_frames) in VIDEOS {
        let of = |sequence_chunk, head_chunk| Case { batch, latents, given_frames, sequence_chunk, head_chunk };
        let wanted = of(None, None).alone();
        for split in splits(ranks, HEADS, &[1]) {
            // Of six heads, or five where all ranks have all heads.
            let heads = if split.cp_ulysses == 1 { 5 } else { i64::from(split.cp_ulysses) };
            for (sequence_chunk, head_chunk) in [(None, None), (Some(7), None), (None, Some(heads)), (Some(4), Some(heads))] {
                let case = of(sequence_chunk, head_chunk);
                let got = each(split, Case::weights, |group| group, |weights, ranks| case.predict(weights, &ranks).expect("a prediction"));
                for (rank, got) in got.iter().enumerate() {
                    let what = format!("{batch} of {latents:?}, {split}, rank {rank}, slices of {sequence_chunk:?}, heads {head_chunk:?}");
                    assert_close(&what, got, &wanted, 1e-5);
                }
            }
        }
    }
}

/// Ranks that have unlike parts, and unlike numbers of heads, give what one gives: heads exchanged, keys that go round, and both.
#[rstest]
#[case::two_ulysses(2, 1, &[2, 1])]
#[case::two_ulysses_by_heads(2, 1, &[7, 5])]
#[case::two_in_a_ring(1, 2, &[3, 1])]
#[case::two_in_a_ring_the_second_larger(1, 2, &[1, 2])]
#[case::three_ulysses(3, 1, &[5, 4, 3])]
#[case::three_in_a_ring(1, 3, &[1, 3, 2])]
#[case::four_by_both(2, 2, &[3, 1, 2, 2])]
#[case::six_by_both(2, 3, &[1, 2, 2, 1, 3, 1])]
fn unlike_parts_come_to_the_whole(#[case] cp_ulysses: u32, #[case] cp_ring: u32, #[case] units: &[u32]) {
    let (split, shares) = (Split { cp_ulysses, cp_ring, ..Split::ONE }, Shares::new(units, cp_ulysses as usize));
    for (batch, latents, given_frames) in VIDEOS {
        let of = |sequence_chunk, head_chunk| Case { batch, latents, given_frames, sequence_chunk, head_chunk };
        let wanted = of(None, None).alone();
        let heads = Some(if cp_ulysses == 1 { 5 } else { 6 });
        for (sequence_chunk, head_chunk) in [(None, None), (Some(7), None), (None, heads), (Some(2), heads)] {
            let case = of(sequence_chunk, head_chunk);
            let predict = |weights, ranks: Ranks| case.predict(weights, &ranks).expect("a prediction");
            for (rank, got) in each_with(split, &shares, Case::weights, |group| group, predict).iter().enumerate() {
                let what = format!(
                    "{batch} of {latents:?}, {split} as {units:?}, rank {rank}, slices of {sequence_chunk:?}, heads {head_chunk:?}"
                );
                assert_close(&what, got, &wanted, 1e-5);
            }
        }
    }
}

#[rstest]
#[case::two(2)]
#[case::three(3)]
#[case::four(4)]
#[case::five_of_which_one_has_padding_alone(5)]
fn a_video_is_the_same(#[case] ranks: u32) {
    let fixture = Fixture::open("flexcache");
    let model = ModelSpec { name: "wan-tiny".into(), ..fixture.fact("spec") };
    let caches: [&[&str]; 3] = [
        &["flexcache=none"],
        // Its first block decides, step by step.
        &["flexcache=firstblock", "flexcache_threshold=0.35"],
        &["flexcache=teacache", "flexcache_threshold=0.02", "flexcache_warmup=2"],
    ];
    let steps = format!("steps={}", fixture.fact::<u32>("steps"));
    for cache in caches {
        let run = |ranks: Ranks, more: &[&str]| {
            let (mut pipeline, _) = pipeline::load_as(&model, &[cache, &[&steps], more].concat(), ranks);
            pipeline::steps(&mut pipeline, &Fixture::open("flexcache"))
        };
        let (wanted, reused) = run(Ranks::alone(), &[]);
        assert_eq!(reused > 0, cache.len() > 1, "{cache:?}: {reused} steps left blocks out");
        for split in splits(ranks, model.transformer.num_attention_heads, &[1, 2]) {
            let chunks: &[&str] = if split.cp_ulysses == 1 { &["sequence_chunk=2", "head_chunk=1"] } else { &["sequence_chunk=2"] };
            for more in [&[], chunks] {
                for (rank, (got, reused_there)) in each(split, || (), |group| group, |(), ranks| run(ranks, more)).iter().enumerate() {
                    let what = format!("latents, {cache:?}, {split}, {more:?}, rank {rank}");
                    assert_close(&what, got, &wanted, 1e-5);
                    assert_eq!(*reused_there, reused, "{what}: steps that left blocks out");
                }
            }
        }
    }
}

/// Parts that are not alike, with guidance on two groups, with caches that decide, and with heads taken one at a time where all have all of them.
#[rstest]
#[case::heads(1, 2, 1, &[3, 2])]
#[case::keys(1, 1, 2, &[1, 2])]
#[case::keys_of_three(1, 1, 3, &[2, 1, 1])]
#[case::guidance_and_heads(2, 2, 1, &[3, 2])]
#[case::guidance_and_keys(2, 1, 2, &[1, 3])]
fn a_video_in_unlike_parts_is_the_same(#[case] cfg_size: u32, #[case] cp_ulysses: u32, #[case] cp_ring: u32, #[case] units: &[u32]) {
    let fixture = Fixture::open("flexcache");
    let model = ModelSpec { name: "wan-tiny".into(), ..fixture.fact("spec") };
    let (split, shares) = (Split { cfg_size, cp_ulysses, cp_ring }, Shares::new(units, cp_ulysses as usize));
    let steps = format!("steps={}", fixture.fact::<u32>("steps"));
    let caches: [&[&str]; 6] = [
        &["flexcache=none"],
        &["flexcache=firstblock", "flexcache_threshold=0.35"],
        &["flexcache=teacache", "flexcache_threshold=0.02", "flexcache_warmup=2"],
        &["flexcache=taylorseer"],
        &["flexcache=pab"],
        &["flexcache=blockdance"],
    ];
    for cache in caches {
        let run = |ranks: Ranks, more: &[&str]| {
            let (mut pipeline, _) = pipeline::load_as(&model, &[cache, &[&steps], more].concat(), ranks);
            pipeline::steps(&mut pipeline, &Fixture::open("flexcache"))
        };
        let (wanted, reused) = run(Ranks::alone(), &[]);
        let chunks: &[&str] = if cp_ulysses == 1 { &["sequence_chunk=4", "head_chunk=1"] } else { &["sequence_chunk=6"] };
        for more in [&[], chunks] {
            for (rank, (got, reused_there)) in
                each_with(split, &shares, || (), |group| group, |(), ranks| run(ranks, more)).iter().enumerate()
            {
                let what = format!("latents, {cache:?}, {split} as {units:?}, {more:?}, rank {rank}");
                assert_close(&what, got, &wanted, 1e-5);
                assert_eq!(*reused_there, reused, "{what}: steps that left blocks out");
            }
        }
    }
}

/// Weights in parts are put together again bit for bit, whatever else is done with them.
#[rstest]
#[case::two(2)]
#[case::three(3)]
#[case::four(4)]
fn a_video_of_weights_in_parts_is_the_same_bits(#[case] count: u32) {
    let fixture = Fixture::open("flexcache");
    let model = ModelSpec { name: "wan-tiny".into(), ..fixture.fact("spec") };
    let steps = format!("steps={}", fixture.fact::<u32>("steps"));
    let ways: [&[&str]; 5] = [
        &[],
        // One decides for all which blocks are left out.
        &["flexcache=firstblock", "flexcache_threshold=0.35"],
        // What waits packed is packed in parts too.
        &["weight_dtype=fp8_e4m3", "prefetch_blocks=0"],
        &["weight_dtype=q8_0", "low_mem_level=1", "vae_tiling=false"],
        &["low_mem_level=2", "vae_tiling=false", "prefetch_blocks=4"],
    ];
    let both = splits(count, model.transformer.num_attention_heads, &[1, 2]);
    for split in both.into_iter().filter(|split| split.cp_size() > 1) {
        let flags: Vec<String> = split.flags().map(|(key, ranks)| format!("{key}={ranks}")).collect();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        for way in ways {
            let run = |ranks: Ranks, more: &[&str]| {
                let ranks = ranks.clone().with_weights(&ranks.all).expect("the same ranks");
                let (pipeline, config) = pipeline::load_as(&model, &[way, &[&steps], &flags, more].concat(), ranks);
                assert_eq!(config.shard_weights, (!more.is_empty()).then_some(true));
                pipeline::steps(&mut pipeline.with_poisoned_buffers(), &Fixture::open("flexcache"))
            };
            let [whole, in_parts] =
                [&[][..], &["shard_weights=true"]].map(|more| each(split, || (), |group| group, |(), ranks| run(ranks, more)));
            for (rank, (got, wanted)) in in_parts.iter().zip(&whole).enumerate() {
                assert!(got == wanted, "latents, {way:?}, {split}, rank {rank}: other bits than of whole weights");
            }
        }
    }
}

#[rstest]
#[case::two(2)]
#[case::three(3)]
#[case::four(4)]
fn a_video_that_begins_with_a_picture_is_the_same(#[case] ranks: u32) {
    let alone = [image_to_video::channels_as(Ranks::alone()), image_to_video::first_frame_as(Ranks::alone())];
    for split in splits(ranks, 2, &[1, 2]) {
        let got = each(
            split,
            || (),
            |group| group,
            |(), ranks| [image_to_video::channels_as(ranks.clone()), image_to_video::first_frame_as(ranks)],
        );
        for (rank, got) in got.iter().enumerate() {
            for (got, wanted) in got.iter().zip(&alone) {
                assert_close(&format!("latents from a picture, {split}, rank {rank}"), got, wanted, 1e-5);
            }
        }
    }
}

/// How many operations each rank has begun: one may begin its next when those before it in `order` have.
#[derive(Debug)]
struct Turns {
    order: Vec<usize>,
    begun: Mutex<Vec<u64>>,
    changed: Condvar,
}

impl Turns {
    fn new(order: &[usize]) -> Arc<Self> {
        Arc::new(Self { order: order.to_vec(), begun: Mutex::new(vec![0; order.len()]), changed: Condvar::new() })
    }

    /// Waits for `rank`'s turn, and takes it.
    fn take(&self, rank: usize) {
        let before: Vec<usize> = self.order.iter().copied().take_while(|&other| other != rank).collect();
        let begun = self.begun.lock().expect("no rank panics");
        let is_early = |begun: &mut Vec<u64>| before.iter().any(|&other| begun[other] <= begun[rank]);
        self.changed.wait_while(begun, is_early).expect("no rank panics")[rank] += 1;
        self.changed.notify_all();
    }

    /// Nobody waits for `rank` any more.
    fn leave(&self, rank: usize) {
        self.begun.lock().expect("no rank panics")[rank] = u64::MAX;
        self.changed.notify_all();
    }
}

/// What a rank does wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wrong {
    Nothing,
    /// It keeps its keys once, instead of passing them on.
    Skips,
    /// It takes what it gets for that of other ranks.
    Mixes,
}

/// A group whose ranks begin each operation in a chosen order, and of which rank 1 may do something wrong.
#[derive(Debug)]
struct Delayed {
    group: Group,
    turns: Arc<Turns>,
    /// Among all.
    rank: usize,
    wrong: Arc<Mutex<Wrong>>,
}

impl Delayed {
    fn over(group: Group, turns: &Arc<Turns>, wrong: Wrong) -> Group {
        let rank = group.rank();
        let wrong = if rank == 1 { wrong } else { Wrong::Nothing };
        Arc::new(Self { group, turns: Arc::clone(turns), rank, wrong: Arc::new(Mutex::new(wrong)) })
    }

    fn wrong(&self) -> Wrong {
        *self.wrong.lock().expect("no rank panics")
    }
}

impl Collectives for Delayed {
    fn rank(&self) -> usize {
        self.group.rank()
    }

    fn size(&self) -> usize {
        self.group.size()
    }

    fn all_to_all(&self, parts: Vec<Tensor>, axis: i64, sizes: &[i64]) -> engine::Result<Vec<Tensor>> {
        self.turns.take(self.rank);
        let mut got = self.group.all_to_all(parts, axis, sizes)?;
        if self.wrong() == Wrong::Mixes {
            got.reverse();
        }
        Ok(got)
    }

    fn pass_on(&self, tensors: [Tensor; 2], axis: i64, size: i64) -> engine::Result<[Tensor; 2]> {
        let mut wrong = self.wrong.lock().expect("no rank panics");
        if *wrong == Wrong::Skips {
            *wrong = Wrong::Nothing;
            return Ok(tensors);
        }
        drop(wrong);
        self.turns.take(self.rank);
        self.group.pass_on(tensors, axis, size)
    }

    fn all_gather(&self, part: &Tensor) -> engine::Result<Vec<Tensor>> {
        self.turns.take(self.rank);
        self.group.all_gather(part)
    }

    fn broadcast(&self, tensor: Tensor) -> engine::Result<Tensor> {
        self.turns.take(self.rank);
        self.group.broadcast(tensor)
    }

    fn gather_into(&self, places: &[Tensor], copies: Option<&mut CopyStream>) -> engine::Result<()> {
        self.turns.take(self.rank);
        self.group.gather_into(places, copies)
    }

    fn split(&self, members: &[usize]) -> engine::Result<Group> {
        let group = self.group.split(members)?;
        Ok(Arc::new(Self { group, turns: Arc::clone(&self.turns), rank: self.rank, wrong: Arc::clone(&self.wrong) }))
    }
}

/// What each rank comes to where they begin in this order.
fn delayed(split: Split, order: &[usize], wrong: Wrong) -> Vec<engine::Result<Tensor>> {
    let case = Case { batch: 1, latents: [3, 6, 10], given_frames: 0, sequence_chunk: Some(7), head_chunk: None };
    let turns = Turns::new(order);
    each(
        split,
        Case::weights,
        |group| Delayed::over(group, &turns, wrong),
        |weights, ranks| {
            let rank = ranks.all.rank();
            let got = case.predict(weights, &ranks);
            drop(ranks);
            turns.leave(rank);
            got
        },
    )
}

#[rstest]
#[case::ulysses(Split { cp_ulysses: 3, ..Split::ONE })]
#[case::ring(Split { cp_ring: 3, ..Split::ONE })]
fn who_comes_first_changes_nothing_and_who_does_wrong_is_found(#[case] split: Split) {
    let wanted = delayed(split, &[0, 1, 2], Wrong::Nothing);
    let is_ring = split.cp_ring > 1;
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for (got, wanted) in delayed(split, &order, Wrong::Nothing).iter().zip(&wanted) {
            assert_eq!(got.as_ref().expect("a prediction"), wanted.as_ref().expect("a prediction"), "{order:?}");
        }
        let wrong = if is_ring { Wrong::Skips } else { Wrong::Mixes };
        let found = delayed(split, &order, wrong);
        if is_ring {
            let said: Vec<String> = found.into_iter().map(|got| got.expect_err("rank 1 left one out").to_string()).collect();
            assert!(said.iter().any(|said| said.starts_with("ranks are not in step: ") && said.contains("rank 1")), "{order:?}: {said:?}");
        } else {
            let (got, wanted) = (found[0].as_ref().expect("a prediction"), wanted[0].as_ref().expect("a prediction"));
            let distance = (got - wanted).abs().max().double_value(&[]) / wanted.abs().max().double_value(&[]);
            assert!(distance > 1e-3, "{order:?}: off by {distance:e} alone");
        }
    }
}

/// A group of another size than the split has is refused.
#[test]
fn as_many_ranks_as_the_split_has() {
    let group: Group = Arc::new(Threads::new(1).remove(0));
    let said = Ranks::new(group, Split { cp_ring: 2, ..Split::ONE }, Shares::even(2, 1)).expect_err("there is one").to_string();
    assert_eq!(said, "cp_size=2 cp_ring=2 takes 2 ranks, and there are 1");
}

//! `cargo bench -p engine`: our own parts at small sizes, to see what a change does to one of them. Random weights, all cores, no other side.

use std::collections::HashMap;
use std::hint::black_box;
use std::path::Path;

use criterion::{BatchSize, Criterion};
use engine::scheduler::Scheduler;
use engine::transformer::Transformer;
use engine::vae::{FeatureCache, VaeDecoder};
use engine::weights::{Group, GroupLayout, GroupName, Groups, Source, Weights, shared};
use engine_protocol::{AttnType, ModelSpec, Sampler};
use tch::{Device, Kind, Tensor};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../sweeps/models/wan2.1-t2v-1.3b.yaml");
const SEED: i64 = 41;
const TYPES: [(&str, Kind); 2] = [("fp32", Kind::Float), ("bf16", Kind::BFloat16)];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut model: ModelSpec = serde_yaml::from_str(&std::fs::read_to_string(MODEL)?)?;
    // One block and a narrow VAE: what a run of them costs is their sum.
    model.transformer.num_layers = 1;
    model.vae.base_dim = 32;
    let _guard = tch::no_grad_guard();
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    for (name, kind) in TYPES {
        transformer_block(&mut criterion, &model, name, kind)?;
        vae_chunk(&mut criterion, &model, name, kind)?;
    }
    unipc_step(&mut criterion);
    seeded_weights(&mut criterion, &model);
    shared_weights(&mut criterion, &model)?;
    criterion.final_summary();
    Ok(())
}

/// A transformer of one block, with its embeddings and its output layer: 256 tokens.
fn transformer_block(criterion: &mut Criterion, model: &ModelSpec, name: &str, kind: Kind) -> engine::Result<()> {
    let spec = &model.transformer;
    let mut groups = Seeded::new(&Transformer::groups(spec), kind)?;
    let transformer = Transformer::new(spec, AttnType::Sdpa, None);
    let latents = Tensor::randn([1, spec.in_channels, 1, 32, 32], (kind, Device::Cpu));
    let prompt = Tensor::randn([1, model.text_encoder.max_tokens, spec.text_dim], (kind, Device::Cpu));
    criterion.bench_function(&format!("transformer, one block, {name}"), |bencher| {
        bencher.iter(|| black_box(transformer.forward(&mut groups, &latents, 500.0, &prompt).expect("it runs")));
    });
    Ok(())
}

/// The first latent frame of a video, and the second, which becomes four.
fn vae_chunk(criterion: &mut Criterion, model: &ModelSpec, name: &str, kind: Kind) -> engine::Result<()> {
    let weights = Seeded::new(&engine::vae::groups(&model.vae), kind)?;
    let decoder = VaeDecoder::new(&model.vae);
    let latents = Tensor::randn([1, model.vae.z_dim, 1, 8, 8], (kind, Device::Cpu));
    criterion.bench_function(&format!("vae, two chunks, {name}"), |bencher| {
        bencher.iter(|| {
            let mut cache = FeatureCache::new();
            for _ in 0..2 {
                let _ = black_box(decoder.decode_chunk(&weights.groups[&engine::vae::DECODER], &latents, &mut cache).expect("it runs"));
            }
        });
    });
    Ok(())
}

/// Four steps on the latents of five seconds of 480p, so that first, second and last order are all there.
fn unipc_step(criterion: &mut Criterion) {
    let sample = Tensor::randn([1, 16, 21, 60, 104], (Kind::Float, Device::Cpu));
    criterion.bench_function("unipc, four steps", |bencher| {
        bencher.iter(|| {
            let mut sampler = Scheduler::new(Sampler::Unipc, 4, 5.0, 0);
            (0..4).fold(sample.shallow_clone(), |current, _| sampler.step(&sample, &current).expect("it runs"))
        });
    });
}

/// Weights of one block from a seed, as every run without a checkpoint makes them. `RAYON_NUM_THREADS=1` shows what one core would take.
fn seeded_weights(criterion: &mut Criterion, model: &ModelSpec) {
    let groups = Transformer::groups(&model.transformer);
    criterion.bench_function("weights from a seed, one block, bf16", |bencher| {
        bencher.iter(|| black_box(Seeded::new(&groups, Kind::BFloat16).expect("they are made")));
    });
}

/// Loading four blocks when nobody has made their file yet, and when somebody has.
fn shared_weights(criterion: &mut Criterion, model: &ModelSpec) -> Result<(), Box<dyn std::error::Error>> {
    let mut spec = model.transformer.clone();
    spec.num_layers = 4;
    let groups = Transformer::groups(&spec);
    let parent = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
    let load = |folder: &Path| {
        let source = shared(folder, "transformer", SEED, &groups, Kind::BFloat16).expect("the file is made");
        black_box(Seeded::of(&source, &groups, Kind::BFloat16).expect("they are copied"));
    };
    criterion.bench_function("shared weights, four blocks, bf16, first load", |bencher| {
        let folder = || tempfile::tempdir_in(parent.path()).expect("a folder");
        bencher.iter_batched(folder, |folder| load(folder.path()), BatchSize::PerIteration);
    });
    load(parent.path());
    criterion.bench_function("shared weights, four blocks, bf16, later loads", |bencher| bencher.iter(|| load(parent.path())));
    Ok(())
}

/// All groups of a model, on the CPU, with seeded values.
struct Seeded {
    groups: HashMap<GroupName, Weights>,
}

impl Seeded {
    fn new(groups: &[Group], kind: Kind) -> engine::Result<Self> {
        Self::of(&Source::Seeded(SEED), groups, kind)
    }

    fn of(source: &Source, groups: &[Group], kind: Kind) -> engine::Result<Self> {
        let fill = |group: &Group| {
            let layout = GroupLayout::new(group, kind);
            let weights = Weights::bind(group, &layout, &Tensor::f_zeros([layout.bytes], (Kind::Uint8, Device::Cpu))?)?;
            for param in &group.params {
                source.fill(group, param, &mut weights.get(&param.name).shallow_clone())?;
            }
            Ok((group.name, weights))
        };
        Ok(Self { groups: groups.iter().map(fill).collect::<engine::Result<_>>()? })
    }
}

impl Groups for Seeded {
    fn with<R>(&mut self, name: GroupName, run: impl FnOnce(&Weights) -> engine::Result<R>) -> engine::Result<R> {
        run(&self.groups[&name])
    }
}

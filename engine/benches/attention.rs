//! `cargo bench -p engine --bench attention`: self-attention by each back end, at the lengths of Wan's videos on a GPU, and at a short one on the CPU, where ours is emulated warp by warp.
//!
//! 40 heads of 128 numbers, as of 14B, in bf16. Beside each time stands its rate in operations: 4 * tokens² * 128 a head.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use engine::attention::{Attention, Keys};
use engine_protocol::{AttnType, BlockChoice};
use tch::{Device, Kind, Tensor};

/// What a video of 832x480 and of 1280x720 with 81 frames has, and a short one.
const ON_GPU: [i64; 3] = [4_096, 32_760, 75_600];
const ON_CPU: [i64; 1] = [512];
const HEAD_DIM: i64 = 128;
/// What `attn_type=sparge` does where nothing else is said.
const HALF_OF_THE_KEYS: BlockChoice = BlockChoice { topk: 0.5, similarity: -0.1, pv_threshold: 50.0 };

fn main() {
    let _guard = tch::no_grad_guard();
    // The virtual GPU is not there unless `lowmem on` gives one, where a time would say nothing.
    let on_gpu = tch::Cuda::is_available();
    let (device, lengths, heads) = if on_gpu { (Device::Cuda(0), &ON_GPU[..], 40) } else { (Device::Cpu, &ON_CPU[..], 2) };
    let mut criterion = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(8)).configure_from_args();
    let mut group = criterion.benchmark_group(format!("attention on {}", if on_gpu { "the GPU" } else { "the CPU" }));
    for &tokens in lengths {
        group.throughput(Throughput::Elements((4 * tokens * tokens * HEAD_DIM * heads) as u64));
        let tensor = || Tensor::randn([1, heads, tokens, HEAD_DIM], (Kind::BFloat16, device));
        let (q, k, v) = (tensor(), tensor(), tensor());
        // `math` holds 40 score matrices of up to 75,600 x 75,600: that is no choice at these lengths.
        let kinds = [AttnType::Sdpa, AttnType::Flash, AttnType::MemEfficient, AttnType::Cudnn, AttnType::Sage];
        let chosen = (AttnType::Sparge, Attention::from(HALF_OF_THE_KEYS));
        for (kind, attention) in kinds.into_iter().map(|kind| (kind, Attention::from(kind))).chain([chosen]) {
            let run = || Keys::new(attention, k.shallow_clone(), v.shallow_clone())?.attend(&q);
            if let Err(error) = run() {
                eprintln!("{}, {tokens} tokens: {error}", kind.name());
                continue;
            }
            group.bench_function(BenchmarkId::new(kind.name(), tokens), |bencher| {
                bencher.iter(|| {
                    let _ = black_box(run().expect("it ran before"));
                    if on_gpu {
                        tch::Cuda::synchronize(0);
                    }
                });
            });
        }
    }
    group.finish();
    criterion.final_summary();
}

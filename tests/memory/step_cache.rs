//! What a cache of sampler steps holds and saves, on the virtual GPU: to the byte on the GPU, page-locked on the host, and in the time of a step.

use engine::components;
use engine::memory::{predict, predict_host};
use engine_protocol::{BufferUse, CacheDecision, Device, Flexcache, GIB, Outcome, RunRecord, Stage};
use lowmem_tests::model;

use super::sweep::sweep;

/// Those that keep something of the whole hidden state.
const CACHES: &str = "flexcache: [none, teacache, magcache, firstblock, taylorseer, blockdance]\n";

fn cached(records: &[RunRecord]) -> impl Iterator<Item = &RunRecord> {
    records.iter().filter(|record| record.config.flexcache != Flexcache::None)
}

/// At level 2 nothing of decode hides what denoise holds: tensors as large as the hidden state, two or more a pass of guidance.
#[test]
fn on_the_gpu_it_holds_what_is_planned() {
    let caches = CACHES.replace(']', ", pab, taylorseer_modules]");
    let records =
        sweep(&format!("model: wan2.1-t2v-1.3b\nresolution: 480p\nlow_mem_level: 2\nsweep:\n  {caches}  guidance_batch: [false, true]\n"));
    let (hidden, blocks) = (2 * 32_760 * 1536, 30);
    for record in cached(&records) {
        let parts = record.stage_memory(Stage::Denoise).and_then(|memory| memory.parts).expect("parts");
        let tensors = match record.config.flexcache {
            Flexcache::Firstblock => 3,
            Flexcache::Taylorseer => 2,
            // What both attentions gave in each block; and what three parts gave, with its change.
            Flexcache::Pab => 2 * blocks,
            Flexcache::TaylorseerModules => 3 * 2 * blocks,
            _ => 1,
        };
        let planned = predict(&record.config, &components::of(&model(&record.config.model)), None);
        let buffers = planned.buffers.iter().find(|buffers| buffers.purpose == BufferUse::Cache).expect("a cache");
        assert_eq!(parts.step_cache_bytes, buffers.count * buffers.buffer_bytes, "{}", record.case);
        // libtorch rounds each up to 2 MiB.
        let more = parts.step_cache_bytes - 2 * tensors * hidden;
        assert!(more < buffers.count * (2 << 20), "{}: {more} bytes more than what is kept", record.case);
        let stage = planned.stages.iter().find(|stage| stage.stage == Stage::Denoise).expect("planned");
        let (predicted, counted) = (stage.peak_allocated_bytes().expect("an estimate"), parts.allocated_bytes());
        assert!(predicted.abs_diff(counted) * 200 < counted, "{}: {predicted} predicted, {counted} counted", record.case);
    }
}

/// The figures that people ask for: 14B at 720p in 3.1 GiB, with the cache on the host.
#[test]
fn on_the_host_it_takes_nothing_of_the_gpu_and_hardly_any_time() {
    let records = sweep(&format!("model: wan2.1-t2v-14b\nresolution: 720p\nlow_mem_level: 3\nsweep:\n  {CACHES}"));
    let plain = &records[0];
    let step = |record: &RunRecord| record.step_secs().expect("a step").expected;
    for record in cached(&records) {
        let case = &record.case;
        let reserved = record.peak_reserved_bytes().expect("it fits");
        assert!(reserved as f64 <= 3.1 * GIB as f64, "{case}: {reserved}");
        assert_eq!(record.peak_reserved_bytes(), plain.peak_reserved_bytes(), "{case}");
        assert!(step(record) < 1.01 * step(plain), "{case}: a computed step takes {} s, without a cache {}", step(record), step(plain));
        let components = model(&record.config.model);
        let components = components::of(&components);
        let planned = predict_host(Stage::Encode, &record.config, &components, Device::Virtual);
        let pinned = planned.iter().map(|planned| planned.memory.pinned_peak_bytes).max();
        assert_eq!(pinned, record.host_pinned_peak_bytes, "{case}");
        let Some(reused) = record.reused_step_secs() else {
            assert_eq!(record.config.flexcache, Flexcache::Firstblock, "whose threshold left none out where it was published");
            continue;
        };
        // No block is copied in vain: what is left are the ends of a pass, or half of the blocks.
        let most = if record.config.flexcache == Flexcache::Blockdance { 0.52 } else { 0.01 };
        assert!(reused.expected < most * step(plain), "{case}: {} s of {}", reused.expected, step(plain));
    }
}

/// What is kept of every block is far more than all else, and does not fit a GPU at 14B: a plan says how much it is, and a run ends with it.
#[test]
fn what_is_kept_of_parts_of_blocks_fits_with_small_models_alone() {
    let records = sweep("model: wan2.1-t2v-14b\nresolution: 720p\nlow_mem_level: 0\nsweep:\n  flexcache: [pab, taylorseer_modules]\n");
    for (record, wanted_gib) in records.iter().zip([115.0, 346.0]) {
        let planned = predict(&record.config, &components::of(&model(&record.config.model)), None);
        let cache = planned.buffers.iter().find(|buffers| buffers.purpose == BufferUse::Cache).expect("a cache");
        let gib = (cache.count * cache.buffer_bytes) as f64 / GIB as f64;
        assert!((gib / wanted_gib - 1.0).abs() < 0.01, "{}: {gib} GiB", record.case);
        assert_eq!(record.outcome, Outcome::Oom, "{}", record.case);
    }
}

/// On the host it takes nothing of the GPU's, and a step that reuses attention copies no weights of it but those that come with the modulation.
#[test]
fn parts_of_blocks_are_kept_on_the_host_too() {
    let records =
        sweep("model: wan2.1-t2v-1.3b\nresolution: 480p\nlow_mem_level: 3\nsweep:\n  flexcache: [none, pab, taylorseer_modules]\n");
    let plain = &records[0];
    for record in cached(&records) {
        assert_eq!(record.peak_reserved_bytes(), plain.peak_reserved_bytes(), "{}", record.case);
        let components = model(&record.config.model);
        let planned = predict_host(Stage::Encode, &record.config, &components::of(&components), Device::Virtual);
        let pinned = planned.iter().map(|planned| planned.memory.pinned_peak_bytes).max();
        assert_eq!(pinned, record.host_pinned_peak_bytes, "{}", record.case);
        assert_eq!(record.cache.map(|cache| cache.decided), Some(CacheDecision::Steps));
    }
}

#[test]
fn the_time_of_a_video_counts_each_kind_of_step_by_itself() {
    let records = sweep(
        "model: wan2.1-t2v-1.3b\nresolution: 480p\nlow_mem_level: 0\nsweep:\n  flexcache: [magcache, teacache]\n  steps_measured: [all, 4]\n",
    );
    let [all, some, ..] = records.as_slice() else { panic!("four cases") };
    let (all_secs, some_secs) = (all.denoise_secs().expect("known").expected, some.denoise_secs().expect("known").expected);
    assert!((all_secs / some_secs - 1.0).abs() < 0.01, "{all_secs} s with all steps run, {some_secs} with four");
    let uses: Vec<_> = records.iter().map(|record| record.cache.expect("a cache")).collect();
    assert_eq!(uses[0], uses[1]);
    assert_eq!((uses[0].decided, uses[2].decided), (CacheDecision::Steps, CacheDecision::Published));
    let ran = all.stage(Stage::Denoise).map(|stage| stage.reused_steps.len() as u32);
    assert_eq!(ran, Some(uses[0].reused_steps), "as many as were said before");
}

#[test]
fn each_of_two_transformers_has_the_cache_in_turn() {
    let records =
        sweep("model: wan2.2-t2v-a14b\nresolution: 480p\nlow_mem_level: 3\nflexcache: magcache\nsweep:\n  flexcache_offload: [cpu, off]\n");
    let caches: Vec<_> = records
        .iter()
        .map(|record| record.stage_memory(Stage::Denoise).and_then(|memory| memory.parts).expect("parts").step_cache_bytes)
        .collect();
    assert_eq!(caches, [0, 2 * (2 * 32_760 * 5120_u64).next_multiple_of(2 << 20)], "as much as one of them needs");
}

//! What `lowmem plan` predicts, held against what the virtual GPU counts.

use engine::components;
use engine::memory::{predict, predict_from, predict_ranks};
use engine_protocol::{Config, DiskRate, GPU_HOST_PROCESS_BYTES, GpuProfile, PlanReport, RunRecord, Settings, Stage};
use lowmem_tests::{model, root};

use super::sweep::{picture, sweep, sweep_on};

/// How far a predicted peak may be off, in percent of the count.
const PEAK_TOLERANCE: f64 = 0.5;
/// How far what is predicted beside weights and staging buffers may be off, in percent of what was counted beside them: at low levels the peak is mostly
/// weights, which are no prediction.
const ACTIVATIONS_TOLERANCE: f64 = 2.0;
/// The allocator leaves up to 1 MiB of a block unsplit and counts it with its tensor. Where the VAE remembers many frames, some blocks are so; that is not predicted.
const UNSPLIT: u64 = 3 << 20;
/// Below this, tensors of one row and the allocator's rounding are what counts, and those are left out.
const SMALL: u64 = 32 << 20;

/// Holds what is predicted for each of the records' stages against what it counted; one line for each that is off.
pub(super) fn faults(records: &[RunRecord], gpu: Option<&GpuProfile>) -> String {
    let mut faults = String::new();
    for record in records {
        for stage in &record.stages {
            let counted = stage.memory.expect("the virtual GPU counts memory").peak_allocated_bytes;
            faults.extend(fault(&record.config, stage.stage, counted, gpu));
        }
    }
    faults
}

fn fault(config: &Config, stage: Stage, counted: u64, gpu: Option<&GpuProfile>) -> Option<String> {
    let report = predict(config, &components::of(&model(&config.model)), gpu);
    let planned = report.stages.iter().find(|planned| planned.stage == stage).expect("each stage is planned");
    let predicted = planned.peak_allocated_bytes().expect("an estimate");
    let difference = predicted.abs_diff(counted);
    let off = difference as f64;
    let activations = counted.saturating_sub(planned.resident_bytes + planned.staging_bytes);
    let [of_peak, of_activations] = [counted, activations].map(|bytes| 100.0 * off / bytes.max(1) as f64);
    let line = format!(
        "{} at {}, level {}, {}: {predicted} bytes predicted, {counted} counted ({of_peak:.2}%, {of_activations:.2}% of activations)\n",
        config.model,
        config.resolution,
        config.low_mem_level,
        stage.name()
    );
    print!("{line}");
    let is_off = of_peak > PEAK_TOLERANCE && difference > UNSPLIT || activations > SMALL && of_activations > ACTIVATIONS_TOLERANCE;
    is_off.then_some(line)
}

/// Attention with its score matrix: because it is asked for, or since compute capability 7.5 has no other one for bf16. The cards are small, the videos too.
#[test]
fn score_matrices_are_predicted() {
    let text = std::fs::read_to_string(root().join("sweeps/gpus/t4.yaml")).expect("a profile");
    let t4: GpuProfile = serde_yaml::from_str(&text).expect("a profile");
    let sizes = "steps_measured: 1\nsweep:\n  dtype: [bf16, fp16, fp32]\n";
    for (gpu, flags) in [
        ("t4", "model: wan2.1-t2v-1.3b\nresolution: 480p\nframes: 65\nlow_mem_level: 3\n"),
        ("t4", "model: wan2.1-t2v-1.3b\nresolution: 480p\nlow_mem_level: 3\nhead_chunk: 5\n"),
        ("t4", "model: wan2.1-t2v-1.3b\nresolution: 480p\nframes: 9\nlow_mem_level: 2\nsequence_chunk: 1000\nguidance_batch: true\n"),
        ("t4", "model: wan2.1-t2v-14b\nresolution: 480p\nframes: 5\nlow_mem_level: 3\n"),
        ("t4", "model: wan2.2-ti2v-5b\nresolution: 480p\nframes: 5\nlow_mem_level: 3\n"),
        ("h100", "model: wan2.1-t2v-1.3b\nresolution: 480p\nframes: 9\nattn_type: math\nlow_mem_level: 1\n"),
    ] {
        let records = sweep_on(gpu, &format!("{flags}{sizes}"));
        for record in &records {
            for stage in &record.stages {
                let Some(memory) = stage.memory.filter(|_| [Stage::Denoise, Stage::Decode].contains(&stage.stage)) else { continue };
                let profile = (gpu == "t4").then_some(&t4);
                let fault = fault(&record.config, stage.stage, memory.peak_allocated_bytes, profile);
                assert_eq!(fault, None, "on {gpu} with\n{flags}");
            }
        }
    }
}

/// Convolutions in fp32 on tensor cores that round it to TF32: they ask for what they read once more.
#[test]
fn workspaces_of_convolutions_in_fp32_are_predicted() {
    let profile = root().join("sweeps/gpus/a100-80gb.yaml");
    let profile: GpuProfile = serde_yaml::from_str(&std::fs::read_to_string(profile).expect("a profile")).expect("a profile");
    for flags in [
        "model: wan2.1-t2v-1.3b\nresolution: 480p\nframes: 9\nlow_mem_level: 0\n",
        "model: wan2.1-t2v-1.3b\nresolution: 480p\nframes: 17\nlow_mem_level: 0\nvae_temporal_chunk: 2\n",
        "model: wan2.2-ti2v-5b\nresolution: 1280x704\nframes: 5\nlow_mem_level: 0\n",
        "model: wan2.1-t2v-1.3b\nresolution: 480p\nframes: 9\nlow_mem_level: 3\n",
    ] {
        for record in sweep_on("a100-80gb", &format!("{flags}dtype: fp32\nsteps_measured: 1\n")) {
            let decode =
                record.stages.iter().find(|stage| stage.stage == Stage::Decode).and_then(|stage| stage.memory).expect("it decodes");
            assert_eq!(fault(&record.config, Stage::Decode, decode.peak_allocated_bytes, Some(&profile)), None, "with\n{flags}");
        }
    }
}

/// All models and levels, from the table that `peak_table` keeps true.
#[test]
fn predicted_peaks_are_what_the_virtual_gpu_counts() {
    let mut reader = csv::Reader::from_path(root().join("tests/memory/peaks.csv")).expect("the table of peaks");
    let (mut faults, mut compared) = (String::new(), 0);
    for row in reader.records() {
        let row = row.expect("a row");
        let level: u8 = row[2].parse().expect("a level");
        let settings = [("resolution", row[1].into()), ("low_mem_level", level.into())];
        let settings = Settings::from_pairs(settings.map(|(key, value)| (key.to_owned(), value))).expect("settings");
        let config = Config::resolve(&settings, &model(&row[0])).expect("a configuration");
        let stage = Stage::ALL.into_iter().find(|stage| stage.name() == &row[3]).expect("a stage");
        faults.extend(fault(&config, stage, row[4].parse().expect("bytes"), None));
        compared += 1;
    }
    assert_eq!(compared, 176, "a row for each stage of 40 cases, of which 16 begin with a picture");
    assert!(faults.is_empty(), "predictions are off:\n{faults}");
}

/// Flags that the levels leave alone, so that no estimate is right by luck of the defaults.
#[test]
fn predictions_follow_the_flags() {
    let base = "model: wan2.1-t2v-1.3b\nresolution: 480p\nsteps_measured: 2\n";
    let long_prompt = format!("prompt: {}\n", "a cat and ".repeat(40));
    for flags in [
        long_prompt.as_str(),
        "offload_text_encoder: stream\nlow_mem_level: 3\n",
        "sequence_chunk: 0\n",
        "head_chunk: 3\nlow_mem_level: 3\n",
        "head_chunk: 5\nlow_mem_level: 2\nsequence_chunk: 0\n",
        "sequence_chunk: 1000\nlow_mem_level: 3\n",
        "dtype: fp32\nlow_mem_level: 2\n",
        "attn_type: sage\nlow_mem_level: 3\n",
        "attn_type: sage\nlow_mem_level: 3\nhead_chunk: 3\n",
        "attn_type: sage\nlow_mem_level: 2\nsequence_chunk: 0\nguidance_batch: true\n",
        "attn_type: sparge\nlow_mem_level: 3\n",
        "attn_type: sparge\nattn_topk: 0.1\nlow_mem_level: 3\nhead_chunk: 3\n",
        "attn_type: sparge\nlow_mem_level: 2\nsequence_chunk: 0\nguidance_batch: true\n",
        "guidance_scale: 1\nlow_mem_level: 3\nresident_blocks: 10\nprefetch_blocks: 3\n",
        "weight_dtype: fp8_e4m3\nlow_mem_level: 2\n",
        "weight_dtype: fp8_e4m3\nlow_mem_level: 3\nresident_blocks: 20\nguidance_batch: true\n",
        "weight_dtype: q4_k\nlow_mem_level: 2\n",
        "weight_dtype: q3_k\nlow_mem_level: 3\nresident_blocks: 20\n",
        "weight_dtype: q6_k\nlow_mem_level: 3\nframes: 1\nsequence_chunk: 500\n",
        "weight_dtype: q4_k\nlow_mem_level: 3\nframes: 1\nsequence_chunk: 500\n",
        "weight_dtype: q8_0\nlow_mem_level: 2\nframes: 1\nsequence_chunk: 500\n",
        "weight_dtype: iq4_xs\nlow_mem_level: 3\nframes: 1\nsequence_chunk: 500\n",
        "fused: true\nlow_mem_level: 2\n",
        "fused: true\nweight_dtype: q4_k\nlow_mem_level: 2\n",
        "fused: true\nweight_dtype: q4_k\nlow_mem_level: 3\nframes: 1\nsequence_chunk: 500\n",
        "fused: true\nlow_mem_level: 3\nhead_chunk: 3\n",
        "fused: true\nlow_mem_level: 3\nsequence_chunk: 0\n",
        "linear_dtype: fp8\nlow_mem_level: 2\n",
        "linear_dtype: fp8\nlow_mem_level: 3\nhead_chunk: 3\n",
        "linear_dtype: fp8\nlow_mem_level: 3\nsequence_chunk: 0\n",
        "linear_dtype: int8\nlow_mem_level: 3\nsequence_chunk: 1000\n",
        "linear_dtype: int8\nlow_mem_level: 2\nguidance_batch: true\n",
        "frames: 33\nlow_mem_level: 1\nvae_tile_size: 24\nvae_temporal_chunk: 3\n",
        "frames: 17\nactivation_offload: true\nvae_temporal_chunk: 2\n",
        "frames: 33\nlow_mem_level: 1\nvae_tile_size: 24\nvae_temporal_chunk: 3\nactivation_offload: true\n",
        "frames: 9\noffload_vae: true\nvae_temporal_chunk: 3\n",
    ] {
        let faults = faults(&sweep(&format!("{base}{flags}")), None);
        assert!(faults.is_empty(), "predictions are off with\n{flags}{faults}");
    }
}

/// What one of several ranks holds: heads exchanged, keys that go round, both, and cond and uncond on two groups. The largest of the ranks is what is counted.
#[test]
fn predictions_are_of_each_of_several_ranks() {
    let base = "model: wan2.1-t2v-14b\nresolution: 480p\nsteps_measured: 1\nsweep:\n  low_mem_level: [0, 3]\n";
    for flags in [
        "cp_size: 2\n",
        "cp_ring: 2\n",
        "cfg_size: 2\n",
        "cp_ulysses: 2\ncp_ring: 2\n",
        "cp_size: 2\nhead_chunk: 10\n",
        "cp_ring: 3\nhead_chunk: 10\n",
        "cp_size: 2\nsequence_chunk: 0\n",
    ] {
        let records = sweep(&format!("{base}{flags}"));
        assert!(records.iter().all(|record| record.ranks.len() == record.config.split().ranks() as usize), "{flags}");
        let faults = records.iter().map(faults_of_others).collect::<String>() + &faults(&records, None);
        assert!(faults.is_empty(), "predictions are off with\n{flags}{faults}");
    }
}

/// Ranks with unlike parts of the sequence, and of the heads: each holds what is predicted of it.
#[test]
fn predictions_are_of_unlike_parts() {
    let of_14b = "model: wan2.1-t2v-14b\nresolution: 480p\n".to_owned();
    let with_first_frame = format!("model: wan2.2-ti2v-5b\nframes: 33\nimage: {}\n", picture());
    for (base, flags) in [
        (&of_14b, "cp_size: 2\nsweep:\n  cp_split: ['3:1', '1:3']\n"),
        (&of_14b, "cp_ulysses: 4\nsequence_chunk: 0\ncp_split: '17:11:8:4'\n"),
        (&of_14b, "cp_ring: 3\ncp_split: '3:2:1'\nsweep:\n  head_chunk: [0, 10]\n"),
        (&of_14b, "cp_ulysses: 2\ncp_ring: 2\ncp_split: '3:1:2:2'\n"),
        (&of_14b, "cfg_size: 2\ncp_size: 2\ncp_split: '3:1'\n"),
        (&of_14b, "cp_size: 2\ncp_split: '3:1'\nsweep:\n  head_chunk: [4, 20]\n"),
        (&of_14b, "cp_size: 2\ncp_split: '3:1'\nflexcache: teacache\n"),
        (&with_first_frame, "cp_size: 2\ncp_split: '3:1'\n"),
    ] {
        for record in sweep(&format!("{base}steps_measured: 1\nlow_mem_level: 3\n{flags}")) {
            assert!(record.config.cp_split.is_some() && record.error.is_none(), "{flags}: {:?}", record.error);
            let (model, config) = (model(&record.config.model), &record.config);
            for (rank, counted) in record.ranks.iter().enumerate() {
                let counted = counted.peak_allocated_bytes.expect("the virtual GPU counts memory");
                let planned = predict_from(Stage::Encode, rank, config, &components::of(&model), None);
                let (stage, predicted) = planned.peak().expect("an estimate");
                let off = 100.0 * predicted.abs_diff(counted) as f64 / counted as f64;
                println!(
                    "{:?}, rank {rank}: {predicted} bytes predicted in {}, {counted} counted, {off:.2}% off",
                    config.cp_split,
                    stage.name()
                );
                assert!(off < ACTIVATIONS_TOLERANCE, "{flags}, rank {rank}: {predicted} bytes predicted, {counted} counted");
            }
        }
    }
}

/// A case's plan, with what its ranks come to.
fn planned(config: &Config) -> PlanReport {
    let model = model(&config.model);
    let components = components::of(&model);
    let report = predict(config, &components, None);
    let ranks = predict_ranks(0, config, &components, None, DiskRate::ASSUMED);
    PlanReport { ranks, ..report }
}

/// Holds what is predicted for all ranks but the first against the peak of each; one line for each that is off.
fn faults_of_others(record: &RunRecord) -> String {
    let predicted = planned(&record.config).ranks.and_then(|ranks| ranks.others_peak_allocated_bytes).expect("ranks, and estimates");
    let mut faults = String::new();
    for (rank, counted) in record.ranks.iter().enumerate().skip(1) {
        let counted = counted.peak_allocated_bytes.expect("the virtual GPU counts memory");
        let off = predicted.abs_diff(counted);
        if off > UNSPLIT && 100.0 * off as f64 / counted as f64 > PEAK_TOLERANCE {
            faults += &format!("{}, rank {rank}: {predicted} bytes predicted, {counted} counted\n", record.config.split());
        }
    }
    faults
}

/// One encodes prompts and pictures for all: the others have none of those weights on their GPUs, nor in RAM, where several ranks hold what one holds, and a process each.
#[test]
fn encoders_are_the_first_ranks_alone() {
    let base = format!("model: wan2.1-i2v-14b\nresolution: 480p\nsteps_measured: 1\nimage: {}\n", picture());
    let records = sweep(&format!("{base}sweep:\n  low_mem_level: [1, 2]\n  cp_size: [1, 3]\n"));
    let faults: String =
        records.iter().filter(|record| !record.ranks.is_empty()).map(faults_of_others).collect::<String>() + &faults(&records, None);
    assert!(faults.is_empty(), "predictions are off:\n{faults}");
    let [first, second] = [0, 1].map(|rank| records[1].ranks[rank].peak_allocated_bytes.expect("it counts"));
    let encoders = ["text encoder", "image encoder", "VAE encoder"];
    let groups = planned(&records[1].config).groups;
    let bytes: u64 = groups.iter().filter(|groups| encoders.contains(&groups.component.as_str())).map(|groups| groups.bytes).sum();
    assert!((first - second).abs_diff(bytes) < bytes / 20, "{second} of {first}, and the encoders have {bytes}");
    let ram = |case: usize| records[case].predicted_host().and_then(|host| host.peak_bytes).expect("told");
    // Two processes more, and what is on its way as each loads what it has.
    assert!(ram(3) - ram(2) < 2 * GPU_HOST_PROCESS_BYTES + (1 << 30), "{} of three, {} of one", ram(3), ram(2));
}

/// Each rank holds a part of every block, room for some of them whole, and while they are loaded room for one.
#[test]
fn predictions_are_of_weights_in_parts() {
    let base = "resolution: 480p\nsteps_measured: 1\nshard_weights: true\n";
    for flags in [
        "model: wan2.1-t2v-14b\ncp_size: 2\nsweep:\n  low_mem_level: [0, 1, 2]\n",
        "model: wan2.1-t2v-14b\ncp_ring: 3\nprefetch_blocks: 4\nlow_mem_level: 2\nsweep:\n  load_weights: [at_start, as_used]\n",
        "model: wan2.1-t2v-14b\ncp_size: 2\ncfg_size: 2\nweight_dtype: q4_k\nlow_mem_level: 2\nsweep:\n  prefetch_blocks: [0, 1]\n",
        "cp_size: 2\nmodel: wan2.2-t2v-a14b\nlow_mem_level: 2\nsweep:\n  flexcache: [none, firstblock]\n",
    ] {
        let records = sweep(&format!("{base}{flags}"));
        let faults = records.iter().map(faults_of_others).collect::<String>() + &faults(&records, None);
        assert!(faults.is_empty(), "predictions are off with\n{flags}{faults}");
    }
}

/// Ranks decode tiles by turns: the first one holds what one alone holds, the others less, and all of it takes a part of the time.
#[test]
fn tiles_are_decoded_by_all_ranks() {
    let base = "model: wan2.1-t2v-1.3b\nresolution: 480p\nframes: 33\nsteps_measured: 1\nlow_mem_level: 3\n";
    // Large tiles, so that the peak of the others is decoding too.
    let records = sweep(&format!("{base}vae_tile_size: 32\nvae_temporal_chunk: 4\nsweep:\n  cp_size: [1, 2, 4]\n"));
    let faults: String =
        records.iter().filter(|record| !record.ranks.is_empty()).map(faults_of_others).collect::<String>() + &faults(&records, None);
    assert!(faults.is_empty(), "predictions are off:\n{faults}");
    let decode = |record: &RunRecord| {
        let stage = record.stage(Stage::Decode).expect("a stage");
        (stage.memory.expect("it counts").peak_allocated_bytes, stage.time.expect("a time").secs.expected)
    };
    let (alone, alone_secs) = decode(&records[0]);
    // Four columns in three rows. Putting them together is the first one's alone.
    for (record, share) in records[1..].iter().zip([0.5, 0.25]) {
        let (peak, secs) = decode(record);
        assert_eq!(peak, alone, "{}", record.config.split());
        assert!(secs > share * alone_secs && secs < (share + 0.1) * alone_secs, "{}: {secs} s, alone {alone_secs}", record.config.split());
        let others = record.ranks[1].peak_allocated_bytes.expect("it counts");
        let denoise = planned(&record.config)
            .stages
            .iter()
            .find(|stage| stage.stage == Stage::Denoise)
            .and_then(|stage| stage.peak_allocated_bytes());
        assert!(Some(others) > denoise && others < peak, "{}: {others} of {peak}, {denoise:?} in denoise", record.config.split());
    }
}

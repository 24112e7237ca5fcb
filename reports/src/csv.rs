//! `results.csv`: every record with every column. What is not known is empty.

use engine_protocol::{Device, Dtype, GpuProfile, Outcome, ResidentBlocks, RunRecord, Secs, Stage, StreamFrom};

use crate::{Error, Run, summary};

/// A column: its name and its text for a record.
type Column = (&'static str, fn(&RunRecord) -> String);

/// The last column, which needs the run's GPU as well: what the sampler steps reached of its peak rate in their type.
const SHARE_OF_PEAK: &str = "denoise_share_of_peak";

/// All columns, in order.
const COLUMNS: [Column; 81] = [
    ("case", |r| r.case.clone()),
    ("model", |r| r.config.model.clone()),
    ("gpu", |r| text(r.gpu.as_ref())),
    ("device", |r| r.device.name().into()),
    ("device_name", |r| text(r.device_name.as_ref())),
    ("memory_source", |r| text(r.memory_source.map(|source| source.name()))),
    ("time_source", |r| text(r.time_source.map(|source| source.name()))),
    ("outcome", |r| r.outcome.name().into()),
    ("is_skipped", |r| r.is_skipped.to_string()),
    ("failed_stage", |r| text(r.failed_stage.map(Stage::name))),
    ("low_mem_level", |r| r.config.low_mem_level.to_string()),
    ("vae_tile_size", |r| text(r.config.vae_tile_size)),
    ("vae_tile_overlap", |r| text(r.config.vae_tile_overlap)),
    ("vae_temporal_chunk", |r| r.config.vae_temporal_chunk.to_string()),
    ("activation_offload", |r| r.config.activation_offload.to_string()),
    ("attn_type", |r| r.config.attn_type.name().into()),
    ("width", |r| r.config.resolution.width.to_string()),
    ("height", |r| r.config.resolution.height.to_string()),
    ("frames", |r| r.config.frames.to_string()),
    ("steps", |r| r.config.steps.to_string()),
    ("steps_measured", |r| r.config.steps_to_run().to_string()),
    ("guidance_scale", |r| r.config.guidance_scale.to_string()),
    ("flow_shift", |r| r.config.flow_shift.to_string()),
    ("seed", |r| r.config.seed.to_string()),
    ("dtype", |r| r.config.dtype.name().into()),
    ("weight_dtype", |r| r.config.weight_dtype.name().into()),
    ("offload_text_encoder", |r| r.config.offload_text_encoder.name().into()),
    ("offload_vae", |r| r.config.offload_vae.to_string()),
    ("offload_dit", |r| r.config.offload_dit.to_string()),
    ("resident_blocks", |r| text(r.config_run().resident_blocks.and_then(ResidentBlocks::count))),
    ("prefetch_blocks", |r| text(r.config_run().prefetch_blocks)),
    ("pinned_memory", |r| text(r.config.pinned_memory)),
    ("max_pinned_gib", |r| text(r.config.max_pinned_gib)),
    ("stream_from", |r| text(r.config_run().stream_from.map(StreamFrom::name))),
    ("sequence_chunk", |r| text(r.config.sequence_chunk)),
    ("head_chunk", |r| text(r.config.head_chunk)),
    ("guidance_batch", |r| text(r.config.guidance_batch)),
    // What cannot be set yet has one value, which is said all the same.
    ("flexcache", |_| "none".into()),
    ("cp_size", |_| "1".into()),
    ("allocator", |r| r.config.allocator.name().into()),
    ("allocated_bytes", |r| text(r.last_memory().map(|m| m.allocated_bytes))),
    ("reserved_bytes", |r| text(r.last_memory().map(|m| m.reserved_bytes))),
    ("peak_allocated_bytes", |r| text(r.peak_allocated_bytes())),
    ("predicted_peak_allocated_bytes", |r| text(r.predicted_peak_allocated_bytes())),
    ("peak_reserved_bytes", |r| text(r.peak_reserved_bytes())),
    ("peak_device_bytes", |r| text(r.peak_device_bytes())),
    ("predicted_peak_device_bytes", |r| text(r.predicted.and_then(|p| p.peak_device_bytes))),
    ("peak_stage", |r| text(r.peak_stage().map(Stage::name))),
    // What the peak of allocated bytes was made of, in the stage that the column before names.
    ("peak_weights_bytes", |r| text(r.peak_parts().map(|p| p.weights_bytes))),
    ("peak_staging_bytes", |r| text(r.peak_parts().map(|p| p.staging_bytes))),
    ("peak_activations_bytes", |r| text(r.peak_parts().map(|p| p.activations_bytes))),
    ("peak_workspace_bytes", |r| text(r.peak_parts().map(|p| p.workspace_bytes))),
    ("peak_feature_cache_bytes", |r| text(r.peak_parts().map(|p| p.feature_cache_bytes))),
    ("peak_frames_bytes", |r| text(r.peak_parts().map(|p| p.frames_bytes))),
    ("peak_latents_bytes", |r| text(r.peak_parts().map(|p| p.latents_bytes))),
    ("peak_slack_bytes", |r| text(r.peak_parts().map(|p| p.slack_bytes))),
    ("encode_peak_allocated_bytes", |r| text(stage_peak(r, Stage::Encode, false))),
    ("encode_peak_reserved_bytes", |r| text(stage_peak(r, Stage::Encode, true))),
    ("denoise_peak_allocated_bytes", |r| text(stage_peak(r, Stage::Denoise, false))),
    ("denoise_peak_reserved_bytes", |r| text(stage_peak(r, Stage::Denoise, true))),
    ("decode_peak_allocated_bytes", |r| text(stage_peak(r, Stage::Decode, false))),
    ("decode_peak_reserved_bytes", |r| text(stage_peak(r, Stage::Decode, true))),
    ("requested_bytes", |r| text(r.requested_bytes)),
    ("needed_bytes", |r| text(summary::needed_bytes(r))),
    ("host_pinned_peak_bytes", |r| text(r.host_pinned_peak_bytes)),
    ("text_encode_secs", |r| secs(r.stage_secs(Stage::Encode))),
    ("denoise_secs", |r| secs(r.denoise_secs())),
    ("step_secs", |r| secs(r.step_secs())),
    ("vae_decode_secs", |r| secs(r.stage_secs(Stage::Decode))),
    ("total_secs", |r| secs(complete(r).and_then(RunRecord::total_secs))),
    // A modelled time is known no closer than between these two.
    ("total_secs_low", |r| text(complete(r).and_then(RunRecord::total_secs).filter(|s| s.is_interval()).map(|s| s.low))),
    ("total_secs_high", |r| text(complete(r).and_then(RunRecord::total_secs).filter(|s| s.is_interval()).map(|s| s.high))),
    ("predicted_total_secs", |r| secs(r.predicted.and_then(|p| p.total_secs))),
    ("copy_stall_secs", |r| secs(r.copy_stall_secs())),
    ("denoise_operations_per_sec", |r| text(r.denoise_operations_per_sec())),
    ("h2d_bytes", |r| text(r.h2d_bytes)),
    ("d2h_bytes", |r| text(r.d2h_bytes)),
    ("wall_secs", |r| format!("{:.3}", r.wall_secs)),
    ("unsupported_calls", |r| text((r.device == Device::Virtual).then(|| r.unsupported_calls.values().sum::<u64>()))),
    ("unsupported_names", |r| r.unsupported_calls.keys().map(String::as_str).collect::<Vec<_>>().join(" ")),
    ("error", |r| text(r.error.as_ref())),
];

/// The records of `run` as CSV, one row a record.
///
/// # Errors
/// None that a healthy machine has: the table is written to memory.
pub(crate) fn results(run: &Run) -> Result<String, Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(COLUMNS.iter().map(|(name, _)| *name).chain([SHARE_OF_PEAK]))?;
    for record in &run.records {
        let share = run.manifest.gpu.as_ref().and_then(|gpu| denoise_share_of_peak(record, gpu));
        writer.write_record(COLUMNS.iter().map(|(_, cell)| cell(record)).chain([text(share)]))?;
    }
    let bytes = writer.into_inner().map_err(|error| csv::Error::from(error.into_error()))?;
    // Every cell is text.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn denoise_share_of_peak(record: &RunRecord, gpu: &GpuProfile) -> Option<f64> {
    let flops = &gpu.flops;
    let peak = match record.config.dtype {
        Dtype::Fp32 => &flops.fp32,
        Dtype::Bf16 => &flops.bf16,
        Dtype::Fp16 => &flops.fp16,
    };
    Some(record.denoise_operations_per_sec()? / peak.value)
}

fn text(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn secs(time: Option<Secs>) -> String {
    text(time.map(|time| time.expected))
}

fn complete(record: &RunRecord) -> Option<&RunRecord> {
    (record.outcome == Outcome::Ok).then_some(record)
}

fn stage_peak(record: &RunRecord, stage: Stage, reserved: bool) -> Option<u64> {
    let memory = record.stage_memory(stage)?;
    Some(if reserved { memory.peak_reserved_bytes } else { memory.peak_allocated_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use engine_protocol::{StageTime, StageWork};

    #[test]
    fn what_denoise_reached_is_a_share_of_the_peak() {
        let mut record = samples::ok("a", 0, 10);
        assert_eq!(denoise_share_of_peak(&record, &samples::gpu()), None);
        for stage in &mut record.stages {
            let work = Some(StageWork { operations: 1.5e12, bytes: 0.0 });
            stage.time = Some(StageTime { secs: Secs::measured(3.0), copy_stall: None, work });
        }
        // Half a TFLOP/s of one.
        assert_eq!(denoise_share_of_peak(&record, &samples::gpu()), Some(0.5));
        let text = results(&samples::run(vec![record])).expect("a table");
        assert!(text.lines().next().is_some_and(|line| line.ends_with(",denoise_share_of_peak")), "{text}");
        assert!(text.lines().nth(1).is_some_and(|line| line.ends_with(",0.5")), "{text}");
    }

    #[test]
    fn an_out_of_memory_is_a_row_and_what_is_not_known_is_empty() {
        let run = samples::run(vec![samples::ok("a", 0, 10), samples::oom("b", 3, 20)]);
        let text = results(&run).expect("a table");
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let header = reader.headers().expect("a header").clone();
        let column = |name: &str| header.iter().position(|h| h == name).unwrap_or_else(|| panic!("no column {name}"));
        let rows: Vec<_> = reader.records().collect::<Result<_, _>>().expect("rows");
        assert_eq!(rows.len(), 2);
        let cell = |row: usize, name: &str| rows[row].get(column(name)).unwrap_or_default();
        assert_eq!(cell(1, "outcome"), "oom");
        assert_eq!(cell(1, "failed_stage"), "denoise");
        assert_eq!(cell(1, "needed_bytes"), (31u64 << 30).to_string());
        assert_eq!(cell(1, "error"), "out of memory, \"quoted\" <b>");
        for name in ["time_source", "total_secs", "step_secs", "copy_stall_secs", "vae_tile_size", "needed_bytes"] {
            assert_eq!(cell(0, name), "", "{name}");
        }
        assert_eq!(cell(0, "unsupported_calls"), "2");
        assert_eq!(cell(0, "peak_device_bytes"), (10u64 << 30).to_string());
        assert_eq!(cell(0, "memory_source"), "virtual");
        assert_eq!([cell(0, "peak_weights_bytes"), cell(0, "peak_staging_bytes")], [(8u64 << 30).to_string(), "0".into()]);
        assert_eq!(cell(1, "peak_weights_bytes"), "", "the peak of a run that did not end is not known");
    }
}

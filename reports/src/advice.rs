//! A run's verdicts in sentences, and the chosen configuration as a file.

use engine_protocol::{Allocator, Config, RunRecord, WeightDtype, gib};
use serde_json::{Value, json};

use crate::{Run, Verdict, secs_in_words, summary};

/// One sentence a verdict, and one for the whole run.
pub fn sentences(run: &Run) -> Vec<String> {
    let verdicts = summary::verdicts(run);
    let mut sentences: Vec<String> = verdicts.iter().map(|verdict| sentence(run, verdict)).collect();
    if verdicts.len() > 1
        && let Some(chosen) = summary::overall(&verdicts)
    {
        sentences.push(format!("For all of them: level {} ({}).", chosen.config.low_mem_level, flags(&chosen.config)));
    }
    sentences
}

/// What to use for one model and resolution, or by how much nothing fits.
pub fn sentence(run: &Run, verdict: &Verdict<'_>) -> String {
    let subject = verdict.subject();
    let capacity = run.manifest.capacity_bytes.map(|bytes| format!(" of {:.2}", gib(bytes))).unwrap_or_default();
    if let Some(best) = verdict.best {
        let peak = match best.peak_device_bytes() {
            Some(bytes) => format!(", peak {:.2}{capacity} GiB of device memory ({})", gib(bytes), source(best)),
            None => String::new(),
        };
        let time = match (best.total_secs(), best.time_source) {
            (Some(secs), Some(source)) => format!(", {} ({})", secs_in_words(secs), source.name()),
            _ => String::new(),
        };
        return format!("{subject}: level {} ({}){peak}{time}.", best.config.low_mem_level, flags(&best.config));
    }
    match verdict.nearest {
        Some(miss) => format!(
            "{subject}: nothing fits. Nearest is {} with at least {:.2}{capacity} GiB: at least {:.2} GiB more are needed.",
            miss.record.case,
            gib(miss.needed_bytes),
            gib(miss.missing_bytes)
        ),
        None => format!("{subject}: no case has an answer."),
    }
}

/// Where a record's memory figures come from, in a word.
pub fn source(record: &RunRecord) -> &'static str {
    record.memory_source.map_or("not measured", |source| source.name())
}

/// The flags of a configuration that decide about memory, on one line.
pub fn flags(config: &Config) -> String {
    let mut flags = vec![format!("attn_type={}", config.attn_type.name()), format!("dtype={}", config.dtype.name())];
    if let Some(size) = config.vae_tile_size {
        flags.push(format!("vae_tile_size={size}"));
    }
    if config.weight_dtype != WeightDtype::AsStored {
        flags.push(format!("weight_dtype={}", config.weight_dtype.name()));
    }
    if config.allocator != Allocator::Native {
        flags.push(format!("allocator={}", config.allocator.name()));
    }
    flags.push(format!("offload_text_encoder={}", config.offload_text_encoder.name()));
    let switches =
        [("offload_vae", config.offload_vae), ("offload_dit", config.offload_dit), ("activation_offload", config.activation_offload)];
    for (name, is_on) in switches {
        if is_on {
            flags.push(format!("{name}=true"));
        }
    }
    flags.join(", ")
}

/// The settings that give `config` again: its level, and all that the level and the model leave open.
pub fn settings(config: &Config) -> Vec<(&'static str, Value)> {
    let mut settings = vec![
        ("model", json!(config.model)),
        ("resolution", json!(config.resolution())),
        ("frames", json!(config.frames)),
        ("steps", json!(config.steps)),
        ("sampler", json!(config.sampler.name())),
        ("guidance_scale", json!(config.guidance_scale)),
        ("flow_shift", json!(config.flow_shift)),
        ("low_mem_level", json!(config.low_mem_level)),
        ("dtype", json!(config.dtype.name())),
        ("attn_type", json!(config.attn_type.name())),
        ("offload_text_encoder", json!(config.offload_text_encoder.name())),
        ("offload_vae", json!(config.offload_vae)),
        ("offload_dit", json!(config.offload_dit)),
        ("weight_dtype", json!(config.weight_dtype.name())),
        ("allocator", json!(config.allocator.name())),
        ("sequence_chunk", json!(config.sequence_chunk.unwrap_or(0))),
        ("head_chunk", json!(config.head_chunk.unwrap_or(0))),
        ("vae_tiling", json!(config.vae_tile_size.is_some())),
        ("vae_temporal_chunk", json!(config.vae_temporal_chunk)),
        ("activation_offload", json!(config.activation_offload)),
    ];
    let where_it_has_meaning = [
        ("low_noise_guidance_scale", config.low_noise_guidance_scale.map(|scale| json!(scale))),
        ("resident_blocks", config.resident_blocks.map(|n| json!(n))),
        ("prefetch_blocks", config.prefetch_blocks.map(|n| json!(n))),
        ("pinned_memory", config.pinned_memory.map(|yes| json!(yes))),
        ("max_pinned_gib", config.max_pinned_gib.map(|gib| json!(gib))),
        ("stream_from", config.stream_from.map(|from| json!(from.name()))),
        ("guidance_batch", config.guidance_batch.map(|yes| json!(yes))),
        ("vae_tile_size", config.vae_tile_size.map(|n| json!(n))),
        ("vae_tile_overlap", config.vae_tile_overlap.map(|n| json!(n))),
    ];
    settings.extend(where_it_has_meaning.into_iter().filter_map(|(key, value)| Some((key, value?))));
    settings
}

/// `recommended.yaml`: the chosen configuration, ready to be given back, or a comment that says why there is none.
pub fn recommended_yaml(run: &Run) -> String {
    let mut text = format!("# From the sweep {}, {}.\n", run.manifest.sweep, run.manifest.begun);
    text += &format!("# {}\n# {}.\n", run.provenance(), summary::ranking(run));
    for sentence in sentences(run) {
        text += &format!("# {sentence}\n");
    }
    let verdicts = summary::verdicts(run);
    match summary::overall(&verdicts) {
        Some(chosen) => {
            text += "# Use it: lowmem generate --config recommended.yaml --prompt TEXT --output FILE.mp4, or lowmem sweep recommended.yaml --gpu GPU\n";
            // A JSON scalar is a YAML scalar.
            settings(&chosen.config).iter().for_each(|(key, value)| text += &format!("{key}: {value}\n"));
        }
        None => text += "# Nothing to recommend.\n{}\n",
    }
    text
}

#[cfg(test)]
mod tests {
    use engine_protocol::Settings;

    use super::*;
    use crate::samples;

    #[test]
    fn the_recommended_settings_give_the_chosen_configuration_again() {
        for level in 0..4 {
            let record = samples::ok("a", level, 5);
            let pairs = settings(&record.config).into_iter().map(|(key, value)| (key.to_owned(), value));
            let settings = Settings::from_pairs(pairs).expect("settings");
            let run = samples::run(vec![record.clone()]);
            assert_eq!(Config::resolve(&settings, &run.manifest.models[0]).expect("legal"), record.config);
        }
    }

    #[test]
    fn nothing_fits_is_said_with_what_is_missing() {
        let run = samples::run(vec![samples::oom("level3", 3, 20)]);
        assert_eq!(
            sentences(&run),
            [
                "wan-tiny at 96x64, 9 frames: nothing fits. Nearest is level3 with at least 31.00 of 24.00 GiB: at least 7.00 GiB more are needed."
            ]
        );
        assert!(recommended_yaml(&run).ends_with("# Nothing to recommend.\n{}\n"));
    }
}

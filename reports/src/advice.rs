//! A configuration told: its flags on one line, and the settings that give it again. Which one is best is judged elsewhere.

use engine_protocol::{
    Config, Flag, Group, LoadWeights, OffloadTextEncoder, PinnedMemory, ResidentBlocks, RunRecord, Split, StreamFrom, WeightDtype,
    setting_text,
};
use serde_json::Value;

use crate::run::Run;

/// The flags of a configuration that are not its level's own, on one line; empty where there are none.
pub fn flags(run: &Run, config: &Config) -> String {
    let model = run.manifest.models.iter().find(|model| model.name == config.model);
    model.map(|model| config.flags_beside_level(run.manifest.device, model).join(", ")).unwrap_or_default()
}

/// `level 3 (resident_blocks=10)` or `level 3 on 2 GPUs (cp_size=2)`: what tells two configurations of one video apart.
pub fn level_and_flags(run: &Run, config: &Config) -> String {
    let level = format!("level {}{}", config.low_mem_level, on_gpus(config));
    match flags(run, config).as_str() {
        "" => level,
        flags => format!("{level} ({flags})"),
    }
}

/// ` on 2 GPUs`; empty of one.
pub fn on_gpus(config: &Config) -> String {
    match config.split().ranks() {
        1 => String::new(),
        ranks => format!(" on {ranks} GPUs"),
    }
}

/// The names of its ranks' GPUs, as far as they are known; none of one GPU.
pub(crate) fn rank_gpus(record: &RunRecord) -> Vec<&str> {
    record.ranks.iter().filter_map(|rank| rank.gpu.as_deref()).collect()
}

/// Whether these GPUs are of more than one kind.
pub(crate) fn are_unlike(gpus: &[&str]) -> bool {
    gpus.windows(2).any(|pair| pair[0] != pair[1])
}

/// ` on the fullest GPU`, whose peak is a case's; empty of one.
pub fn on_fullest(config: &Config) -> &'static str {
    if config.split() == Split::ONE { "" } else { " on the fullest GPU" }
}

/// What a case's configuration left to the machine, as it was settled, on one line: `load_weights=as_used, stream_from=file`; empty where it left nothing.
pub fn settled(record: &RunRecord) -> String {
    let run = record.config_run().settings();
    let asked = record.config.settings();
    let is_auto = |value: &Value| value.as_str() == Some("auto");
    let chosen = run.into_iter().filter(|(flag, _)| asked.iter().any(|(other, value)| other.key == flag.key && is_auto(value)));
    chosen.filter(|(_, value)| !is_auto(value)).map(|(flag, value)| setting_text(flag.key, &value)).collect::<Vec<_>>().join(", ")
}

/// The settings that make a video of the same size and length as `config` does, in the same way: all but what it shows and how much of it was run.
pub fn settings(config: &Config) -> Vec<(&'static str, Value)> {
    let is_told = |flag: &Flag| ![Group::Prompt, Group::Measuring].contains(&flag.group) && flag.key != "on_oom";
    config.settings().into_iter().filter(|(flag, _)| is_told(flag)).map(|(flag, value)| (flag.key, value)).collect()
}

/// What to try where the host's memory ran out, the least loss first: each word of it takes less of that memory in this configuration.
pub fn host_remedies(record: &RunRecord) -> String {
    let config = record.config_run();
    let mut remedies = Vec::new();
    if config.load_weights != LoadWeights::AsUsed {
        remedies.push("load_weights=as_used, with which one model at a time is in memory".to_owned());
    }
    let is_streamed_from_memory = config.offload_dit && config.stream_from != Some(StreamFrom::File);
    if is_streamed_from_memory && config.resident_blocks == Some(ResidentBlocks::Count(0)) {
        remedies.push("resident_blocks=auto, which keeps on the GPU what it has room for".to_owned());
    }
    if is_streamed_from_memory && config.weight_dtype == WeightDtype::AsStored {
        remedies.push("weight_dtype=fp8_e4m3, with which streamed weights take half as much".into());
        remedies.push("stream_from=file, with which they are read from their files each time".into());
    }
    if config.pinned_memory == Some(PinnedMemory::Require) {
        remedies.push("pinned_memory=true or a max_pinned_gib, with which what cannot be page-locked waits in ordinary memory".into());
    }
    if config.offload_text_encoder != OffloadTextEncoder::Off {
        remedies.push("offload_text_encoder=off, where the GPU has room for it".into());
    }
    remedies.push("a machine or a container with more memory".into());
    format!("Try {}", remedies.join("; "))
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
}

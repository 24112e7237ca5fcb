//! From a definition to cases: every combination, each distinct configuration once, all checked before the first one runs.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use engine_protocol::{Config, ConfigError, Device, OnOom, Settings};
use serde_json::Value;

use super::alike::text_without;
use super::definition::{Definition, Pairs};
use super::key::{GPU, PRESET};
use crate::error::Error;
use crate::host;
use crate::model::Models;

/// Steps that are run on the virtual GPU unless the definition says otherwise: memory is the same from the second step on.
const STEPS_ON_VIRTUAL: u32 = 2;

/// The same on a real GPU: the first step warms up, and two more say what a step takes and how far steps differ.
const STEPS_ON_REAL: u32 = 3;

/// Keys that name a case where nothing is swept.
const NAMING: [&str; 4] = ["low_mem_level", "vae_tile_size", "attn_type", "resolution"];

/// One case.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Case {
    /// Its name in the run: `level3-tile8-sdpa-1280x720`.
    pub(crate) name: String,
    /// Its configuration.
    pub(crate) config: Config,
    /// What it runs on, as the definition asks for it; none where that names no GPU.
    pub(crate) gpu: Option<String>,
}

/// What the device adds to a configuration's own rules.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// What runs the cases.
    pub(crate) device: Device,
    /// Whether a run may stop after a few steps: a sweep may, a video may not.
    pub(crate) may_shorten: bool,
}

/// What a definition means.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Expanded {
    /// Its cases, in order.
    pub(crate) cases: Vec<Case>,
    /// Combinations that come out the same as a case before them, with that one's name.
    pub(crate) merged: Vec<(String, String)>,
    /// What in it has no effect on any case.
    pub(crate) warnings: Vec<String>,
}

/// The cases of a definition.
pub(crate) fn expand(definition: &Definition, models: &Models, rules: Rules) -> Result<Expanded, Error> {
    let mut cases: Vec<Case> = Vec::new();
    let mut seen = HashMap::new();
    let mut same = Vec::new();
    let mut idle: Option<Vec<String>> = None;
    for (own, combination) in all(definition) {
        let together = definition.together(&own, &combination);
        if definition.leaves_out(&together) {
            continue;
        }
        let gpu = together.iter().rev().find(|(key, _)| *key == GPU).and_then(|(_, value)| Some(value.as_str()?.to_owned()));
        let mut settings = Settings::default();
        for (key, value) in together.into_iter().filter(|(key, _)| *key != GPU) {
            settings.set(key, value.clone()).map_err(|error| definition.refuse(&error))?;
        }
        let (config, warnings) = resolve(&settings, models, rules, |error| definition.refuse(error))?;
        if config.on_oom == OnOom::Lower {
            let (reason, remedy) = ("on_oom=lower: a sweep measures each level as it is", "leave it out; it is for lowmem generate");
            return Err(definition.refuse(&ConfigError::new(reason, remedy)));
        }
        match &mut idle {
            Some(idle) => idle.retain(|warning| warnings.contains(warning)),
            None => idle = Some(warnings),
        }
        match seen.entry((gpu.clone(), text_without(&config, &[])?)) {
            Entry::Vacant(place) => {
                place.insert(cases.len());
                cases.push(Case { name: name(&own, &combination, &config), config, gpu });
            }
            Entry::Occupied(known) => same.push((combination_in_words(&own, &combination), *known.get())),
        }
    }
    number_equal_names(&mut cases);
    let merged = same.into_iter().filter_map(|(words, index)| Some((words, cases.get(index)?.name.clone()))).collect();
    Ok(Expanded { cases, merged, warnings: idle.unwrap_or_default() })
}

/// `low_mem_level=0 vae_tile_size=8`.
fn combination_in_words(own: &Pairs<'_>, combination: &Pairs<'_>) -> String {
    own.iter().chain(combination).map(|(key, value)| engine_protocol::setting_text(key, value)).collect::<Vec<_>>().join(" ")
}

/// One configuration from settings, with the device's rules, and what in them has no effect.
pub(crate) fn resolve(
    settings: &Settings,
    models: &Models,
    rules: Rules,
    refuse: impl Fn(&ConfigError) -> Error,
) -> Result<(Config, Vec<String>), Error> {
    let Some(model) = &settings.model else {
        return Err(refuse(&ConfigError::new("no model is given", "add model: NAME to the definition or model=NAME to the command")));
    };
    let model = models.get(model)?;
    let mut settings = settings.clone();
    let few = match rules.device {
        Device::Virtual => Some(STEPS_ON_VIRTUAL),
        Device::Cuda => Some(STEPS_ON_REAL),
        Device::Cpu => None,
    };
    if let Some(few) = few.filter(|_| rules.may_shorten) {
        let steps = settings.steps.unwrap_or(model.sampling.steps);
        settings.steps_measured.get_or_insert(few.min(steps.max(1)).into());
    }
    let config = Config::resolve_on(rules.device, &settings, model).map_err(|error| refuse(&error))?;
    if rules.device == Device::Cpu {
        host::check_weights_fit(model, config.dtype)?;
    }
    let warnings = config.without_effect(&settings, rules.device);
    Ok((config, warnings))
}

/// Each case of the definition with every combination of its lists.
fn all(definition: &Definition) -> Vec<(Pairs<'_>, Pairs<'_>)> {
    let mut all = Vec::new();
    let (zipped, combinations) = (definition.zipped(), combinations(definition));
    for own in definition.cases() {
        for together in &zipped {
            all.extend(combinations.iter().map(|combination| (own.clone(), [&together[..], combination].concat())));
        }
    }
    all
}

/// Every combination of the lists, the last key changing fastest.
fn combinations(definition: &Definition) -> Vec<Pairs<'_>> {
    definition.lists().fold(vec![Vec::new()], |combinations, (key, values)| {
        let with = |combination: &Vec<_>| {
            let combination = combination.clone();
            values.iter().map(move |value| [combination.clone(), vec![(key, value)]].concat())
        };
        combinations.iter().flat_map(with).collect()
    })
}

/// The name of a configuration: by the swept keys, of which one that means nothing in it is left out, and by what its case fixes; where there is neither
/// by what people look at first.
fn name(own: &Pairs<'_>, combination: &Pairs<'_>, config: &Config) -> String {
    let all = serde_json::to_value(config).unwrap_or_default();
    let part = |key: &str| match key {
        "low_mem_level" => Some(format!("level{}", config.low_mem_level)),
        "vae_tile_size" => config.vae_tile_size.map(|size| format!("tile{size}")),
        "resolution" => Some(config.resolution.to_string()),
        "frames" => Some(format!("{}frames", config.frames)),
        "steps" => Some(format!("{}steps", config.steps)),
        other => match &all[other] {
            Value::String(text) if ["attn_type", "dtype", "model"].contains(&other) => Some(text.clone()),
            Value::Null => None,
            value => Some(key_and_value(other, value)),
        },
    };
    let of_no_flag = |(key, value): &(&str, &Value)| value.as_str().filter(|_| [GPU, PRESET].contains(key)).map(str::to_owned);
    let swept = combination.iter().filter_map(|pair| of_no_flag(pair).or_else(|| part(pair.0)));
    let own = own.iter().map(|pair| of_no_flag(pair).or_else(|| part(pair.0)).unwrap_or_else(|| key_and_value(pair.0, pair.1)));
    let mut parts: Vec<_> = swept.chain(own).collect();
    if parts.is_empty() {
        parts = NAMING.iter().filter_map(|key| part(key)).collect();
    }
    // A prompt may hold anything; a name is one word.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    parts.join("-").replace(|c| !is_plain(c), "-")
}

fn key_and_value(key: &str, value: &Value) -> String {
    match value {
        Value::String(text) => format!("{key}-{text}"),
        Value::Bool(yes) => format!("{key}-{yes}"),
        number => format!("{key}{number}"),
    }
}

/// Tells apart what the keys' names do not: prompts that differ in their punctuation, say.
fn number_equal_names(cases: &mut [Case]) {
    let mut counts = HashMap::<String, usize>::new();
    for case in cases {
        let count = counts.entry(case.name.clone()).or_default();
        *count += 1;
        if *count > 1 {
            case.name = format!("{}-{count}", case.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use engine_protocol::Dtype;

    use super::*;

    fn cases(definition: &Definition, device: Device) -> Result<Vec<Case>, Error> {
        expand(definition, &Models::load()?, Rules { device, may_shorten: true }).map(|expanded| expanded.cases)
    }

    #[test]
    fn the_full_sweep_has_80_distinct_cases() {
        let definition = Definition::load("full").expect("the full sweep");
        let cases = cases(&definition, Device::Virtual).expect("legal");
        let at_level_0 = cases.iter().filter(|case| case.config.low_mem_level == 0).count();
        // 4 kernels at 2 resolutions; and with 3 tile sizes at each other level.
        assert_eq!((at_level_0, cases.len()), (8, 8 + 72));
        assert_eq!(cases[0].name, "level0-sdpa-832x480");
        assert_eq!(cases[79].name, "level3-tile16-math-1280x720");
        let names: HashSet<_> = cases.iter().map(|case| &case.name).collect();
        assert_eq!(names.len(), cases.len());
        assert!(cases.iter().all(|case| case.config.steps_measured == Some(2.into())));
        assert_eq!(cases, self::cases(&definition, Device::Virtual).expect("legal"));
    }

    #[test]
    fn cases_have_keys_of_their_own_and_are_named_by_them() {
        let path = tempfile::tempdir().expect("a folder").keep().join("flags.yaml");
        let text = "model: wan-tiny\nlow_mem_level: 3\ncases:\n  - {}\n  - prefetch_blocks: 2\n  - low_mem_level: 0\n    frames: 5\n";
        std::fs::write(&path, text).expect("written");
        let definition = Definition::load(&path.to_string_lossy()).expect("a definition");
        let cases = cases(&definition, Device::Virtual).expect("legal");
        let found: Vec<_> = cases.iter().map(|case| (case.name.as_str(), case.config.prefetch_blocks, case.config.low_mem_level)).collect();
        let first = "level3-tile8-sdpa-96x64";
        assert_eq!(found, [(first, Some(1), 3), ("prefetch_blocks2", Some(2), 3), ("level0-5frames", None, 0)]);
    }

    fn written(text: &str) -> Definition {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("s.yaml");
        std::fs::write(&path, text).expect("written");
        Definition::load(&path.to_string_lossy()).expect("a definition")
    }

    #[test]
    fn a_case_runs_on_each_gpu_and_is_named_by_it() {
        let definition =
            written("model: wan-tiny\ngpu: [8GB, RTX 4090]\nsweep:\n  low_mem_level: [0, 3]\nexclude:\n  - {gpu: 8GB, low_mem_level: 0}\n");
        let cases = cases(&definition, Device::Virtual).expect("legal");
        let found: Vec<_> = cases.iter().map(|case| (case.name.as_str(), case.gpu.as_deref())).collect();
        let on = |gpu| Some(gpu);
        assert_eq!(found, [("8GB-level3", on("8GB")), ("RTX-4090-level0", on("RTX 4090")), ("RTX-4090-level3", on("RTX 4090"))]);
    }

    #[test]
    fn a_preset_counts_over_what_is_fixed_and_less_than_what_a_case_says() {
        let text = "model: wan-tiny\nframes: 5\nlow_mem_level: 3\npresets:\n  small: {prefetch_blocks: 0, frames: 9}\n  plain: {}\n";
        let of = |more: &str| {
            let cases = cases(&written(&format!("{text}{more}")), Device::Virtual).expect("legal");
            cases.iter().map(|case| (case.name.clone(), case.config.frames, case.config.prefetch_blocks)).collect::<Vec<_>>()
        };
        let wanted = |name: &str, frames, prefetch| (name.to_owned(), frames, Some(prefetch));
        assert_eq!(of("sweep:\n  preset: [plain, small]\n"), [wanted("plain", 5, 1), wanted("small", 9, 0)]);
        assert_eq!(of("preset: small\n"), [wanted("level3-tile8-sdpa-96x64", 9, 0)]);
        assert_eq!(of("cases:\n  - {preset: small, prefetch_blocks: 2}\n"), [wanted("small-prefetch_blocks2", 9, 2)]);
        assert_eq!(of("sweep:\n  preset: [plain, small]\nexclude:\n  - frames: 9\n"), [wanted("plain", 5, 1)], "a preset's values too");
    }

    #[test]
    fn shipped_sweeps_have_distinct_cases() {
        for (name, count, gpus) in [
            ("default", 8, 0),
            ("memory-levels", 24, 0),
            ("hardware", 128, 8),
            ("flags", 46, 0),
            ("combinations", 60, 0),
            ("flexcache", 28, 0),
            ("sage", 24, 0),
            ("several-gpus", 8, 0),
            ("lightning-4", 1, 0),
        ] {
            let definition = Definition::load(name).expect(name);
            let expanded =
                expand(&definition, &Models::load().expect("models"), Rules { device: Device::Virtual, may_shorten: true }).expect(name);
            assert_eq!((expanded.cases.len(), expanded.merged.len(), definition.gpus().len()), (count, 0, gpus), "{name}");
            assert_eq!(expanded.warnings, [""; 0], "{name}");
        }
    }

    #[test]
    fn a_fixed_key_replaces_its_list() {
        let mut definition = Definition::load("full").expect("the full sweep");
        definition.fix("attn_type".into(), "sdpa".into());
        definition.fix("resolution".into(), "480p".into());
        let cases = cases(&definition, Device::Virtual).expect("legal");
        assert_eq!(cases.len(), 1 + 9);
        assert_eq!(cases[1].name, "level1-tile4");
    }

    #[test]
    fn one_case_is_named_by_what_matters() {
        let mut definition = Definition::empty("one");
        definition.fix("model".into(), "wan-tiny".into());
        definition.fix("low_mem_level".into(), 2.into());
        let cases = cases(&definition, Device::Cpu).expect("legal");
        assert_eq!(cases[0].name, "level2-tile8-sdpa-96x64");
        assert_eq!((cases[0].config.dtype, cases[0].config.steps_measured), (Dtype::Fp32, None));
    }

    #[test]
    fn a_sweep_runs_few_steps_unless_it_is_to_run_all() {
        let run = |device, setting: Option<serde_json::Value>| {
            let mut definition = Definition::empty("one");
            definition.fix("model".into(), "wan2.1-t2v-1.3b".into());
            setting.into_iter().for_each(|value| definition.fix("steps_measured".into(), value));
            cases(&definition, device).expect("legal")[0].config.steps_to_run()
        };
        assert_eq!([run(Device::Virtual, None), run(Device::Cuda, None)], [2, 3]);
        assert_eq!([Device::Virtual, Device::Cuda].map(|device| run(device, Some("all".into()))), [50, 50]);
        assert_eq!(run(Device::Cuda, Some(7.into())), 7);
    }

    #[test]
    fn a_sweep_lowers_nothing() {
        let mut definition = Definition::load("full").expect("the full sweep");
        definition.fix("on_oom".into(), "lower".into());
        let error = cases(&definition, Device::Virtual).expect_err("refused").to_string();
        assert!(error.contains("a sweep measures each level as it is: leave it out"), "{error}");
    }

    #[test]
    fn what_the_cpu_cannot_do_is_refused() {
        let mut definition = Definition::empty("one");
        definition.fix("model".into(), "wan-tiny".into());
        definition.fix("attn_type".into(), "mem_efficient".into());
        let error = cases(&definition, Device::Cpu).expect_err("no such kernel").to_string();
        assert!(error.contains("attn_type=mem_efficient has no CPU kernel"), "{error}");
    }
}

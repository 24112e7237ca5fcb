//! A run's verdicts in sentences, and the chosen configuration as a file.

use engine_protocol::{Config, Flag, Group, RunRecord, gib};
use serde_json::Value;

use crate::{Run, Verdict, secs_in_words, summary};

/// One sentence a verdict, and one for the whole run.
pub fn sentences(run: &Run) -> Vec<String> {
    let verdicts = summary::verdicts(run);
    let mut sentences: Vec<String> = verdicts.iter().map(|verdict| sentence(run, verdict)).collect();
    if verdicts.len() > 1
        && let Some(chosen) = summary::overall(&verdicts)
    {
        sentences.push(format!("For all of them: {}.", level_and_flags(run, &chosen.config)));
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
        return format!("{subject}: {}{peak}{time}.", level_and_flags(run, &best.config));
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

/// The flags of a configuration that are not its level's own, on one line; empty where there are none.
pub fn flags(run: &Run, config: &Config) -> String {
    let model = run.manifest.models.iter().find(|model| model.name == config.model);
    model.map(|model| config.flags_beside_level(run.manifest.device, model).join(", ")).unwrap_or_default()
}

/// `level 3 (resident_blocks=10)`: what tells two configurations of one video apart.
pub fn level_and_flags(run: &Run, config: &Config) -> String {
    match flags(run, config).as_str() {
        "" => format!("level {}", config.low_mem_level),
        flags => format!("level {} ({flags})", config.low_mem_level),
    }
}

/// The settings that make a video of the same size and length as `config` does, in the same way: all but what it shows and how much of it was run.
pub fn settings(config: &Config) -> Vec<(&'static str, Value)> {
    let is_told = |flag: &Flag| ![Group::Prompt, Group::Measuring].contains(&flag.group) && flag.key != "on_oom";
    config.settings().into_iter().filter(|(flag, _)| is_told(flag)).map(|(flag, value)| (flag.key, value)).collect()
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

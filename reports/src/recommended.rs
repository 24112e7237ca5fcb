//! `recommended.yaml`: the chosen configuration, ready to be given back, or a comment that says why there is none. What is chosen is judged before.

use untrusted::line;

use crate::advice::settings;
use crate::summary::Summary;

/// The file's text.
pub(crate) fn yaml(summary: &Summary<'_>) -> String {
    let manifest = &summary.run.manifest;
    let from = format!("From the sweep {}, {}.", manifest.sweep, manifest.begun);
    let mut text = String::new();
    for said in [&*from, &*summary.provenance, summary.ranking].into_iter().chain(summary.sentences.iter().map(String::as_str)) {
        text += &format!("# {}\n", line(said));
    }
    match summary.chosen {
        Some(chosen) => {
            text += "# Use it: lowmem generate --config recommended.yaml --prompt TEXT --output FILE.mp4, or lowmem sweep recommended.yaml --gpu GPU\n";
            // A JSON scalar is a YAML scalar.
            settings(&chosen.config).iter().for_each(|(key, value)| text += &format!("{key}: {value}\n"));
        }
        None if summary.run.missing() > 0 => text += "{}\n",
        None if !manifest.gpus.is_empty() => text += "# Several GPUs: each has its own answer above.\n{}\n",
        None => text += "# Nothing to recommend.\n{}\n",
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn a_name_of_several_lines_adds_no_key() {
        let mut run = samples::run(vec![samples::ok("level1", 1, 10)]);
        run.manifest.sweep = "a\nlow_mem_level: 0\r\nseed: 7\u{2028}frames: 5".into();
        let text = yaml(&Summary::of(&run));
        let found: serde_json::Value = serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!((&found["low_mem_level"], &found["frames"]), (&1.into(), &9.into()), "{text}");
    }

    #[test]
    fn without_a_case_that_fits_there_is_nothing_to_recommend() {
        let run = samples::run(vec![samples::oom("level3", 3, 20)]);
        assert!(yaml(&Summary::of(&run)).ends_with("# Nothing to recommend.\n{}\n"));
    }
}

//! `recommended.yaml`: the chosen configuration, ready to be given back, or a comment that says why there is none. What is chosen is judged before.

use crate::advice::settings;
use crate::summary::Summary;

/// The file's text.
pub(crate) fn yaml(summary: &Summary<'_>) -> String {
    let manifest = &summary.run.manifest;
    let mut text = format!("# From the sweep {}, {}.\n", manifest.sweep, manifest.begun);
    text += &format!("# {}\n# {}\n", summary.provenance, summary.ranking);
    for sentence in &summary.sentences {
        text += &format!("# {sentence}\n");
    }
    match summary.chosen {
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
    use super::*;
    use crate::samples;

    #[test]
    fn without_a_case_that_fits_there_is_nothing_to_recommend() {
        let run = samples::run(vec![samples::oom("level3", 3, 20)]);
        assert!(yaml(&Summary::of(&run)).ends_with("# Nothing to recommend.\n{}\n"));
    }
}

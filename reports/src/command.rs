//! Command lines that people copy: each word quoted where a shell asks for it.

use engine_protocol::{Config, Device, ModelSpec, RunRecord, setting_text};

use crate::advice::{are_unlike, rank_gpus, settings};

/// Settings that a command says even where they are the defaults.
const SAID: [&str; 4] = ["resolution", "frames", "low_mem_level", "attn_type"];

/// The command that makes a video with these settings: those that the level and the model do not give anyway.
pub fn generate_line(record: &RunRecord, device: Device, model: Option<&ModelSpec>) -> String {
    generate_line_on(&record.config, &rank_gpus(record), device, model)
}

/// The same for a configuration whose ranks have these cards.
pub fn generate_line_on(config: &Config, gpus: &[&str], device: Device, model: Option<&ModelSpec>) -> String {
    let mut words: Vec<String> = ["lowmem", "generate"].map(Into::into).into();
    if are_unlike(gpus) {
        // Ranks whose cards differ have them by name.
        words.extend(["--gpu".into(), gpus.join(",")]);
    }
    match model.and_then(|model| model.files.as_ref()) {
        Some(files) => words.extend(files.options()),
        None => words.extend(["--model".into(), config.model.clone()]),
    }
    // A run that measured may have had none.
    if model.is_some_and(|model| config.has_image(model)) {
        words.extend(["--image".into(), config.image.clone().unwrap_or_else(|| "picture.png".into())]);
        words.extend(config.last_image.iter().flat_map(|path| ["--last-image".to_owned(), path.clone()]));
    }
    words.extend(["--prompt", &config.prompt, "--output", "video.mp4"].map(Into::into));
    let fewest = model.map(|model| config.fewest_settings(device, model)).unwrap_or_default();
    let is_said = |key: &str| SAID.contains(&key) || fewest.iter().any(|(flag, _)| flag.key == key);
    let settings = settings(config).into_iter().filter(|(key, _)| !["model", "image", "last_image"].contains(key) && is_said(key));
    words.extend(settings.map(|(key, value)| setting_text(key, &value)));
    shell_line(words)
}

/// A command line that a shell takes as it is.
pub fn shell_line(words: impl IntoIterator<Item = String>) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    let quoted = |word: String| {
        if !word.is_empty() && word.chars().all(plain) { word } else { format!("'{}'", word.replace('\'', r"'\''")) }
    };
    words.into_iter().map(quoted).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use engine_protocol::{ImageInput, RankRecord};

    #[test]
    fn a_model_that_needs_a_picture_is_given_one() {
        let record = samples::ok("a", 3, 4);
        let plain = samples::run(Vec::new()).manifest.models.remove(0);
        let pictured = ModelSpec { image: Some(ImageInput::Channels), ..plain.clone() };
        let line = |record: &RunRecord, model| generate_line(record, Device::Virtual, Some(model));
        assert!(!line(&record, &plain).contains("--image"));
        assert!(line(&record, &pictured).contains(" --image picture.png --prompt"));
        let named = RunRecord { config: Config { image: Some("cat.png".into()), ..record.config.clone() }, ..record };
        let line = line(&named, &pictured);
        assert!(line.contains(" --image cat.png --prompt") && line.matches("cat.png").count() == 1, "{line}");
    }

    #[test]
    fn ranks_whose_cards_differ_have_them_by_name() {
        let record = samples::ok("a", 3, 4);
        let on = |gpus: [&str; 2]| {
            let rank = |gpu: &str| RankRecord { gpu: Some(gpu.into()), ..RankRecord::of(&record) };
            generate_line(&RunRecord { ranks: gpus.map(rank).into(), ..record.clone() }, Device::Virtual, None)
        };
        assert!(on(["rtx-4090", "rtx-3090"]).starts_with("lowmem generate --gpu rtx-4090,rtx-3090 --model"));
        assert!(!on(["rtx-4090", "rtx-4090"]).contains("--gpu"));
    }

    #[test]
    fn a_shell_line_keeps_its_words() {
        assert_eq!(shell_line(["a".into(), "b c".into(), "it's".into(), "k=1".into()]), r"a 'b c' 'it'\''s' k=1");
    }
}

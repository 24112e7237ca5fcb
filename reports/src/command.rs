//! Command lines that people copy: each word quoted where a shell asks for it.

use engine_protocol::{Config, Device, ModelSpec, setting_text};

use crate::advice::settings;

/// Settings that a command says even where they are the defaults.
const SAID: [&str; 4] = ["resolution", "frames", "low_mem_level", "attn_type"];

/// The command that makes a video with these settings: those that the level and the model do not give anyway.
pub fn generate_line(config: &Config, device: Device, model: Option<&ModelSpec>) -> String {
    let mut words: Vec<String> = ["lowmem", "generate"].map(Into::into).into();
    match model.and_then(|model| model.files.as_ref()) {
        Some(files) => words.extend(files.options()),
        None => words.extend(["--model".into(), config.model.clone()]),
    }
    // A run that measured had none.
    if config.image.is_none() && model.is_some_and(|model| config.has_image(model)) {
        words.extend(["--image", "picture.png"].map(Into::into));
    }
    words.extend(["--prompt", &config.prompt, "--output", "video.mp4"].map(Into::into));
    let fewest = model.map(|model| config.fewest_settings(device, model)).unwrap_or_default();
    let is_said = |key: &str| SAID.contains(&key) || fewest.iter().any(|(flag, _)| flag.key == key);
    let settings = settings(config).into_iter().filter(|(key, _)| *key != "model" && is_said(key));
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

    #[test]
    fn a_shell_line_keeps_its_words() {
        assert_eq!(shell_line(["a".into(), "b c".into(), "it's".into(), "k=1".into()]), r"a 'b c' 'it'\''s' k=1");
    }
}

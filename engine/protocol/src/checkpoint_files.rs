//! Where a model's weights are: a folder, or files that were named one by one.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a model's weights are. What is not named is empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointFiles {
    /// A checkpoint's folder, which has all the others but what is named beside it.
    pub folder: Option<PathBuf>,
    /// The transformer; of a pool the one for high noise.
    pub transformer: Option<PathBuf>,
    /// The transformer for low noise.
    pub low_noise_transformer: Option<PathBuf>,
    /// The text encoder.
    pub text_encoder: Option<PathBuf>,
    /// The VAE.
    pub vae: Option<PathBuf>,
    /// CLIP's vision encoder, of a model that sees pictures by it.
    pub image_encoder: Option<PathBuf>,
    /// `tokenizer.json` or `spiece.model`.
    pub tokenizer: Option<PathBuf>,
    /// What is added to the transformers.
    pub loras: Vec<LoraFile>,
}

/// A LoRA: a file of changes to a transformer's weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoraFile {
    /// The file.
    pub path: PathBuf,
    /// How many times its changes are added.
    pub strength: f64,
    /// Which of a pool's transformers it is for; both where that is empty.
    #[serde(default)]
    pub noise: Option<Noise>,
}

/// Which of a pool's transformers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Noise {
    /// The one for high noise.
    High,
    /// The one for low noise.
    Low,
}

impl fmt::Display for LoraFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.strength)?;
        match self.noise {
            Some(Noise::High) => f.write_str(":high"),
            Some(Noise::Low) => f.write_str(":low"),
            None => Ok(()),
        }
    }
}

impl FromStr for LoraFile {
    type Err = String;

    /// Reads `FILE`, `FILE:0.8` or `FILE:0.8:high`.
    fn from_str(text: &str) -> Result<Self, String> {
        let noise = |word: &str| match word {
            "high" => Some(Noise::High),
            "low" => Some(Noise::Low),
            _ => None,
        };
        let (rest, noise) = match text.rsplit_once(':').map(|(rest, last)| (rest, noise(last))) {
            Some((rest, Some(noise))) => (rest, Some(noise)),
            _ => (text, None),
        };
        let (path, strength) = match rest.rsplit_once(':').map(|(path, last)| (path, last.parse::<f64>())) {
            Some((path, Ok(strength))) => (path, strength),
            _ => (rest, 1.0),
        };
        if !strength.is_finite() || path.is_empty() {
            return Err("it is FILE, FILE:STRENGTH or FILE:STRENGTH:high (or low)".into());
        }
        Ok(Self { path: path.into(), strength, noise })
    }
}

impl CheckpointFiles {
    /// The checkpoint in `folder`.
    pub fn folder(folder: impl Into<PathBuf>) -> Self {
        Self { folder: Some(folder.into()), ..Self::default() }
    }

    /// The options of a command that name them.
    pub fn options(&self) -> Vec<String> {
        let files = [
            ("checkpoint", &self.folder),
            ("transformer", &self.transformer),
            ("low-noise-transformer", &self.low_noise_transformer),
            ("text-encoder", &self.text_encoder),
            ("vae", &self.vae),
            ("image-encoder", &self.image_encoder),
            ("tokenizer", &self.tokenizer),
        ];
        let named = files.into_iter().filter_map(|(option, path)| Some([format!("--{option}"), path.as_ref()?.display().to_string()]));
        let loras = self.loras.iter().map(|lora| ["--lora".to_owned(), lora.to_string()]);
        named.chain(loras).flatten().collect()
    }

    /// The path that people know them by: the folder, or else the transformer.
    pub fn main(&self) -> Option<&Path> {
        self.folder.as_deref().or(self.transformer.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lora_is_read_as_it_is_written() {
        for (text, path, strength, noise) in [
            ("a.safetensors", "a.safetensors", 1.0, None),
            ("a.safetensors:0.5", "a.safetensors", 0.5, None),
            ("c:/a.safetensors:-1:high", "c:/a.safetensors", -1.0, Some(Noise::High)),
            ("a.safetensors:low", "a.safetensors", 1.0, Some(Noise::Low)),
            ("a:b.safetensors", "a:b.safetensors", 1.0, None),
        ] {
            let lora: LoraFile = text.parse().expect(text);
            assert_eq!(lora, LoraFile { path: path.into(), strength, noise });
            assert_eq!(lora.to_string().parse(), Ok(lora));
        }
        assert!(["", ":0.5", "a:inf"].iter().all(|text| text.parse::<LoraFile>().is_err()));
    }
}

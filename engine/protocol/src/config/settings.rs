//! Settings as people give them: on the command line, in a sweep definition, in the page's spelling or in the short one.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Allocator, AttnType, ConfigError, Dtype, OffloadTextEncoder, OnOom, ResidentBlocks, Sampler, StreamFrom, WeightDtype};

/// Spellings of the page that stand before a key: `infer.diffusion.low_mem_level` is `low_mem_level`.
pub const LONG_SPELLINGS: [&str; 2] = ["infer.diffusion.", "infer."];

/// Everything that can be set, each empty unless given. The memory level fills in the rest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "each field's meaning is documented once, at the field of `Config` that it becomes")]
pub struct Settings {
    pub model: Option<String>,
    pub prompt: Option<String>,
    pub negative_prompt: Option<String>,
    pub seed: Option<i64>,
    pub resolution: Option<String>,
    pub frames: Option<i64>,
    pub steps: Option<i64>,
    pub steps_measured: Option<i64>,
    pub sampler: Option<Sampler>,
    pub guidance_scale: Option<f64>,
    pub low_noise_guidance_scale: Option<f64>,
    pub flow_shift: Option<f64>,
    pub guidance_batch: Option<bool>,
    pub low_mem_level: Option<i64>,
    pub on_oom: Option<OnOom>,
    pub dtype: Option<Dtype>,
    pub weight_dtype: Option<WeightDtype>,
    pub attn_type: Option<AttnType>,
    pub offload_text_encoder: Option<OffloadTextEncoder>,
    pub offload_vae: Option<bool>,
    pub offload_dit: Option<bool>,
    pub resident_blocks: Option<ResidentBlocks>,
    pub prefetch_blocks: Option<i64>,
    pub pinned_memory: Option<bool>,
    pub max_pinned_gib: Option<f64>,
    pub stream_from: Option<StreamFrom>,
    pub sequence_chunk: Option<i64>,
    pub head_chunk: Option<i64>,
    pub allocator: Option<Allocator>,
    pub vae_tiling: Option<bool>,
    pub vae_tile_size: Option<i64>,
    pub vae_tile_overlap: Option<i64>,
    pub vae_temporal_chunk: Option<i64>,
    pub activation_offload: Option<bool>,
    pub cp_size: Option<i64>,
    pub flexcache: Option<String>,
    pub gradient_checkpointing: Option<bool>,
}

impl Settings {
    /// Settings from keys and values, keys in either spelling. Later ones win.
    ///
    /// # Errors
    /// An unknown key, with the nearest known one, or a value of the wrong kind, with the key.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (String, Value)>) -> Result<Self, ConfigError> {
        let mut settings = Settings::default();
        for (key, value) in pairs {
            settings.set(&key, value)?;
        }
        Ok(settings)
    }

    /// Sets one key, in either spelling.
    ///
    /// # Errors
    /// An unknown key, with the nearest known one, or a value of the wrong kind, with the key.
    pub fn set(&mut self, key: &str, value: Value) -> Result<(), ConfigError> {
        let short = short_key(key)?;
        let shown = value.to_string();
        let one = serde_json::Map::from_iter([(short.clone(), value)]);
        let parsed: Settings = serde_json::from_value(Value::Object(one))
            .map_err(|error| ConfigError::new(format!("{key}={shown}: {error}"), "give a value of that kind"))?;
        let Ok(Value::Object(mut all)) = serde_json::to_value(&*self) else { unreachable!("settings are an object") };
        let Ok(Value::Object(new)) = serde_json::to_value(parsed) else { unreachable!("settings are an object") };
        all.extend(new.into_iter().filter(|(name, _)| *name == short));
        *self = serde_json::from_value(Value::Object(all)).expect("settings that were read are read again");
        Ok(())
    }
}

/// All keys, in their short spelling.
pub fn setting_names() -> Vec<String> {
    let Ok(Value::Object(all)) = serde_json::to_value(Settings::default()) else { unreachable!("settings are an object") };
    all.into_iter().map(|(name, _)| name).collect()
}

/// The short spelling of a key.
///
/// # Errors
/// An unknown key, with the nearest known one.
pub fn short_key(key: &str) -> Result<String, ConfigError> {
    let short = LONG_SPELLINGS.iter().find_map(|prefix| key.strip_prefix(prefix)).unwrap_or(key);
    let names = setting_names();
    if names.iter().any(|name| name == short) {
        return Ok(short.to_owned());
    }
    let nearest = names.iter().max_by(|a, b| strsim::jaro_winkler(a, short).total_cmp(&strsim::jaro_winkler(b, short)));
    let nearest = nearest.filter(|name| strsim::jaro_winkler(name, short) > 0.7);
    let remedy = match nearest {
        Some(name) => format!("did you mean `{name}`? known keys: {}", names.join(", ")),
        None => format!("known keys: {}", names.join(", ")),
    };
    Err(ConfigError::new(format!("unknown key `{key}`"), remedy))
}

/// `key=value` as the command line has it. The value is a number, `true`, `false`, or else a text.
///
/// # Errors
/// No `=`, or an unknown key.
pub fn parse_setting(text: &str) -> Result<(String, Value), ConfigError> {
    let (key, value) =
        text.split_once('=').ok_or_else(|| ConfigError::new(format!("`{text}` is not key=value"), "write it as key=value"))?;
    let key = short_key(key.trim())?;
    let value = value.trim();
    // Texts stay texts even where they look like a number.
    let is_text = ["model", "prompt", "negative_prompt", "resolution", "flexcache"].contains(&key.as_str());
    let parsed = serde_json::from_str::<Value>(value).ok().filter(|v| !is_text && (v.is_number() || v.is_boolean()));
    Ok((key, parsed.unwrap_or_else(|| Value::String(value.to_owned()))))
}

/// `1280x720`, `720p` or `480p` as width and height.
///
/// # Errors
/// Anything else.
pub fn parse_resolution(text: &str) -> Result<[u32; 2], ConfigError> {
    match text {
        "480p" => return Ok([832, 480]),
        "720p" => return Ok([1280, 720]),
        _ => {}
    }
    let sides = text.split_once('x').and_then(|(w, h)| Some([w.parse().ok()?, h.parse().ok()?]));
    sides.ok_or_else(|| ConfigError::new(format!("resolution=`{text}` is not WIDTHxHEIGHT"), "write it as 832x480, 1280x720, 480p or 720p"))
}

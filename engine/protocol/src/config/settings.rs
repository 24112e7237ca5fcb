//! Settings as people give them: on the command line, in a sweep definition, in the page's spelling or in the short one.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::error::ConfigError;
use super::table::{FLAGS, Flag, Settings};
use crate::flag_values::{Kind, told};

/// What stands before a key in the page's spelling: `infer.diffusion.low_mem_level` is `low_mem_level`.
const LONG_SPELLINGS: [&str; 3] = ["infer.diffusion.", "infer.", "diffusion."];

/// What stands under `flexcache` in the page's system, and which flag that is: facts from `chitu_diffusion/flexcache/params.py` of thu-pacman/ChituDiffusion@f836afa.
const UNDER_FLEXCACHE: [(&str, &str); 13] = [
    ("strategy", "flexcache"),
    ("warmup", "flexcache_warmup"),
    ("cooldown", "flexcache_cooldown"),
    ("teacache_thresh", "flexcache_threshold"),
    ("tol", "flexcache_threshold"),
    ("jvp_order", "flexcache_order"),
    ("fresh_steps", "flexcache_fresh_steps"),
    ("boundary_block", "flexcache_block"),
    ("group_size", "flexcache_interval"),
    ("fresh_threshold", "flexcache_interval"),
    ("skip_self_range", "flexcache_interval"),
    ("skip_cross_range", "flexcache_cross_interval"),
    ("max_order", "flexcache_order"),
];

impl Settings {
    /// Settings from keys and values, keys in either spelling. Later ones win.
    ///
    /// # Errors
    /// An unknown key, with the nearest known one, or a value that the flag does not take, with those that it takes.
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
    /// An unknown key, with the nearest known one, or a value that the flag does not take, with those that it takes.
    pub fn set(&mut self, key: &str, value: Value) -> Result<(), ConfigError> {
        let flag = flag(key)?;
        let value = flag.read(&value)?;
        flag.set(self, &value);
        Ok(())
    }

    /// Keys and values that are given, in the order of the table.
    pub fn pairs(&self) -> impl Iterator<Item = (&'static str, Value)> + '_ {
        FLAGS.iter().filter_map(|flag| Some((flag.key, flag.of_settings(self)?)))
    }

    /// Every value is in its flag's range. [`Settings::set`] sees to that too; a field that was written directly has nobody else.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        FLAGS.iter().filter_map(|flag| Some((flag, flag.of_settings(self)?))).try_for_each(|(flag, value)| flag.read(&value).map(|_| ()))
    }
}

impl Serialize for Settings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.pairs().map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Settings {
    /// A map of keys in either spelling; the page's may be nested: `infer: {diffusion: {low_mem_level: 2}}`.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pairs = Map::deserialize(deserializer)?.into_iter().flat_map(|(key, value)| flattened(key, value));
        Self::from_pairs(pairs).map_err(D::Error::custom)
    }
}

/// The keys under a key of the page's nested spelling, each with what stands before it. Any other key stays as it is.
pub fn flattened(key: String, value: Value) -> Vec<(String, Value)> {
    match value {
        Value::Object(under) if short(&key) == "flexcache" || LONG_SPELLINGS.iter().any(|prefix| prefix.trim_end_matches('.') == key) => {
            under.into_iter().flat_map(|(name, value)| flattened(format!("{key}.{name}"), value)).collect()
        }
        value => vec![(key, value)],
    }
}

/// The keys that stand under `flexcache` in the page's spelling, and the flag of each.
pub fn under_flexcache() -> impl Iterator<Item = (&'static str, &'static Flag)> {
    UNDER_FLEXCACHE.iter().flat_map(|(name, key)| FLAGS.iter().find(|flag| flag.key == *key).map(|flag| (*name, flag)))
}

/// A key without what the page's spelling has before it.
fn short(key: &str) -> &str {
    LONG_SPELLINGS.iter().find_map(|prefix| key.strip_prefix(prefix)).unwrap_or(key)
}

/// The flag of a key, in either spelling.
///
/// # Errors
/// An unknown key, with the nearest known one.
pub fn flag(key: &str) -> Result<&'static Flag, ConfigError> {
    let short = short(key);
    let nested = short.strip_prefix("flexcache.").and_then(|name| UNDER_FLEXCACHE.iter().find(|(under, _)| *under == name));
    let short = nested.map_or(short, |(_, flag)| flag);
    if let Some(flag) = FLAGS.iter().find(|flag| flag.key == short) {
        return Ok(flag);
    }
    let likeness = |flag: &&Flag| strsim::jaro_winkler(flag.key, short);
    let nearest = FLAGS.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).filter(|flag| likeness(flag) > 0.7);
    let remedy = match nearest {
        Some(flag) => format!("did you mean `{}`? `lowmem flags` lists all", flag.key),
        None => "`lowmem flags` lists all".into(),
    };
    Err(ConfigError::new(format!("unknown key `{key}`"), remedy))
}

/// `key=value` as the command line has it: the key in its short spelling, and the value as it is told.
///
/// # Errors
/// No `=`, an unknown key, a value that the flag does not take, or several of them.
pub fn parse_setting(text: &str) -> Result<(String, Value), ConfigError> {
    let (key, mut values) = parse_values(text)?;
    match (values.pop(), values.len()) {
        (Some(value), 0) => Ok((key, value)),
        _ => Err(ConfigError::new(format!("`{text}`: {key} takes one value here"), "several values, with commas, are for lowmem sweep")),
    }
}

/// As [`parse_setting`], of one or more values with commas between them: `low_mem_level=2,3`. A comma in a prompt is a part of it.
///
/// # Errors
/// No `=`, an unknown key, or a value that the flag does not take.
pub fn parse_values(text: &str) -> Result<(String, Vec<Value>), ConfigError> {
    let (key, value) =
        text.split_once('=').ok_or_else(|| ConfigError::new(format!("`{text}` is not key=value"), "write it as key=value"))?;
    let flag = flag(key.trim())?;
    let read = |word: &str| flag.read(&Value::from(word.trim()));
    let values = if matches!(flag.kind, Kind::Text | Kind::Levels) {
        vec![read(value)?]
    } else {
        value.split(',').map(read).collect::<Result<_, _>>()?
    };
    Ok((flag.key.to_owned(), values))
}

/// `key=value` as it is written on a command line.
pub fn setting_text(key: &str, value: &Value) -> String {
    format!("{key}={}", told(value))
}

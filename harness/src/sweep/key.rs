//! Keys of a definition: those of flags, and the two that stand for more than one flag.

use engine_protocol::{ConfigError, Flag, flag, told};
use serde_json::Value;

/// The key of what cases run on.
pub(crate) const GPU: &str = "gpu";
/// The key whose value names a set of flags under `presets`.
pub(crate) const PRESET: &str = "preset";

/// What a key stands for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Key {
    Gpu,
    Preset,
    Flag(&'static Flag),
}

impl Key {
    /// Of its text, a flag's in either spelling.
    pub(super) fn of(text: &str) -> Result<Self, ConfigError> {
        match text {
            GPU => Ok(Self::Gpu),
            PRESET => Ok(Self::Preset),
            other => Ok(Self::Flag(flag(other)?)),
        }
    }

    /// As messages and cases call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gpu => GPU,
            Self::Preset => PRESET,
            Self::Flag(flag) => flag.key,
        }
    }

    /// A value as it is kept. Which GPUs and presets there are is known elsewhere.
    pub(super) fn read(self, value: &Value) -> Result<Value, ConfigError> {
        let name = |example: &str| match value {
            Value::String(text) if !text.trim().is_empty() => Ok(text.trim().into()),
            Value::Number(number) => Ok(number.to_string().into()),
            other => Err(ConfigError::new(format!("{}={}: there is no such value", self.name(), told(other)), format!("use {example}"))),
        };
        match self {
            Self::Gpu => name("a size or a card: 24GB, rtx-4090"),
            Self::Preset => name("the name of a set under `presets`"),
            Self::Flag(flag) => flag.read(value),
        }
    }
}

//! Noise levels as people write them: `1, 0.9375, 0.8333, 0.625`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::value::{FlagValue, Kind, text};

/// The noise level at each sampler step, from 1 down.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sigmas(Vec<f64>);

impl Sigmas {
    /// The levels, one a step.
    pub fn levels(&self) -> &[f64] {
        &self.0
    }
}

impl FlagValue for Sigmas {
    fn kind() -> Kind {
        Kind::Levels
    }

    /// Two or more, each smaller than the one before, none above 1 and all above 0. One by itself is refused: a list in YAML is several values of a flag.
    fn read(value: &Value) -> Option<Self> {
        let levels: Vec<f64> = text(value)?.split(',').map(|level| level.trim().parse().ok()).collect::<Option<_>>()?;
        let are_levels = levels.iter().all(|level| *level > 0.0 && *level <= 1.0) && levels.is_sorted_by(|a, b| a > b);
        (levels.len() > 1 && are_levels).then_some(Self(levels))
    }

    fn tell(&self) -> Value {
        Value::from(self.0.iter().map(f64::to_string).collect::<Vec<_>>().join(", "))
    }
}

impl Serialize for Sigmas {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Sigmas {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self)
    }
}

impl JsonSchema for Sigmas {
    fn schema_name() -> Cow<'static, str> {
        "Sigmas".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "array", "items": { "type": "number" } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_fall_from_one() {
        let read = |text: &str| Sigmas::read(&Value::from(text));
        let levels = read("1, 0.9375,0.625").expect("levels");
        assert_eq!(levels.levels(), [1.0, 0.9375, 0.625]);
        assert_eq!(Sigmas::read(&levels.tell()), Some(levels));
        for wrong in ["", "1", "1, 1", "0.5, 0.6", "1.5, 1", "1, 0", "1, NaN", "1; 0.5"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}

//! How a flag's value is read and told: one trait for numbers, switches, words and texts.

use schemars::{Schema, json_schema};
use serde_json::Value;

/// What values a flag takes: for reading, for documentation, for the schema of sweep files, and for tests that draw values at random.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A name: a text without commas.
    Name,
    /// Yes or no.
    Switch,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// One of these words, each with what it means.
    Word(Vec<(&'static str, &'static str)>),
    /// One of these words; a switch means one of them too.
    WordOrSwitch(Vec<(&'static str, &'static str)>),
    /// A whole number, or one of these words.
    IntegerOrWord(Vec<(&'static str, &'static str)>),
    /// Numbers from 1 down, with commas between them.
    Levels,
    /// Whole numbers with colons between them, or one of these words.
    SharesOrWord(Vec<(&'static str, &'static str)>),
    /// Width and height in pixels, or one of these names of a pair, each with what it stands for.
    Size(Vec<(&'static str, &'static str)>),
}

impl Kind {
    /// What stands in JSON, as [`FlagValue::tell`] gives it. What is read may be written in more ways.
    pub fn json_schema(&self) -> Schema {
        let names = |words: &[(&str, &str)]| words.iter().map(|(word, _)| Value::from(*word)).collect::<Vec<_>>();
        match self {
            Kind::Text | Kind::Name | Kind::Levels => json_schema!({ "type": "string" }),
            Kind::Switch => json_schema!({ "type": "boolean" }),
            Kind::Integer => json_schema!({ "type": "integer" }),
            Kind::Number => json_schema!({ "type": "number" }),
            Kind::Word(words) => json_schema!({ "enum": names(words) }),
            Kind::WordOrSwitch(words) => {
                let all = [names(words), vec![true.into(), false.into()]].concat();
                json_schema!({ "enum": all })
            }
            Kind::IntegerOrWord(words) => json_schema!({ "anyOf": [{ "type": "integer", "minimum": 0 }, { "enum": names(words) }] }),
            Kind::SharesOrWord(_) => json_schema!({ "type": "string" }),
            Kind::Size(_) => json_schema!({ "type": "string", "pattern": "^[0-9]+x[0-9]+$" }),
        }
    }

    /// What to write, in words: what stands in an error after "use".
    pub fn words(&self) -> String {
        match self {
            Kind::Text => "a text".into(),
            Kind::Name => "a name".into(),
            Kind::Levels => "two or more falling numbers from 1 down in one text, such as \"1, 0.9375, 0.8333, 0.625\"".into(),
            Kind::SharesOrWord(words) => format!("{}, or shares such as 3:1", either(words)),
            Kind::Switch => "true or false".into(),
            Kind::Integer => "a whole number".into(),
            Kind::Number => "a number".into(),
            Kind::Word(words) | Kind::WordOrSwitch(words) => either(words),
            Kind::IntegerOrWord(words) => format!("a whole number or {}", either(words)),
            Kind::Size(names) => format!("WIDTHxHEIGHT, {}", either(names)),
        }
    }
}

/// `a, b or c`.
fn either(words: &[(&str, &str)]) -> String {
    let names: Vec<_> = words.iter().map(|(name, _)| *name).collect();
    match names.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

/// The value of a flag: read from what people write, and told so that it is read again as the same.
pub trait FlagValue: Sized {
    /// What values there are.
    fn kind() -> Kind;

    /// Reads what stands in YAML, in JSON or, as a text, on the command line. None where it is no such value.
    fn read(value: &Value) -> Option<Self>;

    /// The value as it is told: what [`FlagValue::read`] takes.
    fn tell(&self) -> Value;

    /// Whether it asks for nothing, so that nobody has to hear that it has no effect.
    fn asks_for_nothing(&self) -> bool {
        false
    }
}

impl FlagValue for String {
    fn kind() -> Kind {
        Kind::Text
    }

    fn read(value: &Value) -> Option<Self> {
        text(value)
    }

    fn tell(&self) -> Value {
        Value::from(self.as_str())
    }
}

impl FlagValue for bool {
    fn kind() -> Kind {
        Kind::Switch
    }

    fn read(value: &Value) -> Option<Self> {
        match text(value)?.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Some(true),
            "false" | "no" | "off" | "0" => Some(false),
            _ => None,
        }
    }

    fn tell(&self) -> Value {
        Value::from(*self)
    }

    fn asks_for_nothing(&self) -> bool {
        !self
    }
}

macro_rules! integer_values {
    ($($type:ty),*) => { $(
        impl FlagValue for $type {
            fn kind() -> Kind {
                Kind::Integer
            }

            fn read(value: &Value) -> Option<Self> {
                text(value)?.parse().ok()
            }

            fn tell(&self) -> Value {
                Value::from(*self)
            }

            fn asks_for_nothing(&self) -> bool {
                *self == 0
            }
        }
    )* };
}

integer_values!(u8, u32, i64);

impl FlagValue for f64 {
    fn kind() -> Kind {
        Kind::Number
    }

    fn read(value: &Value) -> Option<Self> {
        text(value)?.parse().ok().filter(|number: &f64| number.is_finite())
    }

    fn tell(&self) -> Value {
        // 4.0 is written 4, as people do.
        if self.fract() == 0.0 && self.abs() < 1e15 { Value::from(*self as i64) } else { Value::from(*self) }
    }

    fn asks_for_nothing(&self) -> bool {
        *self == 0.0
    }
}

/// A value as it is written after `key=`.
pub fn told(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A scalar as it is written. None for a list, a map or nothing.
pub(crate) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// A type whose values are words: the names on the command line, in YAML and in records, written once. The first one is what holds unless another is
/// given.
macro_rules! words {
    ($(#[doc = $about:literal])+ $name:ident { $($(#[doc = $doc:literal])+ $variant:ident = $word:literal,)+ }) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        pub enum $name {
            $($(#[doc = $doc])+ #[serde(rename = $word)] $variant,)+
        }

        impl Default for $name {
            fn default() -> Self {
                Self::ALL[0]
            }
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name on the command line.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            fn named(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|known| known.name() == word)
            }

            fn words() -> Vec<(&'static str, &'static str)> {
                vec![$(($word, concat!($($doc),+).trim_ascii())),+]
            }
        }
    };
    // Where yes and no mean one of the words each: the page writes them, and YAML takes `off` for no.
    (switch($yes:ident, $no:ident) $(#[doc = $about:literal])+ $name:ident { $($rest:tt)+ }) => {
        words! { $(#[doc = $about])+ $name { $($rest)+ } }

        impl super::value::FlagValue for $name {
            fn kind() -> super::value::Kind {
                super::value::Kind::WordOrSwitch(Self::words())
            }

            fn read(value: &serde_json::Value) -> Option<Self> {
                let switch = || bool::read(value).map(|yes| if yes { Self::$yes } else { Self::$no });
                Self::named(&super::value::text(value)?).or_else(switch)
            }

            fn tell(&self) -> serde_json::Value {
                serde_json::Value::from(self.name())
            }
        }
    };
    // Where a word is all that can be written.
    (only $(#[doc = $about:literal])+ $name:ident { $($rest:tt)+ } $(nothing: $nothing:ident)?) => {
        words! { $(#[doc = $about])+ $name { $($rest)+ } }

        impl super::value::FlagValue for $name {
            fn kind() -> super::value::Kind {
                super::value::Kind::Word(Self::words())
            }

            fn read(value: &serde_json::Value) -> Option<Self> {
                Self::named(&super::value::text(value)?)
            }

            fn tell(&self) -> serde_json::Value {
                serde_json::Value::from(self.name())
            }

            $(fn asks_for_nothing(&self) -> bool {
                *self == Self::$nothing
            })?
        }
    };
}

pub(super) use words;

//! How much a JSON text holds, found without keeping any of it.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::limits::JsonLimits;

/// Refuses a JSON text that holds more than `limits` allow, before anything is made of it. One that is no JSON is refused by whoever parses it.
///
/// # Errors
/// What there is too much of, and how much there may be.
pub(crate) fn check_extent(text: &[u8], limits: JsonLimits) -> Result<(), String> {
    let JsonLimits { kind, bytes, values, text: most_text } = limits;
    if text.len() as u64 > bytes {
        return Err(format!("{} bytes, and a {kind} has at most {bytes}", text.len()));
    }
    let mut extent = Extent { values: 0, text: 0, limits };
    // What is no JSON ends here too, and has not gone beyond anything until then.
    let _ = Count(&mut extent).deserialize(&mut serde_json::Deserializer::from_slice(text));
    if extent.values > values {
        return Err(format!("more than {values} values, which no {kind} has"));
    }
    if extent.text > most_text {
        return Err(format!("more than {most_text} bytes of text, which no {kind} has"));
    }
    Ok(())
}

/// How many values a part of a JSON text holds, itself included.
pub(super) struct Values(pub(super) u64);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let limits = JsonLimits { kind: "", bytes: u64::MAX, values: u64::MAX, text: u64::MAX };
        let mut extent = Extent { values: 0, text: 0, limits };
        Count(&mut extent).deserialize(deserializer)?;
        Ok(Self(extent.values))
    }
}

struct Extent {
    values: u64,
    text: u64,
    limits: JsonLimits,
}

impl Extent {
    fn add<E: serde::de::Error>(&mut self, values: u64, text: usize) -> Result<(), E> {
        self.values += values;
        self.text += text as u64;
        let is_within = self.values <= self.limits.values && self.text <= self.limits.text;
        if is_within { Ok(()) } else { Err(E::custom("too much")) }
    }
}

/// Counts a value and all in it.
struct Count<'a>(&'a mut Extent);

impl<'de> DeserializeSeed<'de> for Count<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.0.add(1, 0)?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Count<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.0.add(0, text.len())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Count(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_key_seed(Key(self.0))?.is_some() {
            items.next_value_seed(Count(self.0))?;
        }
        Ok(())
    }
}

/// Counts a key, whose text is all that there is to it.
struct Key<'a>(&'a mut Extent);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(Count(self.0)).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: JsonLimits = JsonLimits { kind: "config", bytes: 100, values: 6, text: 5 };

    #[test]
    fn values_texts_and_bytes_are_limited_each_by_itself() {
        assert_eq!(check_extent(br#"{"ab": [1, null, true], "c": "de"}"#, LIMITS), Ok(()));
        for (text, said) in [
            (r#"{"ab": [1, null, true, {}], "c": 1.5}"#, "more than 6 values, which no config has"),
            (r#"{"ab": ["cdef"]}"#, "more than 5 bytes of text, which no config has"),
            (r#"{"abcdef": -1}"#, "more than 5 bytes of text, which no config has"),
            (&" ".repeat(101), "101 bytes, and a config has at most 100"),
        ] {
            assert_eq!(check_extent(text.as_bytes(), LIMITS), Err(said.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_no_json_is_left_to_the_parser() {
        for text in ["", "{", "[1,", "nonsense", "[[[[[[[[[["] {
            assert!(check_extent(text.as_bytes(), LIMITS).is_ok() || text.starts_with("[["), "{text}");
        }
    }
}

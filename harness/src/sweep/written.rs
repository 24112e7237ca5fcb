//! A definition's file as it is written: its sections, each key with its place.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;
use serde_yaml::Spanned;

/// The key whose lists are combined.
pub(super) const SWEEP: &str = "sweep";
/// The key whose lists are walked together: all first values are one case, all second ones the next.
pub(super) const ZIP: &str = "zip";
/// The key of combinations that are left out.
pub(super) const EXCLUDE: &str = "exclude";
/// The key of what is run one after the other, each with keys of its own.
pub(super) const CASES: &str = "cases";
/// The key of sets of flags, each with a name.
pub(super) const PRESETS: &str = "presets";

const SECTIONS: [&str; 5] = [SWEEP, ZIP, CASES, EXCLUDE, PRESETS];

/// The file as it is written.
#[derive(Default)]
pub(super) struct Written {
    pub(super) fixed: Vec<(Spanned<String>, Value)>,
    pub(super) cases: Vec<Entries>,
    pub(super) excluded: Vec<Entries>,
    pub(super) lists: Vec<(Spanned<String>, Value)>,
    pub(super) zipped: Vec<(Spanned<String>, Value)>,
    pub(super) presets: Vec<(Spanned<String>, Entries)>,
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Top;
        impl<'de> Visitor<'de> for Top {
            type Value = Written;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("keys and values, `model: wan2.1-t2v-14b` for example")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Written, A::Error> {
                let mut written = Written::default();
                let mut sections = Vec::new();
                while let Some(key) = map.next_key::<Spanned<String>>()? {
                    let Some(section) = SECTIONS.into_iter().find(|section| *section == key.value) else {
                        written.fixed.push((key, map.next_value()?));
                        continue;
                    };
                    if sections.contains(&section) {
                        return Err(A::Error::custom(format!("`{section}` is given twice")));
                    }
                    sections.push(section);
                    match section {
                        SWEEP => written.lists = map.next_value::<Entries>()?.0,
                        ZIP => written.zipped = map.next_value::<Entries>()?.0,
                        CASES => written.cases = map.next_value()?,
                        PRESETS => written.presets = map.next_value::<Entries<Entries>>()?.0,
                        _ => written.excluded = map.next_value()?,
                    }
                }
                Ok(written)
            }
        }
        deserializer.deserialize_map(Top)
    }
}

/// Keys and values in order, with their places.
pub(super) struct Entries<T = Value>(pub(super) Vec<(Spanned<String>, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Under<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Under<T> {
            type Value = Entries<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("keys: lists under `sweep`, `low_mem_level: [0, 1]` for example, and values in each of `cases` and `presets`")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Under(PhantomData))
    }
}

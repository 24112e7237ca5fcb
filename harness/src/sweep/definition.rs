//! A sweep definition as it is written, with the place of every key.

use std::fmt;
use std::path::{Path, PathBuf};

use engine_protocol::{ConfigError, Flag, flattened};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;
use serde_yaml::{Location, Spanned};

use crate::data;
use crate::error::Error;

/// The key whose lists are combined.
pub(super) const SWEEP: &str = "sweep";
/// The key whose lists are walked together: all first values are one case, all second ones the next.
pub(super) const ZIP: &str = "zip";
/// The key of combinations that are left out.
pub(super) const EXCLUDE: &str = "exclude";
/// The key of what is run one after the other, each with keys of its own.
pub(super) const CASES: &str = "cases";

/// A definition: fixed values, cases with values of their own, lists that are walked together, and lists of which every combination is a case.
#[derive(Debug, Clone)]
pub(crate) struct Definition {
    /// Its name: the file's, without the ending.
    pub(crate) name: String,
    /// The text that it was read from.
    pub(crate) text: String,
    path: PathBuf,
    fixed: Vec<Entry>,
    cases: Vec<Vec<Entry>>,
    lists: Vec<(Entry, Vec<Value>)>,
    zipped: Vec<(Entry, Vec<Value>)>,
    excluded: Vec<Vec<Entry>>,
}

/// A key with its place; its value, where it has one of its own.
#[derive(Debug, Clone)]
struct Entry {
    key: String,
    value: Value,
    /// Line and column; empty where it came from the command line.
    place: Option<(u64, u64)>,
}

impl Definition {
    /// Reads the definition in the file `word`, or of that name (`data` says where it is looked for).
    pub(crate) fn load(word: &str) -> Result<Self, Error> {
        let file =
            data::find(word)?.ok_or_else(|| Error::input(format!("{word}: no such sweep definition, neither a file nor one of ours")))?;
        Self::parse(&file.path, file.text.into_owned())
    }

    /// A definition of fixed values alone.
    pub(crate) fn empty(name: &str) -> Self {
        Self::without_keys(name.into(), String::new(), PathBuf::new())
    }

    fn without_keys(name: String, text: String, path: PathBuf) -> Self {
        Self { name, text, path, fixed: Vec::new(), cases: Vec::new(), lists: Vec::new(), zipped: Vec::new(), excluded: Vec::new() }
    }

    fn parse(path: &Path, text: String) -> Result<Self, Error> {
        let written: Written = data::parse(path, &text)?;
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let mut definition = Self::without_keys(name, text, path.to_owned());
        for (key, value) in written.fixed {
            let entries = definition.values(&key, value)?;
            definition.fixed.extend(entries);
        }
        let of_one = |definition: &Self, Entries(entries): Entries| {
            let values = entries.into_iter().map(|(key, value)| definition.values(&key, value));
            Ok(values.collect::<Result<Vec<_>, Error>>()?.concat())
        };
        definition.cases = written.cases.into_iter().map(|case| of_one(&definition, case)).collect::<Result<_, Error>>()?;
        definition.excluded = written.excluded.into_iter().map(|case| of_one(&definition, case)).collect::<Result<_, Error>>()?;
        let of_lists = |definition: &Self, lists: Vec<(Spanned<String>, Value)>| {
            let lists = lists.into_iter().map(|(key, value)| definition.lists_under(&key, value));
            Ok::<_, Error>(lists.collect::<Result<Vec<_>, Error>>()?.into_iter().flatten().collect::<Vec<_>>())
        };
        definition.lists = of_lists(&definition, written.lists)?;
        definition.zipped = of_lists(&definition, written.zipped)?;
        definition.check_twice()?;
        definition.check_lengths()?;
        Ok(definition)
    }

    /// The entries of a key that has one value, or of the page's nested spelling.
    fn values(&self, key: &Spanned<String>, value: Value) -> Result<Vec<Entry>, Error> {
        let one = |(flag, mut entry): (&Flag, Entry)| {
            if entry.value.is_array() || entry.value.is_object() {
                return Err(self.at(&entry, &format!("{} takes one value: lists stand under `sweep:`", entry.key)));
            }
            entry.value = flag.read(&entry.value).map_err(|error| self.at(&entry, &error.to_string()))?;
            Ok(entry)
        };
        self.entries(key, value)?.into_iter().map(one).collect()
    }

    /// The lists of a key that has one, or of the page's nested spelling.
    fn lists_under(&self, key: &Spanned<String>, value: Value) -> Result<Vec<(Entry, Vec<Value>)>, Error> {
        let one = |(flag, entry): (&Flag, Entry)| {
            let values = match &entry.value {
                Value::Array(values) if values.is_empty() => {
                    return Err(self.at(&entry, &format!("{} has no values: an empty list has no combinations", entry.key)));
                }
                Value::Array(values) => values.iter().map(|value| flag.read(value)).collect::<Result<_, _>>(),
                Value::String(text) if range(text).is_some() => {
                    range(text).unwrap_or_default().into_iter().map(|number| flag.read(&number.into())).collect()
                }
                other => return Err(self.at(&entry, &format!("{0} takes a list here: write `{0}: [{other}]`", entry.key))),
            };
            let values = values.map_err(|error| self.at(&entry, &error.to_string()))?;
            Ok((entry, values))
        };
        self.entries(key, value)?.into_iter().map(one).collect()
    }

    fn entries(&self, key: &Spanned<String>, value: Value) -> Result<Vec<(&'static Flag, Entry)>, Error> {
        let place = place(&key.referenced);
        let one = |(key, value): (String, Value)| match engine_protocol::flag(&key) {
            Ok(flag) => Ok((flag, Entry { key: flag.key.into(), value, place })),
            Err(error) => Err(self.at(&Entry { key, value, place }, &error.to_string())),
        };
        flattened(key.value.clone(), value).into_iter().map(one).collect()
    }

    /// The same key in both spellings, or in a list and elsewhere, is a mistake. What a case fixes may be fixed for the others too.
    fn check_twice(&self) -> Result<(), Error> {
        let lists = || self.lists.iter().chain(&self.zipped).map(|(entry, _)| entry);
        let together = std::iter::once(&self.fixed).chain(&self.cases).map(|entries| entries.iter().chain(lists()).collect::<Vec<_>>());
        for entries in together {
            for (index, entry) in entries.iter().enumerate() {
                if entries[..index].iter().any(|earlier| earlier.key == entry.key) {
                    return Err(self.at(entry, &format!("{} is given twice: remove one", entry.key)));
                }
            }
        }
        Ok(())
    }

    /// Lists that are walked together are equally long.
    fn check_lengths(&self) -> Result<(), Error> {
        let Some((first, values)) = self.zipped.first() else { return Ok(()) };
        match self.zipped.iter().find(|(_, other)| other.len() != values.len()) {
            Some((entry, other)) => {
                let lengths = format!("{} has {} values and {} has {}", first.key, values.len(), entry.key, other.len());
                Err(self.at(entry, &format!("{lengths}: lists under `{ZIP}` are walked together, so give each as many")))
            }
            None => Ok(()),
        }
    }

    /// Fixes a key, whatever the definition says about it.
    pub(crate) fn fix(&mut self, key: String, value: Value) {
        self.forget(&key);
        self.fixed.push(Entry { key, value, place: None });
    }

    fn forget(&mut self, key: &str) {
        self.lists.retain(|(entry, _)| entry.key != key);
        self.zipped.retain(|(entry, _)| entry.key != key);
        self.cases.iter_mut().for_each(|case| case.retain(|entry| entry.key != key));
        self.fixed.retain(|entry| entry.key != key);
    }

    /// Gives a key these values and no others: one fixes it, several are a list.
    pub(crate) fn give(&mut self, key: String, mut values: Vec<Value>) {
        match values.len() {
            1 => self.fix(key, values.remove(0)),
            _ => {
                self.forget(&key);
                self.lists.push((Entry { key, value: Value::Null, place: None }, values));
            }
        }
    }

    /// The fixed keys and values, in order.
    pub(crate) fn fixed(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.fixed.iter().map(|entry| (entry.key.as_str(), &entry.value))
    }

    /// What each case fixes beside that, in order; one that fixes nothing where the definition has none.
    pub(crate) fn cases(&self) -> Vec<Vec<(&str, &Value)>> {
        if self.cases.is_empty() {
            return vec![Vec::new()];
        }
        self.cases.iter().map(|entries| entries.iter().map(|entry| (entry.key.as_str(), &entry.value)).collect()).collect()
    }

    /// The values that lists have together, in order; one that has none where there are no such lists.
    pub(crate) fn zipped(&self) -> Vec<Vec<(&str, &Value)>> {
        let Some(length) = self.zipped.first().map(|(_, values)| values.len()) else { return vec![Vec::new()] };
        let at = |index: usize| self.zipped.iter().filter_map(|(entry, values)| Some((entry.key.as_str(), values.get(index)?))).collect();
        (0..length).map(at).collect()
    }

    /// Whether a combination is one of those that are left out: it has all the values of one of them.
    pub(crate) fn leaves_out(&self, combination: &[(&str, &Value)]) -> bool {
        let has =
            |entry: &Entry| combination.iter().rev().find(|(key, _)| *key == entry.key).is_some_and(|(_, value)| **value == entry.value);
        self.excluded.iter().any(|entries| !entries.is_empty() && entries.iter().all(has))
    }

    /// The first key that has more than one value.
    pub(crate) fn swept(&self) -> Option<&str> {
        let first_of_a_case = self.cases.iter().flatten().next();
        self.lists.iter().chain(&self.zipped).map(|(entry, _)| entry).chain(first_of_a_case).next().map(|entry| entry.key.as_str())
    }

    /// The keys of all lists, in order.
    pub(crate) fn swept_keys(&self) -> Vec<&str> {
        self.zipped.iter().chain(&self.lists).map(|(entry, _)| entry.key.as_str()).collect()
    }

    /// The keys of the lists and their values, in order.
    pub(crate) fn lists(&self) -> impl Iterator<Item = (&str, &[Value])> {
        self.lists.iter().map(|(entry, values)| (entry.key.as_str(), values.as_slice()))
    }

    /// A refusal with the place of the key that it is about, where the refusal begins with one.
    pub(crate) fn refuse(&self, error: &ConfigError) -> Error {
        let is_about = |entry: &&Entry| {
            let rest = error.reason.strip_prefix(&entry.key);
            // A resolution is refused by its sides.
            rest.is_some_and(|rest| rest.starts_with('=')) || (entry.key == "resolution" && is_about_a_side(error))
        };
        let mut entries =
            self.fixed.iter().chain(self.cases.iter().flatten()).chain(self.lists.iter().chain(&self.zipped).map(|(entry, _)| entry));
        match entries.find(is_about) {
            Some(entry) => self.at(entry, &error.to_string()),
            None if self.path.as_os_str().is_empty() => Error::input(error.to_string()),
            None => Error::input(format!("{}: {error}", self.path.display())),
        }
    }

    fn at(&self, entry: &Entry, message: &str) -> Error {
        match entry.place {
            Some((line, column)) => Error::input(format!("{}:{line}:{column}: {message}", self.path.display())),
            None => Error::input(message),
        }
    }
}

fn is_about_a_side(error: &ConfigError) -> bool {
    error.reason.starts_with("width=") || error.reason.starts_with("height=")
}

fn place(location: &Location) -> Option<(u64, u64)> {
    (location.line() > 0).then(|| (location.line(), location.column()))
}

/// The numbers of `21..81 step 20`: both ends are among them where the step meets them.
fn range(text: &str) -> Option<Vec<i64>> {
    /// More than anybody means to run.
    const MOST: usize = 10_000;
    let (ends, step) = text.split_once("step").map_or((text, "1"), |(ends, step)| (ends, step));
    let (first, last) = ends.split_once("..")?;
    let [first, last, step] = [first, last, step].map(|number| number.trim().parse::<i64>().ok());
    let (first, last, step) = (first?, last?, usize::try_from(step?).ok().filter(|&step| step > 0)?);
    let numbers: Vec<i64> = (first..=last).step_by(step).take(MOST + 1).collect();
    (!numbers.is_empty() && numbers.len() <= MOST).then_some(numbers)
}

/// The file as it is written.
#[derive(Default)]
struct Written {
    fixed: Vec<(Spanned<String>, Value)>,
    cases: Vec<Entries>,
    excluded: Vec<Entries>,
    lists: Vec<(Spanned<String>, Value)>,
    zipped: Vec<(Spanned<String>, Value)>,
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
                    let Some(section) = [SWEEP, ZIP, CASES, EXCLUDE].into_iter().find(|section| *section == key.value) else {
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
struct Entries(Vec<(Spanned<String>, Value)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Under;
        impl<'de> Visitor<'de> for Under {
            type Value = Entries;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("keys: lists under `sweep`, `low_mem_level: [0, 1]` for example, and values in each of `cases`")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Under)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Definition::parse(Path::new("s.yaml"), text.into()).expect_err(text).to_string()
    }

    #[test]
    fn keys_are_read_in_order_and_in_both_spellings() {
        let text = "model: wan-tiny\ninfer.diffusion.low_mem_level: 2\nsweep:\n  vae_tile_size: [4, 8]\n  infer.attn_type: [sdpa]\n";
        let mut definition = Definition::parse(Path::new("a/s.yaml"), text.into()).expect("a definition");
        assert_eq!(definition.name, "s");
        assert_eq!(
            definition.lists().map(|(key, values)| (key, values.len())).collect::<Vec<_>>(),
            [("vae_tile_size", 2), ("attn_type", 1)]
        );
        definition.fix("vae_tile_size".into(), Value::from(16));
        definition.fix("low_mem_level".into(), Value::from(3));
        let fixed: Vec<_> = definition.fixed().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(fixed, ["model=\"wan-tiny\"", "vae_tile_size=16", "low_mem_level=3"]);
        assert_eq!(definition.lists().count(), 1);
    }

    #[test]
    fn the_pages_nested_yaml_is_taken() {
        let text =
            "model: wan-tiny\ninfer:\n  attn_type: math\n  diffusion:\n    low_mem_level: 2\nsweep:\n  infer:\n    vae_tile_size: [4, 8]\n";
        let definition = Definition::parse(Path::new("s.yaml"), text.into()).expect("a definition");
        let fixed: Vec<_> = definition.fixed().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(fixed, ["model=\"wan-tiny\"", "attn_type=\"math\"", "low_mem_level=2"]);
        assert_eq!(definition.lists().map(|(key, values)| (key, values.len())).collect::<Vec<_>>(), [("vae_tile_size", 2)]);
    }

    #[test]
    fn ranges_are_lists_of_numbers() {
        assert_eq!(range("21..81 step 20"), Some(vec![21, 41, 61, 81]));
        assert_eq!(range("0..2"), Some(vec![0, 1, 2]));
        for text in ["81..21", "1..2 step 0", "1..", "a..b", "832x480", "1..2 step -1", "0..1000000000"] {
            assert_eq!(range(text), None, "{text}");
        }
    }

    #[test]
    fn mistakes_are_refused_with_their_place() {
        for (text, message) in [
            ("model: a\nlow_mem_levle: 1\n", "s.yaml:2:1: unknown key `low_mem_levle`: did you mean `low_mem_level`?"),
            ("sweep:\n  vae_tile_siez: [4]\n", "s.yaml:2:3: unknown key `vae_tile_siez`: did you mean `vae_tile_size`?"),
            ("sweep:\n  vae_tile_size: 4\n", "s.yaml:2:3: vae_tile_size takes a list here: write `vae_tile_size: [4]`"),
            ("vae_tile_size: [4]\n", "s.yaml:1:1: vae_tile_size takes one value: lists stand under `sweep:`"),
            ("sweep:\n  vae_tile_size: []\n", "s.yaml:2:3: vae_tile_size has no values"),
            ("frames: many\n", "s.yaml:1:1: frames=many: there is no such value: use 1 to 65536 frames"),
            ("sweep:\n  offload_vae: [yes, perhaps]\n", "s.yaml:2:3: offload_vae=perhaps: there is no such value: use true or false"),
            (
                "infer:\n  diffusion:\n    low_mem_levle: 2\n",
                "s.yaml:1:1: unknown key `infer.diffusion.low_mem_levle`: did you mean `low_mem_level`?",
            ),
            ("cases:\n  - vae_tile_size: [4]\n", "s.yaml:2:5: vae_tile_size takes one value"),
            ("cases:\n  - frames: 5\nsweep:\n  frames: [9]\n", "s.yaml:4:3: frames is given twice"),
            ("cases: 4\n", "s.yaml:1:8: "),
            ("zip:\n  frames: [5, 9]\n  steps: [1]\n", "s.yaml:3:3: frames has 2 values and steps has 1: lists under `zip`"),
            ("zip:\n  frames: [5]\nsweep:\n  frames: [9]\n", "s.yaml:2:3: frames is given twice"),
            ("exclude:\n  - low_mem_levle: 1\n", "s.yaml:2:5: unknown key `low_mem_levle`"),
            ("frames: 9\nsweep:\n  frames: [9]\n", "s.yaml:3:3: frames is given twice"),
            ("model: a\nsweep:\n  x: [1, 2\n", "s.yaml:3:6: unclosed bracket"),
            ("frames: 1\nframes: 2\n", "s.yaml:2:1: duplicate mapping key"),
            ("- a\n", "s.yaml:1:1: "),
        ] {
            let error = refused(text);
            assert!(error.starts_with(message), "{text:?}: {error}");
        }
    }
}

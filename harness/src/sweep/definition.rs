//! A sweep definition as it is written, with the place of every key.

use std::path::{Path, PathBuf};

use engine_protocol::{ConfigError, flattened};
use serde_json::Value;
use serde_yaml::{Location, Spanned};

use super::key::{GPU, Key, PRESET};
use super::written::{Entries, Written, ZIP};
use crate::data;
use crate::error::Error;

/// Keys and their values.
pub(crate) type Pairs<'a> = Vec<(&'a str, &'a Value)>;

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
    presets: Vec<(String, Vec<Entry>)>,
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
        let (fixed, cases, lists, zipped, excluded, presets) = Default::default();
        Self { name, text, path, fixed, cases, lists, zipped, excluded, presets }
    }

    fn parse(path: &Path, text: String) -> Result<Self, Error> {
        let written: Written = data::parse(path, &text)?;
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let mut definition = Self::without_keys(name, text, path.to_owned());
        for (key, value) in written.fixed {
            // Several GPUs are one line, as one is.
            if key.value == GPU && value.is_array() {
                let list = definition.lists_under(&key, value)?;
                definition.lists.extend(list);
            } else {
                let entries = definition.values(&key, value)?;
                definition.fixed.extend(entries);
            }
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
        let lists = of_lists(&definition, written.lists)?;
        definition.lists.extend(lists);
        definition.zipped = of_lists(&definition, written.zipped)?;
        for (name, preset) in written.presets {
            let entries = of_one(&definition, preset)?;
            if let Some(entry) = entries.iter().find(|entry| [GPU, PRESET].contains(&entry.key.as_str())) {
                return Err(definition.at(entry, &format!("{} is no flag: a preset is a set of flags", entry.key)));
            }
            definition.presets.push((name.value, entries));
        }
        definition.check_presets()?;
        definition.check_twice()?;
        definition.check_lengths()?;
        Ok(definition)
    }

    /// The entries of a key that has one value, or of the page's nested spelling.
    fn values(&self, key: &Spanned<String>, value: Value) -> Result<Vec<Entry>, Error> {
        let one = |(key, mut entry): (Key, Entry)| {
            if entry.value.is_array() || entry.value.is_object() {
                return Err(self.at(&entry, &format!("{} takes one value: lists stand under `sweep:`", entry.key)));
            }
            entry.value = key.read(&entry.value).map_err(|error| self.at(&entry, &error.to_string()))?;
            Ok(entry)
        };
        self.entries(key, value)?.into_iter().map(one).collect()
    }

    /// The lists of a key that has one, or of the page's nested spelling.
    fn lists_under(&self, key: &Spanned<String>, value: Value) -> Result<Vec<(Entry, Vec<Value>)>, Error> {
        let one = |(key, entry): (Key, Entry)| {
            let values = match &entry.value {
                Value::Array(values) if values.is_empty() => {
                    return Err(self.at(&entry, &format!("{} has no values: an empty list has no combinations", entry.key)));
                }
                Value::Array(values) => values.iter().map(|value| key.read(value)).collect::<Result<_, _>>(),
                Value::String(text) if range(text).is_some() => {
                    range(text).unwrap_or_default().into_iter().map(|number| key.read(&number.into())).collect()
                }
                other => return Err(self.at(&entry, &format!("{0} takes a list here: write `{0}: [{other}]`", entry.key))),
            };
            let values = values.map_err(|error| self.at(&entry, &error.to_string()))?;
            Ok((entry, values))
        };
        self.entries(key, value)?.into_iter().map(one).collect()
    }

    fn entries(&self, key: &Spanned<String>, value: Value) -> Result<Vec<(Key, Entry)>, Error> {
        let place = place(&key.referenced);
        let one = |(key, value): (String, Value)| match Key::of(&key) {
            Ok(known) => Ok((known, Entry { key: known.name().into(), value, place })),
            Err(error) => Err(self.at(&Entry { key, value, place }, &error.to_string())),
        };
        flattened(key.value.clone(), value).into_iter().map(one).collect()
    }

    /// The same key in both spellings, or in a list and elsewhere, is a mistake. What a case fixes may be fixed for the others too.
    fn check_twice(&self) -> Result<(), Error> {
        let lists = || self.lists.iter().chain(&self.zipped).map(|(entry, _)| entry);
        let presets = self.presets.iter().map(|(_, entries)| entries);
        let together =
            std::iter::once(&self.fixed).chain(&self.cases).chain(presets).map(|entries| entries.iter().chain(lists()).collect::<Vec<_>>());
        for entries in together {
            for (index, entry) in entries.iter().enumerate() {
                if entries[..index].iter().any(|earlier| earlier.key == entry.key) {
                    return Err(self.at(entry, &format!("{} is given twice: remove one", entry.key)));
                }
            }
        }
        Ok(())
    }

    /// Every preset that is named is there.
    fn check_presets(&self) -> Result<(), Error> {
        let names: Vec<&str> = self.presets.iter().map(|(name, _)| name.as_str()).collect();
        let excluded = self.excluded.iter().flatten().map(|entry| (entry, &entry.value));
        for (entry, value) in self.all_values().chain(excluded).filter(|(entry, _)| entry.key == PRESET) {
            let wanted = value.as_str().unwrap_or_default();
            if !names.contains(&wanted) {
                let known =
                    if names.is_empty() { "there is no `presets:` section".into() } else { format!("there are {}", names.join(", ")) };
                return Err(self.at(entry, &format!("preset={wanted}: there is no such preset: {known}")));
            }
        }
        Ok(())
    }

    /// Every value that cases have, with the entry that it is of.
    fn all_values(&self) -> impl Iterator<Item = (&Entry, &Value)> {
        let single = self.fixed.iter().chain(self.cases.iter().flatten());
        let listed = self.lists.iter().chain(&self.zipped).flat_map(|(entry, values)| values.iter().map(move |value| (entry, value)));
        single.map(|entry| (entry, &entry.value)).chain(listed)
    }

    /// The GPUs that cases name, as they are asked for, in order.
    pub(crate) fn gpus(&self) -> Vec<String> {
        let mut gpus: Vec<String> = Vec::new();
        for (_, value) in self.all_values().filter(|(entry, _)| entry.key == GPU) {
            let gpu = value.as_str().unwrap_or_default();
            if gpus.iter().all(|known| known != gpu) {
                gpus.push(gpu.to_owned());
            }
        }
        gpus
    }

    /// An error about a GPU, with the place where it is asked for.
    pub(crate) fn refuse_gpu(&self, asked: &str, error: &str) -> Error {
        match self.all_values().find(|(entry, value)| entry.key == GPU && value.as_str() == Some(asked)) {
            Some((entry, _)) => self.at(entry, error),
            None => Error::input(error),
        }
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

    /// Drops a key, whatever the definition says about it.
    pub(crate) fn forget(&mut self, key: &str) {
        self.presets.iter_mut().for_each(|(_, entries)| entries.retain(|entry| entry.key != key));
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
                // What cases run on changes last, so that those of one GPU stand together.
                let place = if key == GPU { 0 } else { self.lists.len() };
                self.lists.insert(place, (Entry { key, value: Value::Null, place: None }, values));
            }
        }
    }

    /// The fixed keys and values, in order, with those of a preset in its place.
    pub(crate) fn fixed(&self) -> Pairs<'_> {
        self.together(&[], &[])
    }

    /// What `key` is fixed to, where it is.
    pub(crate) fn fixed_value(&self, key: &str) -> Option<Value> {
        self.fixed().into_iter().rev().find(|(other, _)| *other == key).map(|(_, value)| value.clone())
    }

    /// The text that `key` is fixed to, where it is one.
    pub(crate) fn fixed_text(&self, key: &str) -> Option<String> {
        Some(self.fixed_value(key)?.as_str()?.to_owned())
    }

    /// All that a case says with one combination of the lists, of which the last value of a key counts: what is fixed, what its preset has, its own, and the lists'.
    pub(crate) fn together<'a>(&'a self, own: &[(&'a str, &'a Value)], combination: &[(&'a str, &'a Value)]) -> Pairs<'a> {
        let fixed = pairs(&self.fixed);
        let preset = [&fixed, own, combination].into_iter().rev().flatten().find(|(key, _)| *key == PRESET);
        let preset = self.presets.iter().find(|(name, _)| preset.is_some_and(|(_, value)| *value == name));
        let preset = preset.map(|(_, entries)| pairs(entries)).unwrap_or_default();
        // Its name has done its work.
        [&fixed, &preset, own, combination].concat().into_iter().filter(|(key, _)| *key != PRESET).collect()
    }

    /// What each case fixes beside that, in order; one that fixes nothing where the definition has none.
    pub(crate) fn cases(&self) -> Vec<Pairs<'_>> {
        if self.cases.is_empty() {
            return vec![Vec::new()];
        }
        self.cases.iter().map(|entries| pairs(entries)).collect()
    }

    /// The values that lists have together, in order; one that has none where there are no such lists.
    pub(crate) fn zipped(&self) -> Vec<Pairs<'_>> {
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

    /// Whether cases differ in that key.
    pub(crate) fn is_varied(&self, key: &str) -> bool {
        let listed = self.lists.iter().chain(&self.zipped).map(|(entry, _)| entry);
        let in_cases = self.cases.iter().flatten().chain(self.presets.iter().flat_map(|(_, entries)| entries));
        listed.chain(in_cases).any(|entry| entry.key == key)
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
        let of_presets = self.presets.iter().flat_map(|(_, entries)| entries);
        let mut entries = of_presets
            .chain(&self.fixed)
            .chain(self.cases.iter().flatten())
            .chain(self.lists.iter().chain(&self.zipped).map(|(entry, _)| entry));
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

fn pairs(entries: &[Entry]) -> Pairs<'_> {
    entries.iter().map(|entry| (entry.key.as_str(), &entry.value)).collect()
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
        let fixed: Vec<_> = definition.fixed().into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(fixed, ["model=\"wan-tiny\"", "vae_tile_size=16", "low_mem_level=3"]);
        assert_eq!(definition.lists().count(), 1);
    }

    #[test]
    fn the_pages_nested_yaml_is_taken() {
        let text =
            "model: wan-tiny\ninfer:\n  attn_type: math\n  diffusion:\n    low_mem_level: 2\nsweep:\n  infer:\n    vae_tile_size: [4, 8]\n";
        let definition = Definition::parse(Path::new("s.yaml"), text.into()).expect("a definition");
        let fixed: Vec<_> = definition.fixed().into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(fixed, ["model=\"wan-tiny\"", "attn_type=\"math\"", "low_mem_level=2"]);
        assert_eq!(definition.lists().map(|(key, values)| (key, values.len())).collect::<Vec<_>>(), [("vae_tile_size", 2)]);
    }

    #[test]
    fn gpus_stand_anywhere_and_those_of_the_command_count() {
        let text = "gpu: [8GB, 4090]\nsweep:\n  low_mem_level: [0, 1]\nexclude:\n  - gpu: T4\n";
        let mut definition = Definition::parse(Path::new("s.yaml"), text.into()).expect("a definition");
        assert_eq!(definition.gpus(), ["8GB", "4090"]);
        assert_eq!(definition.refuse_gpu("4090", "no such GPU").to_string(), "s.yaml:1:1: no such GPU");
        definition.give("gpu".into(), vec!["24GB".into(), "80GB".into()]);
        assert_eq!(definition.gpus(), ["24GB", "80GB"]);
        assert_eq!(definition.lists().next().map(|(key, _)| key), Some("gpu"));
        definition.give("gpu".into(), vec!["24GB".into()]);
        assert_eq!((definition.gpus(), definition.lists().count()), (vec!["24GB".to_owned()], 1));
        let own = Definition::parse(Path::new("s.yaml"), "cases:\n  - gpu: 8GB\n  - gpu: 16GB\n".into()).expect("a definition");
        assert_eq!(own.gpus(), ["8GB", "16GB"]);
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
            ("sweep:\n  preset: [small]\n", "s.yaml:2:3: preset=small: there is no such preset: there is no `presets:` section"),
            ("presets:\n  a: {}\nexclude:\n  - preset: b\n", "s.yaml:4:5: preset=b: there is no such preset: there are a"),
            ("presets:\n  a:\n    low_mem_levle: 1\n", "s.yaml:3:5: unknown key `low_mem_levle`"),
            ("presets:\n  a:\n    gpu: 8GB\n", "s.yaml:3:5: gpu is no flag: a preset is a set of flags"),
            ("presets:\n  a: {frames: 5}\nsweep:\n  frames: [9]\n", "s.yaml:4:3: frames is given twice"),
            ("gpu: [8GB]\nsweep:\n  gpu: [24GB]\n", "s.yaml:3:3: gpu is given twice"),
            ("gpu: true\n", "s.yaml:1:1: gpu=true: there is no such value: use a size or a card"),
            ("model: a\nsweep:\n  x: [1, 2\n", "s.yaml:3:6: unclosed bracket"),
            ("frames: 1\nframes: 2\n", "s.yaml:2:1: duplicate mapping key"),
            ("- a\n", "s.yaml:1:1: "),
        ] {
            let error = refused(text);
            assert!(error.starts_with(message), "{text:?}: {error}");
        }
    }
}

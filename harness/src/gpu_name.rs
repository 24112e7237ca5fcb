//! GPUs by the names that people write: which profile is meant, or what is wrong with the name.

use engine_protocol::GpuProfile;

/// Words that say nothing about which GPU it is.
const NOISE: &[&str] = &[
    "nvidia",
    "geforce",
    "tesla",
    "quadro",
    "gpu",
    "graphics",
    "card",
    "desktop",
    "generation",
    "edition",
    "workstation",
    "server",
    "blackwell",
    "hgx",
    "sxm",
    "sxm2",
    "sxm4",
    "sxm5",
    "sxm6",
    "hbm2",
    "hbm2e",
    "hbm3",
    "hbm3e",
];
/// Words that make it a laptop's chip, which is another one than the card of the same name.
const LAPTOP: &[&str] = &["laptop", "mobile", "notebook"];
/// Who else makes GPUs, and the words that tell it.
const OTHERS: &[(&str, &[&str])] = &[
    ("AMD", &["amd", "radeon", "rx", "instinct", "firepro", "vega", "mi210", "mi250", "mi250x", "mi300a", "mi300x", "mi325x", "mi355x"]),
    ("Apple", &["apple", "m1", "m2", "m3", "m4", "m5", "macbook"]),
    ("Intel", &["intel", "arc", "iris", "gaudi", "gaudi2", "gaudi3"]),
];
/// Memory of laptops' GPUs in GB, from NVIDIA's comparison of GeForce laptops. Those that are sold with several sizes are left out.
const LAPTOP_GB: &[(&str, u32)] = &[
    ("3060", 6),
    ("3070", 8),
    ("3070ti", 8),
    ("3080ti", 16),
    ("4050", 6),
    ("4060", 8),
    ("4070", 8),
    ("4080", 12),
    ("4090", 16),
    ("5060", 8),
    ("5070", 8),
    ("5070ti", 12),
    ("5080", 16),
    ("5090", 24),
];

/// The profile that a name means.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found<'a> {
    /// It.
    pub(crate) profile: &'a GpuProfile,
    /// Smaller ones of that name, which the name did not rule out.
    pub(crate) smaller: Vec<&'a GpuProfile>,
}

/// The profile that `text` means: one of that very name, or else the largest of the GPU that people call so.
pub(crate) fn find<'a>(text: &str, profiles: &'a [GpuProfile]) -> Option<Found<'a>> {
    let exact = text.trim().to_ascii_lowercase();
    if let Some(profile) = profiles.iter().find(|profile| profile.name == exact) {
        return Some(Found { profile, smaller: Vec::new() });
    }
    let wanted = Name::read(text);
    let fits = |profile: &&GpuProfile| {
        let name = Name::read(&profile.name);
        !wanted.model.is_empty()
            && (&name.model, name.is_laptop) == (&wanted.model, wanted.is_laptop)
            && wanted.gb.is_none_or(|gb| gb == profile.nominal_gb)
    };
    let mut meant: Vec<_> = profiles.iter().filter(fits).collect();
    meant.sort_by_key(|profile| profile.nominal_gb);
    let profile = meant.pop()?;
    meant.retain(|other| other.nominal_gb < profile.nominal_gb);
    Some(Found { profile, smaller: meant })
}

/// What is to be said of a name that means no profile.
#[derive(Debug, PartialEq)]
pub(crate) enum Unknown<'a> {
    /// A GPU that this maker makes, without CUDA.
    OtherMaker(&'static str),
    /// A laptop's chip, with its memory in GB where that is known.
    Laptop(Option<u32>),
    /// Any other name, and the profiles that may have been meant.
    Name(Vec<&'a GpuProfile>),
}

/// Why `text` means no profile.
pub(crate) fn unknown<'a>(text: &str, profiles: &'a [GpuProfile]) -> Unknown<'a> {
    let words = words(text);
    if let Some((maker, _)) = OTHERS.iter().find(|(_, telling)| words.iter().any(|word| telling.contains(&word.as_str()))) {
        return Unknown::OtherMaker(maker);
    }
    let wanted = Name::read(text);
    if wanted.is_laptop && !wanted.model.is_empty() {
        let usual = LAPTOP_GB.iter().find(|(model, _)| *model == wanted.model).map(|&(_, gb)| gb);
        return Unknown::Laptop(wanted.gb.or(usual));
    }
    Unknown::Name(profiles.iter().filter(|profile| wanted.may_mean(&Name::read(&profile.name))).collect())
}

/// The first names of a list and how many there are besides: `a, b and 7 larger`.
pub(crate) fn a_few<'a>(profiles: impl IntoIterator<Item = &'a GpuProfile>, besides: &str) -> String {
    /// More are not read.
    const MOST: usize = 5;
    let names: Vec<_> = profiles.into_iter().map(|profile| profile.name.as_str()).collect();
    match names.len() {
        0 => "none".into(),
        1..=MOST => names.join(", "),
        count => format!("{} and {} {besides}", names[..MOST - 1].join(", "), count + 1 - MOST),
    }
}

/// A name, taken apart: `NVIDIA GeForce RTX 4060 Ti 16GB` is the model `4060ti` with 16 GB.
#[derive(Debug, PartialEq)]
struct Name {
    model: String,
    gb: Option<u32>,
    is_laptop: bool,
}

impl Name {
    fn read(text: &str) -> Self {
        let mut name = Self { model: String::new(), gb: None, is_laptop: false };
        let words = words(text);
        let mut rest = words.iter().map(String::as_str).peekable();
        while let Some(word) = rest.next() {
            let unit = rest.next_if(|next| matches!(*next, "gb" | "gib") && word.parse::<u32>().is_ok());
            let (before, gb) = if unit.is_some() { ("", word.parse().ok()) } else { split_size(word) };
            name.gb = name.gb.or(gb);
            name.is_laptop |= LAPTOP.contains(&before);
            if !NOISE.contains(&before) && !LAPTOP.contains(&before) {
                name.model.push_str(before);
            }
        }
        // `4090` and `A6000` are said for `RTX 4090` and `RTX A6000`.
        if let Some(model) = name.model.strip_prefix("rtx") {
            name.model = model.to_owned();
        }
        name
    }

    /// Whether somebody who wrote this may have meant `other`: its numbers are the same, as numbers, and letters differ by little. A number of three digits or
    /// fewer stands in many names, so that the letters before it must be the same.
    fn may_mean(&self, other: &Self) -> bool {
        let (own, others) = (numbers(&self.model), numbers(&other.model));
        if own.is_empty() || own != others || self.is_laptop != other.is_laptop {
            return false;
        }
        own.iter().any(|number| *number > 999) || letters_before_number(&self.model) == letters_before_number(&other.model)
    }
}

/// The words of a name in small letters: what stands between blanks and signs.
fn words(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect()
}

/// `ti16gb` as `ti` and 16. What ends in no size stays whole.
fn split_size(word: &str) -> (&str, Option<u32>) {
    let Some(digits) = word.strip_suffix("gb").or_else(|| word.strip_suffix("gib")) else { return (word, None) };
    let before = digits.trim_end_matches(|c: char| c.is_ascii_digit());
    match digits[before.len()..].parse() {
        Ok(gb) => (before, Some(gb)),
        Err(_) => (word, None),
    }
}

fn numbers(model: &str) -> Vec<u64> {
    model.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

fn letters_before_number(model: &str) -> &str {
    &model[..model.find(|c: char| c.is_ascii_digit()).unwrap_or(model.len())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu_profile::GpuProfiles;

    #[test]
    fn a_name_is_taken_apart() {
        for (text, model, gb, is_laptop) in [
            ("NVIDIA GeForce RTX 4060 Ti 16GB", "4060ti", Some(16), false),
            ("5060ti16gb", "5060ti", Some(16), false),
            ("rtx-3080-10gb", "3080", Some(10), false),
            ("NVIDIA GeForce RTX 3060 Laptop GPU", "3060", None, true),
            ("A100 80 GB", "a100", Some(80), false),
            ("gb", "gb", None, false),
            ("", "", None, false),
        ] {
            assert_eq!(Name::read(text), Name { model: model.into(), gb, is_laptop }, "{text}");
        }
    }

    #[test]
    fn numbers_of_names_are_numbers() {
        let near = |text: &str, other: &str| Name::read(text).may_mean(&Name::read(other));
        for (text, other) in
            [("h200-nvl", "h200"), ("L40", "l40s"), ("A10G", "a10"), ("gtx 3080", "rtx-3080-12gb"), ("rtz-4090", "rtx-4090")]
        {
            assert!(near(text, other), "{text}: {other}");
        }
        for (text, other) in
            [("h200", "h20"), ("h20", "h200"), ("h2", "h20"), ("v100", "h100"), ("a100", "a10"), ("rtx-409", "rtx-4090"), ("potato", "t4")]
        {
            assert!(!near(text, other), "{text}: {other}");
        }
    }

    #[test]
    fn a_long_list_is_cut() {
        let profiles = GpuProfiles::load().expect("profiles");
        let first = |count| a_few(profiles.iter().take(count), "larger");
        assert_eq!([first(0), first(2)], ["none", "rtx-3060-ti, rtx-3070"]);
        assert_eq!(first(5).matches(',').count(), 4);
        assert_eq!(first(6), "rtx-3060-ti, rtx-3070, rtx-4060, rtx-3080-10gb and 2 larger");
    }
}

//! The GPU profiles, and which one a budget or a name means.

use engine_protocol::{GIB, GpuProfile, ProcessUse, gib};
use reports::Card;

use crate::data;
use crate::error::Error;
use crate::gpu_name::{self, Unknown, a_few};

/// All profiles, from the smallest memory to the largest.
#[derive(Debug)]
pub(crate) struct GpuProfiles(Vec<GpuProfile>);

/// What `--gpu` means: a profile, and how much of it may be used.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Budget {
    /// The profile.
    pub(crate) profile: GpuProfile,
    /// What may be used on the device, the context included: all of the profile's memory, or the budget where that is less.
    pub(crate) capacity_bytes: u64,
    /// Whether a kind of GPU was named, and not a size.
    pub(crate) is_named: bool,
    /// Where a size was named, the cards of that size that hold less.
    pub(crate) smaller: Vec<Card>,
    /// Which profile it is and why, in a sentence.
    pub(crate) choice: String,
}

impl Budget {
    /// What may be used on the device, where that is less than it has.
    pub(crate) fn memory_limit_bytes(&self) -> Option<u64> {
        (self.capacity_bytes < self.profile.memory_bytes.value).then_some(self.capacity_bytes)
    }
}

impl GpuProfiles {
    /// Reads all profiles.
    pub(crate) fn load() -> Result<Self, Error> {
        let mut profiles = data::load_all(data::GPUS, |profile: &GpuProfile| &profile.name)?;
        profiles.sort_by_key(|profile| (profile.nominal_gb, profile.name.clone()));
        Ok(Self(profiles))
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &GpuProfile> {
        self.0.iter()
    }

    /// The profile of the GPU that its driver calls `title` and that has about so much memory.
    pub(crate) fn titled(&self, title: &str, memory_bytes: u64) -> Option<&GpuProfile> {
        self.0.iter().find(|profile| is_of(profile, title, memory_bytes))
    }

    /// The profile of a GPU of which somebody published figures: `RTX 4090`, or `H800/H100`, of which the first one that is known counts.
    pub(crate) fn published(&self, text: &str) -> Option<&GpuProfile> {
        text.split('/').find_map(|name| gpu_name::find(name, &self.0)).map(|found| found.profile)
    }

    /// What `--gpu TEXT` means.
    pub(crate) fn budget(&self, text: &str) -> Result<Budget, Error> {
        if let Some(found) = gpu_name::find(text, &self.0) {
            let among = match found.smaller.as_slice() {
                [] => String::new(),
                smaller => format!(", the largest of that name: there is {} too", a_few(smaller.iter().copied(), "more")),
            };
            return Ok(Budget {
                profile: found.profile.clone(),
                capacity_bytes: found.profile.memory_bytes.value,
                is_named: true,
                smaller: Vec::new(),
                choice: format!("GPU={text} is {}{among}.", described(found.profile)),
            });
        }
        match size(text) {
            Some(size) if size.is_finite() && size > 0.0 => self.of_size(text, size),
            Some(_) => Err(Error::input(format!("GPU={text} is no size: use a size above 0 such as 24GB, or a name. {}", self.known()))),
            None => Err(Error::input(format!("GPU={text} {} {}", self.why_unknown(text), self.known()))),
        }
    }

    fn why_unknown(&self, text: &str) -> String {
        match gpu_name::unknown(text, &self.0) {
            Unknown::OtherMaker(maker) => format!("is a GPU of {maker}: lowmem needs CUDA, which only NVIDIA's GPUs have."),
            Unknown::Laptop(gb) => {
                let nearest = gb.and_then(|gb| Some((gb, self.of_size(&format!("{gb}GB"), f64::from(gb)).ok()?)));
                let nearest = match nearest {
                    Some((gb, budget)) => format!("It has {gb} GB: the nearest by memory is GPU={gb}GB, which is {}.", budget.profile.name),
                    None => "Say its memory instead, such as GPU=8GB.".to_owned(),
                };
                format!("is a laptop's GPU, which is another chip than the card of that name, and there is no profile of it. {nearest}")
            }
            Unknown::Name(near) if near.is_empty() => "is neither a size nor a known GPU.".to_owned(),
            Unknown::Name(near) => {
                let near: Vec<_> = near.iter().map(|profile| format!("`{}`", profile.name)).collect();
                format!("is neither a size nor a known GPU. Did you mean {}?", near.join(" or "))
            }
        }
    }

    /// The fastest profile of that size on the box, or of the next larger one with its memory capped to the budget.
    fn of_size(&self, text: &str, size: f64) -> Result<Budget, Error> {
        let Some(nominal) = self.0.iter().map(|profile| profile.nominal_gb).find(|&nominal| f64::from(nominal) >= size) else {
            return Err(Error::input(format!("GPU={text} is more than any known GPU has. {}", self.known())));
        };
        let mut candidates: Vec<&GpuProfile> = self.0.iter().filter(|profile| profile.nominal_gb == nominal).collect();
        candidates.sort_by(|a, b| b.flops.bf16.value.total_cmp(&a.flops.bf16.value).then_with(|| a.name.cmp(&b.name)));
        let profile = candidates[0];
        let among = match candidates.as_slice() {
            [_] => String::new(),
            all => format!(", the fastest in bf16 of {}", a_few(all.iter().copied(), "more")),
        };
        let exact = f64::from(nominal) == size;
        let capacity_bytes = if exact { profile.memory_bytes.value } else { profile.memory_bytes.value.min((size * GIB as f64) as u64) };
        let budget = Budget {
            profile: profile.clone(),
            capacity_bytes,
            is_named: false,
            smaller: candidates.iter().map(|profile| Card::of(profile)).filter(|card| card.memory_bytes < capacity_bytes).collect(),
            choice: if exact {
                format!("GPU={text} is {}{among}.", described(profile))
            } else {
                format!(
                    "GPU={text} is no size that a known GPU has: {}{among}, capped to {:.2} GiB.",
                    described(profile),
                    gib(capacity_bytes)
                )
            },
        };
        // Without copies beside arithmetic, which would take a little more.
        let process_bytes = profile.process_bytes(ProcessUse { has_code: true, ..ProcessUse::default() });
        if capacity_bytes < process_bytes + GIB / 4 {
            let taken = process_bytes / (1 << 20);
            return Err(Error::input(format!(
                "GPU={text} is too small: the CUDA context and the libraries' code take {taken} MiB. {}",
                self.known()
            )));
        }
        Ok(budget)
    }

    /// The sizes that there are, and where the names are.
    fn known(&self) -> String {
        let mut sizes: Vec<u32> = self.0.iter().map(|profile| profile.nominal_gb).collect();
        sizes.dedup();
        let sizes: Vec<_> = sizes.iter().map(|size| format!("{size}GB")).collect();
        format!("Known sizes: {}. `lowmem gpus` lists the known GPUs, such as rtx-4090", sizes.join(", "))
    }
}

/// Whether `profile` is of the GPU that its driver calls `title` and that has about so much memory: cards of several sizes have the same title.
pub(crate) fn is_of(profile: &GpuProfile, title: &str, memory_bytes: u64) -> bool {
    profile.title == title && profile.memory_bytes.value.abs_diff(memory_bytes) < memory_bytes / 10
}

/// `rtx-4090 (NVIDIA GeForce RTX 4090, 23.65 GiB as CUDA reports it)`.
fn described(profile: &GpuProfile) -> String {
    format!("{} ({}, {:.2} GiB as CUDA reports it)", profile.name, profile.title, gib(profile.memory_bytes.value))
}

/// `24GB`, `24GiB`, `24G` and `24` as a number of GiB, which is what the size on a box means. `3050` is a name.
pub(crate) fn size(text: &str) -> Option<f64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = ["gib", "gb", "g"].iter().find_map(|unit| lower.strip_suffix(unit)).unwrap_or(&lower).trim_end();
    // `inf` and `nan` are numbers to Rust and names to people.
    let is_number = digits.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    let is_name = digits == lower && digits.len() >= 4 && digits.chars().all(|c| c.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number && !is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profiles() -> GpuProfiles {
        GpuProfiles::load().expect("profiles")
    }

    #[test]
    fn a_size_picks_the_fastest_of_that_size() {
        for (text, name) in [
            ("48GB", "rtx-6000-ada"),
            ("16GB", "rtx-5080"),
            ("12GB", "rtx-5070"),
            ("11GB", "rtx-2080-ti"),
            ("10GB", "rtx-3080-10gb"),
            ("96GB", "rtx-pro-6000"),
            ("24GB", "rtx-4090"),
            ("24", "rtx-4090"),
            ("24GiB", "rtx-4090"),
            ("80gb", "h100"),
            ("40 GB", "a100-40gb"),
            ("8G", "rtx-3070"),
        ] {
            let budget = profiles().budget(text).expect(text);
            assert_eq!((budget.profile.name.as_str(), budget.memory_limit_bytes()), (name, None), "{text}");
        }
        let choice = profiles().budget("24GB").expect("24GB").choice;
        assert!(choice.ends_with(", the fastest in bf16 of rtx-4090, a10, l4, rtx-3090."), "{choice}");
        let choice = profiles().budget("16GB").expect("16GB").choice;
        assert!(choice.ends_with("of rtx-5080, rtx-4080-super, rtx-4080, rtx-4070-ti-super and 4 more."), "{choice}");
    }

    #[test]
    fn a_size_between_caps_the_next_larger_one() {
        let budget = profiles().budget("23GB").expect("23GB");
        assert_eq!((budget.profile.name.as_str(), budget.capacity_bytes), ("rtx-4090", 23 * GIB));
        assert_eq!(budget.memory_limit_bytes(), Some(23 * GIB));
        // 23.9 GiB is more than the card has: nothing to cap.
        assert_eq!(profiles().budget("23.9GB").expect("23.9GB").memory_limit_bytes(), None);
    }

    #[test]
    fn a_name_is_that_gpu() {
        for (text, name) in [
            ("RTX-3090", "rtx-3090"),
            ("RTX3090", "rtx-3090"),
            ("RTX 3060", "rtx-3060"),
            ("4090", "rtx-4090"),
            ("rtx 4060 ti", "rtx-4060-ti-16gb"),
            ("5060ti16gb", "rtx-5060-ti-16gb"),
            ("NVIDIA GeForce RTX 4070 Ti SUPER", "rtx-4070-ti-super"),
            ("RTX 3080 10 GB", "rtx-3080-10gb"),
            ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
            ("h100 80GB", "h100"),
            ("NVIDIA H100 80GB HBM3", "h100"),
            ("H200", "h200"),
            ("L40s", "l40s"),
            ("Tesla T4", "t4"),
            ("A6000", "rtx-a6000"),
            ("RTX 6000 Ada Generation", "rtx-6000-ada"),
            ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx-pro-6000"),
        ] {
            let budget = profiles().budget(text).expect(text);
            assert_eq!((budget.profile.name.as_str(), budget.is_named, budget.memory_limit_bytes()), (name, true, None), "{text}");
        }
        let choice = profiles().budget("A100").expect("A100").choice;
        assert!(
            choice.starts_with("GPU=A100 is a100-80gb (") && choice.ends_with(", the largest of that name: there is a100-40gb too."),
            "{choice}"
        );
    }

    #[test]
    fn every_title_is_a_name_of_its_gpu() {
        let profiles = profiles();
        for profile in profiles.iter() {
            let same: Vec<_> = profiles.iter().filter(|other| other.title == profile.title).collect();
            let found = profiles.budget(&profile.title).expect(&profile.title).profile;
            assert!(same.contains(&&found), "{}: {}", profile.title, found.name);
            assert_eq!(profiles.titled(&profile.title, profile.memory_bytes.value), Some(profile));
        }
        // A card of 8 GB has the title of the one of 16.
        assert_eq!(profiles.titled("NVIDIA GeForce RTX 4060 Ti", 8 * GIB), None);
    }

    #[test]
    fn published_names_are_read_too() {
        let profiles = profiles();
        let named = |text| profiles.published(text).map(|profile| profile.name.as_str());
        for (text, name) in [
            ("RTX 4090", Some("rtx-4090")),
            ("A800/A100", Some("a100-80gb")),
            ("H800/H100", Some("h100")),
            ("A100 40GB", Some("a100-40gb")),
            ("H20", Some("h20")),
            ("V100", None),
            ("", None),
            ("/", None),
        ] {
            assert_eq!(named(text), name, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_what_there_is() {
        for (text, message) in [
            ("0", "GPU=0 is no size"),
            ("-24GB", "GPU=-24GB is no size"),
            ("potato", "GPU=potato is neither a size nor a known GPU"),
            ("nan", "GPU=nan is neither a size nor a known GPU"),
            ("rtx-4090-ti", "Did you mean `rtx-4090`?"),
            ("4090D", "Did you mean `rtx-4090`?"),
            ("RTX 6000", "Did you mean `rtx-6000-ada` or `rtx-a6000` or `rtx-pro-6000`?"),
            ("RTX 4090 48GB", "Did you mean `rtx-4090`?"),
            ("3050", "GPU=3050 is neither a size nor a known GPU. Known"),
            ("h200-nvl", "Did you mean `h200`? Known"),
            ("h2", "GPU=h2 is neither a size nor a known GPU. Known"),
            ("V100", "GPU=V100 is neither a size nor a known GPU. Known"),
            ("Radeon RX 7900 XTX", "is a GPU of AMD: lowmem needs CUDA"),
            ("Apple M3 Max", "is a GPU of Apple: lowmem needs CUDA"),
            ("Intel Arc A770", "is a GPU of Intel: lowmem needs CUDA"),
            ("NVIDIA GeForce RTX 3060 Laptop GPU", "no profile of it. It has 6 GB: the nearest by memory is GPU=6GB, which is rtx-3070."),
            ("RTX 3080 mobile 16GB", "It has 16 GB: the nearest by memory is GPU=16GB, which is rtx-5080."),
            ("RTX 3080 Laptop", "Say its memory instead, such as GPU=8GB."),
            ("1000GB", "more than any known GPU has"),
            ("0.3GB", "too small"),
            ("", "neither a size nor a known GPU"),
        ] {
            let error = profiles().budget(text).expect_err(text).to_string();
            assert!(error.contains(message) && error.contains("24GB") && error.contains("rtx-4090"), "{error}");
        }
    }

    #[test]
    fn every_figure_has_a_source_and_a_sane_value() {
        let profiles = profiles();
        assert_eq!(profiles.iter().count(), 33);
        for profile in profiles.iter() {
            let text = serde_json::to_value(profile).expect("a profile is JSON");
            check_sources(&profile.name, &text);
            let memory = profile.memory_bytes.value;
            let nominal = u64::from(profile.nominal_gb) * GIB;
            assert!(memory <= nominal && memory * 100 > nominal * 90, "{}: {memory}", profile.name);
            assert!((100 << 20..700 << 20).contains(&profile.context_bytes.value), "{}", profile.name);
            // Turing's tensor cores have neither bf16 nor TF32.
            let is_turing = profile.compute_capability.value == "7.5";
            let flops = &profile.flops;
            let half = if is_turing { &flops.fp16 } else { &flops.bf16 };
            assert!(half.value > flops.tf32.value && flops.tf32.value >= flops.fp32.value, "{}", profile.name);
            assert!(!is_turing || flops.bf16.value == flops.fp32.value, "{}", profile.name);
            let lane = match profile.pcie.generation.value {
                3 => 0.985e9,
                4 => 1.969e9,
                5 => 3.938e9,
                other => panic!("{}: PCIe {other}", profile.name),
            };
            let raw = lane * f64::from(profile.pcie.lanes.value);
            assert!((0.7..0.95).contains(&(profile.pcie.pinned_bytes_per_sec.value / raw)), "{}", profile.name);
            // Two operations a lane and clock, 128 lanes a multiprocessor (64 on Turing and the A100).
            let lanes = if is_turing || profile.compute_capability.value == "8.0" { 64.0 } else { 128.0 };
            let peak = 2.0 * lanes * f64::from(profile.multiprocessors.value) * profile.clock_hz.value;
            assert!((profile.flops.fp32.value / peak - 1.0).abs() < 0.13, "{}: {peak:e} {:e}", profile.name, profile.flops.fp32.value);
        }
    }

    fn check_sources(name: &str, value: &serde_json::Value) {
        let Some(fields) = value.as_object() else { return };
        if fields.contains_key("value") {
            let source = fields["source"].as_str().unwrap_or_default();
            assert!(source.len() > 10, "{name}: {fields:?} has no source");
        }
        fields.values().for_each(|field| check_sources(name, field));
    }
}

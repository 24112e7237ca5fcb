//! The testbed: the device that cases run on, as which GPU, with how much memory.

use std::cmp::Reverse;
use std::path::Path;

use clap::ValueEnum;
use engine_protocol::{Config, Device, DiskRate, GIB, GpuProfile, HostRates, ModelSpec, Request, gib};

use reports::Card;

use crate::error::Error;
use crate::gpu_profile::{Budget, GpuProfiles, is_of};
use crate::pcie_slot::PcieSlot;
use crate::ram::Ram;
use crate::real_gpu::{self, RealGpu};

/// What runs cases, as it is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeviceChoice {
    /// A real GPU where one is large enough, else the virtual one
    #[default]
    Auto,
    /// A real GPU
    Cuda,
    /// The virtual GPU: real memory figures, nothing computed
    Virtual,
    /// The CPU
    Cpu,
}

/// What is asked for of a testbed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// A budget (24GB) or a profile (rtx-4090).
    pub(crate) gpu: Option<&'a str>,
    /// What runs the cases.
    pub(crate) device: DeviceChoice,
    /// The machine's memory (32GB).
    pub(crate) ram: Option<&'a str>,
    /// The GPU's slot, where it is not the one that it is made for.
    pub(crate) pcie: Option<PcieSlot>,
    /// What the disk gives, where that is said.
    pub(crate) disk: Option<DiskRate>,
}

/// What cases run on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Testbed {
    /// What runs them.
    pub(crate) device: Device,
    /// The GPU's profile, where there is one.
    pub(crate) profile: Option<GpuProfile>,
    /// What may be used on the device, the context included; empty on the CPU.
    pub(crate) capacity_bytes: Option<u64>,
    /// What the caching allocator may reserve at most, where that is less than the device has.
    pub(crate) memory_limit_bytes: Option<u64>,
    /// Where a size was named, the cards of that size that hold less.
    pub(crate) smaller: Vec<Card>,
    /// What cases may take of the machine's memory.
    pub(crate) ram: Ram,
    /// The real GPU to use.
    pub(crate) uuid: Option<String>,
    /// Where a GPU was named for each rank, those of all but the first; empty where all ranks have one of this kind.
    pub(crate) others: Vec<Self>,
    /// What the disk gives that streamed weights are read from, where that is known.
    pub(crate) disk: Option<DiskRate>,
    /// How all this came about, in a sentence or two.
    pub(crate) choice: String,
    /// A short name for files: `rtx-4090`, `23gb`, `cpu`.
    pub(crate) label: String,
}

impl Testbed {
    /// What is wanted, as it is on this machine.
    pub(crate) fn choose(wanted: Wanted<'_>) -> Result<Self, Error> {
        Self::of(wanted, &[])?.completed(wanted)
    }

    /// The same for a video that may be split over several GPUs, of which several kinds may be named.
    pub(crate) fn for_ranks(wanted: Wanted<'_>) -> Result<Self, Error> {
        let kinds = wanted.gpu.map(kinds).unwrap_or_default();
        let [_, _, ..] = kinds.as_slice() else { return Self::choose(wanted) };
        if wanted.device == DeviceChoice::Cpu {
            return Err(Error::input("--gpu: ranks are threads on the CPU, and no GPU has a part in it: leave it out, and use --gpus N"));
        }
        let mut all: Vec<Self> = Vec::new();
        for kind in &kinds {
            let taken: Vec<String> = all.iter().filter_map(|testbed| testbed.uuid.clone()).collect();
            all.push(Self::of(Wanted { gpu: Some(kind), ..wanted }, &taken)?);
        }
        if all.iter().any(|testbed| testbed.device != all[0].device) {
            return Self::for_ranks(Wanted { device: DeviceChoice::Virtual, ..wanted });
        }
        Self::together(all)?.completed(wanted)
    }

    /// One for the ranks that have these GPUs.
    fn together(mut all: Vec<Self>) -> Result<Self, Error> {
        all.sort_by_key(|testbed| rank_order(testbed.capacity_bytes));
        let choices: Vec<String> = all.iter().enumerate().map(|(rank, testbed)| format!("Rank {rank}: {}", testbed.choice)).collect();
        let label = all.iter().map(|testbed| testbed.label.as_str()).collect::<Vec<_>>().join("+");
        let mut all = all.into_iter();
        let first = all.next().ok_or_else(|| Error::Fault("no GPU was named".into()))?;
        Ok(Self { choice: choices.join(" "), label, others: all.collect(), ..first })
    }

    /// The GPUs of so many ranks, where one was named for each; nothing where all have one of this kind.
    pub(crate) fn of_each_rank(&self, count: usize) -> Result<Option<Vec<Self>>, Error> {
        let named = 1 + self.others.len();
        match named {
            1 => Ok(None),
            _ if named == count => {
                let first = Self { others: Vec::new(), ..self.clone() };
                Ok(Some(std::iter::once(first).chain(self.others.clone()).collect()))
            }
            _ => Err(Error::input(format!(
                "--gpu names {named} GPUs, and the video is split over {count}: name one for each rank, or one kind for all"
            ))),
        }
    }

    /// A virtual GPU of that kind, whatever is here: for commands that plan, and of which nobody asks for a device.
    pub(crate) fn planned(wanted: Wanted<'_>) -> Result<Self, Error> {
        let budget = wanted.gpu.map(|text| GpuProfiles::load()?.budget(text)).transpose()?;
        Self::on_virtual(budget, "")?.completed(wanted)
    }

    /// The same for videos that may be split over several GPUs.
    pub(crate) fn planned_for_ranks(wanted: Wanted<'_>) -> Result<Self, Error> {
        let kinds = wanted.gpu.map(kinds).unwrap_or_default();
        match kinds.as_slice() {
            [_, _, ..] => Self::for_ranks(Wanted { device: DeviceChoice::Virtual, ..wanted }),
            _ => Self::planned(wanted),
        }
    }

    /// With the machine, the disk and the slot that are wanted.
    fn completed(self, wanted: Wanted<'_>) -> Result<Self, Error> {
        let mut testbed = Self { disk: wanted.disk, ..self };
        testbed.ram = Ram::of(wanted.ram, testbed.device)?;
        testbed.others = testbed.others.into_iter().map(|other| other.completed(wanted)).collect::<Result<_, _>>()?;
        if let (Some(slot), Some(profile)) = (wanted.pcie, &mut testbed.profile) {
            profile.pcie = slot.link(&profile.pcie);
            let (generation, lanes) = (profile.pcie.generation.value, profile.pcie.lanes.value);
            testbed.choice += &format!(" Its slot is PCI Express {generation}.0 x{lanes}.");
        }
        Ok(testbed)
    }

    /// What is wanted, where those real GPUs are taken.
    fn of(wanted: Wanted<'_>, taken: &[String]) -> Result<Self, Error> {
        let list = || real_gpu::list().map(|gpus| gpus.into_iter().filter(|gpu| !taken.contains(&gpu.uuid)).collect::<Vec<_>>());
        let profiles = GpuProfiles::load()?;
        let budget = wanted.gpu.map(|text| profiles.budget(text)).transpose()?;
        match wanted.device {
            DeviceChoice::Cpu => Ok(Self::cpu(wanted.gpu)),
            DeviceChoice::Virtual => Self::on_virtual(budget, "--device virtual was asked for."),
            DeviceChoice::Cuda => {
                let gpus = list().map_err(|why| Error::input(format!("--device cuda: no real GPU here ({why}): use --device virtual")))?;
                match large_enough(&gpus, budget.as_ref()) {
                    Some(gpu) => Ok(Self::on_real(gpu, budget, &profiles)),
                    None => Err(Error::input(format!(
                        "--device cuda: none of the real GPUs here is large enough ({}): use --device virtual",
                        titles(&gpus)
                    ))),
                }
            }
            DeviceChoice::Auto => match list() {
                Ok(gpus) => match large_enough(&gpus, budget.as_ref()) {
                    Some(gpu) => Ok(Self::on_real(gpu, budget, &profiles)),
                    None => Self::on_virtual(budget, &format!("None of the real GPUs here is what was asked for ({}).", titles(&gpus))),
                },
                Err(_) => Self::on_virtual(budget, "There is no real GPU here."),
            },
        }
    }

    fn cpu(gpu: Option<&str>) -> Self {
        let idle = gpu.map(|gpu| format!(" GPU={gpu} has no effect there.")).unwrap_or_default();
        Self {
            device: Device::Cpu,
            profile: None,
            capacity_bytes: None,
            memory_limit_bytes: None,
            smaller: Vec::new(),
            ram: Ram::unlimited(),
            uuid: None,
            others: Vec::new(),
            disk: None,
            choice: format!("--device cpu was asked for.{idle}"),
            label: "cpu".into(),
        }
    }

    fn on_virtual(budget: Option<Budget>, why: &str) -> Result<Self, Error> {
        let Some(budget) = budget else {
            let said = format!("{why} Say which GPU the virtual one stands in for: --gpu 24GB or --gpu rtx-4090");
            return Err(Error::input(said.trim_start()));
        };
        Ok(Self {
            device: Device::Virtual,
            capacity_bytes: Some(budget.capacity_bytes),
            memory_limit_bytes: budget.memory_limit_bytes(),
            smaller: budget.smaller.clone(),
            ram: Ram::unlimited(),
            uuid: None,
            others: Vec::new(),
            disk: None,
            choice: format!("{} {why}", budget.choice).trim_end().to_owned(),
            label: label(&budget),
            profile: Some(budget.profile),
        })
    }

    fn on_real(gpu: &RealGpu, budget: Option<Budget>, profiles: &GpuProfiles) -> Self {
        let profile = profiles.titled(&gpu.title, gpu.memory_bytes).cloned();
        let limited = budget.filter(|budget| {
            gpu.memory_bytes > budget.capacity_bytes && !(budget.is_named && is_of(&budget.profile, &gpu.title, gpu.memory_bytes))
        });
        let own = profile.as_ref().map_or(gpu.memory_bytes, |profile| profile.memory_bytes.value);
        let choice = match &limited {
            Some(budget) => {
                format!("{} A real GPU is large enough: {}, capped to {:.2} GiB.", budget.choice, gpu.title, gib(budget.capacity_bytes))
            }
            None => format!("A real GPU is here: {}.", gpu.title),
        };
        Self {
            device: Device::Cuda,
            capacity_bytes: Some(limited.as_ref().map_or(own, |budget| budget.capacity_bytes)),
            memory_limit_bytes: limited.as_ref().map(|budget| budget.capacity_bytes),
            smaller: Vec::new(),
            ram: Ram::unlimited(),
            uuid: Some(gpu.uuid.clone()),
            others: Vec::new(),
            disk: None,
            choice,
            label: limited.as_ref().map_or_else(|| short(&gpu.title), label),
            profile,
        }
    }

    /// The request for a case: with the model's weights where somebody named them, and with no video written.
    pub(crate) fn request(&self, case: &str, model: &ModelSpec, config: &Config, host_rates: Option<HostRates>) -> Request {
        Request {
            checkpoint: model.files.clone(),
            case: case.into(),
            device: self.device,
            memory_limit_bytes: self.memory_limit_of(config),
            host_limit_bytes: self.ram.limit_bytes(),
            gpu: self.profile.clone(),
            host_rates,
            disk: self.disk,
            model: model.clone(),
            config: config.clone(),
            shared_weights: None,
            output: None,
            snapshot: None,
            operation_times: None,
            ranks: None,
        }
    }

    /// Refuses memory snapshots, where they are wanted and would have nothing in them.
    pub(crate) fn check_snapshot(&self, is_wanted: bool) -> Result<(), Error> {
        if is_wanted && self.device == Device::Cpu {
            return Err(Error::input(
                "--snapshot: on the CPU no GPU memory is used, so there is nothing in it: use --device cuda or virtual",
            ));
        }
        Ok(())
    }

    /// A virtual GPU of the same kind with more memory than any case needs; none where no profile is known.
    pub(crate) fn without_end(&self) -> Option<Self> {
        /// More than any GPU has.
        const ENDLESS: u64 = 1 << 42;
        let mut profile = self.profile.clone()?;
        profile.memory_bytes.value = ENDLESS;
        Some(Self {
            device: Device::Virtual,
            profile: Some(profile),
            capacity_bytes: Some(ENDLESS),
            memory_limit_bytes: None,
            uuid: None,
            others: self.others.iter().map(Self::without_end).collect::<Option<Vec<_>>>()?,
            ..self.clone()
        })
    }

    /// What a case may hold on the device, where that is less than there is.
    pub(crate) fn memory_limit_of(&self, config: &Config) -> Option<u64> {
        let usable = config.usable_of(self.capacity_bytes?);
        if Some(usable) == self.capacity_bytes { self.memory_limit_bytes } else { Some(usable) }
    }

    /// Cases at once unless the user says otherwise: on the virtual GPU nothing is computed, elsewhere cases would disturb each other.
    pub(crate) fn jobs(&self, asked_for: Option<u16>) -> Result<usize, Error> {
        match (self.device, asked_for) {
            (Device::Virtual, None) => Ok(crate::host::cores()),
            (Device::Cuda, Some(2..)) => Err(Error::input("--jobs: cases at once on a real GPU would measure each other: use --jobs 1")),
            (_, asked_for) => Ok(asked_for.map_or(1, usize::from)),
        }
    }

    /// The run directory's place under `runs`, for a run that begins now.
    pub(crate) fn run_dir(&self, runs: &Path, sweep: &str) -> std::path::PathBuf {
        let begun = jiff::Zoned::now().strftime("%Y-%m-%d-%H%M%S");
        runs.join(format!("{begun}-{sweep}-{}", self.label))
    }
}

/// The GPUs that `text` names, one for each rank: `rtx-4090,rtx-3090`, or with a plus where a comma tells runs apart.
pub(crate) fn kinds(text: &str) -> Vec<&str> {
    text.split([',', '+']).map(str::trim).filter(|kind| !kind.is_empty()).collect()
}

/// In which order ranks have GPUs of so much memory: the first rank does most, and has the one with most GiB, of equals the one that is named first.
pub(crate) fn rank_order(capacity_bytes: Option<u64>) -> Reverse<Option<u64>> {
    Reverse(capacity_bytes.map(|bytes| bytes / GIB))
}

/// The smallest real GPU that is what the budget asks for: of that kind where it names one, else at least as large.
fn large_enough<'a>(gpus: &'a [RealGpu], budget: Option<&Budget>) -> Option<&'a RealGpu> {
    let fits = |gpu: &&RealGpu| match budget {
        Some(budget) if budget.is_named => is_of(&budget.profile, &gpu.title, gpu.memory_bytes),
        Some(budget) => gpu.memory_bytes >= budget.capacity_bytes,
        None => true,
    };
    gpus.iter().filter(fits).min_by_key(|gpu| (gpu.memory_bytes, Reverse(gpu.free_bytes)))
}

fn label(budget: &Budget) -> String {
    match budget.memory_limit_bytes() {
        Some(_) => format!("{}-{:.1}gib", budget.profile.name, gib(budget.capacity_bytes)),
        None => budget.profile.name.clone(),
    }
}

/// `NVIDIA H100 80GB HBM3` as `nvidia-h100-80gb-hbm3`.
fn short(title: &str) -> String {
    title.to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-")
}

fn titles(gpus: &[RealGpu]) -> String {
    let titles: Vec<_> = gpus.iter().map(|gpu| format!("{}, {:.2} GiB", gpu.title, gib(gpu.memory_bytes))).collect();
    titles.join("; ")
}

#[cfg(test)]
mod tests {
    use engine_protocol::Settings;

    use super::*;

    fn real(title: &str, gigabytes: u64) -> RealGpu {
        RealGpu { title: title.into(), uuid: format!("GPU-{title}"), memory_bytes: gigabytes << 30, free_bytes: gigabytes << 30 }
    }

    #[test]
    fn a_larger_real_gpu_is_capped_to_the_budget() {
        let profiles = GpuProfiles::load().expect("profiles");
        let budget = profiles.budget("24GB").expect("a budget");
        let gpus = [real("NVIDIA Big", 140), real("NVIDIA H100 80GB HBM3", 80), real("NVIDIA GeForce RTX 3060", 12)];
        let gpu = large_enough(&gpus, Some(&budget)).expect("a GPU");
        assert_eq!(gpu.title, "NVIDIA H100 80GB HBM3");
        let testbed = Testbed::on_real(gpu, Some(budget.clone()), &profiles);
        assert_eq!(testbed.memory_limit_bytes, Some(budget.capacity_bytes));
        assert_eq!(testbed.capacity_bytes, Some(budget.capacity_bytes));
        assert_eq!(testbed.profile.map(|p| p.name).as_deref(), Some("h100"));
    }

    #[test]
    fn a_named_gpu_is_only_that_kind() {
        let profiles = GpuProfiles::load().expect("profiles");
        let budget = profiles.budget("rtx-4090").expect("a budget");
        assert_eq!(large_enough(&[real("NVIDIA H100 80GB HBM3", 80)], Some(&budget)), None);
        // Cards of 8 and 16 GB have this title, and the profile is the larger one's.
        let larger = profiles.budget("RTX 4060 Ti").expect("a budget");
        assert_eq!(large_enough(&[real("NVIDIA GeForce RTX 4060 Ti", 8)], Some(&larger)), None);
        let own = real("NVIDIA GeForce RTX 4090", 24);
        let testbed = Testbed::on_real(&own, Some(budget), &profiles);
        assert_eq!((testbed.memory_limit_bytes, testbed.label.as_str()), (None, "nvidia-geforce-rtx-4090"));
    }

    #[test]
    fn room_for_others_is_taken_off_the_budget() {
        let profiles = GpuProfiles::load().expect("profiles");
        let models = crate::model::Models::load().expect("models");
        let model = models.get("wan-tiny").expect("a model");
        let limit = |gpu: &str, reserve_gib: f64| {
            let settings = Settings { reserve_gib: Some(reserve_gib), ..Settings::default() };
            let config = Config::resolve(&settings, model).expect("legal");
            let testbed = Testbed::on_virtual(Some(profiles.budget(gpu).expect("a budget")), "").expect("a testbed");
            testbed.request("a", model, &config, None).memory_limit_bytes
        };
        let whole = profiles.budget("rtx-4090").expect("a budget").capacity_bytes;
        assert_eq!([limit("rtx-4090", 0.0), limit("rtx-4090", 2.0)], [None, Some(whole - (2 << 30))]);
        let part = profiles.budget("20GB").expect("a budget").memory_limit_bytes();
        assert_eq!([limit("20GB", 0.0), limit("20GB", 0.5)], [part, part.map(|bytes| bytes - (1 << 29))]);
        assert_eq!(limit("rtx-4090", 100.0), Some(0));
    }
}

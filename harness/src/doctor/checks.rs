//! What the facts mean: each thing that keeps videos from fitting or makes them slow, and what to do about it. A pure function of the facts.

use engine_protocol::{Throttle, gib};
use host_memory::PageLockLimit;

use super::facts::{Facts, GpuFacts, PythonFacts};

/// The driver that CUDA 13 needs: NVIDIA, CUDA Toolkit release notes, table of minimum driver versions.
const DRIVER: u32 = 580;
/// What of a GPU's memory its driver keeps for itself.
const OWN_SHARE: f64 = 0.02;
/// RAM from which on 14B runs at level 3, see docs/ram.md.
const RAM_GIB: f64 = 15.0;

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// As it should be.
    Good,
    /// Nobody says.
    Unknown,
    /// It costs time or memory.
    Mind,
    /// Nothing works with it.
    Bad,
}

impl State {
    /// The word in front of a check.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Unknown => "?",
            Self::Mind => "mind",
            Self::Bad => "bad",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    /// What it is about.
    pub(crate) what: &'static str,
    pub(crate) state: State,
    /// What was found.
    pub(crate) found: String,
    /// What to do.
    pub(crate) advice: Option<String>,
}

impl Check {
    fn new(what: &'static str, state: State, found: impl Into<String>) -> Self {
        Self { what, state, found: found.into(), advice: None }
    }

    fn advice(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }
}

/// All checks, in the order in which one needs the other.
pub(crate) fn checks(facts: &Facts) -> Vec<Check> {
    let mut all = vec![gpu(facts)];
    if !facts.gpus.is_empty() {
        all.push(driver(facts));
    }
    for card in &facts.gpus {
        all.push(memory(card));
        all.push(link(card));
        all.push(clocks(card));
    }
    all.push(match &facts.no_pytorch {
        None => Check::new("PyTorch", State::Good, "the worker finds its own"),
        Some(why) => Check::new("PyTorch", State::Bad, why.clone()),
    });
    all.extend(facts.python.iter().map(python));
    all.push(ram(facts));
    all.push(page_locking(facts));
    all
}

fn gpu(facts: &Facts) -> Check {
    let Some(why) = &facts.why_no_gpu else {
        let names: Vec<_> = facts.gpus.iter().map(|card| format!("{}, {:.2} GiB", card.title, gib(card.memory_bytes))).collect();
        return Check::new("GPU", State::Good, names.join("; "));
    };
    let check = Check::new("GPU", if facts.has_kernel_driver { State::Bad } else { State::Mind }, format!("none ({why})"));
    if facts.has_kernel_driver {
        check.advice("the kernel has NVIDIA's driver, and NVML does not answer: the driver was updated without a restart, or this container was started without its GPU (--gpus all)")
    } else {
        check.advice("for a card in this machine, install NVIDIA's driver. Without one everything but making videos works, on a virtual GPU: lowmem advise --gpu 12GB")
    }
}

fn driver(facts: &Facts) -> Check {
    let version = facts.driver.as_deref().unwrap_or("of an unknown version");
    let cuda = facts.cuda.map(|(major, minor)| format!(", for CUDA {major}.{minor} and older")).unwrap_or_default();
    let found = format!("{version}{cuda}");
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    match major {
        Some(major) if major < DRIVER => {
            Check::new("driver", State::Bad, found).advice(format!("PyTorch for CUDA 13 needs {DRIVER} or newer: update it"))
        }
        Some(_) => Check::new("driver", State::Good, found),
        None => Check::new("driver", State::Unknown, found),
    }
}

fn memory(card: &GpuFacts) -> Check {
    let held = card.memory_bytes.saturating_sub(card.free_bytes);
    let found = format!("{:.2} of {:.2} GiB are free", gib(card.free_bytes), gib(card.memory_bytes));
    if (held as f64) <= OWN_SHARE * card.memory_bytes as f64 {
        return Check::new("GPU memory", State::Good, found);
    }
    let holders = card.state.others.iter().map(|other| {
        let name = card.names.iter().find(|(process, _)| *process == other.process).map_or("a process", |(_, name)| name.as_str());
        let bytes = other.bytes.map(|bytes| format!(", {:.2} GiB", gib(bytes))).unwrap_or_default();
        format!("{name} ({}{bytes})", other.process)
    });
    let holders: Vec<_> = holders.collect();
    let by = if holders.is_empty() { "by whom the driver does not say".to_owned() } else { format!("by {}", holders.join(", ")) };
    let reserve = (gib(held) * 10.0).ceil() / 10.0;
    Check::new("GPU memory", State::Mind, format!("{found}; the rest is held {by}"))
        .advice(format!("end what you do not need; what stays, such as a display, is left alone with reserve_gib={reserve}"))
}

fn link(card: &GpuFacts) -> Check {
    const WHAT: &str = "PCI Express";
    let Some((generation, lanes)) = card.link else {
        return Check::new(WHAT, State::Unknown, "the driver does not say how the card is linked");
    };
    let found = format!("{generation}.0 x{lanes}");
    match card.own_link {
        Some((own_generation, own_lanes)) if generation < own_generation || lanes < own_lanes => {
            Check::new(WHAT, State::Mind, format!("{found}; the card is made for {own_generation}.0 x{own_lanes}")).advice(format!(
                "copies of streamed weights are slower: use the slot next to the processor, or let resident_blocks=auto keep more on the card. Plans go by it with --pcie {generation}x{lanes}"
            ))
        }
        _ => Check::new(WHAT, State::Good, found),
    }
}

fn clocks(card: &GpuFacts) -> Check {
    let state = &card.state;
    let warmth = state.temperature_c.map(|degrees| format!(", {degrees} °C")).unwrap_or_default();
    let Some(clock) = state.sm_clock_mhz else { return Check::new("clocks", State::Unknown, "the driver does not say them") };
    let found = format!("{clock} MHz{warmth}");
    // At its power limit is where a card that computes should be.
    let bad: Vec<_> = state.throttled_by.iter().filter(|reason| **reason != Throttle::PowerLimit).collect();
    match bad.as_slice() {
        [] => Check::new("clocks", State::Good, found),
        [first, ..] => {
            let advice = match first {
                Throttle::Heat => "let more air at it, clean its fans, or lower its power limit: nvidia-smi -pl WATTS",
                Throttle::PowerSupply => "its power supply gives too little: check the cables and the supply's rating",
                Throttle::Hardware | Throttle::PowerLimit => "its hardware asks for less, mostly for heat or power: check both",
            };
            Check::new("clocks", State::Mind, format!("{found}, held down by {}", first.name().replace('_', " "))).advice(advice)
        }
    }
}

/// Of the Python in which other engines run. PyTorch 2.9 lost cuDNN's convolutions over time for bf16 with cuDNN before 9.15, and a VAE takes three times the memory
/// and more (pytorch/pytorch#166790, comfyanonymous/ComfyUI#10373).
fn python(python: &PythonFacts) -> Check {
    const WHAT: &str = "PyTorch of Python";
    let Some(torch) = &python.torch else { return Check::new(WHAT, State::Good, format!("none in {}", python.python)) };
    let cudnn = python.cudnn.as_deref();
    let found = format!("{torch} in {}{}", python.python, cudnn.map(|version| format!(", cuDNN {version}")).unwrap_or_default());
    let is_before = |version: &str, wanted: [u32; 2]| numbers(version).is_some_and(|version| version < wanted);
    let is_2_9 = numbers(torch) == Some([2, 9]);
    if is_2_9 && cudnn.is_none_or(|version| is_before(version, [9, 15])) {
        return Check::new(WHAT, State::Mind, found).advice(
            "other engines' VAEs take about three times the memory with it, since cuDNN's convolutions are off: take PyTorch 2.10 or newer, or 2.9.1 with cuDNN 9.15. lowmem brings its own and is not touched by it",
        );
    }
    Check::new(WHAT, State::Good, found)
}

/// The first two numbers of a version.
fn numbers(version: &str) -> Option<[u32; 2]> {
    let mut parts = version.split('.');
    Some([parts.next()?.parse().ok()?, parts.next()?.parse().ok()?])
}

fn ram(facts: &Facts) -> Check {
    let (Some(all), Some(available)) = (facts.ram_bytes, facts.ram_available_bytes) else {
        return Check::new("RAM", State::Unknown, "the system does not say how much there is");
    };
    let swap = facts.swap_bytes.filter(|&bytes| bytes > 0).map(|bytes| format!(", and {:.1} GiB of swap", gib(bytes))).unwrap_or_default();
    let found = format!("{:.1} of {:.1} GiB are available{swap}", gib(available), gib(all));
    if gib(available) < RAM_GIB {
        return Check::new("RAM", State::Mind, found)
            .advice("level 3 holds the weights in RAM, or reads them from the disk in each step where that is short: end other programs, or see docs/ram.md for what runs with how much");
    }
    Check::new("RAM", State::Good, found)
}

fn page_locking(facts: &Facts) -> Check {
    const WHAT: &str = "page-locking";
    match facts.page_lock {
        None => Check::new(WHAT, State::Good, "nothing limits it"),
        Some(PageLockLimit::Wsl) => {
            Check::new(WHAT, State::Mind, "this is WSL, which locks from 0.5 GiB to half of the memory and says no limit").advice(
                "what is refused is copied at less than half the rate; give WSL more memory (.wslconfig), or plan with max_pinned_gib=0.5",
            )
        }
        Some(PageLockLimit::Ulimit(bytes)) => {
            Check::new(WHAT, State::Good, format!("`ulimit -l` is {:.2} GiB, which NVIDIA's driver does not go by", gib(bytes)))
        }
    }
}

#[cfg(test)]
mod tests {
    use engine_protocol::{GIB, GpuProcess, GpuState};

    use super::*;

    fn card() -> GpuFacts {
        GpuFacts {
            title: "NVIDIA GeForce RTX 4090".into(),
            memory_bytes: 24 * GIB,
            free_bytes: 24 * GIB - (100 << 20),
            state: GpuState { sm_clock_mhz: Some(2520), temperature_c: Some(40), ..GpuState::default() },
            names: Vec::new(),
            link: Some((4, 16)),
            own_link: Some((4, 16)),
        }
    }

    fn machine() -> Facts {
        Facts {
            gpus: vec![card()],
            driver: Some("580.95.05".into()),
            cuda: Some((13, 0)),
            ram_bytes: Some(64 * GIB),
            ram_available_bytes: Some(60 * GIB),
            ..Facts::default()
        }
    }

    fn worst(facts: &Facts) -> Check {
        checks(facts).into_iter().max_by_key(|check| check.state).expect("checks")
    }

    #[test]
    fn a_good_machine_has_nothing_to_mind() {
        let all = checks(&machine());
        assert!(all.iter().all(|check| check.state == State::Good && check.advice.is_none()), "{all:#?}");
    }

    #[test]
    fn each_fault_is_found_with_what_to_do() {
        let with = |change: fn(&mut GpuFacts)| {
            let mut facts = machine();
            change(&mut facts.gpus[0]);
            worst(&facts)
        };
        let held = with(|card| {
            card.free_bytes = 20 * GIB;
            card.state.others = vec![GpuProcess { process: 7, bytes: Some(3 * GIB) }];
            card.names = vec![(7, "firefox".into())];
        });
        assert_eq!((held.state, held.what), (State::Mind, "GPU memory"));
        assert!(
            held.found.contains("firefox (7, 3.00 GiB)") && held.advice.is_some_and(|advice| advice.contains("reserve_gib=4")),
            "{}",
            held.found
        );
        let narrow = with(|card| card.link = Some((4, 4)));
        assert!(
            narrow.found.contains("4.0 x4; the card is made for 4.0 x16")
                && narrow.advice.is_some_and(|advice| advice.contains("--pcie 4x4"))
        );
        let hot = with(|card| card.state.throttled_by = vec![Throttle::PowerLimit, Throttle::Heat]);
        assert!(hot.found.contains("held down by heat"), "{}", hot.found);
        assert_eq!(with(|card| card.state.throttled_by = vec![Throttle::PowerLimit]).state, State::Good);

        let old = Facts { driver: Some("535.183.01".into()), cuda: Some((12, 2)), ..machine() };
        assert_eq!((worst(&old).state, worst(&old).what), (State::Bad, "driver"));
        let wsl = Facts { page_lock: Some(PageLockLimit::Wsl), ..machine() };
        assert_eq!(worst(&wsl).what, "page-locking");
        let small = Facts { ram_available_bytes: Some(6 * GIB), ..machine() };
        assert_eq!(worst(&small).what, "RAM");
    }

    #[test]
    fn versions_that_cost_a_vae_memory_are_known() {
        let of = |torch: &str, cudnn: Option<&str>| {
            python(&PythonFacts { python: "python3".into(), torch: Some(torch.into()), cudnn: cudnn.map(str::to_owned) }).state
        };
        assert_eq!(of("2.9.0+cu128", Some("9.10.2.21")), State::Mind);
        assert_eq!(of("2.9.1", Some("9.15.1.9")), State::Good);
        assert_eq!([of("2.8.0", Some("9.10.2.21")), of("2.10.0", Some("9.10.2.21"))], [State::Good, State::Good]);
    }

    #[test]
    fn without_a_gpu_it_says_what_works_all_the_same() {
        let none = |has_kernel_driver| {
            let facts = Facts { gpus: Vec::new(), why_no_gpu: Some("NVML: not there".into()), has_kernel_driver, ..machine() };
            worst(&facts).advice.expect("advice")
        };
        assert!(none(false).contains("lowmem advise --gpu 12GB") && none(true).contains("without a restart"));
    }
}

//! Whether autotune finds the best: held against every case of a reduced space, for random budgets; and whether anything that is recommended keeps its budget.

use std::fs;
use std::path::PathBuf;

use engine_protocol::{GIB, Outcome, RunRecord};
use lowmem_tests::{lowmem, root};
use proptest::prelude::Strategy;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use serde_json::Value;

use super::sweep::Swept;

/// Videos: short ones, of which many can be tried, on cards of four generations. The few steps of some have decoding count for much.
const VIDEOS: [(&str, &str, &str); 5] = [
    ("rtx-3060", "wan2.1-t2v-1.3b", "resolution=832x480 frames=17 steps=20"),
    ("rtx-4090", "wan2.1-t2v-1.3b", "resolution=1280x720 frames=9 steps=4"),
    ("h100", "wan2.1-t2v-14b", "resolution=832x480 frames=5 steps=4"),
    ("rtx-5090", "wan2.2-ti2v-5b", "resolution=1280x704 frames=9 steps=10"),
    ("a100-40gb", "wan2.1-t2v-1.3b", "resolution=832x480 frames=5 steps=50"),
];
const BUDGETS_A_VIDEO: usize = 4;
/// All that is tried of a video.
const SPACE: &str = "sweep:\n  low_mem_level: [0, 1, 2, 3]\n  vae_tile_size: [16, 8]\n  head_chunk: [0, 4]\n  load_weights: [at_start, as_used]\n  \
                     prefetch_blocks: [0, 1]\n";
/// Times that are the same: what ranks cases goes by steps of a hundredth.
const SAME: f64 = 1.01;

/// A folder for `lowmem`'s own settings, with cards in it that nobody sells.
struct Cards(tempfile::TempDir);

impl Cards {
    fn new() -> Self {
        let cards = Self(tempfile::tempdir().expect("a folder"));
        fs::create_dir_all(cards.folder()).expect("a folder");
        cards
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("lowmem/gpus")
    }

    /// A card like that one with so much memory, by its name.
    fn with_memory(&self, card: &str, bytes: u64) -> String {
        let name = format!("{card}-of-{bytes}");
        let known = fs::read_to_string(root().join(format!("sweeps/gpus/{card}.yaml"))).expect("a profile");
        let line = |line: &str| match line.split(':').next() {
            Some("name") => format!("name: {name}\n"),
            Some("memory_bytes") => format!("memory_bytes: {{ value: {bytes}, source: \"a test\" }}\n"),
            _ => format!("{line}\n"),
        };
        fs::write(self.folder().join(format!("{name}.yaml")), known.lines().map(line).collect::<String>()).expect("written");
        name
    }

    fn environment(&self) -> [(&'static str, PathBuf); 1] {
        [("XDG_CONFIG_HOME", self.0.path().to_owned())]
    }

    /// Autotune's answer, and whether it says that nothing fits.
    fn tuned(&self, card: &str, model: &str, video: &str, ram: Option<u64>) -> Option<Answer> {
        let mut lowmem = lowmem();
        lowmem.args(["autotune", "--device", "virtual", "--json", "--model", model, "--gpu", card]).args(video.split(' '));
        if let Some(bytes) = ram {
            lowmem.arg("--ram").arg(format!("{:.3}GB", bytes as f64 / GIB as f64));
        }
        let run = lowmem.envs(self.environment()).arg("--out").arg(self.0.path().join("run")).output().expect("lowmem starts");
        let _ = fs::remove_dir_all(self.0.path().join("run"));
        let said = String::from_utf8_lossy(&run.stderr);
        let answer: Value = serde_json::from_slice(&run.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
        assert_eq!(run.status.code(), Some(if answer["best"].is_null() { 3 } else { 0 }), "{said}");
        Answer::of(&answer["best"])
    }
}

/// What a recommended case takes.
#[derive(Debug)]
struct Answer {
    device_bytes: u64,
    ram_bytes: u64,
    secs: f64,
    command: String,
}

impl Answer {
    fn of(case: &Value) -> Option<Self> {
        let bytes = |key: &str| case[key].as_u64().unwrap_or_else(|| panic!("{key}: {case:#}"));
        (!case.is_null()).then(|| Self {
            device_bytes: bytes("peak_device_bytes"),
            ram_bytes: bytes("ram_peak_bytes"),
            secs: case["total_secs"]["expected"].as_f64().expect("a time"),
            command: case["command"].to_string(),
        })
    }
}

/// What of the machine's memory `--ram` leaves to a case: the system's share is its own.
fn usable_ram(bytes: u64) -> u64 {
    (bytes as f64 * 0.97) as u64 - 3 * GIB / 2
}

/// A number from one to another, on a scale of orders of magnitude.
fn between(least: u64, most: u64, place: f64) -> u64 {
    ((least as f64).ln() + ((most as f64).ln() - (least as f64).ln()) * place).exp() as u64
}

#[test]
fn autotune_is_as_fast_as_the_best_of_all_that_fits() {
    let mut runner = TestRunner::new(Config { rng_seed: RngSeed::Fixed(18), ..Config::default() });
    let mut draw = || (0.0..1.0_f64).new_tree(&mut runner).expect("a number").current();
    let cards = Cards::new();
    let (mut good, mut said) = (0, String::new());
    for (card, model, video) in VIDEOS {
        let lines = video.replace(' ', "\n").replace('=', ": ");
        let endless = cards.with_memory(card, 200 * GIB);
        let all = Swept::new(&format!("model: {model}\n{lines}\n{SPACE}"), &endless, "virtual", &cards.environment()).run().records;
        assert!(all.iter().all(|record| record.outcome == Outcome::Ok));
        let [gpu, ram]: [fn(&RunRecord) -> u64; 2] =
            [|record| record.peak_device_bytes().expect("known"), |record| record.host_needed_bytes().expect("known")];
        let ends = |of: fn(&RunRecord) -> u64| (all.iter().map(of).min().expect("cases"), all.iter().map(of).max().expect("cases"));
        for _ in 0..BUDGETS_A_VIDEO {
            let (least, most) = ends(gpu);
            let held = between(least * 4 / 5, most * 6 / 5, draw());
            let (least, most) = ends(ram);
            let machine = between(least + 2 * GIB, most * 3 / 2 + 2 * GIB, draw());
            let ram_held = (draw() < 0.5).then_some(machine);
            let fits = |record: &&RunRecord| gpu(record) <= held && ram_held.is_none_or(|bytes| ram(record) <= usable_ram(bytes));
            let secs = |record: &RunRecord| record.total_secs().expect("a time").expected;
            let best = all.iter().filter(fits).map(secs).min_by(f64::total_cmp);
            let found = cards.tuned(&cards.with_memory(card, held), model, video, ram_held);
            if let Some(answer) = &found {
                assert!(answer.device_bytes <= held && ram_held.is_none_or(|bytes| answer.ram_bytes <= bytes), "over budget: {answer:?}");
            }
            let is_good = match (best, &found) {
                (Some(best), Some(answer)) => answer.secs <= best * SAME,
                // It tries more than is in the space.
                (None, _) => true,
                (Some(_), None) => false,
            };
            good += usize::from(is_good);
            let found = found.map_or_else(|| "nothing".into(), |answer| format!("{} s by {}", answer.secs, answer.command));
            said += &format!("{model} {video} on {card} with {held} of GPU and {ram_held:?} of RAM: best {best:?}, found {found}\n");
        }
    }
    assert!(good + 1 >= VIDEOS.len() * BUDGETS_A_VIDEO, "{good} are as good as the best:\n{said}");
}

/// For every card, with random memory in the machine: what is recommended ran, and took no more than there is.
#[test]
fn what_is_recommended_keeps_its_budget_as_it_runs() {
    let mut runner = TestRunner::new(Config { rng_seed: RngSeed::Fixed(60), ..Config::default() });
    let mut draw = || (0.0..1.0_f64).new_tree(&mut runner).expect("a number").current();
    let mut count = 0;
    for (model, resolution) in [("wan2.1-t2v-1.3b", "480p"), ("wan2.1-t2v-1.3b", "720p")] {
        let frames = 1 + 4 * between(1, 20, draw());
        let ram = between(14 * GIB, 64 * GIB, draw());
        let asked = [format!("--frames={frames}"), format!("--ram={:.3}GB", ram as f64 / GIB as f64)];
        let run = lowmem().args(["cards", "--json", "--model", model, "--resolution", resolution]).args(asked).output();
        let run = run.expect("lowmem starts");
        let rows: Value = serde_json::from_slice(&run.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&run.stderr)));
        for row in rows.as_array().expect("rows") {
            let held = row["memory_bytes"].as_u64().expect("bytes");
            if let Some(answer) = Answer::of(&row["best"]) {
                assert!(answer.device_bytes <= held && answer.ram_bytes <= ram, "{}: {answer:?}", row["gpu"]);
                count += 1;
            }
        }
    }
    assert!(count >= 60, "{count} cards have an answer");
}

//! The table of docs/ram.md: what runs on which card in a machine with how much memory, and how fast.
//!
//! Each row is run on the virtual GPU and held against its figures. `make ram-table` has autotune choose the rows anew.

use engine_protocol::{Outcome, RunRecord, gib};
use lowmem_tests::{lowmem, replaced_between, root};
use serde_json::Value;

use super::sweep::Swept;

const MODELS: [&str; 2] = ["wan2.1-t2v-14b", "wan2.2-t2v-a14b"];
/// Cards of 12, 16 and 24 GB.
const CARDS: [&str; 3] = ["rtx-3060", "rtx-4060-ti-16gb", "rtx-4090"];
const RAMS: [&str; 3] = ["16GB", "32GB", "64GB"];
/// A usual disk for PCI Express 3.
const DISK: &str = "3GB/s";
const VIDEO: [&str; 2] = ["resolution=832x480", "frames=81"];

const TITLES: &str = "| model | card | RAM | settings | the machine chooses | GPU GiB | RAM GiB | page-locked GiB | all steps |\n\
                      |---|---|--:|---|---|--:|--:|--:|--:|\n";

#[test]
fn each_row_runs_as_it_says() {
    let path = root().join("docs/ram.md");
    let known = std::fs::read_to_string(&path).expect("the page");
    let is_renewing = std::env::var_os("LOWMEM_RENEW_RAM").is_some();
    let mut rows = String::new();
    for card in CARDS {
        for ram in RAMS {
            let settings = MODELS.map(|model| if is_renewing { tuned(model, card, ram) } else { told(&known, model, card, ram) });
            for (record, settings) in ran(card, ram, &settings).iter().zip(&settings) {
                rows += &row(record, card, ram, settings);
            }
        }
    }
    let found = replaced_between(&known, "what runs with which RAM", &format!("{TITLES}{rows}"));
    if is_renewing {
        std::fs::write(&path, found).expect("written");
        return;
    }
    assert_eq!(known, found, "rows of {} do not run so; if that is meant, `make ram-table` writes them anew", path.display());
}

/// The settings that autotune recommends.
fn tuned(model: &str, card: &str, ram: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let mut lowmem = lowmem();
    lowmem.args(["autotune", "--device", "virtual", "--json", "--model", model, "--gpu", card, "--ram", ram, "--disk", DISK]).args(VIDEO);
    let output = lowmem.arg("--out").arg(folder.path().join("run")).output().expect("it starts");
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let command = answer["best"]["command"].as_str().unwrap_or_else(|| panic!("nothing fits {card} with {ram}: {answer}"));
    let is_of_settings = |word: &&str| word.contains('=') && !VIDEO.contains(word) && !word.starts_with("attn_type=");
    command.split(' ').filter(is_of_settings).collect::<Vec<_>>().join(" ")
}

/// The settings of that row of the page.
fn told(page: &str, model: &str, card: &str, ram: &str) -> String {
    let start = format!("| {model} | {card} | {ram} | ");
    let row = page.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_else(|| panic!("{start}: no such row"));
    row.split(" | ").next().expect("settings").trim_matches('`').to_owned()
}

/// The records of both models with those settings.
fn ran(card: &str, ram: &str, settings: &[String; 2]) -> Vec<RunRecord> {
    let case = |(model, settings): (&str, &String)| {
        let pairs = settings.split(' ').chain(VIDEO).map(|pair| pair.replacen('=', ": ", 1));
        let pairs: Vec<_> = [format!("model: {model}")].into_iter().chain(pairs).collect();
        format!("  - {{{}}}\n", pairs.join(", "))
    };
    let cases: String = MODELS.into_iter().zip(settings).map(case).collect();
    let on = format!("{card} --ram {ram} --disk {DISK}");
    Swept::new(&format!("cases:\n{cases}"), &on, "virtual", &[]).run().records
}

fn row(record: &RunRecord, card: &str, ram: &str, settings: &str) -> String {
    assert_eq!(record.outcome, Outcome::Ok, "{}: {:?}", record.case, record.error);
    let bytes = [record.peak_device_bytes(), record.host_needed_bytes(), record.host().map(|host| host.pinned_peak_bytes)];
    let [device, host, pinned] = bytes.map(|bytes| gib(bytes.expect("known")));
    let all_steps = reports::time(record.denoise_secs().expect("modelled").expected);
    let chosen = reports::settled(record).replace(", ", " ");
    format!(
        "| {} | {card} | {ram} | `{settings}` | `{chosen}` | {device:.2} | {host:.2} | {pinned:.2} | {all_steps} |\n",
        record.config.model
    )
}

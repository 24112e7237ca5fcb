//! `lowmem` is killed at random moments, by every signal, once and twice: nothing that it started runs on, no case is wrong, and no temporary file stays for long.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use engine_protocol::{Outcome, RunRecord};
use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use rustix::process::{Pid, Signal, kill_process};

use crate::command::{Place, executable};
use crate::processes::{MARK, ended_within, left};

/// So many at a time, and so many each: 100 moments.
const LANES: u8 = 4;
const MOMENTS: usize = 25;
/// Cases of a run. Whether all of them come to their end depends on the moments.
const CASES: usize = 24;
const SIGNALS: [Signal; 7] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2, Signal::KILL];

/// A worker that leaves two behind, one of them beyond its process group.
const WORKER: &str = "begun load\nended load 1\nsleep 300 &\nsetsid sleep 300 &\nsleep 0.02\nbegun denoise\nended denoise 5\nfinished\n";
/// The same of a program. What it leaves has some time to end by itself.
const PROGRAM: &str = "sleep 1 & setsid sleep 1 & sleep 0.1";

/// Moments that are the same in each run of this test.
struct Moments(TestRng);

impl Moments {
    fn new(lane: u8) -> Self {
        Self(TestRng::from_seed(RngAlgorithm::ChaCha, &[lane; 32]))
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0.next_u64() % end
    }

    fn signal(&mut self) -> Signal {
        SIGNALS[self.below(SIGNALS.len() as u64) as usize]
    }
}

fn lowmem(place: &Place, worker: &Path, mark: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(executable("lowmem"));
    command.args(arguments).current_dir(place.path("")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.env("LOWMEM_WORKER", worker).env(MARK, mark).env("TMPDIR", place.path("tmp")).env("CUDA_VISIBLE_DEVICES", "");
    command
}

/// How often each case of a run was answered. A case that was cut off is none, and never one that failed.
fn answers(run: &Path) -> BTreeMap<String, usize> {
    let mut answers = BTreeMap::new();
    for line in fs::read_to_string(run.join("records.jsonl")).unwrap_or_default().lines() {
        let record: RunRecord = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(record.outcome, Outcome::Ok, "{}: {:?}", record.case, record.error);
        *answers.entry(record.case).or_default() += 1;
    }
    answers
}

/// The words of a sweep into `run`, which it goes on with where it was begun.
fn sweep<'a>(place: &Place, run: &'a str) -> Vec<&'a str> {
    let mut words = vec!["sweep", "s.yaml", "--gpu", "24GB", "--device", "virtual", "--jobs", "2", "--out", run];
    if place.path(run).join("manifest.json").exists() {
        words.push("--resume");
    }
    words
}

/// Kills at its moments, one after the other, and goes on with one run until it is done, as a person would.
fn lane(number: u8) {
    let (mut moments, place) = (Moments::new(number), Place::new());
    let worker = place.worker(WORKER);
    fs::create_dir(place.path("tmp")).expect("a folder");
    let seeds: Vec<_> = (0..CASES).map(|seed| seed.to_string()).collect();
    place.file("s.yaml", &format!("model: wan-tiny\nsweep:\n  seed: [{}]\n", seeds.join(", ")));
    let mut run = "run".to_owned();
    for moment in 0..MOMENTS {
        let folder = place.path(&run);
        let is_cut_off_early = folder.exists() && !folder.join("manifest.json").exists();
        if is_cut_off_early || answers(&folder).len() == CASES {
            run = format!("run{moment}");
        }
        let arguments = match moment % 5 {
            3 => vec!["generate", "--model", "wan-tiny", "--gpu", "24GB", "--device", "virtual", "--prompt", "a cat"],
            4 => vec!["on", "rtx-4090", "--", "sh", "-c", PROGRAM],
            _ => sweep(&place, &run),
        };
        let (mark, before) = (format!("kills-{number}-{moment}"), answers(&place.path(&run)));
        let mut lowmem = lowmem(&place, &worker, &mark, &arguments).spawn().expect("lowmem");
        let pid = Pid::from_child(&lowmem);
        let signals = [moments.signal(), moments.signal()];
        let (first, gap, is_pair) = (moments.below(120), 1 + moments.below(100), moments.below(2) == 0);
        // The moment is what is tested.
        thread::sleep(Duration::from_millis(first));
        // It is not waited for yet, so no other process has its number.
        let _ = kill_process(pid, signals[0]);
        if is_pair {
            thread::sleep(Duration::from_millis(gap));
            let _ = kill_process(pid, signals[1]);
        }
        let status = ended_within(&mut lowmem, Duration::from_secs(20));
        let said = format!("{arguments:?}: {signals:?} after {first} ms, a pair {gap} ms apart: {is_pair}: {status}");
        assert_ne!(status.code(), Some(1), "{said}: a fault");
        assert_eq!(left(&mark), [""; 0], "{said}");
        let after = answers(&place.path(&run));
        assert!(before.iter().all(|(case, count)| after.get(case) == Some(count)), "{said}: a case is lost or was run again");
    }
    // The next start clears up, and a run that was cut off so often comes to its end.
    let run = if place.path(&run).join("manifest.json").exists() { run } else { "last".into() };
    let mark = format!("kills-{number}-last");
    assert!(lowmem(&place, &worker, &mark, &sweep(&place, &run)).status().expect("lowmem").success());
    assert_eq!(left(&mark), [""; 0]);
    let answers = answers(&place.path(&run));
    assert!(answers.len() == CASES && answers.values().all(|&count| count == 1), "{answers:?}");
    let files = fs::read_dir(place.path("tmp")).expect("a folder").count();
    assert_eq!(files, 0, "temporary files stay");
}

#[test]
fn at_a_hundred_moments_nothing_is_left_behind() {
    thread::scope(|scope| (0..LANES).for_each(|number| drop(scope.spawn(move || lane(number)))));
}

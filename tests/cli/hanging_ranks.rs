//! Ranks that hang: workers on virtual GPUs, of which one is stopped in the middle of the sampler's steps, or its device is.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use engine_protocol::{RunRecord, Signs};
use virtual_gpu_protocol::environment::HANG;

use crate::command::{Place, executable, lowmem, stderr, stdout};

/// From one look at what ranks say to the next.
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// Steps enough that nobody comes to their end meanwhile.
const VIDEO: [&str; 14] = [
    "generate",
    "--json",
    "--rank-timeout",
    "1",
    "--model",
    "wan2.1-t2v-1.3b",
    "--gpu",
    "h100",
    "--device",
    "virtual",
    "low_mem_level=3",
    "steps=1000",
    "steps_measured=200",
    "cp_size=2",
];

fn start(place: &Place, words: &[&str]) -> Command {
    let temporary = place.path("tmp");
    fs::create_dir_all(&temporary).expect("a folder");
    let mut command = Command::new(executable("lowmem"));
    command.env_remove("LOWMEM_WORKER").env("CUDA_VISIBLE_DEVICES", "").env("TMPDIR", temporary).current_dir(place.path(""));
    command.args(words).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// All files under a folder. Where a link leads nobody looks.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_folder = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    entries.flat_map(|entry| if is_folder(&entry) { files(&entry.path()) } else { vec![entry.path()] }).collect()
}

/// Waits until the ranks have met so often; what each says of itself then.
fn once_met(place: &Place, times: u64, running: &mut [Child]) -> [Signs; 2] {
    once(place, running, |signs| signs.met >= times)
}

/// Waits until each of the ranks says so of itself; what they say then.
fn once(place: &Place, running: &mut [Child], is_so: impl Fn(&Signs) -> bool) -> [Signs; 2] {
    let of = |rank: u32| {
        let name = Signs::place(Path::new(""), rank);
        let found = files(&place.path("tmp")).into_iter().find(|path| path.ends_with(&name))?;
        Signs::from_line(&fs::read_to_string(found).ok()?).filter(&is_so)
    };
    loop {
        if let (Some(first), Some(second)) = (of(0), of(1)) {
            return [first, second];
        }
        for child in running.iter_mut() {
            if let Some(status) = child.try_wait().expect("its state") {
                let mut said = String::new();
                child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
                panic!("it ended before, {status}: {said}");
            }
        }
        thread::sleep(BETWEEN_LOOKS);
    }
}

fn stop(process: u32) {
    assert!(Command::new("kill").args(["-STOP", &process.to_string()]).status().expect("kill").success());
}

fn is_there(signs: &Signs) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", signs.process)).ok();
    stat.and_then(|stat| Signs::began(&stat)) == Some(signs.began)
}

fn end(child: Child) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = child.wait_with_output().expect("lowmem ends");
    (status.code(), String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned())
}

fn says_that_it_hangs(record: &str, rank: u32, signs: &Signs) {
    let record: RunRecord = serde_json::from_str(record).unwrap_or_else(|error| panic!("{error}: {record}"));
    let wanted = format!("rank {rank} of 2: hangs in denoise: its process {} was stopped from outside 1 s ago", signs.process);
    assert_eq!((record.outcome.name(), record.error.as_deref(), record.ranks.len()), ("timeout", Some(wanted.as_str()), 2));
}

#[test]
fn a_rank_that_hangs_ends_all_and_is_named() {
    for hanging in [0, 1] {
        let place = Place::new();
        let mut command = start(&place, &VIDEO);
        let mut running = [command.args(["--snapshot", "memory.pickle"]).spawn().expect("lowmem")];
        let ranks = once_met(&place, 100, &mut running);
        stop(ranks[hanging].process);
        let [child] = running;
        let (code, record, said) = end(child);
        says_that_it_hangs(&record, hanging as u32, &ranks[hanging]);
        assert_eq!(code, Some(1));
        assert!(said.contains("See `dmesg` for the GPU and the disk, and run it again."), "{said}");
        assert!(ranks.iter().all(|rank| !is_there(rank)), "a worker is left");
        assert_eq!(files(&place.path("")), [] as [PathBuf; 0], "nothing is half written");
    }
}

#[test]
fn a_sweep_goes_on_after_one_that_hangs() {
    let place = Place::new();
    place.file("s.yaml", "model: wan2.1-t2v-1.3b\nlow_mem_level: 3\nsteps: 1000\ncp_size: 2\nsweep:\n  steps_measured: [200, 2]\n");
    let sweep = ["sweep", "s.yaml", "--gpu", "h100", "--device", "virtual", "--out", "run", "--jobs", "1", "--rank-timeout", "1"];
    let mut running = [start(&place, &sweep).spawn().expect("lowmem")];
    let ranks = once_met(&place, 100, &mut running);
    stop(ranks[1].process);
    let [child] = running;
    let (_, _, said) = end(child);
    let found: Vec<_> = place.rows("run").iter().map(|row| row["outcome"].to_owned()).collect();
    assert_eq!(found, ["timeout", "ok"], "{said}");
}

/// What one rank alone does while the others wait is no hang.
#[test]
fn who_is_waited_for_may_take_long() {
    let words = ["generate", "--model", "wan2.1-t2v-14b", "--gpu", "h100", "--device", "virtual", "--json", "--rank-timeout", "1"];
    let assert = lowmem().args(words).args(["steps_measured=2", "vae_tiling=false", "cp_size=2"]).assert().success();
    let record: RunRecord = serde_json::from_str(&stdout(&assert)).unwrap_or_else(|error| panic!("{error}: {}", stderr(&assert)));
    assert_eq!(record.ranks.len(), 2);
}

/// Ranks that a launcher started, each with a `lowmem` of its own, of which the second one's device hangs once the file `hang` is there.
fn start_launched(place: &Place) -> [Child; 2] {
    [0, 1].map(|rank| {
        let mut command = start(place, &VIDEO);
        let job = place.path("").display().to_string();
        let rank = rank.to_string();
        let variables = [("SLURM_PROCID", &*rank), ("SLURM_NTASKS", "2"), ("SLURM_JOB_ID", &*job), ("SLURM_STEP_ID", "0")];
        if rank == "1" {
            command.env(HANG, place.path("hang"));
        }
        command.envs(variables).spawn().expect("lowmem")
    })
}

#[test]
fn of_ranks_that_were_launched_it_is_named_too() {
    let place = Place::new();
    let mut running = start_launched(&place);
    let ranks = once_met(&place, 100, &mut running);
    stop(ranks[1].process);
    let [first, second] = running.map(end);
    says_that_it_hangs(&first.1, 1, &ranks[1]);
    assert_eq!((first.0, second.0), (Some(1), Some(1)), "{} {}", first.2, second.2);
    assert!(ranks.iter().all(|rank| !is_there(rank)), "a worker is left");
}

/// Its host spins, and says nothing. How long steps take is known by then.
#[test]
fn a_device_that_hangs_is_named_within_seconds() {
    let place = Place::new();
    let mut running = start_launched(&place);
    let ranks = once(&place, &mut running, |signs| signs.pace > 0);
    place.file("hang", "");
    let [first, second] = running.map(end);
    let record: RunRecord = serde_json::from_str(&first.1).unwrap_or_else(|error| panic!("{error}: {}", first.1));
    let error = record.error.expect("it hangs");
    let secs = error.strip_prefix("rank 1 of 2: hangs in denoise: it has not gone on for ");
    let secs: Option<f64> = secs.and_then(|rest| rest.strip_suffix(" s, and all others wait for it")?.parse().ok());
    assert!(secs.is_some_and(|secs| (1.0..12.0).contains(&secs)), "{error}");
    assert_eq!((record.outcome.name(), first.0, second.0), ("timeout", Some(1), Some(1)), "{} {}", first.2, second.2);
    assert!(ranks.iter().all(|rank| !is_there(rank)), "a worker is left");
}

/// Where the first one hangs as a whole, it cannot say so: another one does.
#[test]
fn where_the_first_one_can_say_nothing_another_one_does() {
    let place = Place::new();
    let mut running = start_launched(&place);
    let ranks = once_met(&place, 100, &mut running);
    stop(running[0].id());
    stop(ranks[0].process);
    let [mut first, second] = running;
    let (code, _, said) = end(second);
    first.kill().expect("killed");
    end(first);
    let wanted = format!("rank 0 of 2: hangs: its process {} was stopped from outside 1 s ago", ranks[0].process);
    assert!(code == Some(1) && said.contains(&wanted), "{code:?}: {said}");
}

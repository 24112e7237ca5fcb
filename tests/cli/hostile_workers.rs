//! Whatever a worker says, does and leaves behind, its case has an outcome in time, the others are as they would be without it, and `lowmem` holds little memory.

use std::process::{Command, Stdio};

use crate::command::{Place, executable};
use crate::processes::{MARK, left, watched};

/// What `lowmem` may hold under any worker.
const MOST_BYTES: u64 = 64 << 20;

/// A worker's deed after its first stage, the outcomes that are right, and what the error says.
type Row = (&'static str, &'static [&'static str], &'static str);

/// Workers that end by themselves, or are ended for what they say.
const LOUD: &[Row] = &[
    ("good", &["ok"], ""),
    // Much of it.
    ("yes 'a line of text that is no event at all, and which goes on for a while' | head -c 1000000000 >&2; good", &["ok"], ""),
    ("head -c 1000000000 /dev/zero | tr '\\0' a >&2; good", &["ok"], ""),
    ("yes '{\"event\":\"progress\",\"stage\":\"denoise\",\"done\":1,\"total\":50}' | head -n 1000000; good", &["ok"], ""),
    ("yes 'a line of text that is no event at all' | head -c 1000000000; good", &["crashed"], "is not an event"),
    ("head -c 1000000000 /dev/zero | tr '\\0' a; echo; good", &["crashed"], "is longer than an event"),
    ("head -c 1000000 /dev/zero | tr '\\0' '['; echo; good", &["crashed"], "is longer than an event"),
    (
        "printf '{\"event\":\"finished\",\"more\":'; head -c 100000 /dev/zero | tr '\\0' '['; echo; good",
        &["crashed"],
        "recursion limit exceeded",
    ),
    ("begun denoise; yes '{\"event\":\"step_ended\",\"parts\":null,\"secs\":null}'", &["crashed"], "`step_ended` 1001 times"),
    ("head -c 100000 /dev/urandom; echo; good", &["crashed"], "is not an event"),
    (
        "printf '{\"event\":\"failed\",\"stage\":null,\"message\":\"'; head -c 200000 /dev/zero | tr '\\0' a; echo '\"}'; exit 1",
        &["failed"],
        "aaa…",
    ),
    ("printf '{\"event\":\"failed\",\"stage\":null,\"message\":\"bad \\377 bytes\"}\\n'; exit 1", &["failed"], "bad \u{fffd} bytes"),
    // What contradicts itself.
    ("echo '{\"event\":\"finished\",\"transfers\":null}'; failed denoise", &["crashed"], "`finished` and then `failed`"),
    ("say oom decode 3; finished", &["crashed"], "`out_of_memory` and then `finished`"),
    ("ended decode 3; finished", &["crashed"], "`stage_ended decode` without a `stage_begun decode`"),
    ("begun denoise; begun decode; finished", &["crashed"], "`stage_begun denoise` and then `stage_begun decode`"),
    ("begun decode; ended decode 3; begun denoise; finished", &["crashed"], "`stage_ended decode` and then `stage_begun denoise`"),
    (
        "begun decode; ended decode 3 | sed s/3221225472/18446744073709551615/; finished",
        &["crashed"],
        "18446744073709551615, which cannot be",
    ),
    (
        "begun decode; ended decode 3 | sed s/3221225472/0/; finished",
        &["crashed"],
        "a peak_allocated_bytes of 0 below its allocated_bytes of 1",
    ),
    ("begun decode; timed decode | sed s/1.5/-5/g; finished", &["crashed"], "a time of -5.0 s"),
    ("begun decode; timed decode | sed s/1.5/NaN/g; finished", &["crashed"], "is not an event"),
    ("begun decode; timed decode | sed s/1.5/1e308/g; finished", &["crashed"], "a time of 1e+308 s"),
    // What it leaves behind, and how it ends.
    ("sleep 300 & good", &["ok"], ""),
    ("setsid sleep 300 & good", &["ok"], ""),
    ("setsid sleep 300 > /dev/null 2>&1 < /dev/null & good", &["ok"], ""),
    // What follows its last word may be torn, or come too late to be heard.
    ("setsid yes '{\"event\":\"progress\",\"stage\":\"denoise\",\"done\":1,\"total\":50}' & good", &["ok", "crashed"], ""),
    ("setsid yes words >&2 & good", &["ok"], ""),
    ("exec 0<&-; good", &["ok"], ""),
    ("exit 0", &["crashed"], "exited with code 0"),
    ("echo '{\"event\":\"finished\",\"transfers\":null}'; exit 3", &["crashed"], "finished, and then exited with code 3"),
    ("kill -KILL $$", &["killed"], "SIGKILL"),
    ("kill -TERM $$", &["killed"], "SIGTERM"),
    ("kill -KILL 0", &["killed"], "SIGKILL"),
    ("kill -KILL $PPID; sleep 300", &["killed"], "SIGKILL"),
];

/// Workers that the clock ends.
const NEVER_DONE: &[Row] = &[
    ("sleep 300", &["timeout"], "not done within its time limit"),
    ("while :; do :; done", &["timeout"], "time limit"),
    ("exec 1>&- 2>&-; sleep 300", &["timeout"], "time limit"),
    ("kill -STOP $$; good", &["timeout"], "time limit"),
    ("trap '' TERM INT HUP QUIT; while :; do sleep 300; done", &["timeout"], "time limit"),
    ("setsid sleep 300 & sleep 300", &["timeout"], "time limit"),
    ("(setsid sh -c 'while :; do setsid sleep 300 & sleep 0.05; done' &) ; sleep 300", &["timeout"], "time limit"),
    ("yes '{\"event\":\"progress\",\"stage\":\"denoise\",\"done\":1,\"total\":50}'", &["timeout"], "time limit"),
    ("setsid yes words >&2 & sleep 300", &["timeout"], "time limit"),
];

/// Runs a sweep in which each row is a case, several at once.
fn holds(rows: &[Row], secs: &str, mark: &str) {
    let place = Place::new();
    let seeds: Vec<_> = (0..rows.len()).map(|row| row.to_string()).collect();
    place.file("s.yaml", &format!("model: wan-tiny\nsweep:\n  seed: [{}]\n", seeds.join(", ")));
    let deeds = rows.iter().enumerate().map(|(row, (deed, ..))| format!("*'\"case\":\"seed{row}\"'*)\n{deed}\n;;\n"));
    let good = "good() { begun denoise; ended denoise 5; finished; }\nbegun load\nended load 1\n";
    let script = format!("{good}case \"$request\" in\n{}esac\n", deeds.collect::<String>());
    let mut lowmem = Command::new(executable("lowmem"));
    lowmem.args(["sweep", "s.yaml", "--gpu", "24GB", "--device", "virtual", "--out", "run", "--jobs", "4", "--case-timeout", secs]);
    lowmem.env("LOWMEM_WORKER", place.worker(&script)).env(MARK, mark).current_dir(place.path(""));
    let mut lowmem = lowmem.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("lowmem");
    let (status, peak) = watched(&mut lowmem);
    assert_eq!(left(mark), [""; 0], "nothing is left behind");
    assert_eq!(status.code(), Some(4));
    assert!(peak > 0 && peak < MOST_BYTES, "{} MiB", peak >> 20);
    for (row, (deed, outcomes, words)) in place.rows("run").iter().zip(rows) {
        let (outcome, error) = (&row["outcome"], &row["error"]);
        assert!(outcomes.contains(&outcome) && error.contains(words), "{deed}: {outcome}: {error}");
        assert!(error.len() < 16 << 10, "{deed}: an error of {} bytes", error.len());
    }
    assert_eq!(place.rows("run").len(), rows.len());
}

#[test]
fn a_worker_that_says_wrong_things_or_too_much() {
    holds(LOUD, "120", "loud");
}

#[test]
fn a_worker_that_is_never_done() {
    holds(NEVER_DONE, "2", "never-done");
}

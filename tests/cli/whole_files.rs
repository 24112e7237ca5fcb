//! Nothing is half written: a disk that is full, a folder that is somebody's, two programs at one place.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::command::{ANSWERS, Place, executable, lowmem, stderr};

const ARGUMENTS: [&str; 8] = ["sweep", "smoke", "--gpu", "24GB", "--device", "virtual", "--out", "run"];

/// Runs `lowmem` with files of at most so many bytes, as a disk that is full would have them: what is written across that ends there. Gives its exit code and what it told.
fn with_room_for(place: &Place, script: &str, bytes: usize, words: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new("sh");
    // In units of half a KiB. Without the signal the write itself fails.
    let limited = format!("trap '' XFSZ; ulimit -f {}; exec \"$@\"", bytes / 512);
    command.args(["-c", &limited, "sh"]).arg(executable("lowmem")).args(words);
    command.current_dir(place.path("")).env("LOWMEM_WORKER", place.worker(script)).env("CUDA_VISIBLE_DEVICES", "");
    let output = command.output().expect("a shell");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The records of a run, each line of which is one.
fn records(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("records.jsonl")).expect("records");
    assert!(text.is_empty() || text.ends_with('\n'), "a torn line is left");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[test]
fn a_record_that_finds_no_room_is_taken_back_and_its_case_runs_later() {
    let place = Place::new();
    // How large a whole run is.
    place.lowmem_with(ANSWERS).args(ARGUMENTS).assert().success();
    let whole = records(&place.path("run"));
    let [manifest, all] =
        ["manifest.json", "records.jsonl"].map(|name| fs::metadata(place.path("run").join(name)).expect(name).len() as usize);
    for room in [all / 4, all / 2, all - 600] {
        let room = room.max(manifest + 512);
        fs::remove_dir_all(place.path("run")).expect("removed");
        let (code, said) = with_room_for(&place, ANSWERS, room, &ARGUMENTS);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("could not be written") && said.contains("make room, and go on with --resume"), "{said}");
        let kept = records(&place.path("run")).len();
        assert!(kept < whole.len(), "room for {room} bytes held all");
        place.lowmem_with(ANSWERS).args(ARGUMENTS).arg("--resume").assert().success();
        let mut names = [&whole, &records(&place.path("run"))]
            .map(|records| records.iter().map(|record| record["case"].to_string()).collect::<Vec<_>>());
        names.iter_mut().for_each(|names| names.sort());
        assert_eq!(names[0], names[1]);
    }
}

#[test]
fn a_run_whose_manifest_finds_no_room_leaves_nothing_in_the_way() {
    let place = Place::new();
    for is_there in [false, true] {
        if is_there {
            fs::create_dir(place.path("run")).expect("a folder");
        }
        let (code, said) = with_room_for(&place, ANSWERS, 512, &ARGUMENTS);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("run/manifest.json") && said.contains("make room"), "{said}");
        assert_eq!(place.path("run").exists(), is_there);
        if is_there {
            assert_eq!(fs::read_dir(place.path("run")).expect("the folder").count(), 0);
        }
        place.lowmem_with(ANSWERS).args(ARGUMENTS).assert().success();
        fs::remove_dir_all(place.path("run")).expect("removed");
    }
    // One that was killed before it had a manifest is begun, or gone on with.
    for resume in [None, Some("--resume")] {
        fs::create_dir(place.path("run")).expect("a folder");
        place.file("run/records.jsonl", "");
        place.lowmem_with(ANSWERS).args(ARGUMENTS).args(resume).assert().success();
        fs::remove_dir_all(place.path("run")).expect("removed");
    }
}

#[test]
fn files_that_are_of_no_run_are_never_written_over() {
    for name in ["results.csv", "report.html", "recommended.yaml", "tables.md", "records.jsonl"] {
        let place = Place::new();
        fs::create_dir(place.path("run")).expect("a folder");
        let theirs = place.file(&format!("run/{name}"), "mine\n");
        let assert = place.lowmem_with(ANSWERS).args(ARGUMENTS).assert().code(2);
        assert!(stderr(&assert).contains(&format!("run has a {name} that is of no run here: name another --out")), "{}", stderr(&assert));
        assert_eq!(fs::read_to_string(theirs).expect("there"), "mine\n");
        assert_eq!(fs::read_dir(place.path("run")).expect("a folder").count(), 1);
    }
    let place = Place::new();
    fs::create_dir(place.path("run")).expect("a folder");
    place.file("run/notes.txt", "mine");
    place.lowmem_with(ANSWERS).args(ARGUMENTS).assert().success();
    assert_eq!(fs::read_to_string(place.path("run/notes.txt")).expect("there"), "mine");
}

#[test]
fn two_videos_at_one_place_are_refused_while_the_first_is_made() {
    for output in ["cat.gif", "frames/"] {
        let place = Place::new();
        for pipe in ["begun", "go"] {
            assert!(Command::new("mkfifo").arg(place.path(pipe)).status().expect("mkfifo").success());
        }
        let words = ["generate", "--model", "wan-tiny", "--device", "cpu", "--output", output];
        let waits = place.worker("begun denoise\necho > begun\nread word < go\ntimed denoise\nfinished\n");
        let mut first = Command::new(executable("lowmem"));
        first.args(words).env("LOWMEM_WORKER", waits).current_dir(place.path("")).stdout(Stdio::null()).stderr(Stdio::null());
        let mut first = first.spawn().expect("lowmem");
        // Opening waits for the worker, reading for its word: one that is not read would end it.
        File::open(place.path("begun")).and_then(|mut pipe| pipe.read_to_string(&mut String::new())).expect("the pipe");
        let assert = lowmem().current_dir(place.path("")).args(words).assert().code(2);
        assert!(stderr(&assert).contains("another lowmem is writing it now"), "{}", stderr(&assert));
        File::options().write(true).open(place.path("go")).and_then(|mut go| go.write_all(b"\n")).expect("the pipe");
        assert!(first.wait().expect("lowmem ends").success());
        assert!(!place.path(&format!("{}.unfinished", output.trim_end_matches('/'))).exists(), "what was held is left");
    }
}

#[test]
fn what_a_killed_run_left_of_a_video_is_taken_over() {
    let place = Place::new();
    place.file("cat.gif.unfinished", "half a video");
    fs::create_dir(place.path("frames.unfinished")).expect("a folder");
    place.file("frames.unfinished/frame-0000.png", "half a frame");
    for output in ["cat.gif", "frames/"] {
        let words =
            ["generate", "--model", "wan-tiny", "--device", "cpu", "--size", "32x32", "--frames", "5", "--steps", "1", "--output", output];
        lowmem().current_dir(place.path("")).args(words).assert().success();
        assert!(!place.path(&format!("{}.unfinished", output.trim_end_matches('/'))).exists());
    }
    assert_eq!(fs::read_dir(place.path("frames")).expect("frames").count(), 5);
}

#[test]
fn a_name_gives_no_orders_to_a_terminal() {
    let place = Place::new();
    let name = "\u{1b}]0;owned\u{7}\u{202e}.yaml";
    place.file(name, "model: wan-tiny\nlow_mem_levl: 3\n");
    let assert = place.lowmem_with(ANSWERS).args(["sweep", name, "--gpu", "24GB", "--device", "virtual"]).assert().code(2);
    let said = stderr(&assert);
    assert!(said.contains("\\u{1b}]0;owned\\u{7}\\u{202e}.yaml"), "{said}");
    assert!(!said.contains(|c: char| c.is_control() && c != '\n'), "{said:?}");
}

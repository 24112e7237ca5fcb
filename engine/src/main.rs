//! lowmem-worker: one request as JSON on standard input, events as JSON lines on standard output.
//!
//! `lowmem-worker inspect` takes a checkpoint's files as JSON and prints what they hold instead; `lowmem-worker plan` takes requests, a line each, and prints for each what will live
//! where and the predicted peaks, and runs nothing; `lowmem-worker rates PROCESSOR` measures what the host's processor, which is named so, reaches;
//! `lowmem-worker kernels` compiles our own kernels for every kind of GPU that they are for, and prints what they came to, a line each;
//! `lowmem-worker calibrate` measures what the GPU does; `lowmem-worker disk FOLDER` what the disk gives that holds the checkpoint in that folder.
//!
//! It runs one case and ends. An out-of-memory is a result, so it ends with 0 then, too; it ends with 1 after an event that says what failed.

use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use engine::memory::{Room, predict_from, predict_host, predict_ranks, settle};
use engine::{Checkpoint, calibration, case, components, disk_rate, flexcache, host_rates, kernels};
use engine_protocol::{Event, PlanReport, Request, Stage};
use rayon::prelude::*;

/// Exit code for a checkpoint that cannot be opened, for something to plan that is no request, and for wrong usage.
const BAD_INPUT: u8 = 2;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    match words.as_slice() {
        [] => run_request(),
        [command] if command == "inspect" => inspect(),
        [command] if command == "plan" => plan(),
        [command] if command == "kernels" => answer(kernels::compiled_everywhere()),
        [command] if command == "calibrate" => answer(calibration::measure()),
        [command, folder] if command == "disk" => answer(disk_rate::measure(Path::new(folder))),
        [command, processor] if command == "rates" => answer(host_rates::measure(processor.to_string_lossy().into_owned())),
        _ => {
            eprintln!(
                "lowmem-worker: takes a request on standard input, to run or after `plan` to plan, or after `inspect` a checkpoint's files"
            );
            ExitCode::from(BAD_INPUT)
        }
    }
}

/// Prints what the checkpoint holds whose files standard input names.
fn inspect() -> ExitCode {
    let files =
        read_input().and_then(|text| serde_json::from_str(&text).map_err(|error| format!("standard input names no files: {error}")));
    let inventory = files.and_then(|files| Ok(Checkpoint::open_files(&files).map_err(|error| error.to_string())?.inventory()));
    match inventory {
        Ok(inventory) => {
            println!("{}", serde_json::to_string(&inventory).expect("an inventory is plain data"));
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(BAD_INPUT)
        }
    }
}

/// Prints what will live where in each case that standard input asks for, and the predicted peaks.
fn plan() -> ExitCode {
    let text = match read_input() {
        Ok(text) => text,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(BAD_INPUT);
        }
    };
    let lines: Vec<&str> = text.lines().collect();
    let planned = |line| {
        let request = request(line)?;
        flexcache::check(&request.config, &request.model).map_err(|error| error.to_string())?;
        request.config.check_kernels_on(request.gpu.as_ref())?;
        Ok(plan_of(&request))
    };
    let plans: Result<Vec<_>, _> = lines.into_par_iter().map(planned).collect();
    match plans {
        Ok(plans) => {
            plans.iter().for_each(|plan| println!("{}", serde_json::to_string(plan).expect("a plan is plain data")));
            ExitCode::SUCCESS
        }
        Err::<_, String>(message) => {
            eprintln!("{message}");
            ExitCode::from(BAD_INPUT)
        }
    }
}

fn plan_of(request: &Request) -> PlanReport {
    let (gpu, disk) = (request.gpu.as_ref(), request.disk);
    let room = Room { gpu_bytes: request.memory_limit_bytes, host_bytes: request.host_limit_bytes, gpu, disk };
    let components = components::of(&request.model);
    let config = settle(&request.config, &components, room);
    // Of one of the ranks, where they differ.
    let rank = request.ranks.as_ref().map_or(0, |ranks| ranks.rank as usize);
    let mut report = predict_from(Stage::Encode, rank, &config, &components, room.gpu);
    report.host = predict_host(Stage::Encode, &config, &components, request.device);
    report.ranks = predict_ranks(rank, &config, &components, room.gpu, room.disk());
    report.process_bytes = request.gpu.is_some().then(|| room.process_bytes(&report));
    report
}

/// Prints what was measured.
fn answer(measured: engine::Result<impl serde::Serialize>) -> ExitCode {
    match measured {
        Ok(measured) => {
            println!("{}", serde_json::to_string(&measured).expect("measurements are plain data"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the case that standard input asks for.
fn run_request() -> ExitCode {
    let mut say = |event: Event| {
        let line = serde_json::to_string(&event).expect("events are plain data");
        // Nobody listens any more: there is nothing left to do for this process.
        if writeln!(std::io::stdout().lock(), "{line}").is_err() {
            std::process::exit(1);
        }
    };
    let ending = match read_request() {
        Ok(request) => case::run(&request, &mut say).unwrap_or_else(|event| *event),
        Err(message) => Event::Failed { stage: None, message },
    };
    let failed = matches!(ending, Event::Failed { .. });
    say(ending);
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn read_request() -> Result<Request, String> {
    request(&read_input()?)
}

fn read_input() -> Result<String, String> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| format!("standard input: {error}"))?;
    Ok(text)
}

fn request(text: &str) -> Result<Request, String> {
    serde_json::from_str(text).map_err(|error| format!("standard input is not a request: {error}"))
}

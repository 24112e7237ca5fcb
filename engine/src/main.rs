//! lowmem-worker: one request as JSON on standard input, events as JSON lines on standard output.
//!
//! `lowmem-worker inspect FOLDER` prints what a checkpoint holds, as JSON, instead; `lowmem-worker plan` takes a request and prints what will live where
//! and the predicted peaks, and runs nothing.
//!
//! It runs one case and ends. An out-of-memory is a result, so it ends with 0 then, too; it ends with 1 after an event that says what failed.

use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use engine::pipeline::Sources;
use engine::stages::{Say, Stages};
use engine::video::{Discard, VideoFile, VideoShape};
use engine::weights::Source;
use engine::{Checkpoint, Pipeline, Result, Target, cuda};
use engine_protocol::{Device, Event, Request, Stage};

/// Exit code for a checkpoint that cannot be opened, for something to plan that is no request, and for wrong usage.
const BAD_INPUT: u8 = 2;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    match words.as_slice() {
        [] => run_request(),
        [command, folder] if command == "inspect" => inspect(Path::new(folder)),
        [command] if command == "plan" => plan(),
        _ => {
            eprintln!("lowmem-worker: takes a request on standard input, to run or after `plan` to plan, or `inspect FOLDER`");
            ExitCode::from(BAD_INPUT)
        }
    }
}

/// Prints what the checkpoint in `folder` holds.
fn inspect(folder: &Path) -> ExitCode {
    match Checkpoint::open(folder) {
        Ok(checkpoint) => {
            println!("{}", serde_json::to_string(&checkpoint.inventory()).expect("an inventory is plain data"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(BAD_INPUT)
        }
    }
}

/// Prints what will live where in the case that standard input asks for, and the predicted peaks.
fn plan() -> ExitCode {
    match read_request() {
        Ok(request) => {
            let report = engine::memory::predict(&request.model, &request.config);
            println!("{}", serde_json::to_string(&report).expect("a plan is plain data"));
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(BAD_INPUT)
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
        Ok(request) => run(&request, &mut say).unwrap_or_else(|event| *event),
        Err(message) => Event::Failed { stage: None, message },
    };
    let failed = matches!(ending, Event::Failed { .. });
    say(ending);
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn read_request() -> std::result::Result<Request, String> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| format!("standard input: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("standard input is not a request: {error}"))
}

/// Runs the case; the event that ends it, either way.
fn run(request: &Request, say: Say<'_>) -> std::result::Result<Event, Box<Event>> {
    let outside_stages = |error: engine::Error| Box::new(Event::Failed { stage: None, message: error.to_string() });
    let target = start(request, say).map_err(outside_stages)?;
    let stages = Stages::new(target);

    let mut pipeline = stages.run(Stage::Load, say, |_| load(request, target))?;
    let prompts = stages.run(Stage::Encode, say, |_| pipeline.encode_prompts())?;
    let latents = stages.run(Stage::Denoise, say, |say| {
        let noise = pipeline.noise()?;
        pipeline.denoise(&prompts, noise, |done, total| {
            stages.end_step(say);
            say(Event::Progress { stage: Stage::Denoise, done, total });
        })
    })?;
    drop(prompts);
    stages.run(Stage::Decode, say, |say| {
        let progress = |done, total| say(Event::Progress { stage: Stage::Decode, done: done as u32, total: total as u32 });
        let Some(path) = &request.output else { return pipeline.decode(&latents, &mut Discard, progress) };
        let mut video = VideoFile::create(path, VideoShape::of(&request.config, &request.model), &latents)?;
        pipeline.decode(&latents, &mut video, progress)?;
        video.finish()
    })?;
    Ok(Event::Finished { transfers: target.device.is_cuda().then(|| pipeline.transfers()) })
}

/// Makes the device ready.
fn start(request: &Request, say: Say<'_>) -> Result<Target> {
    let target = Target {
        device: if request.device.is_cuda() { tch::Device::Cuda(0) } else { tch::Device::Cpu },
        computes: request.device != Device::Virtual,
    };
    let device_name = if target.device.is_cuda() { cuda::allocator::start()? } else { "CPU".to_owned() };
    if let (Some(limit), true) = (request.memory_limit_bytes, target.device.is_cuda()) {
        cuda::allocator::set_limit(limit)?;
    }
    say(Event::Started { device_name, torch_version: engine::TORCH_VERSION.to_owned() });
    Ok(target)
}

/// Puts the weights where the plan has them.
fn load(request: &Request, target: Target) -> Result<Pipeline> {
    let Some(folder) = &request.checkpoint else {
        return Pipeline::load(&request.model, &request.config, target, &sources(request));
    };
    let checkpoint = Checkpoint::open(folder)?;
    if target.computes {
        return Pipeline::from_checkpoint(&checkpoint, &request.config, target);
    }
    let pipeline = Pipeline::load(checkpoint.model(), &request.config, target, &sources(request))?;
    Ok(pipeline.with_tokenizer(checkpoint.open_tokenizer()?))
}

/// Without a checkpoint, weights come from the seed; where nothing is computed, they are left empty.
fn sources(request: &Request) -> Sources {
    let source = |part: i64| match request.device {
        Device::Virtual => Source::Empty,
        Device::Cuda | Device::Cpu => Source::Seeded(request.config.seed.wrapping_mul(4).wrapping_add(part)),
    };
    Sources {
        text_encoder: source(0),
        transformer: source(1),
        low_noise_transformer: request.model.pool.as_ref().map(|_| source(3)),
        vae: source(2),
    }
}

//! One case, from a request to the event that ends it. Where the configuration says so, a case that is out of memory goes on at a lower level with
//! what it has: prompt embeddings, latents and the sampler wait on the CPU meanwhile.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use engine_protocol::{Config, CpSplit, Device, Event, Lowered, OnOom, RankRequest, Request, Split, Stage};

use crate::checkpoint::Checkpoint;
use crate::collectives::{Group, Nccl, Threads};
use crate::components::{self, Sources};
use crate::compute_device::{ComputeDevice, start_gpu};
use crate::context_parallel::{Ranks, Shares};
use crate::cuda::{allocator, leave_out_autograd, snapshot};
use crate::error::{Error, Result};
use crate::flexcache;
use crate::memory::{Room, predict_from, predict_host, predict_host_of, settle};
use crate::operation_times;
use crate::pipeline::{Denoising, ImageCondition, Pipeline, PromptEmbeddings, Stills};
use crate::signs;
use crate::stages::{Say, Stages, other_failure};
use crate::video::{Discard, VideoFile, VideoShape};
use crate::weights::{SharedHost, kind_of};

/// Runs the case; the event that ends it, either way.
///
/// # Errors
/// The event that says what went wrong, or that memory ran out.
pub fn run(request: &Request, say: Say<'_>) -> std::result::Result<Event, Box<Event>> {
    let say: Say<'_> = &mut |event| {
        signs::beat();
        say(event);
    };
    flexcache::check(&request.config, &request.model).map_err(outside_stages)?;
    request.config.check_kernels_on(request.gpu.as_ref()).map_err(|refusal| outside_stages(Error::Input(refusal)))?;
    let device = start(request, say).map_err(outside_stages)?;
    let ending = match &request.ranks {
        Some(ranks) if !device.is_gpu() => in_threads(request, ranks, device, say),
        _ => Case::new(request, device, ranks(request).map_err(outside_stages)?).and_then(|mut case| case.run(say)),
    };
    operation_times::finish().map_err(outside_stages)?;
    if let (Some(path), true) = (&request.snapshot, device.is_gpu()) {
        snapshot::write(path).map_err(outside_stages)?;
    }
    ending
}

/// Runs all ranks of a case on the CPU, a thread each; the ending of the first one, or of the one that failed before any other.
fn in_threads(request: &Request, ranks: &RankRequest, device: ComputeDevice, say: Say<'_>) -> std::result::Result<Event, Box<Event>> {
    let split = request.config.split();
    if ranks.count != split.ranks() {
        return Err(outside_stages(not_of(split)));
    }
    // The first one writes what was asked for.
    let of_rank = |rank| {
        let output = request.output.clone().filter(|_| rank == 0);
        Request { ranks: Some(RankRequest { rank, ..ranks.clone() }), output, ..request.clone() }
    };
    let requests: Vec<Request> = (0..ranks.count).map(of_rank).collect();
    let failed = Mutex::new(None);
    // Which one failed is told before its end of the channels goes, by which others fail too.
    let tell = |ending: &Event| {
        let _ = failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| Box::new(ending.clone()));
    };
    let run = |group: Threads, request: &Request, say: Say<'_>| {
        let ranks = ranks_of(&request.config, Arc::new(group), |group| Ok(Arc::clone(group))).map_err(outside_stages)?;
        let mut case = Case::new(request, device, ranks)?;
        case.run(say).inspect_err(|ending| tell(ending))
    };
    let run = &run;
    let mut groups = Threads::new(requests.len()).into_iter();
    let first = groups.next();
    let ending = thread::scope(|scope| {
        for (group, request) in groups.zip(&requests[1..]) {
            scope.spawn(move || run(group, request, &mut |_| {}));
        }
        first.map_or_else(|| Err(outside_stages(not_of(split))), |group| run(group, &requests[0], say))
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(failed) => Err(failed),
        None => ending,
    }
}

/// What ends a run that failed between its stages.
fn outside_stages(error: Error) -> Box<Event> {
    Box::new(other_failure(None, None, &error))
}

/// A case as far as it is.
struct Case<'a> {
    request: &'a Request,
    device: ComputeDevice,
    room: Room<'a>,
    /// Those that work on the video.
    ranks: Ranks,
    /// With nothing in it left to the machine.
    config: Config,
    /// The pictures that the video begins and ends with, where it does.
    stills: Option<Stills>,
    /// On the CPU, where the case may go on without the pipeline that made them.
    prompts: Option<PromptEmbeddings>,
    /// Until a denoising has it.
    image: Option<ImageCondition>,
    denoising: Option<Denoising>,
}

impl<'a> Case<'a> {
    /// Of which nothing is done yet.
    fn new(request: &'a Request, device: ComputeDevice, ranks: Ranks) -> std::result::Result<Self, Box<Event>> {
        let room = room(request, device).map_err(outside_stages)?;
        let config = settle(&request.config, &components::of(&request.model), room);
        let stills = Stills::of(&config, &request.model).map_err(outside_stages)?;
        Ok(Self { request, device, room, ranks, config, stills, prompts: None, image: None, denoising: None })
    }

    /// Runs it to its end, at lower levels if need be.
    fn run(&mut self, say: Say<'_>) -> std::result::Result<Event, Box<Event>> {
        leave_out_autograd();
        loop {
            match self.attempt(say) {
                Ok(ending) => return Ok(ending),
                Err(ending) => self.lower(ending, say)?,
            }
        }
    }

    /// Runs what is not done yet, under the configuration as it is now.
    fn attempt(&mut self, say: Say<'_>) -> std::result::Result<Event, Box<Event>> {
        let first = self.first_stage();
        let has_peaks = self.device.is_gpu();
        let components = components::of(&self.request.model);
        let report = predict_from(first, self.rank(), &self.config, &components, self.room.gpu);
        if let (Some(_), Some(reservable)) = (self.request.memory_limit_bytes, self.room.reservable_bytes(&report)) {
            allocator::set_limit(reservable).map_err(outside_stages)?;
        }
        let planned = if has_peaks { report.stages } else { Vec::new() };
        let host = if self.device.is_gpu() {
            predict_host_of(self.rank(), first, &self.config, &components, self.request.device)
        } else {
            // Ranks that are threads are one process, which holds what all of them do.
            predict_host(first, &self.config, &components, self.request.device)
        };
        say(Event::Planned { config: Box::new(self.config.clone()), stages: planned, host });
        let stages = Stages::new(self.device);
        let pipeline = stages.run(Stage::Load, say, |_| self.load(first))?;
        let mut pipeline = pipeline.with_host_rates(self.request.host_rates.clone()).with_disk(self.room.disk());

        if first <= Stage::Denoise {
            let is_encoded = first > Stage::Encode;
            let prompts = if is_encoded { None } else { Some(stages.run(Stage::Encode, say, |_| self.encode(&mut pipeline))?) };
            if first <= Stage::EncodeImage
                && let Some(stills) = &self.stills
            {
                self.image =
                    Some(stages.run(Stage::EncodeImage, say, |say| pipeline.encode_image(stills, progress(Stage::EncodeImage, say)))?);
            }
            stages.run(Stage::Denoise, say, |say| self.denoise(&mut pipeline, prompts, stages, say))?;
        }

        // All ranks come to the same latents, and one video is enough.
        if pipeline.decodes() {
            stages.run(Stage::Decode, say, |say| self.decode(&mut pipeline, say))?;
        }
        Ok(Event::Finished { transfers: self.device.is_gpu().then(|| pipeline.transfers()) })
    }

    /// Which of the ranks this is.
    fn rank(&self) -> usize {
        self.ranks.all.rank()
    }

    /// The first stage that is not done yet.
    fn first_stage(&self) -> Stage {
        match (&self.prompts, &self.denoising) {
            (_, Some(denoising)) if denoising.is_over() => Stage::Decode,
            (Some(_), None) if self.stills.is_some() && self.image.is_none() => Stage::EncodeImage,
            (Some(_), _) => Stage::Denoise,
            (None, _) => Stage::Encode,
        }
    }

    /// Puts the weights of the stages from `first` on where the plan has them.
    fn load(&self, first: Stage) -> Result<Pipeline> {
        // Of ranks that are threads nobody would end those that wait for one that has failed.
        let shared_host = self.request.ranks.as_ref().filter(|_| self.device.is_gpu()).map(SharedHost::among);
        let Some(files) = &self.request.checkpoint else {
            let sources = sources(self.request).among(shared_host).as_one_of(self.ranks.clone());
            return Pipeline::load_from(first, &self.request.model, &self.config, self.device, &sources);
        };
        let checkpoint = Checkpoint::open_files(files)?;
        let sources = if self.device.computes { checkpoint.sources()? } else { sources(self.request) };
        let sources = sources.among(shared_host).as_one_of(self.ranks.clone());
        let tokenizer = checkpoint.open_tokenizer()?;
        Ok(Pipeline::load_from(first, checkpoint.model(), &self.config, self.device, &sources)?.with_tokenizer(tokenizer))
    }

    fn encode(&mut self, pipeline: &mut Pipeline) -> Result<PromptEmbeddings> {
        let prompts = pipeline.encode_prompts()?;
        if self.config.on_oom == OnOom::Lower {
            self.prompts = Some(pipeline.keep(&prompts)?);
        }
        Ok(prompts)
    }

    /// With the prompt embeddings that are on the device, or else those that were kept.
    fn denoise(&mut self, pipeline: &mut Pipeline, prompts: Option<PromptEmbeddings>, stages: Stages, say: Say<'_>) -> Result<()> {
        let prompts = match (prompts, &self.prompts) {
            (Some(prompts), _) => prompts,
            (None, Some(kept)) => pipeline.bring_back(kept)?,
            (None, None) => unreachable!("prompts were encoded, now or before"),
        };
        let denoising = match &mut self.denoising {
            Some(denoising) => denoising,
            none => {
                let noise = pipeline.noise()?;
                none.insert(pipeline.begin(self.image.take(), noise)?)
            }
        };
        if let Some(turns) = denoising.turns() {
            say(Event::CachePlanned { decided: turns.decided, reused_steps: turns.reused() });
        }
        while !denoising.is_over() {
            pipeline.step(&prompts, denoising)?;
            stages.end_step(denoising.has_reused(), say)?;
            say(Event::Progress { stage: Stage::Denoise, done: denoising.done(), total: denoising.total() });
        }
        Ok(())
    }

    fn decode(&self, pipeline: &mut Pipeline, say: Say<'_>) -> Result<()> {
        let latents = self.denoising.as_ref().expect("denoised before it is decoded").latents();
        let progress = progress(Stage::Decode, say);
        let Some(path) = &self.request.output else { return pipeline.decode(latents, &mut Discard, progress) };
        let mut video = VideoFile::create(path, VideoShape::of(&self.config, &self.request.model), latents)?;
        pipeline.decode(latents, &mut video, progress)?;
        video.finish()
    }

    /// Lowers the level after an attempt that ended with `ending`.
    ///
    /// # Errors
    /// The ending itself: it was no out-of-memory, it is to be the end, or nothing is left to lower.
    fn lower(&mut self, ending: Box<Event>, say: Say<'_>) -> std::result::Result<(), Box<Event>> {
        let Event::OutOfMemory { stage, requested_bytes, memory, .. } = *ending else { return Err(ending) };
        let next = if self.config.on_oom == OnOom::Lower { self.next_level(stage) } else { None };
        let Some(config) = next else { return Err(ending) };
        // The pipeline is gone; what it held goes back to the driver before the next one begins.
        if allocator::empty_cache().is_err() {
            return Err(ending);
        }
        let steps_done = self.denoising.as_ref().map_or(0, Denoising::done);
        let (from_level, to_level) = (self.config.low_mem_level, config.low_mem_level);
        say(Event::Lowered(Lowered { stage, steps_done, from_level, to_level, requested_bytes, memory }));
        self.config = config;
        Ok(())
    }

    /// The next level at which `stage` and those after it are predicted to fit; where none is, the last level. Where a stage has no prediction, the next.
    fn next_level(&self, stage: Stage) -> Option<Config> {
        let (model, components) = (&self.request.model, components::of(&self.request.model));
        let mut next = self.config.lowered(model)?;
        loop {
            let settled = settle(&next, &components, self.room);
            let report = predict_from(self.first_stage(), self.rank(), &settled, &components, self.room.gpu);
            let peaks = report.stages.iter().filter(|planned| planned.stage >= stage).map(|planned| planned.peak_allocated_bytes());
            let fits = peaks.flatten().max() <= self.room.reservable_bytes(&report);
            match next.lowered(model) {
                Some(lower) if !fits => next = lower,
                _ => return Some(settled),
            }
        }
    }
}

/// Tells of each part of `stage` that is done.
fn progress(stage: Stage, say: Say<'_>) -> impl FnMut(usize, usize) {
    move |done, total| say(Event::Progress { stage, done: done as u32, total: total as u32 })
}

/// Makes the device ready.
fn start(request: &Request, say: Say<'_>) -> Result<ComputeDevice> {
    let device = ComputeDevice {
        torch: if request.device.is_cuda() { tch::Device::Cuda(0) } else { tch::Device::Cpu },
        computes: request.device != Device::Virtual,
    };
    let device_name = if device.is_gpu() { start_gpu()? } else { "CPU".to_owned() };
    if let (Some(timing), true) = (&request.operation_times, device.is_gpu()) {
        operation_times::start(timing.trace.as_deref())?;
    }
    if request.snapshot.is_some() && device.is_gpu() {
        snapshot::start()?;
    }
    say(Event::Started { device_name, torch_version: crate::TORCH_VERSION.to_owned() });
    Ok(device)
}

/// The ranks that work on the video, once all of them are here.
fn ranks(request: &Request) -> Result<Ranks> {
    match (&request.ranks, request.config.split()) {
        (None, Split::ONE) => Ok(Ranks::alone()),
        (Some(rank), split) if request.device.is_cuda() && rank.count == split.ranks() => {
            signs::begin(rank)?;
            ranks_of(&request.config, Arc::new(Nccl::meet(rank)?), |_| Ok(Arc::new(Nccl::meet_again(rank)?)))
        }
        (_, split) => Err(not_of(split)),
    }
}

/// The ranks of `config`, which are `all`. Where each holds a part of the weights, those that `again` gives speak of them.
fn ranks_of(config: &Config, all: Group, again: impl FnOnce(&Group) -> Result<Group>) -> Result<Ranks> {
    if config.cp_split == Some(CpSplit::Speed) {
        return Err(Error::Input("cp_split=speed: nobody said how fast the GPUs are: give shares such as 3:1".into()));
    }
    let ranks = Ranks::new(Arc::clone(&all), config.split(), Shares::of(config))?;
    if config.shard_weights == Some(true) { ranks.with_weights(&again(&all)?) } else { Ok(ranks) }
}

fn not_of(split: Split) -> Error {
    Error::Input(format!("{split}: the request is not one of {} ranks", split.ranks()))
}

/// What there is room for, and at which rates.
fn room(request: &Request, device: ComputeDevice) -> Result<Room<'_>> {
    let limit = request.memory_limit_bytes.unwrap_or(u64::MAX);
    let gpu = request.gpu.as_ref();
    let gpu_bytes = if device.is_gpu() {
        let (free, total) = allocator::free_and_total_bytes()?;
        // Of what is in use, so much is this process's own.
        let own = gpu.map_or(0, |gpu| gpu.context_bytes.value).min(total - free);
        Some((free + own).min(limit))
    } else {
        None
    };
    Ok(Room { gpu_bytes, host_bytes: request.host_limit_bytes, gpu, disk: request.disk })
}

/// Without a checkpoint, weights come from the seed; where nothing is computed, they are left empty.
fn sources(request: &Request) -> Sources {
    let components = components::of(&request.model);
    let (seed, compute) = (request.config.seed, kind_of(request.config.dtype));
    match (request.device, &request.shared_weights) {
        (Device::Virtual, _) => Sources::empty(&components),
        (Device::Cuda | Device::Cpu, Some(folder)) => Sources::shared(&components, seed, compute, folder),
        (Device::Cuda | Device::Cpu, None) => Sources::seeded(&components, seed),
    }
}

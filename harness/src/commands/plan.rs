//! `lowmem plan`: what will live where, and the predicted peaks, before anything is allocated. The worker computes them; nothing here does.

use engine_protocol::{
    BufferUse, Config, CpSplit, Device, Home, Moves, PassSecs, PlanReport, PlannedGroups, PlannedRanks, Request, ResidentBlocks,
    StreamFrom, gib,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::{one_video, table, warn_of_attention, weights};
use crate::autos;
use crate::cli::PlanArguments;
use crate::disk;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::gpu_profile::{Budget, GpuProfiles};
use crate::json;
use crate::model::Models;
use crate::ram::{Ram, ulimit_said, wsl_said};
use crate::rank_plans::{RankGpus, RankPlans};
use crate::shares;
use crate::splits;
use crate::sweep::{Definition, Rules, resolve};
use crate::testbed::{kinds, rank_order};

/// Prints the plan of a configuration.
pub(crate) fn run(arguments: &PlanArguments) -> Result<ExitCode, Error> {
    let profiles = GpuProfiles::load()?;
    let kinds = arguments.gpu.as_deref().map(kinds).unwrap_or_default();
    let mut budgets = kinds.into_iter().map(|text| profiles.budget(text)).collect::<Result<Vec<Budget>, Error>>()?;
    budgets.sort_by_key(|budget| rank_order(Some(budget.capacity_bytes)));
    let (on, budget) = (RankGpus::of_budgets(&budgets), budgets.first().cloned());
    let mut definition = one_video::definition("plan", &arguments.video, &[], &arguments.settings)?;
    let models = weights::models(arguments.files.named().as_ref(), &mut definition)?;
    let ram = Ram::of(arguments.ram.as_deref(), Device::Virtual)?;
    let request_of = |config: &Config| -> Result<Request, Error> {
        Ok(Request {
            checkpoint: None,
            case: "plan".into(),
            device: Device::Virtual,
            memory_limit_bytes: budget.as_ref().map(|budget| config.usable_of(budget.capacity_bytes)),
            host_limit_bytes: ram.limit_bytes(),
            gpu: budget.as_ref().map(|budget| budget.profile.clone()),
            host_rates: None,
            disk: arguments.disk,
            model: models.get(&config.model)?.clone(),
            config: config.clone(),
            shared_weights: None,
            output: None,
            snapshot: None,
            operation_times: None,
            ranks: None,
        })
    };
    if let Some((gpus, asked)) = arguments.gpus.wanted(on.named())? {
        let config_of = |definition: &Definition| Ok(config(definition, &models)?.0);
        let said = splits::fix(&mut definition, gpus, &asked, config_of, request_of, &on)?;
        tell!("{said}");
    }
    let (config, warnings) = config(&definition, &models)?;
    warnings.iter().for_each(|warning| tell!("warning: {warning}"));
    if config.resident_blocks == Some(ResidentBlocks::Auto) && budget.is_none() {
        return Err(Error::input("resident_blocks=auto goes by the GPU's memory: add --gpu, or give a number of blocks"));
    }
    let profile = budget.as_ref().map(|budget| &budget.profile);
    config.check_kernels_on(profile).map_err(Error::input)?;
    warn_of_attention([&config], profile);
    if config.cp_split == Some(CpSplit::Speed) && budget.is_none() {
        return Err(Error::input("cp_split=speed goes by the GPUs: add --gpu A,B, or give shares such as 3:1"));
    }
    let asked = config;
    let config = shares::settled(asked.clone(), &on, request_of)?;
    shares::in_words(&asked, &config).iter().for_each(|said| tell!("{said}"));
    let on = on.with_parts(&config);
    let request = request_of(&config)?;
    let budget = budget.map(|budget| Budget { capacity_bytes: config.usable_of(budget.capacity_bytes), ..budget });
    let plans = on.plans(std::slice::from_ref(&request))?.pop().ok_or_else(|| Error::Fault("the worker gave no plan".into()))?;
    let [report, other_ranks @ ..] = plans.0.as_slice() else { return Err(Error::Fault("there is no first rank".into())) };
    let from_files = report.config.offload_dit && report.config.stream_from == Some(StreamFrom::File);
    disk::say_where_assumed(request.disk, from_files && request.config.resident_blocks == Some(ResidentBlocks::Auto));
    let fits = fits(&plans, budget.as_ref(), &ram).map(|fits| fits && plans.fit(&config, &on));
    let ending = if fits == Some(false) { ExitCode::NothingFits } else { ExitCode::Done };
    if arguments.json {
        json::print(&PlanJson {
            fits,
            capacity_bytes: budget.as_ref().map(|budget| budget.capacity_bytes),
            peak_allocated_bytes: report.peak().map(|(_, bytes)| bytes),
            ram_bytes: ram.bytes,
            ram_peak_bytes: plans.host_peak_bytes(),
            report: report.clone(),
            other_ranks: other_ranks.to_vec(),
        })?;
        return Ok(ending);
    }
    let c = &request.config;
    say!("{} at {}, {} frames, level {}, {}\n", c.model, c.resolution, c.frames, c.low_mem_level, c.dtype.name());
    for said in autos::in_words(c, &report.config) {
        say!("{said}\n");
    }
    print_groups(report);
    print_stages(report);
    if let Some(ranks) = &report.ranks {
        print_ranks(ranks, report);
        if plans.0.len() > 1 {
            print_kinds(&plans, &on, &request.config);
        }
    }
    if let Some(budget) = &budget {
        say!("\n{}\n{}", budget.choice, verdict(report, budget));
    }
    say!("{} {}", ram.said, ram_verdict(&plans, &ram));
    [wsl_said(report.pinned_bytes()), ulimit_said(report.pinned_bytes())].iter().flatten().for_each(|said| say!("{said}"));
    Ok(ending)
}

/// The plan, and how it stands to the budgets.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PlanJson {
    #[serde(flatten)]
    report: PlanReport,
    /// Where a GPU was named for each rank, the same of each rank but the first, whose placement follows its own GPU.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    other_ranks: Vec<PlanReport>,
    /// Whether it is within the budgets; null where that is not known, or there is no budget.
    fits: Option<bool>,
    /// What of the GPU may be used.
    capacity_bytes: Option<u64>,
    /// The largest predicted peak; null where that of a stage is not known.
    peak_allocated_bytes: Option<u64>,
    /// What of the machine's memory may be used; null where it is taken to be without limit.
    ram_bytes: Option<u64>,
    /// The most of it that is predicted.
    ram_peak_bytes: Option<u64>,
}

/// Whether the plan is within the budgets that there are; none where that is not known, or there is no budget.
fn fits(plans: &RankPlans, budget: Option<&Budget>, ram: &Ram) -> Option<bool> {
    let report = plans.first();
    let on_gpu = budget.map(|budget| {
        let room = budget.capacity_bytes.saturating_sub(report.process_bytes.unwrap_or(0));
        // Where a stage has no prediction, another one may be too large all the same.
        let is_larger = report.stages.iter().filter_map(|stage| stage.peak_allocated_bytes()).any(|bytes| bytes > room);
        if is_larger { Some(false) } else { report.peak().map(|_| true) }
    });
    let on_host = ram.limit_bytes().map(|held| Some(plans.host_peak_bytes()? <= held));
    let all: Vec<Option<bool>> = [on_gpu, on_host].into_iter().flatten().collect();
    if all.contains(&Some(false)) { Some(false) } else { (!all.is_empty() && !all.contains(&None)).then_some(true) }
}

/// The configuration that the arguments mean.
fn config(definition: &Definition, models: &Models) -> Result<(Config, Vec<String>), Error> {
    let settings = one_video::settings(definition)?;
    resolve(&settings, models, Rules { device: Device::Virtual, may_shorten: true }, |error| definition.refuse(error))
}

/// What lives where.
fn print_groups(report: &PlanReport) {
    let mut table = table(&["model", "weights", "GiB", "where", "copied to the GPU"], &[2]);
    for groups in &report.groups {
        table.add_row([&groups.component, &groups.name, &in_gib(groups.bytes), place(groups.home), moves(groups)]);
    }
    for buffers in &report.buffers {
        let plural = if buffers.count == 1 { "" } else { "s" };
        let name = match buffers.purpose {
            BufferUse::Staging => format!("{} staging buffer{plural}", buffers.count),
            BufferUse::Unpacking => "unpacking buffer".into(),
            BufferUse::Cache | BufferUse::CacheOnHost => format!("step cache, {} tensor{plural}", buffers.count),
            BufferUse::Passing => "buffers to pass through".into(),
        };
        let home = if buffers.purpose.is_on_gpu() { Home::Gpu } else { Home::Pinned };
        let there = format!("exists during {}", buffers.stage.name());
        table.add_row([&buffers.component, &name, &in_gib(buffers.count * buffers.buffer_bytes), place(home), &there]);
    }
    say!("{table}");
    let [on_gpu, on_host, pinned] = [report.bytes_in(Home::Gpu), report.host_bytes(), report.pinned_bytes()].map(in_gib);
    say!("Weights: {on_gpu} GiB stay on the GPU, {on_host} GiB are on the host, {pinned} GiB of them pinned.");
    let words = [
        (report.host_bytes() > 0, "Host: this machine's own memory (RAM)."),
        (report.pinned_bytes() > 0, "Pinned: page-locked, so the system never moves it, and copies run while the GPU computes."),
        (report.buffers.iter().any(|buffers| buffers.purpose == BufferUse::Staging), "Staging buffers: copied weights take turns in them."),
        (
            report.buffers.iter().any(|buffers| buffers.purpose == BufferUse::Unpacking),
            "Unpacking buffer: packed weights compute from it, one group at a time.",
        ),
        (report.bytes_in(Home::Ranks) > 0, "GPUs of ranks: each holds a part, and gets the others while it computes."),
        (report.config.flexcache.keeps_hidden_states(), "Step cache: what some sampler steps reuse of those before them."),
    ];
    words.into_iter().filter(|(is_there, _)| *is_there).for_each(|(_, word)| say!("{word}"));
    say!();
}

/// What each stage holds at its peak.
fn print_stages(report: &PlanReport) {
    let titles = [
        "stage",
        "resident weights GiB",
        "buffers GiB",
        "activations GiB",
        "predicted peak allocated GiB",
        "predicted RAM GiB",
        "page-locked GiB",
    ];
    let mut table = table(&titles, &[1, 2, 3, 4, 5, 6]);
    for stage in &report.stages {
        let host = report.host.iter().find(|host| host.stage == stage.stage).map(|host| host.memory);
        table.add_row([
            stage.stage.name().to_owned(),
            in_gib(stage.resident_bytes),
            in_gib(stage.staging_bytes),
            known_gib(stage.activation_bytes),
            known_gib(stage.peak_allocated_bytes()),
            known_gib(host.and_then(|host| host.peak_bytes)),
            known_gib(host.map(|host| host.pinned_peak_bytes)),
        ]);
    }
    say!("{table}");
    if let Some((stage, bytes)) = report.peak() {
        say!("Predicted peak: {} GiB allocated, in {}.", in_gib(bytes), stage.name());
    }
    let host = report.host();
    say!(
        "Predicted RAM: {} GiB at most, {} of them page-locked. It is all that the process holds of the machine's memory, 1 GiB for libraries and driver included (a rule).",
        known_gib(host.peak_bytes),
        in_gib(host.pinned_peak_bytes)
    );
    say!(
        "Weights and buffers are exact. Activations, which stand for all else, are estimated from shapes: within 1% of the peak on an H100, 24 MiB too high on \
         older GPUs. PyTorch's allocator takes a little more from the GPU than it allocates, and {} comes on top.",
        reports::CONTEXT
    );
}

/// What comes of several GPUs: all that stands above is of the first one.
fn print_ranks(ranks: &PlannedRanks, report: &PlanReport) {
    let PlannedRanks {
        count,
        parts,
        all_decode,
        of_first,
        sent_bytes,
        gathered_bytes,
        others_peak_allocated_bytes,
        shared_host_bytes,
        pass_secs,
    } = ranks;
    let split = report.config.split();
    let tokens = if *parts > 1 {
        format!("one of {parts} parts of the token sequence")
    } else {
        "the whole token sequence of one prediction".into()
    };
    let weights = if *gathered_bytes > 0 { "the weights above, of the transformer's blocks a part" } else { "the weights above" };
    say!("\n{count} ranks, a GPU each: {split}. Each has {tokens}, and {weights}.");
    let mut table = table(&["rank", "does", "predicted peak allocated GiB"], &[2]);
    let first = report.peak().map(|(_, bytes)| bytes);
    table.add_row(["0".to_owned(), "encode, denoise, decode".into(), known_gib(first)]);
    let others = if *count == 2 { "1".into() } else { format!("1 to {}, each", count - 1) };
    let does = if *all_decode { "denoise, decode tiles" } else { "denoise" };
    table.add_row([others, does.into(), known_gib(*others_peak_allocated_bytes)]);
    say!("{table}");
    say!("Rank 0 alone has the {}, and hands on what it makes by it.", of_first.join(" and the "));
    say!(
        "Each sends {} GiB to others in a pass of the transformer. The RAM above is that of all ranks: {} GiB of weights on the host are there once, and all else in each.",
        in_gib(*sent_bytes),
        in_gib(*shared_host_bytes)
    );
    if *gathered_bytes > 0 {
        say!(
            "Of the transformer's blocks each holds one of {parts} parts, and gets the others ahead of their turn: {} GiB in a pass.",
            in_gib(*gathered_bytes)
        );
    }
    if let Some(pass) = pass_secs {
        let PassSecs { alone, exchange, is_nvlink, .. } = pass;
        let link = if *is_nvlink { "NVLink" } else { "PCI Express" };
        let (secs, share) = (pass.on_each(), pass.step_share(split));
        say!(
            "Modelled: a pass takes {secs:.2} s, {exchange:.2} of them for that over {link}; on one GPU {alone:.2} s. A step takes {share:.2} of the time of one GPU. \
             Norms and the like are left out of both."
        );
    }
    say!("The virtual GPU runs this too; no figure for more than one GPU was measured on real ones.");
}

/// What comes of ranks that differ: in their GPUs, or in their parts.
fn print_kinds(plans: &RankPlans, on: &RankGpus, config: &Config) {
    let titles = ["rank", "GPU", "share of the sequence", "blocks that stay", "predicted peak allocated GiB", "of GiB", "a pass takes s"];
    let mut table = table(&titles, &[2, 3, 4, 5, 6]);
    let shares = config.cp_split.as_ref().and_then(CpSplit::shares).map(<[u32]>::to_vec);
    let shares = shares.unwrap_or_else(|| vec![1; config.split().cp_size() as usize]);
    let all: u32 = shares.iter().sum();
    for (rank, (plan, gpu)) in plans.0.iter().zip(&on.0).enumerate() {
        let blocks = match plan.config.resident_blocks {
            Some(ResidentBlocks::Count(count)) => count.to_string(),
            _ => "all".into(),
        };
        let secs = plan.ranks.as_ref().and_then(|ranks| ranks.pass_secs).map(|pass| format!("{:.2}", pass.on_each()));
        table.add_row([
            rank.to_string(),
            gpu.profile.as_ref().map_or_else(String::new, |profile| profile.name.clone()),
            format!("{} of {all}", shares[rank % shares.len()]),
            blocks,
            known_gib(plan.peak().map(|(_, bytes)| bytes)),
            known_gib(gpu.capacity_bytes),
            secs.unwrap_or_default(),
        ]);
    }
    say!("\nRanks differ:\n{table}");
    for rank in plans.too_large(config, on) {
        say!("Does not fit: rank {rank}.");
    }
    if let Some(share) = plans.step_share(config.split()) {
        say!(
            "A step takes as long as the slowest: {share:.2} of the time on one GPU of the first kind (modelled). RAM above is predicted as if all had what rank 0 has there; what others have there beside it is in the sum below."
        );
    }
}

/// Whether the predicted peak is within the budget.
fn verdict(report: &PlanReport, budget: &Budget) -> String {
    let process_bytes = report.process_bytes.unwrap_or(0);
    let room = budget.capacity_bytes.saturating_sub(process_bytes);
    let of_room = format!(
        "of {} GiB: {} GiB of the GPU without {} GiB for the CUDA context and what belongs to it.",
        shortly(room),
        shortly(budget.capacity_bytes),
        shortly(process_bytes)
    );
    let mut known = report.stages.iter().filter_map(|stage| Some((stage.stage, stage.peak_allocated_bytes()?)));
    // Where a stage has no prediction, another one may be too large all the same.
    match report.peak().or_else(|| known.find(|(_, bytes)| *bytes > room)) {
        Some((stage, bytes)) if bytes > room => format!("Does not fit: {} allocates {} {of_room}", stage.name(), shortly(bytes)),
        Some((_, bytes)) => format!("Fits: {} {of_room}", shortly(bytes)),
        None => "Whether it fits is not known: a stage has no prediction.".into(),
    }
}

/// Whether the predicted RAM is within the budget.
fn ram_verdict(plans: &RankPlans, ram: &Ram) -> String {
    let needed = plans.host_peak_bytes().unwrap_or(0);
    match ram.bytes {
        Some(held) if needed > held => {
            format!("Does not fit: {} of {} GiB. `lowmem autotune --ram` finds what does.", shortly(needed), shortly(held))
        }
        Some(held) => format!("Fits: {} of {} GiB.", shortly(needed), shortly(held)),
        None => format!("{} GiB are needed.", shortly(needed)),
    }
}

fn shortly(bytes: u64) -> String {
    reports::in_gib(Some(bytes))
}

fn known_gib(bytes: Option<u64>) -> String {
    bytes.map(in_gib).unwrap_or_default()
}

fn in_gib(bytes: u64) -> String {
    format!("{:.3}", gib(bytes))
}

fn place(home: Home) -> &'static str {
    match home {
        Home::Gpu => "GPU",
        Home::Cpu => "CPU",
        Home::Pinned => "host, pinned",
        Home::Pageable => "host, pageable",
        Home::File => "file",
        Home::Ranks => "GPUs of ranks",
    }
}

fn moves(groups: &PlannedGroups) -> &'static str {
    match groups.moves {
        Moves::Never if groups.home == Home::Cpu => "never: computes on the CPU",
        Moves::Never => "never",
        Moves::EachPass => "in each pass of a step",
        Moves::DuringEncode => "once, during encode",
        Moves::BeforeEncodeImage => "once, before encode_image",
        Moves::BeforeDecode => "once, before decode",
    }
}

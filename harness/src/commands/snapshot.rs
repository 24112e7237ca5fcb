//! `lowmem snapshot`: the peak of a memory snapshot of PyTorch's, and who held it; as a page too.

use std::collections::BTreeMap;

use engine_protocol::gib;
use reports::{SnapshotGpu, SnapshotHolder, SnapshotPage, SnapshotSegment, snapshot_page, write_whole};
use schemars::JsonSchema;
use serde::Serialize;

use super::table;
use crate::cli::SnapshotArguments;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::snapshot::{Holder, Peak, StackHolder, peaks};
use crate::{json, print};

/// Holders that are listed.
const SHOWN: usize = 15;
/// Characters of a holder's name: with the figures beside it, 80 columns.
const NAME: usize = 50;

/// Reads a snapshot and says what is in it.
pub(crate) fn run(arguments: &SnapshotArguments) -> Result<ExitCode, Error> {
    let peaks = peaks(&arguments.file)?;
    if let Some(path) = &arguments.html {
        let page = SnapshotPage { file: arguments.file.display().to_string(), gpus: peaks.iter().map(gpu).collect() };
        write_whole(path, snapshot_page(&page)?).map_err(|error| Error::io(path, error))?;
    }
    if arguments.json {
        json::print(&peaks.iter().map(PeakJson::of).collect::<Vec<_>>())?;
    } else {
        peaks.iter().for_each(tell);
    }
    Ok(ExitCode::Done)
}

fn tell(peak: &Peak) {
    said_of_peak(peak).iter().for_each(|sentence| print::prose("", sentence));
    list("by module", modules(&peak.holders).iter());
    list("who held it", peak.holders.iter());
    said_of_end(peak).iter().for_each(|sentence| print::prose("", sentence));
}

fn held(bytes: u64) -> String {
    format!("{:.2} GiB", gib(bytes))
}

fn said_of_peak(peak: &Peak) -> Vec<String> {
    if peak.events == 0 {
        return vec![format!("GPU {}: it has no history, so its peak is not known; what follows is its end.", peak.device)];
    }
    let reserved =
        if peak.reserved_bytes > 0 { format!(" {} were held from the driver.", held(peak.reserved_bytes)) } else { String::new() };
    let live = held(peak.live_bytes);
    let mut said = vec![format!("GPU {}: the peak is {live}, at event {} of {}.{reserved}", peak.device, peak.event, peak.events)];
    if peak.out_of_memory > 0 {
        let times = if peak.out_of_memory == 1 { "once".to_owned() } else { format!("{} times", peak.out_of_memory) };
        said.push(format!("Memory ran out {times}."));
    }
    said
}

fn said_of_end(peak: &Peak) -> [String; 2] {
    let used = format!("{} are held from the driver, {} in blocks in use", held(peak.end_reserved_bytes), held(peak.end_used_bytes));
    let rounded = held(peak.end_used_bytes.saturating_sub(peak.end_asked_bytes));
    let (plural, stand) = if peak.split_blocks == 1 { ("", "stands") } else { ("s", "stand") };
    let bytes = held(peak.split_bytes);
    let split =
        format!("{} unused block{plural} of {bytes} {stand} beside used ones, so the driver cannot have that back", peak.split_blocks);
    [format!("At the end {used}, of which {rounded} are rounded up."), format!("Fragmentation: {split}.")]
}

/// A GPU as the page shows it.
fn gpu(peak: &Peak) -> SnapshotGpu {
    let of_module =
        |holder: Holder| SnapshotHolder { name: holder.name, frames: Vec::new(), bytes: holder.bytes, blocks: holder.allocations };
    let of_stack = |StackHolder { holder, frames }: &StackHolder| SnapshotHolder {
        name: holder.name.clone(),
        frames: frames.clone(),
        bytes: holder.bytes,
        blocks: holder.allocations,
    };
    let segments = peak.segments.iter().map(|segment| SnapshotSegment {
        number: segment.number,
        bytes: segment.bytes,
        used_bytes: segment.used_bytes,
        unused_blocks: segment.unused_blocks,
        largest_unused_bytes: segment.largest_unused_bytes,
        cells: segment.cells.clone(),
    });
    SnapshotGpu {
        device: peak.device,
        sentences: said_of_peak(peak).into_iter().chain(said_of_end(peak)).collect(),
        live_bytes: peak.live_bytes,
        events: peak.events,
        at: peak.history.at.clone(),
        reserved_bytes: peak.history.reserved_bytes.clone(),
        module_bytes: peak.history.modules.clone(),
        modules: modules(&peak.holders).into_iter().map(of_module).collect(),
        stacks: peak.stacks.iter().map(of_stack).collect(),
        stack_count: peak.stack_count,
        segments: segments.collect(),
        segment_count: peak.segment_count,
    }
}

fn list<'a>(title: &str, holders: impl Iterator<Item = &'a Holder>) {
    let holders: Vec<_> = holders.collect();
    let mut rows = table(&[title, "GiB", "blocks"], &[1, 2]);
    let cut = |name: &str| untrusted::line(name).chars().take(NAME).collect::<String>();
    let figures = |bytes: u64, blocks: u64| [format!("{:.3}", gib(bytes)), blocks.to_string()];
    for holder in holders.iter().take(SHOWN) {
        rows.add_row([cut(&holder.name)].into_iter().chain(figures(holder.bytes, holder.allocations)));
    }
    if let Some(rest) = holders.get(SHOWN..).filter(|rest| !rest.is_empty()) {
        let (bytes, blocks) = rest
            .iter()
            .fold((0, 0), |(bytes, blocks): (u64, u64), holder| (bytes.saturating_add(holder.bytes), blocks + holder.allocations));
        rows.add_row([format!("and {} more", rest.len())].into_iter().chain(figures(bytes, blocks)));
    }
    if rows.row_count() > 0 {
        print::table(&rows);
        say!();
    }
}

/// The sums of modules, the largest first.
fn modules(holders: &[Holder]) -> Vec<Holder> {
    let mut sums: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for holder in holders {
        let (bytes, allocations) = sums.entry(&holder.module).or_default();
        (*bytes, *allocations) = (bytes.saturating_add(holder.bytes), *allocations + holder.allocations);
    }
    let named = |(name, (bytes, allocations)): (&str, (u64, u64))| Holder { name: name.into(), module: name.into(), bytes, allocations };
    let mut modules: Vec<_> = sums.into_iter().map(named).collect();
    modules.sort_by_key(|module| std::cmp::Reverse(module.bytes));
    modules
}

/// The peak of a GPU in a snapshot.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Peak")]
pub(crate) struct PeakJson {
    /// Its number in the program.
    device: usize,
    /// Bytes that were asked for and live at once, at most; null without a history.
    live_bytes: Option<u64>,
    /// What the allocator held from the driver then; null without a history.
    reserved_bytes: Option<u64>,
    /// Which event of the history made the peak; null without a history.
    event: Option<u64>,
    /// Events of the history.
    events: u64,
    /// How often memory ran out.
    out_of_memory: u64,
    /// Sums by module: the stage of a label, or the file of a stack.
    modules: Vec<HolderJson>,
    /// Who held it, the largest first: by label, or by the innermost line that is not PyTorch's.
    holders: Vec<HolderJson>,
    /// Held from the driver at the end.
    end_reserved_bytes: u64,
    /// Blocks in use at the end.
    end_used_bytes: u64,
    /// What was asked for of those.
    end_asked_bytes: u64,
    /// Unused blocks beside used ones at the end.
    split_blocks: u64,
    /// Their bytes.
    split_bytes: u64,
}

/// Who held memory at the peak.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Holder")]
struct HolderJson {
    name: String,
    bytes: u64,
    allocations: u64,
}

impl PeakJson {
    fn of(peak: &Peak) -> Self {
        let known = |figure: u64| (peak.events > 0).then_some(figure);
        let all = |holders: &[Holder]| {
            let one = |holder: &Holder| HolderJson { name: holder.name.clone(), bytes: holder.bytes, allocations: holder.allocations };
            holders.iter().map(one).collect()
        };
        Self {
            device: peak.device,
            live_bytes: known(peak.live_bytes),
            reserved_bytes: known(peak.reserved_bytes),
            event: known(peak.event),
            events: peak.events,
            out_of_memory: peak.out_of_memory,
            modules: all(&modules(&peak.holders)),
            holders: all(&peak.holders),
            end_reserved_bytes: peak.end_reserved_bytes,
            end_used_bytes: peak.end_used_bytes,
            end_asked_bytes: peak.end_asked_bytes,
            split_blocks: peak.split_blocks,
            split_bytes: peak.split_bytes,
        }
    }
}

//! The verdict of `lowmem on` as a page.

use std::path::Path;

use engine_protocol::{GpuProfile, gib};
use reports::{ProgramCourse, ProgramPage, program_page, write_whole};

use super::cards::{Judge, Word};
use super::find::Found;
use super::need::DeviceUse;
use crate::cli::OnArguments;
use crate::error::Error;
use crate::gpu_profile::GpuProfiles;

/// Writes it into the file.
pub(super) fn write(
    path: &Path,
    judge: &Judge<'_>,
    profiles: &GpuProfiles,
    found: Option<&Found<'_>>,
    arguments: &OnArguments,
) -> Result<(), Error> {
    let sorted = judge.sorted(profiles);
    let names = |cards: &[&GpuProfile]| match cards {
        [] => "none".to_owned(),
        cards => cards.iter().map(|card| card.name.as_str()).collect::<Vec<_>>().join(", "),
    };
    let figure = |bytes: Option<u64>| bytes.map_or_else(|| "not told".to_owned(), |bytes| format!("{:.2}", gib(bytes)));
    let uses = &judge.need.uses;
    let page = ProgramPage {
        program: reports::shell_line(arguments.program.iter().map(|word| word.to_string_lossy().into_owned())),
        sentences: sentences(judge, found),
        titles: vec!["process", "device", "peak allocated GiB", "peak reserved GiB", "peak device GiB"],
        rows: uses
            .iter()
            .map(|used| {
                let [allocated, reserved] =
                    [used.counted.map(|counted| counted.peak_allocated_bytes), used.counted.map(|counted| counted.peak_reserved_bytes)];
                let figures = [allocated, reserved, Some(used.report.peak_device_bytes)].map(figure);
                [used.process.to_string(), used.device.to_string()].into_iter().chain(figures).collect()
            })
            .collect(),
        peaks: uses.iter().filter_map(|used| Some((name(used), used.peak.as_ref()?.parts()))).collect(),
        gpus: if uses.is_empty() {
            Vec::new()
        } else {
            vec![("Fits on", names(&sorted.fits)), ("Not known", names(&sorted.unknown)), ("Too small", names(&sorted.small))]
        },
        courses: uses.iter().filter_map(course).collect(),
        capacity_bytes: judge.here.memory_bytes.value,
    };
    let text = program_page(&page).map_err(|error| Error::Fault(format!("the page was not made: {error}")))?;
    write_whole(path, text).map_err(|error| Error::io(path, error))
}

fn name(used: &DeviceUse) -> String {
    format!("process {}, device {}", used.process, used.device)
}

fn course(used: &DeviceUse) -> Option<ProgramCourse> {
    let course = &used.peak.as_ref()?.course;
    Some(ProgramCourse {
        of: name(used),
        beside_bytes: used.report.process_bytes,
        peak_device_bytes: used.report.peak_device_bytes,
        events: course.events,
        at: course.at.clone(),
        reserved_bytes: course.reserved.clone(),
        parts: course.parts(),
    })
}

fn sentences(judge: &Judge<'_>, found: Option<&Found<'_>>) -> Vec<String> {
    let need = judge.need;
    if need.uses.is_empty() {
        return vec!["No process of the program used the GPU.".to_owned()];
    }
    let word = match judge.word(judge.here) {
        Word::Fits => "Fits",
        Word::NotKnown => "Whether it fits is not known",
        Word::TooSmall => "Does not fit",
    };
    let [least, held, all] = [judge.at_least_on(judge.here), judge.held_on(judge.here), judge.here.memory_bytes.value].map(gib);
    let mut sentences =
        vec![format!("{word} on {} with {all:.2} GiB: it needs at least {least:.2} GiB, and held {held:.2}.", judge.here.name)];
    if let Some(peak) = need.largest_peak() {
        sentences.extend([Some(peak.made_of()), peak.came(), peak.by_module()].into_iter().flatten());
    }
    if let Some(bytes) = need.host_peak_bytes() {
        sentences.push(format!(
            "The machine's own memory (RAM): up to {:.2} GiB, and {:.2} GiB page-locked for the GPU.",
            gib(bytes),
            gib(need.pinned_peak_bytes)
        ));
    }
    if let Some(card) = found.and_then(|found| found.smallest) {
        sentences.push(format!("The smallest GPU that it runs on: {}.", card.name));
    }
    sentences
}

//! Where each figure comes from, as footnotes, and in words.

use engine_protocol::{Device, RunRecord, Source, gib};

use super::videos::Video;
use crate::markdown::inert;
use crate::sentences;
use crate::words::time_with_range;

/// What is said where a document asks for an attention kernel that this version does not have.
pub(super) const WITHOUT_SAGE: &str = " SageAttention is not in it: no run has it.";

/// The footnotes of a document, each once.
#[derive(Default)]
pub(super) struct Footnotes(Vec<String>);

impl Footnotes {
    /// The sign of a footnote.
    pub(super) fn sign(&mut self, text: String) -> String {
        let place = self.0.iter().position(|known| *known == text).unwrap_or_else(|| {
            self.0.push(text);
            self.0.len() - 1
        });
        format!("[^lowmem-{}]", place + 1)
    }

    /// The footnotes as lines.
    pub(super) fn lines(&self) -> Vec<String> {
        self.0.iter().enumerate().map(|(index, text)| format!("[^lowmem-{}]: {text}", index + 1)).collect()
    }
}

/// The video: `wan2.1-t2v-14b at 1280x720, 81 frames, 50 steps, bf16`.
pub(super) fn subject(video: &Video<'_>) -> String {
    let config = video.config;
    let flags = if video.flags.is_empty() { String::new() } else { format!(", {}", video.flags.join(" ")) };
    let dtype =
        if video.flags.iter().any(|flag| flag.starts_with("dtype=")) { String::new() } else { format!(", {}", config.dtype.name()) };
    inert(&format!("{} at {}, {} frames, {} steps{dtype}{flags}", config.model, config.resolution, config.frames, config.steps))
}

/// The GPU: `a virtual h100 (NVIDIA H100 80GB HBM3)`.
pub(super) fn gpu(video: &Video<'_>) -> String {
    let manifest = &video.run.manifest;
    let name = match (&manifest.gpu, manifest.device) {
        (Some(gpu), Device::Virtual) => format!("a virtual {} ({})", gpu.name, gpu.title),
        (Some(gpu), _) => gpu.title.clone(),
        (None, _) => {
            video.run.records.iter().find_map(|record| record.device_name.clone()).unwrap_or_else(|| manifest.device.name().into())
        }
    };
    inert(&name)
}

/// The GPU in a word or two.
pub(super) fn short_gpu(video: &Video<'_>) -> String {
    let manifest = &video.run.manifest;
    let name = manifest.gpu.as_ref().map(|gpu| gpu.name.clone());
    inert(&name.or_else(|| video.run.records.iter().find_map(|record| record.device_name.clone())).unwrap_or_else(|| "the GPU".into()))
}

/// What a figure of memory is, and where it is from.
pub(super) fn of_memory(video: &Video<'_>, record: &RunRecord) -> String {
    let how = match record.memory_source {
        Some(Source::Measured) => format!("measured on {}", gpu(video)),
        _ => format!("counted on {}, not measured", gpu(video)),
    };
    format!("The most GPU memory in use at once, the CUDA context included: what a card must have. {}; {how}.", subject(video))
}

/// What a time is, and where it is from.
pub(super) fn of_time(video: &Video<'_>, record: &RunRecord) -> String {
    let on_cpu = record.config_run().offload_text_encoder == engine_protocol::OffloadTextEncoder::Cpu;
    let how = match record.time_source {
        Some(Source::Measured) => format!("measured on {}", gpu(video)),
        _ if on_cpu => {
            format!("modelled for {}, not measured, the text encoder by the rates of the processor that it was run on", gpu(video))
        }
        _ => format!("modelled for {}, not measured", gpu(video)),
    };
    let said = [sentences::steps_that_ran(record), sentences::left_out(record)].into_iter().flatten();
    let ran: String = said.map(|said| format!(" {said}")).collect();
    format!("From prompt to video, without loading; the ratio is level 0's time over this level's. {}; {how}.{ran}", subject(video))
}

/// What a case takes and how long, on what: `3.78 GiB of 79.10, 20 min 3 s (modelled)`.
pub(super) fn figures(video: &Video<'_>, record: &RunRecord) -> String {
    let held = video.run.manifest.capacity_bytes.map(|bytes| format!(" of {:.2}", gib(record.config.usable_of(bytes)))).unwrap_or_default();
    let peak = record.peak_device_bytes().map(|bytes| format!("{:.2}{held} GiB ({})", gib(bytes), sentences::source(record)));
    let time =
        record.total_secs().map(|secs| format!("{} ({})", time_with_range(secs), record.time_source.map_or("not known", Source::name)));
    [peak, time].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

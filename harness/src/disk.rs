//! What the disk gives that weights are read from with `stream_from=file`: said with `--disk`, else measured once in the checkpoint's own folder and kept, else
//! assumed.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use engine_protocol::{Config, Device, DiskRate, DiskRateSource, StreamFrom};

use crate::kept_rates::KeptRates;
use crate::testbed::Testbed;
use crate::worker;

/// The rate for a video from `checkpoint` on `testbed`: what was said, else what the disk gave when it was measured. Nothing where it makes no difference, or cannot be known.
pub(crate) fn for_video(testbed: &Testbed, checkpoint: Option<&Path>, config: &Config) -> Option<DiskRate> {
    match (testbed.disk, checkpoint) {
        (None, Some(path)) if may_read(testbed, config) && testbed.device != Device::Cpu => {
            known(if path.is_file() { path.parent().unwrap_or(path) } else { path })
        }
        (said, _) => said,
    }
}

/// Whether streamed weights may come to be read from their files.
fn may_read(testbed: &Testbed, config: &Config) -> bool {
    match config.stream_from {
        Some(StreamFrom::File) => config.offload_dit,
        // On the virtual GPU the weights wait in memory, of which it takes none, unless there is a budget.
        Some(StreamFrom::Auto) => config.offload_dit && (testbed.device == Device::Cuda || testbed.ram.limit_bytes().is_some()),
        Some(StreamFrom::Memory) | None => false,
    }
}

/// The rate of the disk that holds `folder`. Nothing, with a word about it, where it cannot be measured.
fn known(folder: &Path) -> Option<DiskRate> {
    let mut kept = KeptRates::load();
    let device = std::fs::metadata(folder).ok()?.dev();
    let disk = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    if let Some(rate) = kept.disks.get(&disk) {
        return Some(*rate);
    }
    tell!("Measuring this machine's disk, for times of weights that are read from it (once, a second or two).");
    let measured = worker::disk_rate(folder).and_then(|rate| {
        kept.disks.insert(disk, rate);
        kept.save().map(|()| rate)
    });
    match measured {
        Ok(rate) => {
            tell!("It gives {}.", in_words(rate));
            Some(rate)
        }
        Err(error) => {
            tell!("warning: the disk could not be measured: {error}");
            None
        }
    }
}

/// Whether the disk may come to be in the modelled time of a case.
pub(crate) fn is_modelled(testbed: &Testbed, config: &Config) -> bool {
    testbed.device == Device::Virtual && may_read(testbed, config)
}

/// Says that the disk's rate is assumed, where nobody said it and it is in what is modelled.
pub(crate) fn say_where_assumed(disk: Option<DiskRate>, is_modelled: bool) {
    if disk.is_none() && is_modelled {
        tell!("stream_from=file: the disk's rate is assumed, {}. Say yours with --disk 3GB/s.", in_words(DiskRate::ASSUMED));
    }
}

/// How fast the disk is taken to be in what is modelled, in a sentence.
pub(crate) fn said(testbed: &Testbed) -> Option<String> {
    let rate = testbed.disk.unwrap_or(DiskRate::ASSUMED);
    let source = match rate.source {
        DiskRateSource::Assumed => "assumed",
        DiskRateSource::Given => "given with --disk",
        DiskRateSource::Measured => "measured",
    };
    let rate = in_words(rate);
    (testbed.device == Device::Virtual).then(|| format!("Weights that are read from files come from a disk that gives {rate}, {source}."))
}

fn in_words(rate: DiskRate) -> String {
    let [low, expected, high] = [rate.low, rate.expected, rate.high].map(|rate| rate / 1e9);
    format!("{expected:.1} GB/s ({low:.1} to {high:.1})")
}

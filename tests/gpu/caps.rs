//! A cap of 4.5 GB: what needs more ends as an answer or goes on at a lower level, and what is said to fit stays below the cap.

use engine_protocol::{Outcome, gib};
use lowmem_tests::sweep::Swept;

use crate::check::{Checks, Verdict};
use crate::hand::{Hand, Said};

/// The checks.
pub(crate) const NAMES: [&str; 3] = ["out of memory under a cap", "on_oom=lower goes on", "a budget is kept under a cap"];

const CAP: &str = "4.5GB";
const MODEL: &str = "model=wan2.1-t2v-1.3b";
/// At level 0 it decodes in more than the cap, and denoises in less.
const SETTINGS: &[&str] = &["resolution=480p", "steps=2", "offload_text_encoder=stream"];
/// `lowmem generate` ends so where memory runs out.
const NOTHING_FITS: i32 = 3;

pub(crate) fn all(hand: &Hand, checks: &mut Checks) {
    let [out_of_memory, lower, kept] = NAMES;
    checks.check(out_of_memory, || {
        tried(hand, || {
            let said = generate(hand, &["low_mem_level=0"]);
            let line = said.stderr.lines().find(|line| line.contains("out of memory in")).unwrap_or_default().to_owned();
            let is_told = said.code == Some(NOTHING_FITS) && !line.is_empty();
            if is_told { Verdict::Passed(line) } else { Verdict::Failed(format!("exit code {:?}: {}", said.code, said.stderr.trim())) }
        })
    });
    checks.check(lower, || {
        tried(hand, || {
            let said = generate(hand, &["low_mem_level=0", "on_oom=lower"]);
            let line = said.stderr.lines().find(|line| line.contains("it goes on at level")).unwrap_or_default().to_owned();
            let fault = said.fault().or_else(|| line.is_empty().then(|| "it came to its end without going to a lower level".into()));
            Verdict::of(line, fault.as_slice())
        })
    });
    checks.check(kept, || tried(hand, || budget(hand)));
}

/// The check, unless the host's memory does not hold the weights.
fn tried(hand: &Hand, check: impl FnOnce() -> Verdict) -> Verdict {
    hand.lacks_memory_for(&[&[MODEL], SETTINGS].concat()).map_or_else(check, Verdict::Skipped)
}

/// A video under the cap; on the virtual GPU none is written.
fn generate(hand: &Hand, settings: &[&str]) -> Said {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("video.safetensors");
    let mut arguments = vec!["generate", MODEL, "--timeout", "180"];
    arguments.extend(hand.capped(CAP));
    if hand.is_real() {
        arguments.extend(["--output", path.to_str().expect("a path in UTF-8")]);
    }
    hand.lowmem(&[&arguments[..], SETTINGS, settings].concat())
}

/// Most of the cap is weights, and the rest is enough.
fn budget(hand: &Hand) -> Verdict {
    let definition = "model: wan2.1-t2v-1.3b\nresolution: 480p\nsteps_measured: 2\noffload_text_encoder: stream\nlow_mem_level: 1\n";
    let (swept, output) = Swept::try_new(definition, &hand.capped(CAP), &hand.environment());
    if let Some(fault) = Said::from(output).fault() {
        return Verdict::Failed(fault);
    }
    let run = swept.run();
    let (record, capacity) = (&run.records[0], run.manifest.capacity_bytes.unwrap_or_default());
    match record.peak_device_bytes() {
        Some(peak) if record.outcome == Outcome::Ok && peak <= capacity => {
            Verdict::Passed(format!("{:.2} of {:.2} GiB at level 1", gib(peak), gib(capacity)))
        }
        peak => Verdict::Failed(format!("{}: {peak:?} of {capacity} bytes {:?}", record.outcome.name(), record.error)),
    }
}

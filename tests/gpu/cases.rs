//! Real models: peaks byte for byte those of the virtual GPU of the same card, device memory below what was predicted, and times beside predicted ones.

use std::path::Path;

use engine_protocol::{Outcome, RunRecord, gib};
use lowmem_tests::measured::{Peaks, Said, compare, said_of, said_with};
use lowmem_tests::sweep::Swept;
use serde_json::{Map, Value};

use crate::check::{Checks, Verdict};
use crate::folder::{Case, Found};
use crate::hand::{self, Hand};

/// The sweep's folder.
pub(crate) const SWEEP: &str = "cases";

/// What is run of each: memory is the same from the second step on, and the first pays for what happens once.
const STEPS: &str = "steps_measured=2";

/// So many seconds may one take: with what was begun last, all checks take a quarter of an hour.
const LIMIT: &str = "180";

/// The quickest first, and the less important last: they are what a slow card skips.
const CASES: &[&str] = &[
    "wan2.1-t2v-1.3b 832x480 low_mem_level=0 offload_text_encoder=stream",
    "wan2.1-t2v-1.3b 832x480 low_mem_level=3 offload_text_encoder=stream",
    "wan2.1-t2v-14b 832x480 low_mem_level=3 offload_text_encoder=stream",
    "wan2.1-t2v-14b 832x480 low_mem_level=0",
    "wan2.1-t2v-14b 1280x720 low_mem_level=3 offload_text_encoder=stream",
    "wan2.1-t2v-14b 832x480 low_mem_level=2 weight_dtype=fp8_e4m3 offload_text_encoder=stream",
    "wan2.1-t2v-1.3b 832x480 low_mem_level=3 offload_text_encoder=stream allocator=expandable_segments",
    "wan2.1-t2v-1.3b 832x480 low_mem_level=3 offload_text_encoder=stream attn_type=flash",
    "wan2.1-t2v-1.3b 832x480 low_mem_level=3 offload_text_encoder=stream dtype=fp16",
    "wan2.1-t2v-1.3b 832x480 low_mem_level=3 offload_text_encoder=stream guidance_batch=true activation_offload=true",
    "wan2.2-ti2v-5b 1280x704 low_mem_level=1 offload_text_encoder=stream",
    "wan2.1-t2v-14b 832x480 low_mem_level=3 resident_blocks=auto offload_text_encoder=stream",
];
/// Those that the virtual card runs: one that fits whole, one that is streamed, and one that does not fit.
const ON_VIRTUAL: [usize; 3] = [0, 1, 3];

/// Each case that there is time for. What does not fit is said to be skipped.
pub(crate) fn all(hand: &Hand, checks: &mut Checks, found: &mut Found) {
    let cases = CASES.iter().enumerate().filter(|(index, _)| hand.is_real() || ON_VIRTUAL.contains(index));
    for (_, case) in cases {
        let settings = settings(case);
        checks.check(&format!("case {}", name(&settings)), || {
            let words: Vec<&str> = settings.iter().map(String::as_str).collect();
            hand.lacks_memory_for(&words).map_or_else(|| run(hand, &settings, found), Verdict::Skipped)
        });
    }
}

/// `model resolution flags` as settings.
fn settings(case: &str) -> Vec<String> {
    let words = case.split(' ').enumerate().map(|(at, word)| match at {
        0 => format!("model={word}"),
        1 => format!("resolution={word}"),
        _ => word.to_owned(),
    });
    words.chain([STEPS.to_owned()]).collect()
}

/// `wan2.1-t2v-14b-832x480-level0`, and the flags beside the level.
fn name(settings: &[String]) -> String {
    let told = |setting: &String| {
        let (key, value) = setting.split_once('=').unwrap_or_default();
        match key {
            "model" | "resolution" => Some(value.to_owned()),
            "low_mem_level" => Some(format!("level{value}")),
            "steps_measured" => None,
            _ => Some(format!("{key}-{value}")),
        }
    };
    settings.iter().filter_map(told).collect::<Vec<_>>().join("-")
}

fn run(hand: &Hand, settings: &[String], found: &mut Found) -> Verdict {
    let pairs = settings.iter().filter_map(|setting| setting.split_once('='));
    let definition: Map<String, Value> = pairs.map(|(key, value)| (key.to_owned(), value.into())).collect();
    let arguments = [&hand.whole()[..], &["--case-timeout", LIMIT]].concat();
    let (swept, output) = Swept::try_new(&Value::from(definition).to_string(), &arguments, &hand.environment());
    // A case that ended in any way left a record.
    if let Some(fault) = hand::Said::from(output).fault().filter(|_| !swept.path(reports::RECORDS).exists()) {
        return Verdict::Failed(fault);
    }
    let run = swept.run();
    let record = RunRecord { case: name(settings), ..run.records[0].clone() };
    let (outcome, capacity) = (record.outcome, run.manifest.capacity_bytes.unwrap_or_default());
    found.manifest.get_or_insert(run.manifest);
    match outcome {
        // A real GPU is not asked where the virtual one of its kind says that it cannot fit.
        Outcome::Oom if record.is_skipped || !hand.is_real() => {
            let needed = reports::needed_bytes(&record).map(|bytes| format!("at least {:.2}", gib(bytes))).unwrap_or("more".into());
            Verdict::Skipped(format!("does not fit: it needs {needed} of {:.2} GiB", gib(capacity)))
        }
        Outcome::Ok => {
            let (case, verdict) = compared(record, found.calibrated.as_ref().map(Hand::settings));
            found.cases.push(case);
            verdict
        }
        Outcome::Timeout => Verdict::Skipped(format!("it was not over after {LIMIT} s")),
        other => Verdict::Failed(format!("{}: {}", other.name(), record.error.unwrap_or_default())),
    }
}

/// A case beside what the virtual GPU of the same card says.
fn compared(measured: RunRecord, calibrated: Option<&Path>) -> (Case, Verdict) {
    if measured.gpu.is_none() {
        let why = "no profile is of this GPU, so no virtual one can be compared: write one beside those in sweeps/gpus".to_owned();
        return (Case { measured, said: None, calibrated_secs: None }, Verdict::Skipped(why));
    }
    let records = std::slice::from_ref(&measured);
    let said = Said::new(SWEEP, &measured.case, &said_of(records)[0]);
    let calibrated_secs = calibrated.and_then(|settings| said_with(records, settings)[0].total_secs());
    let (peaks, mut faults) = compare(&measured, &said);
    let (device, predicted) = (measured.peak_device_bytes().unwrap_or_default(), said.peak_device_bytes);
    if device > predicted {
        faults.push(format!("device memory: {:.2} GiB, above the {:.2} that were predicted", gib(device), gib(predicted)));
    }
    let same = if peaks == Peaks::SegmentLess { "the same bytes, but for 2 MiB less reserved in decode" } else { "the same bytes" };
    let seen = format!("{same}; device {:.2} of {:.2} GiB predicted", gib(device), gib(predicted));
    (Case { measured, said: Some(said), calibrated_secs }, Verdict::of(seen, &faults))
}

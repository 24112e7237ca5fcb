//! Whole documents, filled in from small runs.

use engine_protocol::{Flexcache, RunRecord, Secs, Source, Stage, StageTime};

use super::fill;
use crate::run::Run;
use crate::samples;

const PAGE: &str = "\
# Any title

### Level 2: text encoder on the CPU

**VRAM:** Memory reduction expected
- Speed: _Performance testing in progress_

### LEVEL 3 (aggressive)

- Significant transfer overhead
- Another line

## The memory comparison

Benchmarking in progress.

Level | Peak VRAM | Speed | Components on GPU
---|---|---|---
0 | Baseline | 1.0x | All
2 | TBD | 7.0x | TBD
3 | TBD | TBD | Active layer only

## By VRAM size

| VRAM | Level | Resolution |
|---|---|---|
| 24 GB | Level 0 | To be tested |
| 24 GiB | TBD | TBD |
| 12GB | Level 1 | To be tested |

## By use case

| Use case | Configuration | Latency |
|---|---|---|
| One | Level 3 | 4 s |
| Two | Level 2, batch | TBD |

To be tested is a sentence of somebody's own: it stays.";

fn timed(case: &str, level: u8, peak: u64, step: f64) -> RunRecord {
    let mut record = samples::ok(case, level, peak);
    record.time_source = Some(Source::Modelled);
    for stage in &mut record.stages {
        let secs = Secs::measured(if stage.stage == Stage::Denoise { step * f64::from(record.config.steps) } else { 0.0 });
        stage.time = Some(StageTime { secs, copy_stall: None, exchange: None, waiting: None, work: None });
    }
    record
}

fn run() -> Run {
    samples::run(vec![samples::oom("level0", 0, 30), timed("level2", 2, 20, 10.0), timed("level3", 3, 4, 10.2)])
}

#[test]
fn only_open_places_change() {
    let filled = fill(PAGE, &[run()]);
    let known: Vec<&str> = PAGE.lines().collect();
    let mut kept = filled.text.lines().filter(|line| known.contains(line)).collect::<Vec<_>>();
    kept.dedup();
    for line in [
        "## The memory comparison",
        "- Significant transfer overhead",
        "| 12GB | Level 1 | To be tested |",
        "To be tested is a sentence of somebody's own: it stays.",
    ] {
        assert!(kept.contains(&line), "{line}\n{}", filled.text);
    }
    for place in [
        "**VRAM:** <!-- lowmem: Memory reduction expected -->20.00 GiB[^lowmem-",
        "- Speed: <!-- lowmem: _Performance testing in progress_ -->",
        "0 | Baseline<!-- lowmem:  -->: does not fit, needs at least 41.00 of 24.00 GiB[^lowmem-",
        " | 7.0x | <!-- lowmem: TBD -->DiT + VAE (tiled)[^lowmem-",
        "| 24 GB | Level 0 | <!-- lowmem: To be tested -->none at level 0; at level 2 at least 96x64[^lowmem-",
        "| 24 GiB | <!-- lowmem: TBD -->Level 2[^lowmem-",
        "| Two | Level 2, batch | <!-- lowmem: TBD -->",
        "| One | Level 3 | 4 s |",
        "<!-- lowmem: Benchmarking in progress. -->Filled in by lowmem from runs on rtx-4090 (virtual)",
        "- Another line\n\n<!-- begin lowmem -->\n> Note: By these runs a sampler step with streamed blocks takes longer by 2.0% at 96x64 against level 2",
        "> Note: 24 GB (24.00 GiB) at level 0 does not hold wan-tiny in bf16",
    ] {
        assert!(filled.text.contains(place), "{place}\n{}", filled.text);
    }
}

#[test]
fn a_note_says_of_each_size_once() {
    let cached = |case: &str, level, peak, step| {
        let mut record = timed(case, level, peak, step);
        record.config.flexcache = Flexcache::Teacache;
        record
    };
    let records = run().records.into_iter().chain([cached("cached2", 2, 20, 10.0), cached("cached3", 3, 4, 10.4)]);
    let filled = fill(PAGE, &[samples::run(records.collect())]).text;
    let note = filled.lines().find(|line| line.starts_with("> Note: By these runs")).expect("a note");
    assert_eq!((note.matches("at 96x64").count(), note.matches("2.0% at 96x64").count()), (1, 1), "{note}");
}

#[test]
fn what_was_filled_in_is_filled_anew() {
    let once = fill(PAGE, &[run()]);
    assert_eq!(fill(&once.text, &[run()]), once);
    // From other runs it is what it would have been from them alone.
    let other = samples::run(vec![timed("level2", 2, 10, 10.0)]);
    assert_eq!(fill(&once.text, std::slice::from_ref(&other)), fill(PAGE, &[other]));
    assert_eq!(fill(&once.text, &[]).text, PAGE);
}

#[test]
fn ends_of_line_stay_and_the_last_line_has_what_it_had() {
    let page = PAGE.replace('\n', "\r\n");
    let filled = fill(&page, &[run()]).text;
    assert!(!filled.replace("\r\n", "").contains('\n'));
    assert_eq!(fill(&filled, &[]).text, page);
}

#[test]
fn what_no_run_covers_is_named_with_the_command() {
    let open = fill(PAGE, &[run()]).open;
    let named: Vec<_> = open.iter().map(|open| (open.line, open.what.as_str(), open.command.as_str())).collect();
    assert_eq!(named, [(29, "By VRAM size: 12 GB, largest resolution", "lowmem sweep hardware --gpu 12GB model=wan-tiny")]);
    let without = fill(PAGE, &[]);
    assert_eq!((without.text.as_str(), without.places), (PAGE, 0));
    assert!(
        without.open.len() > 8 && without.open.iter().all(|open| open.command.starts_with("lowmem sweep hardware --gpu ")),
        "{:?}",
        without.open
    );
}

#[test]
fn nothing_of_a_run_is_markup() {
    let mut run = run();
    if let Some(gpu) = &mut run.manifest.gpu {
        gpu.title = "a --> <b>\n[x](y) | z".into();
    }
    let filled = fill(PAGE, &[run]).text;
    assert!(filled.contains("a --&gt; &lt;b&gt;\\\\n\\[x\\](y) \\| z") && !filled.contains("<b>"), "{filled}");
}

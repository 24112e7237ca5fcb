//! Memory snapshots: PyTorch's own of a case, read by PyTorch's tools and by `lowmem snapshot`, which reads those of other programs too.

use std::fs;
use std::process::{Command, Output};

use lowmem_tests::built;
use serde_json::Value;

use crate::browser::Browser;
use crate::command::{Place, json, lowmem, stderr, stdout};
use crate::page_in_browser::{axe, holds, keep};
use crate::python::{PYTHON, path_to_torch};

const GENERATE: [&str; 9] = ["generate", "--model", "wan-tiny", "--device", "virtual", "--gpu", "24GB", "--snapshot", "case.pickle"];

/// Python with PyTorch.
fn python(place: &Place, words: &[&str]) -> Output {
    let mut command = Command::new(PYTHON);
    command.args(words).current_dir(place.path("")).env("PYTHONPATH", path_to_torch()).env("LD_LIBRARY_PATH", built("virtual-gpu"));
    let output = command.output().expect("Python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn peak(place: &Place, file: &str) -> Value {
    let peaks = json(&lowmem().current_dir(place.path("")).args(["snapshot", file, "--json"]).assert().success(), "snapshot");
    assert_eq!(peaks.as_array().map(Vec::len), Some(1), "{peaks:#}");
    peaks[0].clone()
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn pytorch_reads_a_cases_snapshot_and_its_labels() {
    let place = Place::new();
    let assert = lowmem().current_dir(place.path("")).args(GENERATE).args(["low_mem_level=3", "--json"]).assert().success();
    let record = json(&assert, "generate");
    python(&place, &["-m", "torch.cuda._memory_viz", "trace_plot", "case.pickle", "-o", "case.html"]);
    assert!(fs::read_to_string(place.path("case.html")).expect("a page").contains("viz"));
    // An independent count of the peak, from the trace as Python unpickles it.
    let count = "\
import json, pickle, sys
events = pickle.load(open('case.pickle', 'rb'))['device_traces'][0]
live, now, peak, by = {}, 0, 0, {}
for event in events:
    if event['action'] == 'alloc':
        live[event['addr']] = event
        now += event['size']
        if now > peak:
            peak, by = now, list(live.values())
    elif event['action'] == 'free_completed':
        now -= live.pop(event['addr'])['size']
sums = {}
for event in by:
    sums[event['user_metadata']] = sums.get(event['user_metadata'], 0) + event['size']
print(json.dumps([peak, sums, sorted({event['user_metadata'] for event in events if event['action'] == 'alloc'})]))
";
    let counted: Value = serde_json::from_slice(&python(&place, &["-c", count]).stdout).expect("JSON");
    let labels: Vec<_> = counted[2].as_array().expect("labels").iter().filter_map(Value::as_str).collect();
    assert!(labels.contains(&"denoise/blocks.0.attn1/workspace") || labels.contains(&"denoise/blocks.0.attn1/activations"), "{labels:?}");
    assert!(
        labels.iter().all(|label| ["load/", "encode/", "denoise/", "decode/"].iter().any(|stage| label.starts_with(stage))),
        "{labels:?}"
    );

    let found = peak(&place, "case.pickle");
    assert_eq!(found["live_bytes"], counted[0]);
    let holders = found["holders"].as_array().expect("holders");
    assert_eq!(holders.len(), counted[1].as_object().map_or(0, serde_json::Map::len));
    holders.iter().for_each(|holder| assert_eq!(holder["bytes"], counted[1][holder["name"].as_str().expect("a name")], "{holder}"));
    // What the allocator rounded up is in its own count alone.
    let largest = record["stages"].as_array().expect("stages").iter().map(|stage| stage["memory"]["peak_allocated_bytes"].as_u64()).max();
    let (asked, allocated) = (found["live_bytes"].as_u64().expect("a peak"), largest.flatten().expect("a peak"));
    assert!(asked <= allocated && asked > allocated / 2, "{asked} of {allocated}");
    let text = stdout(&lowmem().current_dir(place.path("")).args(["snapshot", "case.pickle"]).assert().success());
    assert!(text.contains("GPU 0: the peak is ") && text.contains("Fragmentation: "), "{text}");
    let tables = text.lines().filter(|line| !line.contains(". ") && !line.ends_with('.'));
    assert!(tables.clone().count() > 4 && tables.into_iter().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn a_python_programs_snapshot_is_told_by_its_lines() {
    let place = Place::new();
    let write = "\
import pickle
frame = {'filename': '/home/me/model/attention.py', 'line': 7, 'name': 'forward'}
inner = {'filename': '/usr/lib/python3/site-packages/torch/nn/functional.py', 'line': 1, 'name': 'linear'}
def event(action, addr, size, frames=()):
    return {'action': action, 'addr': addr, 'size': size, 'stream': 0, 'time_us': 1, 'frames': list(frames)}
base = 0xffff_8000_0000_0000
events = [event('free_completed', 1, 10), event('segment_alloc', base, 4096)]
events += [event('alloc', base + n, 100, [inner, frame]) for n in range(3)] + [event('free_completed', base, 100), event('oom', 5, 99)]
events += [event('alloc', base + 9, 5)]
block = lambda state, size, asked: {'address': base, 'size': size, 'requested_size': asked, 'state': state, 'frames': []}
blocks = [block('active_allocated', 512, 525), block('inactive', 256, 0)]
segment = {'device': 0, 'address': base, 'total_size': 4096, 'blocks': blocks}
for protocol in (2, 4, 5):
    pickle.dump({'segments': [segment], 'device_traces': [events, []]}, open('%d.pickle' % protocol, 'wb'), protocol)
";
    python(&place, &["-c", write]);
    for file in ["2.pickle", "4.pickle", "5.pickle"] {
        let found = peak(&place, file);
        // 525 at the end, 195 more than before: of the 330 at first 10 were freed, and then there were 300 more.
        let figures = ["live_bytes", "reserved_bytes", "events", "out_of_memory", "split_blocks", "split_bytes", "end_used_bytes"];
        assert_eq!(figures.map(|figure| found[figure].as_u64()), [620, 4096, 8, 1, 1, 256, 512].map(Some), "{file}: {found:#}");
        let holders = [("before the history begins", 320), ("model/attention.py:7 forward", 300)];
        let told: Vec<_> =
            found["holders"].as_array().into_iter().flatten().map(|held| (held["name"].as_str(), held["bytes"].as_u64())).collect();
        assert_eq!(told, holders.map(|(name, bytes)| (Some(name), Some(bytes))), "{file}");
    }
}

#[test]
#[cfg_attr(without_browser, ignore = "LOWMEM_WITHOUT_BROWSER=1")]
fn the_page_of_a_snapshot_says_what_the_snapshot_does() {
    let (place, browser, axe) = (Place::new(), Browser::start(), axe());
    lowmem().current_dir(place.path("")).args(GENERATE).arg("low_mem_level=3").assert().success();
    let page = ["snapshot", "case.pickle", "--json", "--html", "case.html"];
    let told = json(&lowmem().current_dir(place.path("")).args(page).assert().success(), "snapshot")[0].clone();
    assert!(fs::metadata(place.path("case.html")).expect("a page").len() < 1 << 20);
    for (width, theme) in [(1280, "light"), (390, "dark")] {
        browser.open(&place.path("case.html"), width, theme);
        assert_eq!(browser.complaints(), [""; 0]);
        holds(&browser, &axe, &format!("a snapshot at {width} in {theme}"));
        keep(&browser, &format!("snapshot-{width}-{theme}.png"));
    }
    // The peak, in the drawing and in each table.
    let peak = told["live_bytes"].as_u64().expect("a peak");
    let drawn = "JSON.parse(lowmem.byId('data').textContent).cases[0].bands[0].course";
    let highest = browser
        .value(&format!("Math.max(...{drawn}.at.map((_, j) => Object.values({drawn}.parts).reduce((sum, part) => sum + part[j], 0)))"));
    assert_eq!(highest, peak);
    for table in ["modules", "stacks"] {
        let sum = browser.value(&format!("[...document.querySelectorAll('[aria-label$=\"{table}\"] tbody td[data-value]')].reduce((sum, cell) => sum + Number(cell.dataset.value), 0)"));
        assert_eq!(sum, peak, "{table}");
    }
    let used = browser
        .value("[...document.querySelectorAll('.segments tbody tr')].reduce((sum, row) => sum + Number(row.cells[2].dataset.value), 0)");
    assert_eq!(used, told["end_used_bytes"]);
    // It can be looked at closely, and sorted.
    browser.value("lowmem.byId('zoom-in').click()");
    assert_ne!(browser.text("lowmem.state.view.join(' ')"), "0 1");
    browser.value("document.querySelector('.stacks thead button').click()");
    let first = browser.text("document.querySelector('.stacks tbody th').textContent");
    let names = told["holders"].as_array().expect("holders").iter().filter_map(|holder| holder["name"].as_str());
    assert_eq!(Some(first.as_str()), names.min());
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn each_gpu_of_a_snapshot_has_its_own_peak() {
    let place = Place::new();
    let write = "\
import pickle
frame = lambda line: {'filename': '/home/me/<b>model/net.py', 'line': line, 'name': 'forward'}
def event(action, addr, size, line=1):
    return {'action': action, 'addr': addr, 'size': size, 'stream': 0, 'time_us': 1, 'frames': [frame(line), frame(99)]}
traces = []
for gpu in range(4):
    events = [event('alloc', n + 1, 100 * (gpu + 1), n) for n in range(5)] + [event('free_completed', 1, 100 * (gpu + 1))]
    traces.append(events + [event('alloc', 50, 1)])
pickle.dump({'segments': [], 'device_traces': traces}, open('four.pickle', 'wb'), 4)
";
    python(&place, &["-c", write]);
    let asserted =
        lowmem().current_dir(place.path("")).args(["snapshot", "four.pickle", "--json", "--html", "four.html"]).assert().success();
    let peaks = json(&asserted, "snapshot");
    let told: Vec<_> = peaks.as_array().into_iter().flatten().map(|peak| (peak["live_bytes"].as_u64(), peak["event"].as_u64())).collect();
    assert_eq!(told, [500, 1000, 1500, 2000].map(|bytes| (Some(bytes), Some(5))));
    let page = fs::read_to_string(place.path("four.html")).expect("a page");
    assert!(page.contains("GPU 3") && page.contains("net.py:99 forward") && !page.contains("<b>model"));
}

#[test]
fn what_would_run_something_or_is_torn_is_refused() {
    let place = Place::new();
    let refused = |bytes: &[u8]| {
        fs::write(place.path("bad.pickle"), bytes).expect("written");
        stderr(&lowmem().current_dir(place.path("")).args(["snapshot", "bad.pickle"]).assert().code(2))
    };
    assert!(refused(b"cos\nsystem\n(S'touch ran'\ntR.").contains("which is not run"));
    assert!(!place.path("ran").exists());
    for torn in [
        &b""[..],
        b"\x80\x02",
        b".",
        b"\x80\x02}",
        b"ue",
        b"u",
        b"a",
        b"s",
        b"\x85",
        b"h\x01",
        b"q\x01",
        b"\x80\x04X\xff\xff\xff\xff",
        b"\x80\x02}.",
        b"e",
        b"t",
    ] {
        assert!(refused(torn).contains("bad.pickle: "), "{torn:?}");
    }
    let said = stderr(&lowmem().args(["snapshot", "nowhere.pickle"]).assert().code(2));
    assert!(said.contains("nowhere.pickle: "), "{said}");
}

#[test]
fn a_sweep_leaves_a_snapshot_of_each_case() {
    let place = Place::new();
    let sweep =
        ["sweep", "--gpu", "24GB", "--device", "virtual", "--out", "run", "--snapshot", "model=wan-tiny", "low_mem_level=1,3", "smoke"];
    let assert = lowmem().current_dir(place.path("")).args(sweep).assert().success();
    let mut files: Vec<_> = fs::read_dir(place.path("run/snapshots")).expect("a folder").map(|file| file.expect("a file").path()).collect();
    files.sort();
    let mut cases: Vec<_> = place.rows("run").iter().map(|row| place.path(&format!("run/snapshots/{}.pickle", &row["case"]))).collect();
    cases.sort();
    assert_eq!(files, cases, "{}", stderr(&assert));
    let refused =
        lowmem().args(["generate", "--model", "wan-tiny", "--device", "cpu", "--output", "a.gif", "--snapshot", "a.pickle"]).assert();
    assert!(stderr(&refused.code(2)).contains("--snapshot: on the CPU"));
    let refused = lowmem().args(["sweep", "model=wan-tiny", "--device", "cpu", "--snapshot", "smoke"]).assert();
    assert!(stderr(&refused.code(2)).contains("--snapshot: on the CPU"));
}

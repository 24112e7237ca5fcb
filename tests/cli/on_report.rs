//! What `lowmem on` says of a peak: what it was made of, where it came, what the machine's own memory held; and the other ways to run and to report.

use serde_json::Value;

use crate::browser::Browser;
use crate::command::{Place, as_its_schema_says, stderr, stdout};
use crate::on::on;
use crate::page_in_browser::{axe, holds, keep};

const MIB: u64 = 1 << 20;

fn json(place: &Place, arguments: &[&str], program: &str) -> Value {
    let assert = on(place, &[arguments, &["--json"]].concat(), program, &[]).assert().success();
    let said = stdout(&assert);
    as_its_schema_says(said.lines().last().unwrap_or_else(|| panic!("{}", stderr(&assert))), "on")
}

/// Four layers of 64 MiB without bias, trained by AdamW.
const TRAINS: &str = "
import torch
from torch import nn
def train():
    model = nn.Sequential(*[nn.Linear(4096, 4096, bias=False) for _ in range(4)]).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
    for _ in range(2):
        model(torch.randn(64, 4096, device='cuda')).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
train()
";

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn a_peak_is_told_by_what_it_was_for() {
    let place = Place::new();
    let verdict = json(&place, &["rtx-4090"], TRAINS);
    let used = &verdict["processes"][0];
    let peak = &used["peak"];
    let bytes = |kind: &str| peak[kind].as_u64().unwrap_or_else(|| panic!("no {kind}: {verdict}"));
    let weights = 4 * 64 * MIB;
    assert_eq!([bytes("weights"), bytes("gradients"), bytes("optimizer_state")], [weights, weights, 2 * weights], "{peak}");
    // The forward and the backward pass have a handle of cuBLAS each.
    assert!(bytes("workspace") >= 8 * MIB && bytes("activations") > 0, "{peak}");
    let sum: u64 = ["weights", "gradients", "optimizer_state", "activations", "workspace"].map(bytes).iter().sum();
    assert_eq!(used["peak_allocated_bytes"], sum, "nothing is counted twice or left out");
    assert_eq!(peak["modules"]["Sequential.2"]["optimizer_state"], 2 * 64 * MIB);
    assert_eq!(peak["place"], "program.py:9", "the user's own line");
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn a_peak_has_the_users_line_the_librarys_and_the_module() {
    let place = Place::new();
    let installed = place.path("site-packages");
    std::fs::create_dir_all(&installed).expect("a folder");
    std::fs::write(installed.join("layers.py"), "def widen(x):\n    return x.repeat(64, 1)\n").expect("a file");
    let program = "
import sys, torch
sys.path.append('site-packages')
import layers
class Wide(torch.nn.Module):
    def forward(self, x):
        return layers.widen(x)
model = torch.nn.Sequential(torch.nn.Identity(), Wide())
model(torch.zeros(1 << 20, 1, device='cuda'))
";
    let peak = json(&place, &["rtx-4090"], program)["processes"][0]["peak"].clone();
    let library = peak["library"].as_str().unwrap_or_default();
    assert_eq!([&peak["place"], &peak["module"]], ["program.py:7", "Sequential.1"], "{peak}");
    assert_eq!(library, "site-packages/layers.py:2");
    // One that allocates and does nothing else is the line too.
    let allocates = "import torch\nkept = torch.empty(1 << 30, device='cuda')\ndel kept\ntorch.zeros(8, device='cuda')\n";
    let peak = json(&place, &["rtx-4090"], allocates)["processes"][0]["peak"].clone();
    assert_eq!((&peak["place"], &peak["activations"]), (&"program.py:2".into(), &(4096 * MIB).into()), "{peak}");
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn the_machines_own_memory_is_told_with_what_is_page_locked() {
    let place = Place::new();
    let program = "
import torch
kept = torch.ones(300 << 20, dtype=torch.uint8)
pinned = torch.empty(1 << 30, dtype=torch.uint8, pin_memory=True)
torch.empty(8, device='cuda')
";
    let verdict = json(&place, &["rtx-4090"], program);
    assert_eq!(verdict["page_locked_peak_bytes"], 1024 * MIB);
    assert!(verdict["host_peak_bytes"].as_u64().is_some_and(|bytes| bytes > 300 * MIB && bytes < 16384 * MIB), "{verdict}");
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn the_smallest_gpu_is_found_by_running_it_there() {
    // Of 8 GiB at most, one after the other, 13 would be held where there is room: whether the cards between do is seen when it is run there.
    let place = Place::new();
    let program = "
import torch
for eighths in 40, 64:
    block = torch.empty(eighths << 27, dtype=torch.uint8, device='cuda')
    del block
";
    let verdict = json(&place, &["rtx-4090", "--find"], program);
    assert_eq!(verdict["gpus"]["rtx-4060"], "too small", "{verdict}");
    let found = verdict["found"].as_str().expect("one was found").to_owned();
    assert_eq!(verdict["gpus"][&found], "not known", "its words do not tell: {verdict}");
    let assert = on(&place, &[&found], program, &[]).assert().success();
    assert!(stderr(&assert).contains("Fits: "), "{}", stderr(&assert));
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn the_report_is_a_page_of_one_file() {
    let place = Place::new();
    let page = place.path("page.html");
    let verdict = json(&place, &["rtx-4090", &format!("--html={}", page.display())], TRAINS);
    let html = std::fs::read_to_string(page).expect("written");
    for part in ["Fits on rtx-4090", "optimizer state 0.50", "program.py:9", "<svg", "RAM"] {
        assert!(html.contains(part), "`{part}` is missing in: {html}");
    }
    // The timeline's highest moment is the peak, with what it was made of; gradients come and go.
    let block = html.split_once("id=\"data\">").and_then(|(_, rest)| rest.split_once("</script>")).expect("data").0;
    let data: Value = serde_json::from_str(block).expect("JSON");
    let (names, course) = (&data["cases"][0]["parts"], &data["cases"][0]["bands"][0]["course"]);
    let place_of =
        |name: &str| names.as_array().and_then(|names| names.iter().position(|other| other == name)).expect("a part").to_string();
    let bytes = |name: &str| -> Vec<u64> {
        let moments = course["parts"][&place_of(name)].as_array().expect("moments");
        moments.iter().filter_map(Value::as_u64).collect()
    };
    let parts = ["weights", "gradients", "optimizer state", "activations and other tensors", "workspaces"].map(bytes);
    let totals: Vec<u64> = (0..parts[0].len()).map(|moment| parts.iter().map(|part| part[moment]).sum()).collect();
    let peak = &verdict["processes"][0];
    assert_eq!(totals.iter().max().copied(), peak["peak_allocated_bytes"].as_u64());
    let [weights, gradients, state, ..] = &parts;
    let at_peak = totals.iter().position(|total| Some(total) == totals.iter().max()).expect("a peak");
    assert_eq!(Some(weights[at_peak]), peak["peak"]["weights"].as_u64());
    assert_eq!([weights, state].map(|part| part.iter().max().copied()), [256 * MIB, 512 * MIB].map(Some));
    let full = gradients.iter().filter(|&&bytes| bytes == 256 * MIB).count();
    assert!(full > 0 && gradients.last() == Some(&0), "they come and go: {gradients:?}");
}

#[test]
#[cfg_attr(without_browser, ignore = "LOWMEM_WITHOUT_BROWSER=1")]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn the_page_is_read_at_every_width() {
    let (place, browser, axe) = (Place::new(), Browser::start(), axe());
    on(&place, &["rtx-4090", "--html=page.html"], TRAINS, &[]).assert().success();
    for (width, theme) in [(1280, "light"), (390, "dark")] {
        browser.open(&place.path("page.html"), width, theme);
        assert_eq!(browser.complaints(), [""; 0]);
        holds(&browser, &axe, &format!("a program at {width} in {theme}"));
        keep(&browser, &format!("program-{width}-{theme}.png"));
    }
    browser.value("lowmem.byId('zoom-in').click()");
    assert_ne!(browser.text("lowmem.state.view.join(' ')"), "0 1");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn pytorchs_snapshot_is_what_its_own_reader_reads() {
    let place = Place::new();
    let program = "
import json, pickle, torch
from torch.cuda import _memory_viz
torch.cuda.memory._record_memory_history(stacks='python')
kept = torch.empty(64 << 20, dtype=torch.uint8, device='cuda')
passing = torch.empty(32 << 20, dtype=torch.uint8, device='cuda')
del passing
torch.cuda.memory._dump_snapshot('snapshot.pickle')
with open('snapshot.pickle', 'rb') as file:
    snapshot = pickle.load(file)
assert '64.0MiB' in _memory_viz.segsum(snapshot) and '64.0MiB' in _memory_viz.trace(snapshot)
assert 'snapshot' in _memory_viz.trace_plot(snapshot) and '<script' in _memory_viz.segment_plot(snapshot)
blocks = [block for segment in snapshot['segments'] for block in segment['blocks'] if block['state'] == 'active_allocated']
events = [(event['action'], event['size'] >> 20) for event in snapshot['device_traces'][0] if event['action'] in ('alloc', 'free_completed')]
line = next(frame['line'] for frame in blocks[0]['frames'] if frame['filename'].endswith('program.py'))
print(json.dumps([[block['size'] >> 20 for block in blocks], events, line]))
";
    let assert = on(&place, &["rtx-4090"], program, &[]).assert().success();
    assert_eq!(stdout(&assert), "[[64], [[\"alloc\", 64], [\"alloc\", 32], [\"free_completed\", 32]], 5]\n");
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn a_smaller_batch_after_memory_ran_out_says_nothing_of_other_cards() {
    let place = Place::new();
    let program = "
import torch
batch = 32
while True:
    try:
        kept = torch.empty(batch << 30, dtype=torch.uint8, device='cuda')
        break
    except torch.OutOfMemoryError:
        batch //= 2
print(batch)
";
    let verdict = json(&place, &["rtx-4090"], program);
    assert_eq!((&verdict["course"], &verdict["verdict"]), (&"went-on".into(), &"fits".into()), "{verdict}");
    for card in ["rtx-4060", "h100", "b200"] {
        assert_eq!(verdict["gpus"][card], "not known", "{card}: {verdict}");
    }
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn a_nearly_full_card_with_expandable_segments_fits() {
    // 23.65 GiB less the context of 0.46: what is let go of in between is taken again page by page.
    let place = Place::new();
    let program = "
import torch
G = 1 << 30
first = torch.empty(11 * G, dtype=torch.uint8, device='cuda')
second = torch.empty(11 * G, dtype=torch.uint8, device='cuda')
del first
third = torch.empty(12 * G, dtype=torch.uint8, device='cuda')
";
    let mut command = on(&place, &["rtx-4090"], program, &[]);
    let assert = command.env("PYTORCH_ALLOC_CONF", "expandable_segments:True").assert().success();
    assert!(stderr(&assert).contains("Fits: 23."), "{}", stderr(&assert));
}

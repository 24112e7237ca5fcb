//! `lowmem monitor` on the virtual GPU's NVML, which it takes for a real one where another program is in the worker's place.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::command::{Place, as_its_schema_says, executable, lowmem, stderr, stdout};
use crate::python::{PYTHON, path_to_torch};
use crate::real_gpu::{STEPS, environment, with_gpu};

const GIB: u64 = 1 << 30;
/// Fetches the figures and prints each as a line of its name, its labels in order, and its value, as Prometheus' own parser reads them.
const READ: &str = "\
import sys, urllib.request
from prometheus_client.parser import text_string_to_metric_families as families
answer = urllib.request.urlopen(sys.argv[1])
assert answer.headers['Content-Type'] == 'text/plain; version=0.0.4; charset=utf-8', answer.headers
for family in families(answer.read().decode()):
    assert family.type == 'gauge' and family.documentation, family
    for sample in family.samples:
        print(sample.name, *('%s=%s' % pair for pair in sorted(sample.labels.items())), '%.12g' % sample.value)
";

fn sensors() -> Value {
    json!({ "temperature_c": 83, "sm_clock_mhz": 1200, "power_mw": 430_500, "throttle_reasons": 0x4, "processes": { "4242424": 5 * GIB, "4242425": GIB } })
}

/// What it prints.
fn monitor(place: &Place, sensors: &Value, words: &[&str]) -> assert_cmd::assert::Assert {
    with_gpu(place, STEPS, "rtx-4090", sensors).args(["monitor", "--interval", "1ms"]).args(words).assert()
}

#[test]
fn each_sample_is_a_line_a_row_and_an_object() {
    let place = Place::new();
    let assert = monitor(&place, &sensors(), &["--count", "2", "--csv", "gpus.csv"]).success();
    let said = "GPU 0: 6.00 of 23.65 GiB, peak 6.00; 0% busy; 83 C; 430 W; 1200 MHz; held down by its power limit; 4242424 5.00 GiB; \
                4242425 1.00 GiB";
    let lines = stdout(&assert);
    assert!(lines.lines().count() == 2 && lines.lines().all(|line| line.ends_with(said)), "{lines}");
    // What is there stays.
    monitor(&place, &json!({}), &["--count", "1", "--csv", "gpus.csv"]).success();
    let rows = crate::command::read_rows(&place.path("gpus.csv"));
    assert_eq!(rows.len(), 3);
    let columns = ["gpu", "name", "memory_used_bytes", "temperature_c", "power_watts", "sm_clock_mhz", "throttled_by", "processes"];
    let processes = format!("4242424:{} 4242425:{GIB}", 5 * GIB);
    let used = (6 * GIB).to_string();
    let name = "NVIDIA GeForce RTX 4090";
    assert_eq!(columns.map(|column| &rows[1][column]), ["0", name, &used, "83", "430.5", "1200", "power_limit", &processes]);
    assert_eq!(columns.map(|column| &rows[2][column]), ["0", name, "0", "", "", "", "", ""]);

    let assert = monitor(&place, &sensors(), &["--count", "2", "--json", "--alarm", "20GiB"]).success();
    let samples: Vec<_> = stdout(&assert).lines().map(|line| as_its_schema_says(line, "monitor")).collect();
    assert_eq!(samples.len(), 2);
    let gpu = &samples[1]["gpus"][0];
    assert_eq!([&gpu["memory_peak_bytes"], &gpu["throttled_by"], &gpu["alarm"]], [&json!(6 * GIB), &json!(["power_limit"]), &json!(false)]);
    assert_eq!(gpu["processes"][0], json!({ "process": 4_242_424, "name": null, "memory_bytes": 5 * GIB }));
    let assert = monitor(&place, &json!({}), &["--count", "1", "--json"]).success();
    let gpu = as_its_schema_says(&stdout(&assert), "monitor")["gpus"][0].clone();
    let unknown = ["temperature_c", "power_watts", "sm_clock_mhz", "throttled_by", "alarm"];
    assert!(unknown.iter().all(|field| gpu[field].is_null()), "{gpu:#}");
}

#[test]
fn an_alarm_is_said_once_and_is_the_exit_code() {
    let place = Place::new();
    for line in ["25%", "6GiB"] {
        let assert = monitor(&place, &sensors(), &["--count", "3", "--alarm", line]).code(6);
        let said = stderr(&assert);
        assert_eq!(said.matches("GPU 0: alarm: memory in use has reached").count(), 1, "{said}");
        assert!(!said.contains("over"), "{said}");
    }
    monitor(&place, &sensors(), &["--count", "1", "--alarm", "26%"]).success();
}

#[test]
fn a_terminal_is_drawn_anew() {
    let place = Place::new();
    let line = format!("{} monitor --interval 1ms --count 2", executable("lowmem").display());
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).envs(environment(&place, "rtx-4090", &sensors()));
    let output = command.env("LOWMEM_WORKER", place.worker(STEPS)).stdin(Stdio::null()).output().expect("script, of util-linux");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!((text.matches("\x1b[2J").count(), text.matches("\x1b[H").count(), text.matches("\x1b[J").count()), (1, 2, 2), "{text}");
    assert_eq!(text.matches("  [#########-----------------------]  6.00 of 23.65 GiB, peak 6.00\x1b[K").count(), 2, "{text}");
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn prometheus_reads_what_the_sample_says() {
    let place = Place::new();
    let mut command = Command::new(executable("lowmem"));
    command.args(["monitor", "--interval", "1h", "--prometheus", "0", "--alarm", "50%"]).envs(environment(&place, "rtx-4090", &sensors()));
    command.env("LOWMEM_WORKER", place.worker(STEPS)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("lowmem");
    let mut said = String::new();
    BufReader::new(child.stderr.take().expect("piped")).read_line(&mut said).expect("text");
    let address = said.trim().strip_prefix("For Prometheus: ").unwrap_or_else(|| panic!("no address: {said}"));
    assert!(address.starts_with("http://127.0.0.1:"), "{address}");
    let read = Command::new(PYTHON).args(["-c", READ, address]).env("PYTHONPATH", path_to_torch()).output().expect("Python");
    let other = Command::new(PYTHON)
        .args(["-c", "import sys, urllib.request as web; web.urlopen(web.Request(sys.argv[1], headers={'Host': 'evil.example'}))", address])
        .output()
        .expect("Python");
    kill_process(Pid::from_child(&child), Signal::TERM).expect("it runs");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    assert!(String::from_utf8_lossy(&other.stderr).contains("403"), "a foreign page is told nothing");
    let text = String::from_utf8_lossy(&read.stdout).into_owned();
    let lines: Vec<_> = text.lines().collect();
    for line in [
        "lowmem_gpu_memory_used_bytes gpu=0 6442450944",
        "lowmem_gpu_memory_peak_bytes gpu=0 6442450944",
        "lowmem_gpu_utilization_ratio gpu=0 0",
        "lowmem_gpu_temperature_celsius gpu=0 83",
        "lowmem_gpu_power_watts gpu=0 430.5",
        "lowmem_gpu_sm_clock_hertz gpu=0 1200000000",
        "lowmem_gpu_throttled gpu=0 reason=power_limit 1",
        "lowmem_gpu_throttled gpu=0 reason=heat 0",
        "lowmem_gpu_process_memory_bytes gpu=0 name= process=4242424 5368709120",
        "lowmem_gpu_alarm gpu=0 0",
    ] {
        assert!(lines.contains(&line), "`{line}` is missing in:\n{text}");
    }
    assert!(lines.iter().any(|line| line.starts_with("lowmem_gpu_info gpu=0 name=NVIDIA GeForce RTX 4090 uuid=GPU-")), "{text}");
}

#[test]
fn what_cannot_be_watched_or_written_is_refused() {
    let said = stderr(&lowmem().args(["monitor", "--count", "1"]).assert().code(2));
    assert!(said.contains("no real GPU here (") && said.contains("lowmem doctor"), "{said}");
    let place = Place::new();
    place.file("mine.csv", "a,b\n1,2\n");
    let said = stderr(&monitor(&place, &sensors(), &["--count", "1", "--csv", "mine.csv"]).code(2));
    assert!(said.contains("mine.csv: it holds something else than samples"), "{said}");
    for wrong in [["--alarm", "much"], ["--prometheus", "here:1"], ["--interval", "0s"], ["--count", "0"]] {
        monitor(&place, &sensors(), &wrong).code(2);
    }
}

//! A sample as Prometheus takes it: its text format 0.0.4. Units are base units and stand in the names; what is not known has no line.

use std::fmt::Write;

use engine_protocol::Throttle;

use super::sample::{GpuSample, ProcessSample, Sample};

/// The type of the text.
pub(crate) const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A figure of a GPU: its name, what it is, and its value.
type Figure = (&'static str, &'static str, fn(&GpuSample) -> Option<f64>);

/// Figures of which a GPU has one each; `docs/monitor.md` lists them and those with more labels.
const FIGURES: [Figure; 8] = [
    ("lowmem_gpu_memory_used_bytes", "Memory in use, by whomever.", |gpu| Some(gpu.memory_used_bytes? as f64)),
    ("lowmem_gpu_memory_total_bytes", "All of its memory.", |gpu| Some(gpu.memory_total_bytes? as f64)),
    ("lowmem_gpu_memory_peak_bytes", "The most in use of all samples so far.", |gpu| Some(gpu.memory_peak_bytes? as f64)),
    ("lowmem_gpu_utilization_ratio", "Share of the time in which a kernel ran.", |gpu| Some(f64::from(gpu.utilization_percent?) / 100.0)),
    ("lowmem_gpu_temperature_celsius", "Its temperature.", |gpu| Some(gpu.temperature_c?.into())),
    ("lowmem_gpu_power_watts", "What it draws.", |gpu| gpu.power_watts),
    ("lowmem_gpu_sm_clock_hertz", "The clock of its multiprocessors.", |gpu| Some(f64::from(gpu.sm_clock_mhz?) * 1e6)),
    ("lowmem_gpu_alarm", "Whether memory in use is at what --alarm says, or above.", |gpu| Some(f64::from(u8::from(gpu.alarm?)))),
];
const INFO: (&str, &str) = ("lowmem_gpu_info", "Which GPU it is; always 1.");
const THROTTLED: (&str, &str) = ("lowmem_gpu_throttled", "Whether that holds its clocks down.");
const PROCESS: (&str, &str) = ("lowmem_gpu_process_memory_bytes", "What a process holds.");
const TIME: (&str, &str) = ("lowmem_gpu_sample_timestamp_seconds", "When the figures were taken.");

/// A sample as text.
pub(crate) fn exposition(sample: &Sample) -> String {
    let mut text = String::new();
    let mut write = |(name, help): (&str, &str), lines: Vec<(String, f64)>| {
        if !lines.is_empty() {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        }
        for (labels, value) in lines {
            let _ = if labels.is_empty() { writeln!(text, "{name} {value}") } else { writeln!(text, "{name}{{{labels}}} {value}") };
        }
    };
    let of = |gpu: &GpuSample| label("gpu", &gpu.gpu.to_string());
    let info = |gpu: &GpuSample| (format!("{},{},{}", of(gpu), label("name", &gpu.name), label("uuid", &gpu.uuid)), 1.0);
    write(INFO, sample.gpus.iter().map(info).collect());
    for (name, help, value) in FIGURES {
        write((name, help), sample.gpus.iter().filter_map(|gpu| Some((of(gpu), value(gpu)?))).collect());
    }
    let throttled = |gpu: &GpuSample| -> Vec<(String, f64)> {
        let Some(found) = &gpu.throttled_by else { return Vec::new() };
        let one =
            |reason: Throttle| (format!("{},{}", of(gpu), label("reason", reason.name())), f64::from(u8::from(found.contains(&reason))));
        Throttle::ALL.map(one).to_vec()
    };
    write(THROTTLED, sample.gpus.iter().flat_map(throttled).collect());
    let process = |gpu: &GpuSample, process: &ProcessSample| {
        let name = label("name", process.name.as_deref().unwrap_or_default());
        Some((format!("{},{},{name}", of(gpu), label("process", &process.process.to_string())), process.memory_bytes? as f64))
    };
    let all = sample.gpus.iter().flat_map(|gpu| gpu.processes.iter().flatten().filter_map(move |found| process(gpu, found)));
    write(PROCESS, all.collect());
    let time = sample.time.parse::<jiff::Timestamp>().map(|time| time.as_millisecond() as f64 / 1e3);
    write(TIME, time.into_iter().map(|time| (String::new(), time)).collect());
    text
}

fn label(name: &str, value: &str) -> String {
    format!("{name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_has_no_line_and_every_name_is_explained() {
        let gpu = GpuSample { name: "A \"B\\\n".into(), throttled_by: Some(vec![Throttle::Heat]), ..GpuSample::default() };
        let text = exposition(&Sample { time: "1970-01-01T00:00:01.500Z".into(), gpus: vec![gpu] });
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let wanted = [
            r#"lowmem_gpu_info{gpu="0",name="A \"B\\\n",uuid=""} 1"#,
            r#"lowmem_gpu_throttled{gpu="0",reason="power_limit"} 0"#,
            r#"lowmem_gpu_throttled{gpu="0",reason="heat"} 1"#,
            r#"lowmem_gpu_throttled{gpu="0",reason="power_supply"} 0"#,
            r#"lowmem_gpu_throttled{gpu="0",reason="hardware"} 0"#,
            "lowmem_gpu_sample_timestamp_seconds 1.5",
        ];
        assert_eq!(lines, wanted);
        let page = include_str!("../../../docs/monitor.md");
        let names = FIGURES.iter().map(|(name, ..)| *name).chain([INFO, THROTTLED, PROCESS, TIME].map(|(name, _)| name));
        names.for_each(|name| assert!(page.contains(&format!("| `{name}")), "{name} is not in docs/monitor.md"));
    }
}

//! A sample for people: a screen of 80 columns, and a line a GPU where nothing is drawn anew. What is not known is left out.

use engine_protocol::{Throttle, gib};

use super::sample::{GpuSample, ProcessSample, Sample};
use crate::print::WIDTH;

/// Characters of the bar of memory.
const BAR: usize = 32;
/// Processes of a GPU that a screen has room for.
const SHOWN: usize = 6;

/// What fills a screen.
pub(crate) fn screen(sample: &Sample) -> String {
    let mut lines = vec![format!("{:<52}Ctrl-C ends", sample.time)];
    for gpu in &sample.gpus {
        lines.push(String::new());
        lines.push(format!("GPU {}  {}{}", gpu.gpu, gpu.name, if gpu.alarm == Some(true) { "  ALARM" } else { "" }));
        lines.extend(bar(gpu).into_iter().map(|bar| format!("  {bar}  {}", memory(gpu).unwrap_or_default())));
        let state = state(gpu);
        lines.extend((!state.is_empty()).then(|| format!("  {}", state.join("   "))));
        let processes = gpu.processes.as_deref().unwrap_or_default();
        lines.extend(processes.iter().take(SHOWN).map(|process| format!("  {}", of_process(process, 8, 8))));
        lines.extend(processes.len().checked_sub(SHOWN + 1).map(|more| format!("  and {} more processes", more + 1)));
    }
    let cut = |line: String| untrusted::line(&line).chars().take(WIDTH.into()).collect::<String>() + "\n";
    lines.into_iter().map(cut).collect()
}

/// A line for each GPU.
pub(crate) fn lines(sample: &Sample) -> Vec<String> {
    let one = |gpu: &GpuSample| {
        let processes = gpu.processes.iter().flatten().map(|process| of_process(process, 0, 0));
        let parts: Vec<_> = memory(gpu).into_iter().chain(state(gpu)).chain(processes).collect();
        let said = if parts.is_empty() { "does not answer".to_owned() } else { parts.join("; ") };
        format!("{} GPU {}: {said}", sample.time, gpu.gpu)
    };
    sample.gpus.iter().map(one).collect()
}

/// Memory in use as a part of all, with a mark at the peak.
fn bar(gpu: &GpuSample) -> Option<String> {
    let (used, total) = (gpu.memory_used_bytes?, gpu.memory_total_bytes?);
    let place = |bytes: u64| (bytes as f64 / total.max(1) as f64 * BAR as f64).ceil() as usize;
    let (filled, peak) = (place(used), place(gpu.memory_peak_bytes.unwrap_or(used)));
    let mark = |at: usize| match at {
        at if at <= filled => '#',
        at if at == peak => '|',
        _ => '-',
    };
    Some(format!("[{}]", (1..=BAR).map(mark).collect::<String>()))
}

fn memory(gpu: &GpuSample) -> Option<String> {
    let total = gpu.memory_total_bytes.map(|total| format!(" of {:.2}", gib(total))).unwrap_or_default();
    let peak = gpu.memory_peak_bytes.map(|peak| format!(", peak {:.2}", gib(peak))).unwrap_or_default();
    Some(format!("{:.2}{total} GiB{peak}", gib(gpu.memory_used_bytes?)))
}

fn state(gpu: &GpuSample) -> Vec<String> {
    let throttled = gpu.throttled_by.as_deref().filter(|reasons| !reasons.is_empty()).map(|reasons| {
        let reasons: Vec<_> = reasons.iter().map(|reason: &Throttle| reason.told()).collect();
        format!("held down by {}", reasons.join(" and "))
    });
    let known = [
        gpu.utilization_percent.map(|percent| format!("{percent}% busy")),
        gpu.temperature_c.map(|degrees| format!("{degrees} C")),
        gpu.power_watts.map(|watts| format!("{watts:.0} W")),
        gpu.sm_clock_mhz.map(|clock| format!("{clock} MHz")),
        throttled,
    ];
    known.into_iter().flatten().collect()
}

/// A process, with its id and its memory at least so wide.
fn of_process(process: &ProcessSample, id: usize, memory: usize) -> String {
    let memory = process.memory_bytes.map(|bytes| format!(" {:>memory$.2} GiB", gib(bytes))).unwrap_or_default();
    let name = process.name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
    format!("{:>id$}{memory}{name}", process.process)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_has_eighty_columns_and_says_what_is_known() {
        let process = |process, memory| ProcessSample { process, name: Some("python3".repeat(20)), memory_bytes: memory };
        let processes = (1..9).map(|number| process(number, Some(u64::from(number) << 30))).collect();
        let gpu = GpuSample {
            name: "NVIDIA GeForce RTX 4090".into(),
            memory_used_bytes: Some(6 << 30),
            memory_total_bytes: Some(24 << 30),
            memory_peak_bytes: Some(12 << 30),
            temperature_c: Some(83),
            throttled_by: Some(vec![Throttle::PowerLimit, Throttle::Heat]),
            processes: Some(processes),
            ..GpuSample::default()
        };
        let sample = Sample { time: "T".into(), gpus: vec![gpu, GpuSample { gpu: 1, ..GpuSample::default() }] };
        let screen = screen(&sample);
        assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
        for part in [
            "[########-------|----------------]  6.00 of 24.00 GiB, peak 12.00\n",
            "  83 C   held down by its power limit and heat\n",
            "  and 2 more processes\n",
        ] {
            assert!(screen.contains(part), "`{part}` is missing in:\n{screen}");
        }
        assert!(!screen.contains("busy") && !screen.contains(" W") && !screen.contains("MHz"), "{screen}");
        assert_eq!(lines(&sample)[1], "T GPU 1: does not answer");
    }
}

//! Samples as CSV: a row a sample and GPU, after what the file has already.

use std::path::Path;

use engine_protocol::Throttle;

use super::sample::{GpuSample, Sample};
use crate::appended_file::AppendedFile;
use crate::error::Error;

/// The columns; `docs/monitor.md` explains them.
const COLUMNS: [&str; 13] = [
    "time",
    "gpu",
    "name",
    "uuid",
    "memory_used_bytes",
    "memory_total_bytes",
    "memory_peak_bytes",
    "utilization_percent",
    "temperature_c",
    "power_watts",
    "sm_clock_mhz",
    "throttled_by",
    "processes",
];

/// A file of samples.
#[derive(Debug)]
pub(crate) struct CsvFile(AppendedFile);

impl CsvFile {
    /// Opens it, and begins it with the columns where it is new. One that holds something else is refused.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let header = lines([COLUMNS.map(str::to_owned)])?;
        let mut file = AppendedFile::open("--csv", path)?;
        match file.first_line(1 + header.len() as u64)? {
            first if first.is_empty() => file.append(&header)?,
            first if first == header => {}
            _ => return Err(Error::input(format!("--csv {}: it holds something else than samples: name another file", path.display()))),
        }
        Ok(Self(file))
    }

    /// Writes all rows of a sample at once, so that who reads along has whole lines.
    pub(crate) fn append(&mut self, sample: &Sample) -> Result<(), Error> {
        self.0.append(&lines(sample.gpus.iter().map(|gpu| cells(&sample.time, gpu)))?)
    }
}

fn lines(rows: impl IntoIterator<Item = [String; COLUMNS.len()]>) -> Result<Vec<u8>, Error> {
    let fault = |error: String| Error::Fault(format!("rows of CSV: {error}"));
    let mut writer = csv::Writer::from_writer(Vec::new());
    rows.into_iter().try_for_each(|row| writer.write_record(row)).map_err(|error| fault(error.to_string()))?;
    writer.into_inner().map_err(|error| fault(error.to_string()))
}

fn cells(time: &str, gpu: &GpuSample) -> [String; COLUMNS.len()] {
    let known = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
    let throttled = gpu.throttled_by.iter().flatten().map(|reason: &Throttle| reason.name()).collect::<Vec<_>>().join(" ");
    let processes = gpu.processes.iter().flatten().map(|process| format!("{}:{}", process.process, known(process.memory_bytes)));
    [
        time.to_owned(),
        gpu.gpu.to_string(),
        gpu.name.clone(),
        gpu.uuid.clone(),
        known(gpu.memory_used_bytes),
        known(gpu.memory_total_bytes),
        known(gpu.memory_peak_bytes),
        known(gpu.utilization_percent.map(u64::from)),
        known(gpu.temperature_c.map(u64::from)),
        gpu.power_watts.map(|watts| watts.to_string()).unwrap_or_default(),
        known(gpu.sm_clock_mhz.map(u64::from)),
        throttled,
        processes.collect::<Vec<_>>().join(" "),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_empty_and_every_column_is_explained() {
        let sample =
            Sample { time: "T".into(), gpus: vec![GpuSample { name: "A, B".into(), uuid: "GPU-1".into(), ..GpuSample::default() }] };
        let rows = lines(sample.gpus.iter().map(|gpu| cells(&sample.time, gpu))).expect("rows");
        assert_eq!(String::from_utf8_lossy(&rows), "T,0,\"A, B\",GPU-1,,,,,,,,,\n");
        let page = include_str!("../../../docs/monitor.md");
        COLUMNS.iter().for_each(|column| assert!(page.contains(&format!("| `{column}` |")), "{column} is not in docs/monitor.md"));
    }
}

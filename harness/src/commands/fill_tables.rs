//! `lowmem fill-tables`: the open places of a document from runs, or whether a filled document is still what its runs say.

use std::path::Path;

use engine_protocol::{Device, RunRecord, SCHEMA};
use reports::{Filled, MANIFEST, Manifest, Open, Run, write_whole};
use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::FillTablesArguments;
use crate::data;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::gpu_profile::GpuProfiles;
use crate::host;
use crate::json;
use crate::model::Models;

/// Fills the document, or with `--check` holds it against what the runs give.
pub(crate) fn run(arguments: &FillTablesArguments) -> Result<ExitCode, Error> {
    let known = data::read(&arguments.document)?;
    let runs = arguments.from.iter().map(|dir| load(dir)).collect::<Result<Vec<_>, _>>()?;
    let runs: Vec<Run> = runs.into_iter().flat_map(Run::of_each_gpu).collect();
    let filled = reports::fill(&known, &runs);
    let shown = arguments.document.display();
    let differences = if arguments.check { differences(&known, &filled.text) } else { Vec::new() };
    let ending = if differences.is_empty() { ExitCode::Done } else { ExitCode::Differs };
    if !arguments.check && filled.text != known {
        write_whole(&arguments.document, &filled.text).map_err(|error| Error::io(&arguments.document, error))?;
    }
    if arguments.json {
        json::print(&FilledJson { places: filled.places, open: filled.open, differences })?;
        return Ok(ending);
    }
    if arguments.check {
        differences.iter().for_each(|line| say!("{line}"));
        if !differences.is_empty() {
            say!("{shown} is not what these runs give: fill it anew without --check.");
            return Ok(ending);
        }
        say!("{shown} is what these runs give: {} places.", filled.places);
    } else {
        say!("{shown}: {} places filled.", filled.places);
    }
    tell_open(&filled, arguments.document.as_path());
    Ok(ending)
}

/// What came of filling a document.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FilledJson {
    /// How many places the runs cover.
    places: usize,
    /// Places that no run covers.
    open: Vec<Open>,
    /// With --check, the lines in which the document is not what the runs give: those of the document with `-`, those of the runs with `+`.
    differences: Vec<String>,
}

/// A run directory. One that has records and no manifest, as `reports/measured` has them, is taken for what its records say.
fn load(dir: &Path) -> Result<Run, Error> {
    if dir.join(MANIFEST).exists() || !dir.join(reports::RECORDS).exists() {
        return Ok(reports::load(dir)?);
    }
    let records = reports::load_records(dir)?.records;
    let Some(first) = records.first() else { return Err(Error::input(format!("{}: it has no records", dir.display()))) };
    let manifest = manifest_of(first, &records, dir)?;
    Ok(Run::new(manifest, records))
}

/// What a manifest would have said.
fn manifest_of(first: &RunRecord, records: &[RunRecord], dir: &Path) -> Result<Manifest, Error> {
    let profiles = GpuProfiles::load()?;
    let gpu = profiles.iter().find(|profile| Some(&profile.name) == first.gpu.as_ref()).cloned();
    let models = Models::load()?;
    let used = models.iter().filter(|model| records.iter().any(|record| record.config.model == model.name)).cloned().collect();
    Ok(Manifest {
        schema: SCHEMA,
        version: first.version.clone().unwrap_or_default(),
        begun: first.began.clone().unwrap_or_default(),
        command_line: Vec::new(),
        sweep: dir.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        definition: String::new(),
        device: first.device,
        capacity_bytes: gpu.as_ref().filter(|_| first.device != Device::Cpu).map(|gpu| gpu.memory_bytes.value),
        gpu,
        choice: String::new(),
        smaller: Vec::new(),
        memory_limit_bytes: None,
        gpus: Vec::new(),
        ram_bytes: None,
        ram: None,
        disk: None,
        allows_lossy: false,
        models: used,
        cases: records.iter().map(|record| record.case.clone()).collect(),
        values: Default::default(),
        mixed: Vec::new(),
        left_out: Vec::new(),
        host: host::describe(),
    })
}

/// What no run covers, with the command that would fill it.
fn tell_open(filled: &Filled, document: &Path) {
    if filled.open.is_empty() {
        return;
    }
    say!("{} places stay, since no run covers them. What would fill each:", filled.open.len());
    for open in &filled.open {
        say!("  line {}, {}:\n    {}", open.line, open.what, open.command);
    }
    say!("Then: lowmem fill-tables {} --from RUN...", document.display());
}

/// The lines in which two texts differ: `-` is in the first alone, `+` in the second.
fn differences(known: &str, wanted: &str) -> Vec<String> {
    let (known, wanted): (Vec<&str>, Vec<&str>) = (known.split_inclusive('\n').collect(), wanted.split_inclusive('\n').collect());
    let same_start = known.iter().zip(&wanted).take_while(|(a, b)| a == b).count();
    let (known, wanted) = (&known[same_start..], &wanted[same_start..]);
    let (mut i, mut j, mut found) = (0, 0, Vec::new());
    let shown = |sign: char, line: &str| format!("{sign}{}", line.trim_end_matches('\n').replace('\r', "\\r"));
    while i < known.len() || j < wanted.len() {
        match (known.get(i), wanted.get(j)) {
            (Some(a), Some(b)) if a == b => (i, j) = (i + 1, j + 1),
            // What is only in one of them ends where the other goes on with the same line.
            (Some(a), Some(b)) => {
                let (in_wanted, in_known) = (wanted[j..].iter().position(|line| line == a), known[i..].iter().position(|line| line == b));
                let is_added = in_wanted.is_some_and(|added| in_known.is_none_or(|gone| added <= gone));
                if !is_added {
                    found.push(shown('-', a));
                    i += 1;
                }
                if is_added || in_known.is_none() {
                    found.push(shown('+', b));
                    j += 1;
                }
            }
            (Some(a), None) => (i, _) = (i + 1, found.push(shown('-', a))),
            (None, Some(b)) => (j, _) = (j + 1, found.push(shown('+', b))),
            (None, None) => break,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_that_differs_is_named_once() {
        let of = |a: &str, b: &str| differences(a, b);
        assert_eq!(of("a\nb\nc\n", "a\nx\nc\n"), ["-b", "+x"]);
        assert_eq!(of("a\nc\n", "a\nb\nc\n"), ["+b"]);
        assert_eq!(of("a\nb\nc\n", "a\nc\n"), ["-b"]);
        assert_eq!(of("a\n", "a\r\n"), ["-a", "+a\\r"]);
        assert_eq!(of("a\nb", "a\nb"), [""; 0]);
    }
}

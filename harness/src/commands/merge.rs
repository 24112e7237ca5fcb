//! `lowmem merge`: runs of parts of a sweep as one run, as if one machine had run all.

use std::collections::HashSet;

use reports::{Run, Summary};

use super::sweep;
use crate::cli::MergeArguments;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::run_store::RunStore;

/// Makes the run and its report.
pub(crate) fn run(arguments: &MergeArguments) -> Result<ExitCode, Error> {
    let parts = arguments.parts.iter().map(|dir| Ok(reports::load(dir)?)).collect::<Result<Vec<Run>, Error>>()?;
    let Some(first) = parts.first() else { return Err(Error::input("name the run directories of the parts")) };
    let mut manifest = first.manifest.clone();
    let mut seen: HashSet<String> = manifest.cases.iter().cloned().collect();
    for (part, dir) in parts.iter().zip(&arguments.parts).skip(1) {
        let theirs = &part.manifest;
        let differs = [
            ("another device", theirs.device != manifest.device),
            ("another GPU", theirs.gpu != manifest.gpu || theirs.memory_limit_bytes != manifest.memory_limit_bytes),
            ("another budget of RAM", theirs.ram_bytes != manifest.ram_bytes && manifest.gpu.is_none()),
            ("another version of lowmem", theirs.version != manifest.version),
            ("another definition", theirs.definition != manifest.definition),
        ];
        if let Some((what, _)) = differs.into_iter().find(|(_, differs)| *differs) {
            return Err(Error::input(format!(
                "{} is a run of {what} than {}: they are not parts of one",
                dir.display(),
                arguments.parts[0].display()
            )));
        }
        let more: Vec<_> = theirs.cases.iter().filter(|case| seen.insert((*case).clone())).cloned().collect();
        manifest.cases.extend(more);
        let models: Vec<_> = theirs.models.iter().filter(|model| !manifest.models.contains(model)).cloned().collect();
        manifest.models.extend(models);
    }
    let mut store = RunStore::create(Some(arguments.out.clone()), arguments.out.clone(), manifest)?;
    parts.into_iter().flat_map(|part| part.records).try_for_each(|record| store.append(record))?;
    let run = store.run();
    let summary = Summary::of(&run);
    store.write_report(&summary)?;
    sweep::print(&summary, &store.report());
    Ok(if run.has_failures() { ExitCode::CasesFailed } else { ExitCode::Done })
}

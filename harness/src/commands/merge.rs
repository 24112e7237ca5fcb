//! `lowmem merge`: runs of parts of a sweep as one run, as if one machine had run all.

use std::collections::HashSet;

use reports::{Manifest, Run, Summary};

use super::run_answer;
use crate::cli::MergeArguments;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::run_differences::differences;
use crate::run_store::RunStore;

/// Makes the run and its report.
pub(crate) fn run(arguments: &MergeArguments) -> Result<ExitCode, Error> {
    let parts = arguments.parts.iter().map(|dir| Ok(reports::load(dir)?)).collect::<Result<Vec<Run>, Error>>()?;
    let Some(first) = parts.first() else { return Err(Error::input("name the run directories of the parts")) };
    let mut manifest = first.manifest.clone();
    let mut seen: HashSet<String> = manifest.cases.iter().cloned().collect();
    for (part, dir) in parts.iter().zip(&arguments.parts).skip(1) {
        let theirs = &part.manifest;
        let device =
            (theirs.device != manifest.device).then(|| format!("device: {} then, {} now", manifest.device.name(), theirs.device.name()));
        // Which cases each part has is what makes it one.
        let alike = Manifest { cases: first.manifest.cases.clone(), ..theirs.clone() };
        if let Some(difference) = device.into_iter().chain(differences(&first.manifest, &alike)).next() {
            let (what, first) = (difference.split(':').next().unwrap_or_default(), arguments.parts[0].display());
            return Err(Error::input(format!(
                "{} is a run of another {what} than {first}: they are not parts of one ({difference})",
                dir.display()
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
    run_answer::tell(&summary, store.dir(), arguments.form)?;
    Ok(if run.has_failures() { ExitCode::CasesFailed } else { ExitCode::Done })
}

//! A run directory as it grows: made, locked, appended to, and taken up again. Records of an older schema stay as they are; new ones are in this program's.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use engine_protocol::{Config, Device, RunRecord};
use reports::{MANIFEST, Manifest, RECORDS, Run, Summary};

use crate::data;
use crate::error::Error;

/// A run directory that this process writes to.
#[derive(Debug)]
pub(crate) struct RunStore {
    dir: PathBuf,
    manifest: Manifest,
    /// In the order in which they came.
    records: Vec<RunRecord>,
    /// Kept open for its lock too: two programs never append to the same records.
    file: File,
}

impl RunStore {
    /// Makes a run directory for what `manifest` says: `out`, or a new one that `latest` points to.
    pub(crate) fn create(out: Option<PathBuf>, default: PathBuf, manifest: Manifest) -> Result<Self, Error> {
        let is_default = out.is_none();
        let dir = out.unwrap_or(default);
        if dir.join(MANIFEST).exists() || dir.join(RECORDS).exists() {
            return Err(Error::input(format!(
                "{} holds a run already: add --resume to go on with it, or name another --out",
                dir.display()
            )));
        }
        fs::create_dir_all(&dir).map_err(|error| Error::input(format!("cannot make the run directory {}: {error}", dir.display())))?;
        let file = open(&dir)?;
        write_manifest(&dir, &manifest)?;
        if is_default {
            point_latest_to(&dir)?;
        }
        Ok(Self { dir, manifest, records: Vec::new(), file })
    }

    /// Takes up the run in `dir`, which must be of the same kind as what `manifest` says. A torn last record is cut off.
    pub(crate) fn resume(dir: PathBuf, mut manifest: Manifest) -> Result<Self, Error> {
        let earlier = reports::load_manifest(&dir)?;
        let same_models = earlier.models.iter().all(|old| manifest.models.iter().all(|new| new.name != old.name || new == old));
        let differs = [
            ("on another device", earlier.device != manifest.device),
            ("on another GPU", earlier.gpu != manifest.gpu),
            ("with another memory limit", earlier.memory_limit_bytes != manifest.memory_limit_bytes),
            // What this machine has available is another figure each time.
            ("with another budget of RAM", manifest.device == Device::Virtual && earlier.ram_bytes != manifest.ram_bytes),
            ("with another rate of the disk", earlier.disk.is_some() && earlier.disk != manifest.disk),
            ("with another definition of its model", !same_models),
        ];
        if let Some((what, _)) = differs.into_iter().find(|(_, differs)| *differs) {
            return Err(Error::input(format!("{} was run {what}: name another --out", dir.display())));
        }
        let file = open(&dir)?;
        let (records, whole) = reports::load_records(&dir)?;
        file.set_len(whole).map_err(|error| Error::io(&dir.join(RECORDS), error))?;
        // What was run before stays in the report.
        manifest.begun = earlier.begun;
        let cases = earlier.cases.into_iter().filter(|case| !manifest.cases.contains(case)).collect::<Vec<_>>();
        manifest.cases.extend(cases);
        let models = earlier.models.into_iter().filter(|old| !manifest.models.contains(old)).collect::<Vec<_>>();
        manifest.models.extend(models);
        write_manifest(&dir, &manifest)?;
        Ok(Self { dir, manifest, records, file })
    }

    /// Where it is.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The page in it.
    pub(crate) fn report(&self) -> PathBuf {
        self.dir.join(reports::REPORT)
    }

    /// Whether the case has an answer already, for this very configuration.
    pub(crate) fn has_answer(&self, case: &str, config: &Config) -> bool {
        let newest = self.records.iter().rev().find(|record| record.case == case);
        newest.is_some_and(|record| record.outcome.is_lasting() && record.config == *config)
    }

    /// Writes a record down, before anything else happens.
    pub(crate) fn append(&mut self, record: RunRecord) -> Result<(), Error> {
        let mut line = serde_json::to_string(&record).map_err(|error| Error::Fault(format!("the record is no JSON: {error}")))?;
        line.push('\n');
        // One write, so that a lost machine leaves at most one torn line.
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.flush());
        written.map_err(|error| Error::io(&self.dir.join(RECORDS), error))?;
        self.records.push(record);
        Ok(())
    }

    /// Adds a case to those that the run has, where they are not known beforehand.
    pub(crate) fn add_cases(&mut self, cases: impl IntoIterator<Item = String>) -> Result<(), Error> {
        self.manifest.cases.extend(cases);
        write_manifest(&self.dir, &self.manifest)
    }

    /// The run as it is now.
    pub(crate) fn run(&self) -> Run {
        Run::new(self.manifest.clone(), self.records.clone())
    }

    /// Writes the report.
    pub(crate) fn write_report(&self, summary: &Summary<'_>) -> Result<(), Error> {
        Ok(reports::write(summary, &self.dir)?)
    }
}

fn open(dir: &Path) -> Result<File, Error> {
    let path = dir.join(RECORDS);
    let file = OpenOptions::new().create(true).append(true).open(&path).map_err(|error| Error::io(&path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::input(format!("{}: another lowmem is running in it", dir.display()))),
        Err(TryLockError::Error(error)) => Err(Error::io(&path, error)),
    }
}

fn write_manifest(dir: &Path, manifest: &Manifest) -> Result<(), Error> {
    let path = dir.join(MANIFEST);
    let text = serde_json::to_string_pretty(manifest).map_err(|error| Error::Fault(format!("the manifest is no JSON: {error}")))?;
    // Written beside and moved over, so that there is never half of one.
    let beside = dir.join(".manifest.json");
    fs::write(&beside, text + "\n").and_then(|()| fs::rename(&beside, &path)).map_err(|error| Error::io(&path, error))
}

/// Makes `latest` among the run directories a link to `dir`.
fn point_latest_to(dir: &Path) -> Result<(), Error> {
    let (Some(name), latest) = (dir.file_name(), data::runs().join("latest")) else { return Ok(()) };
    let beside = data::runs().join(format!(".latest-{}", std::process::id()));
    symlink(name, &beside).and_then(|()| fs::rename(&beside, &latest)).map_err(|error| Error::io(&latest, error))
}

#[cfg(test)]
mod tests {
    use engine_protocol::{Outcome, SCHEMA, Settings};

    use super::*;
    use crate::bare_record::bare_record;
    use crate::model::Models;

    fn manifest(cases: &[&str]) -> Manifest {
        Manifest {
            schema: SCHEMA,
            version: "0".into(),
            begun: "now".into(),
            command_line: Vec::new(),
            sweep: "s".into(),
            definition: String::new(),
            device: Device::Cpu,
            gpu: None,
            choice: String::new(),
            capacity_bytes: None,
            smaller: Vec::new(),
            memory_limit_bytes: None,
            ram_bytes: None,
            ram: None,
            disk: None,
            models: Vec::new(),
            cases: cases.iter().map(|&case| case.to_owned()).collect(),
            left_out: Vec::new(),
            host: crate::host::describe(),
        }
    }

    fn record(case: &str, outcome: Outcome) -> RunRecord {
        let models = Models::load().expect("models");
        let config = Config::resolve(&Settings::default(), models.get("wan-tiny").expect("a model")).expect("legal");
        RunRecord { outcome, ..bare_record(case, &config) }
    }

    #[test]
    fn a_torn_last_record_is_cut_off_and_the_case_is_run_again() {
        let dir = tempfile::tempdir().expect("a folder").path().join("run");
        let mut store = RunStore::create(Some(dir.clone()), PathBuf::new(), manifest(&["a", "b", "c"])).expect("made");
        store.append(record("a", Outcome::Ok)).expect("written");
        store.append(record("b", Outcome::Crashed)).expect("written");
        store.append(record("c", Outcome::Ok)).expect("written");
        drop(store);
        let path = dir.join(RECORDS);
        let text = fs::read_to_string(&path).expect("records");
        fs::write(&path, &text[..text.len() - 20]).expect("torn");

        let mut store = RunStore::resume(dir.clone(), manifest(&["a", "b", "c"])).expect("taken up");
        let config = record("a", Outcome::Ok).config;
        let answers: Vec<_> = ["a", "b", "c"].into_iter().filter(|case| store.has_answer(case, &config)).collect();
        assert_eq!(answers, ["a"]);
        assert!(!store.has_answer("a", &Config { seed: 5, ..config }), "another configuration of the same name");
        store.append(record("c", Outcome::Oom)).expect("written");
        assert_eq!(reports::load(&dir).expect("a run").records.len(), 3);
    }

    #[test]
    fn a_run_is_never_written_over_and_has_one_writer() {
        let dir = tempfile::tempdir().expect("a folder").path().join("run");
        let store = RunStore::create(Some(dir.clone()), PathBuf::new(), manifest(&[])).expect("made");
        let error = RunStore::create(Some(dir.clone()), PathBuf::new(), manifest(&[])).expect_err("there already").to_string();
        assert!(error.contains("add --resume"), "{error}");
        let error = RunStore::resume(dir.clone(), manifest(&[])).expect_err("locked").to_string();
        assert!(error.contains("another lowmem is running"), "{error}");
        drop(store);
        let other = Manifest { device: Device::Virtual, ..manifest(&[]) };
        let error = RunStore::resume(dir, other).expect_err("another device").to_string();
        assert!(error.contains("was run on another device"), "{error}");
    }
}

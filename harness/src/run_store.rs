//! A run directory as it grows: made, locked, appended to, and taken up again. Records of an older schema stay as they are; new ones are in this program's.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use engine_protocol::{Config, Device, RunRecord};
use reports::{FILES, MANIFEST, Manifest, RECORDS, Records, Run, Summary, write_whole};

use crate::data;
use crate::error::Error;
use crate::run_differences::differences;

/// A run directory that this process writes to.
#[derive(Debug)]
pub(crate) struct RunStore {
    dir: PathBuf,
    manifest: Manifest,
    /// In the order in which they came.
    records: Vec<RunRecord>,
    /// Where in `records` the newest of each case is.
    newest: HashMap<String, usize>,
    /// Lines of the records' file that are no records, a sentence each.
    passed_over: Vec<String>,
    /// Kept open for its lock too: two programs never append to the same records.
    file: File,
    /// Bytes of the file that are whole records.
    whole_bytes: u64,
}

impl RunStore {
    /// Makes a run directory for what `manifest` says: `out`, or a new one that `latest` points to. What is in it and is not of a run of ours is never written over.
    pub(crate) fn create(out: Option<PathBuf>, default: PathBuf, manifest: Manifest) -> Result<Self, Error> {
        let (dir, is_default) = match out {
            Some(dir) => (dir, false),
            None => (free_place(default), true),
        };
        refuse_occupied(&dir)?;
        let is_new = !dir.exists();
        fs::create_dir_all(&dir).map_err(|error| Error::input(format!("cannot make the run directory {}: {error}", dir.display())))?;
        let begun = open(&dir).and_then(|file| write_manifest(&dir, &manifest).map(|()| file));
        if begun.is_err() {
            // Without a manifest it is no run, and no later one may take it for somebody's. What cannot be removed has no record in it.
            let _ = fs::metadata(dir.join(RECORDS)).is_ok_and(|file| file.len() == 0).then(|| fs::remove_file(dir.join(RECORDS)));
            let _ = is_new.then(|| fs::remove_dir(&dir));
        }
        let file = begun?;
        if is_default {
            point_latest_to(&dir);
        }
        Ok(Self { dir, manifest, records: Vec::new(), newest: HashMap::new(), passed_over: Vec::new(), file, whole_bytes: 0 })
    }

    /// Takes up the run in `dir`. Where what `manifest` says differs from what was run there, that is refused with the difference, unless `keep_both` has them mixed.
    pub(crate) fn resume(dir: PathBuf, mut manifest: Manifest, keep_both: bool) -> Result<Self, Error> {
        if has_just_begun(&dir) {
            return Self::create(Some(dir.clone()), dir, manifest);
        }
        let earlier = reports::load_manifest(&dir)?;
        let shown = dir.display();
        // Where figures come from is said of a run as a whole.
        if earlier.device != manifest.device {
            let [then, now] = [earlier.device, manifest.device].map(Device::name);
            return Err(Error::input(format!("{shown} was run on another device ({then} then, {now} now): name another --out")));
        }
        let differences = differences(&earlier, &manifest);
        if !keep_both && !differences.is_empty() {
            let lines: String = differences.iter().map(|line| format!("\n  {line}")).collect();
            return Err(Error::input(format!(
                "{shown} was run otherwise:{lines}\nName another --out, or add --keep-both to have both in one run"
            )));
        }
        manifest.mixed = earlier.mixed.iter().cloned().chain(differences).collect();
        let file = open(&dir)?;
        let Records { records, whole_bytes, passed_over } = reports::load_records(&dir)?;
        file.set_len(whole_bytes).map_err(|error| Error::io(&dir.join(RECORDS), error))?;
        // What was run before stays in the report.
        manifest.begun = earlier.begun;
        let known: HashSet<&String> = manifest.cases.iter().collect();
        let cases = earlier.cases.into_iter().filter(|case| !known.contains(case)).collect::<Vec<_>>();
        manifest.cases.extend(cases);
        let gpus = earlier.gpus.into_iter().filter(|old| !manifest.gpus.contains(old)).collect::<Vec<_>>();
        manifest.gpus.extend(gpus);
        let models = earlier.models.into_iter().filter(|old| !manifest.models.contains(old)).collect::<Vec<_>>();
        manifest.models.extend(models);
        write_manifest(&dir, &manifest)?;
        let newest = records.iter().enumerate().map(|(place, record)| (record.case.clone(), place)).collect();
        Ok(Self { dir, manifest, records, newest, passed_over, file, whole_bytes })
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
        let newest = self.newest.get(case).and_then(|&place| self.records.get(place));
        newest.is_some_and(|record| record.outcome.is_lasting() && record.config == *config)
    }

    /// Writes a record down, on disk, before anything else happens. One that found no room is taken back, so that the next is a line of its own.
    pub(crate) fn append(&mut self, record: RunRecord) -> Result<(), Error> {
        let mut line = serde_json::to_string(&record).map_err(|error| Error::Fault(format!("the record is no JSON: {error}")))?;
        line.push('\n');
        let path = self.dir.join(RECORDS);
        if let Err(error) = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data()) {
            let cut = self.file.set_len(self.whole_bytes).err().map(|error| format!(", and half of it stays: {error}")).unwrap_or_default();
            return Err(Error::Fault(format!(
                "{}: the record of {} could not be written: {}{cut}",
                path.display(),
                record.case,
                advised(&error)
            )));
        }
        self.whole_bytes += line.len() as u64;
        self.newest.insert(record.case.clone(), self.records.len());
        self.records.push(record);
        Ok(())
    }

    /// Adds a case to those that the run has, where they are not known beforehand.
    pub(crate) fn add_cases(&mut self, cases: impl IntoIterator<Item = String>) -> Result<(), Error> {
        self.manifest.cases.extend(cases);
        write_manifest(&self.dir, &self.manifest)
    }

    /// What came so far, in the order in which it came.
    pub(crate) fn records(&self) -> &[RunRecord] {
        &self.records
    }

    /// The run as it is now.
    pub(crate) fn run(&self) -> Run {
        let run = Run::new(self.manifest.clone(), self.records.clone());
        Run { passed_over: self.passed_over.clone(), quality: reports::load_quality(&self.dir), ..run }
    }

    /// Writes the report.
    pub(crate) fn write_report(&self, summary: &Summary<'_>) -> Result<(), Error> {
        reports::write(summary, &self.dir).map_err(|error| match &error {
            reports::Error::Io { source, .. } if is_for_lack_of_room(source) => {
                let dir = self.dir.display();
                Error::Fault(format!("{error}: the records are whole. Make room, and write the report by `lowmem report {dir}`"))
            }
            _ => error.into(),
        })
    }
}

/// Whether a run was begun there, and ended before it had a manifest.
fn has_just_begun(dir: &Path) -> bool {
    let is_empty = fs::symlink_metadata(dir.join(RECORDS)).is_ok_and(|file| file.is_file() && file.len() == 0);
    is_empty && fs::symlink_metadata(dir.join(MANIFEST)).is_err()
}

/// Refuses a folder that has a run in it, or a file of somebody else under a name that a run would take.
fn refuse_occupied(dir: &Path) -> Result<(), Error> {
    let is_there = |name: &str| fs::symlink_metadata(dir.join(name)).is_ok();
    let shown = dir.display();
    if is_there(MANIFEST) {
        return Err(Error::input(format!("{shown} holds a run already: add --resume to go on with it, or name another --out")));
    }
    let just_begun = has_just_begun(dir);
    match FILES.into_iter().find(|&name| is_there(name) && !(just_begun && name == RECORDS)) {
        Some(name) => {
            Err(Error::input(format!("{shown} has a {name} that is of no run here: name another --out, and nothing is written over")))
        }
        None => Ok(()),
    }
}

/// `dir`, or where another run of the same second took it, the same with a number.
fn free_place(dir: PathBuf) -> PathBuf {
    let numbered = |number: u32| PathBuf::from(format!("{}-{number}", dir.display()));
    [dir.clone()].into_iter().chain((2..100).map(numbered)).find(|place| fs::symlink_metadata(place).is_err()).unwrap_or(dir)
}

/// An error in writing, with what to do where that is plain.
fn advised(error: &io::Error) -> String {
    if is_for_lack_of_room(error) { format!("{error}: make room, and go on with --resume") } else { error.to_string() }
}

fn is_for_lack_of_room(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

fn open(dir: &Path) -> Result<File, Error> {
    let path = dir.join(RECORDS);
    // Opening a pipe for writing would wait without end.
    if let Some(Err(error)) = untrusted::is_there(&path).then(|| untrusted::open(&path)) {
        return Err(Error::input(format!("{}: {error}", path.display())));
    }
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
    write_whole(&path, text + "\n").map_err(|error| Error::Fault(format!("{}: {}", path.display(), advised(&error))))
}

/// Makes `latest` among the run directories a link to `dir`. It is a convenience: without it the run is as good.
fn point_latest_to(dir: &Path) {
    let (Some(name), latest) = (dir.file_name(), data::runs().join("latest")) else { return };
    let beside = data::runs().join(format!(".latest-{}", std::process::id()));
    if let Err(error) = symlink(name, &beside).and_then(|()| fs::rename(&beside, &latest)) {
        let _ = fs::remove_file(&beside);
        tell!("warning: {} does not lead to this run: {error}", latest.display());
    }
}

#[cfg(test)]
mod tests {
    use engine_protocol::{Outcome, Settings};

    use super::*;
    use crate::bare_record::{bare_manifest as manifest, bare_record};
    use crate::model::Models;

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

        let mut store = RunStore::resume(dir.clone(), manifest(&["a", "b", "c"]), false).expect("taken up");
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
        let error = RunStore::resume(dir.clone(), manifest(&[]), false).expect_err("locked").to_string();
        assert!(error.contains("another lowmem is running"), "{error}");
        drop(store);
        let other = Manifest { device: Device::Virtual, ..manifest(&[]) };
        let error = RunStore::resume(dir, other, true).expect_err("another device").to_string();
        assert!(error.contains("was run on another device"), "{error}");
    }
}

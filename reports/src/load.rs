//! Reading a run directory: its manifest and its records, in this program's schema or an older one.
//!
//! It judges nothing, and it writes nothing: the harness appends the records. A line that is no record, as a full disk or a lost machine may leave it, costs its own case
//! and no other.

use std::io::ErrorKind;
use std::path::Path;

use engine_protocol::{LoadWeights, OLDEST_SCHEMA, Quality, RunRecord, SCHEMA};
use rayon::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::Error;
use crate::run::{Manifest, Run};
use crate::whole_file::write_whole;

/// The manifest's file name in a run directory.
pub const MANIFEST: &str = "manifest.json";
/// The records' file name in a run directory.
pub const RECORDS: &str = "records.jsonl";

/// The file name in a run directory of what was measured of quality.
const QUALITY: &str = "quality.json";

/// The largest file of a run that is read: ten times 100,000 records, which have 4 KiB each.
const MOST_BYTES: u64 = 4 << 30;

/// The records of a run directory, as they were read.
#[derive(Debug, Default)]
pub struct Records {
    /// In the order in which they came.
    pub records: Vec<RunRecord>,
    /// Bytes of the file that are whole lines: what follows is a torn last record.
    pub whole_bytes: u64,
    /// Lines that are no records, a sentence each.
    pub passed_over: Vec<String>,
}

/// Reads a run directory.
///
/// # Errors
/// No run there, a file that cannot be read, or one in a schema that is not known.
pub fn load(dir: &Path) -> Result<Run, Error> {
    let manifest = load_manifest(dir)?;
    let Records { records, passed_over, .. } = load_records(dir)?;
    Ok(Run { passed_over, quality: load_quality(dir), ..Run::new(manifest, records) })
}

/// What was measured of the quality of a run's cases. A file that is not there, or is none of ours, says nothing.
pub fn load_quality(dir: &Path) -> Vec<Quality> {
    untrusted::read(&dir.join(QUALITY), MOST_BYTES).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Keeps what was measured of the quality of a run's cases.
///
/// # Errors
/// A file that cannot be written.
pub fn write_quality(dir: &Path, quality: &[Quality]) -> Result<(), Error> {
    let path = dir.join(QUALITY);
    let text = serde_json::to_string_pretty(quality).expect("figures are plain data");
    write_whole(&path, text.as_bytes()).map_err(|error| Error::io(&path, error))
}

/// Reads the manifest of a run directory.
///
/// # Errors
/// No run there, or a manifest that cannot be read.
pub fn load_manifest(dir: &Path) -> Result<Manifest, Error> {
    let path = dir.join(MANIFEST);
    let bytes = untrusted::read(&path, MOST_BYTES).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Error::NotARun { dir: dir.to_owned(), file: MANIFEST },
        _ => Error::io(&path, error),
    })?;
    parsed(&bytes, &path, None)
}

/// Reads the records of a run directory.
///
/// # Errors
/// A file that cannot be read, or a record in a schema that is not known.
pub fn load_records(dir: &Path) -> Result<Records, Error> {
    let path = dir.join(RECORDS);
    let bytes = match untrusted::read(&path, MOST_BYTES) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Records::default()),
        other => other.map_err(|error| Error::io(&path, error))?,
    };
    // A record without its line end is torn: more of it may have been meant to come.
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    let lines: Vec<&[u8]> = bytes[..whole].split_inclusive(|&byte| byte == b'\n').chain([&bytes[whole..]]).collect();
    let numbered = lines.into_par_iter().enumerate();
    let parsed: Vec<_> = numbered.map(|(index, line)| parsed::<RunRecord>(line, &path, Some(index + 1))).collect();
    let mut found = Records { whole_bytes: whole as u64, ..Records::default() };
    let torn = parsed.len() - 1;
    for (index, record) in parsed.into_iter().enumerate() {
        match record {
            // One of another schema is whole, even at the end: it is never cut off.
            Err(error @ Error::Schema { .. }) => return Err(error),
            _ if index == torn => {}
            Ok(record) => found.records.push(record),
            Err(error) => {
                found.passed_over.push(format!("{error}: that line is no record and was passed over; --resume runs its case again"))
            }
        }
    }
    Ok(found)
}

/// A record, which is one line of the file, or a manifest, which is all of it. Fields that an older schema lacks have their defaults.
fn parsed<T: DeserializeOwned>(text: &[u8], path: &Path, line: Option<usize>) -> Result<T, Error> {
    let at = |source: serde_json::Error| Error::Parse { path: path.to_owned(), line: line.unwrap_or(source.line()), source };
    // As this program writes it: read once, and not looked through first.
    if text.starts_with(format!("{{\"schema\":{SCHEMA},").as_bytes()) {
        return serde_json::from_slice(text).map_err(at);
    }
    let mut value: Value = serde_json::from_slice(text).map_err(at)?;
    // Schema 1 had no number yet.
    let schema = value.get("schema").map_or(Some(1), Value::as_u64).unwrap_or(u64::MAX);
    if !(u64::from(OLDEST_SCHEMA)..=u64::from(SCHEMA)).contains(&schema) {
        let version = value.get("version").and_then(Value::as_str).map(str::to_owned);
        return Err(Error::Schema { path: path.to_owned(), line: line.unwrap_or(1), schema, version });
    }
    if schema == 1 {
        from_schema_1(&mut value);
    }
    if schema < 4 {
        from_schema_3(&mut value);
    }
    // Most mistakes are told with their place by the text itself; what an older schema has in another form is known from the value alone.
    if schema == u64::from(SCHEMA) { serde_json::from_slice(text) } else { serde_json::from_value(value) }.map_err(at)
}

/// What schema 1 has in another form: a resolution as two numbers, and of what a configuration left to the machine each value by itself, not the whole
/// configuration that ran.
fn from_schema_1(value: &mut Value) {
    let settled = value.get("settled").and_then(Value::as_object).cloned().unwrap_or_default();
    let Some(config) = value.get_mut("config").and_then(Value::as_object_mut) else { return };
    if let (Some(width), Some(height)) = (config.remove("width"), config.remove("height")) {
        config.insert("resolution".into(), format!("{width}x{height}").into());
    }
    if !settled.is_empty() {
        let mut whole = config.clone();
        whole.extend(settled);
        value["settled_config"] = Value::Object(whole);
    }
}

/// Until schema 3 all weights were loaded at the start.
fn from_schema_3(value: &mut Value) {
    for name in ["config", "settled_config"] {
        if let Some(config) = value.get_mut(name).and_then(Value::as_object_mut) {
            config.entry("load_weights").or_insert_with(|| LoadWeights::AtStart.name().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::samples;

    /// A run directory with these lines as its records.
    fn dir(lines: &[Value]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::write(dir.path().join(RECORDS), text).expect("records");
        dir
    }

    fn record() -> Value {
        serde_json::to_value(samples::ok("a", 1, 10)).expect("a record is JSON")
    }

    #[test]
    fn a_record_without_a_schema_is_of_the_first_one() {
        let mut old = record();
        for field in ["schema", "version", "began"] {
            old.as_object_mut().and_then(|fields| fields.remove(field)).expect(field);
        }
        let records = load_records(dir(&[old, record()]).path()).expect("both are read").records;
        let known: Vec<_> = records.iter().map(|record| (record.schema, record.version.as_deref(), record.began.is_some())).collect();
        assert_eq!(known, [(1, None, false), (SCHEMA, Some("0.1.0"), true)]);
    }

    #[test]
    fn a_newer_schema_is_refused_by_name_and_is_not_taken_for_a_torn_record() {
        let mut newer = record();
        newer["schema"] = 99.into();
        newer["version"] = "7.1.0".into();
        let dir = dir(&[record(), newer]);
        let error = load_records(dir.path()).expect_err("refused");
        assert!(error.is_bad_input());
        let told = error.to_string();
        let expected = format!(
            "records.jsonl:2: written by lowmem 7.1.0 with record schema 99; this program reads schema 1 to {SCHEMA}: use lowmem 7.1.0"
        );
        assert!(told.contains(&expected), "{told}");
    }

    #[test]
    fn half_a_record_costs_the_cases_of_its_own_line_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(RECORDS);
        let whole = format!("{}\n", record());
        let glued = format!("{}{whole}", &whole[..whole.len() / 2]);
        let zeros = "\0".repeat(4096) + "\n";
        fs::write(&path, [&*whole, &*glued, &*zeros, &*whole, &whole[..20]].concat()).expect("written");
        let found = load_records(dir.path()).expect("read");
        assert_eq!((found.records.len(), found.passed_over.len()), (2, 2));
        assert!(found.passed_over[0].contains("records.jsonl:2: ") && found.passed_over[1].contains("records.jsonl:3: "), "{found:?}");
        assert_eq!(found.whole_bytes, (2 * whole.len() + glued.len() + zeros.len()) as u64);
    }
}

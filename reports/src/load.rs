//! Reading a run directory: its manifest and its records, in this program's schema or an older one.
//!
//! It judges nothing, and it writes nothing: the harness appends the records.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use engine_protocol::{LoadWeights, OLDEST_SCHEMA, RunRecord, SCHEMA};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::Error;
use crate::run::{Manifest, Run};

/// The manifest's file name in a run directory.
pub const MANIFEST: &str = "manifest.json";
/// The records' file name in a run directory.
pub const RECORDS: &str = "records.jsonl";

/// Reads a run directory.
///
/// # Errors
/// No run there, or a file that cannot be read. A torn last record, as a lost machine leaves it, is passed over.
pub fn load(dir: &Path) -> Result<Run, Error> {
    let manifest = load_manifest(dir)?;
    let (records, _) = load_records(dir)?;
    Ok(Run::new(manifest, records))
}

/// Reads the manifest of a run directory.
///
/// # Errors
/// No run there, or a manifest that cannot be read.
pub fn load_manifest(dir: &Path) -> Result<Manifest, Error> {
    let path = dir.join(MANIFEST);
    let bytes = fs::read(&path).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Error::NotARun { dir: dir.to_owned(), file: MANIFEST },
        _ => Error::io(&path, error),
    })?;
    parsed(&bytes, &path, None)
}

/// Reads the records of a run directory, and how many bytes of the file they are: what follows is a torn last record.
///
/// # Errors
/// A file that cannot be read, or a line other than the last that is not a record.
pub fn load_records(dir: &Path) -> Result<(Vec<RunRecord>, u64), Error> {
    let path = dir.join(RECORDS);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        other => other.map_err(|error| Error::io(&path, error))?,
    };
    let mut records = Vec::new();
    let mut whole = 0;
    for (index, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
        let is_last = whole + line.len() == bytes.len();
        match parsed(line, &path, Some(index + 1)) {
            // A record without its line end is torn too: more of it may have been meant to come.
            Ok(record) if line.ends_with(b"\n") => records.push(record),
            // One of another schema is whole: it is never cut off.
            Err(error) if !is_last || matches!(error, Error::Schema { .. }) => return Err(error),
            _ => break,
        }
        whole += line.len();
    }
    Ok((records, whole as u64))
}

/// A record, which is one line of the file, or a manifest, which is all of it. Fields that an older schema lacks have their defaults.
fn parsed<T: DeserializeOwned>(text: &[u8], path: &Path, line: Option<usize>) -> Result<T, Error> {
    let at = |source: serde_json::Error| Error::Parse { path: path.to_owned(), line: line.unwrap_or(source.line()), source };
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
        let (records, _) = load_records(dir(&[old, record()]).path()).expect("both are read");
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
}

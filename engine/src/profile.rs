//! Where the time of a run goes: each operation on the GPU and each copy of weights, between two of the device's own events.
//!
//! Nothing is kept unless a profile was asked for. On a real GPU the events themselves take about a microsecond each, so the parts are a little longer than what
//! they are parts of.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use engine_protocol::{OperationTime, Secs, WorkKind, WorkType};
use serde_json::json;

use crate::cuda::{Event, Stream};
use crate::error::{Error, Result};
use crate::timing::mark;

/// What was done, without when.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) name: String,
    pub(crate) kind: WorkKind,
    pub(crate) dtype: WorkType,
    pub(crate) operations: f64,
    pub(crate) bytes: f64,
}

/// A piece of work between two marks of its stream.
#[derive(Debug)]
struct Piece {
    done: Done,
    marks: [Event; 2],
}

/// The run so far.
#[derive(Debug)]
struct Profile {
    /// When it began.
    origin: Event,
    /// Marks before the operations that this thread is in; none where one could not be made.
    open: Vec<Option<Event>>,
    /// What the device may not have passed yet.
    pieces: Vec<Piece>,
    sums: BTreeMap<(String, WorkKind, WorkType), OperationTime>,
    trace: Option<Trace>,
}

/// A file of Chrome's trace events, which Perfetto opens.
#[derive(Debug)]
struct Trace {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Trace {
    fn create(path: &Path) -> Result<Self> {
        let file = BufWriter::new(File::create(path).map_err(|error| Error::file(path, error))?);
        let mut trace = Self { path: path.to_owned(), file };
        let names = [(ARITHMETIC, "arithmetic"), (COPIES, "copies")];
        let names = names.map(|(row, name)| json!({"ph": "M", "name": "thread_name", "pid": 0, "tid": row, "args": {"name": name}}));
        trace.write(&format!("[\n{},\n{}", names[0], names[1]))?;
        Ok(trace)
    }

    fn write(&mut self, text: &str) -> Result<()> {
        self.file.write_all(text.as_bytes()).map_err(|error| Error::file(&self.path, error))
    }

    fn note(&mut self, done: &Done, begins: Secs, secs: Secs) -> Result<()> {
        let row = if done.kind == WorkKind::Copy { COPIES } else { ARITHMETIC };
        let [begins, length] = [begins, secs].map(|secs| secs.expected * 1e6);
        let line = json!({"ph": "X", "pid": 0, "tid": row, "name": done.name, "cat": done.kind.name(), "ts": begins, "dur": length});
        self.write(&format!(",\n{line}"))
    }

    fn finish(&mut self) -> Result<()> {
        self.write("\n]\n")?;
        self.file.flush().map_err(|error| Error::file(&self.path, error))
    }
}

/// Rows of the trace.
const ARITHMETIC: u32 = 1;
const COPIES: u32 = 2;

thread_local! {
    static PROFILE: RefCell<Option<Profile>> = const { RefCell::new(None) };
}

/// Profiles what this thread does from here on; `trace` gets a Chrome trace.
pub(crate) fn start(trace: Option<&Path>) -> Result<()> {
    let trace = trace.map(Trace::create).transpose()?;
    let origin = mark(Stream::current()?)?;
    PROFILE.set(Some(Profile { origin, open: Vec::new(), pieces: Vec::new(), sums: BTreeMap::new(), trace }));
    Ok(())
}

/// An operation begins.
pub(crate) fn begin() {
    PROFILE.with_borrow_mut(|profile| {
        if let Some(profile) = profile {
            profile.open.push(Stream::current().and_then(mark).ok());
        }
    });
}

/// The innermost operation is over; `done` says what it was, where it was not others in it.
pub(crate) fn end(done: impl FnOnce() -> Option<Done>) {
    PROFILE.with_borrow_mut(|profile| {
        let Some(profile) = profile else { return };
        let Some(begun) = profile.open.pop().flatten() else { return };
        if let (Some(done), Ok(ended)) = (done(), Stream::current().and_then(mark)) {
            profile.pieces.push(Piece { done, marks: [begun, ended] });
        }
    });
}

/// Has `copy` put a copy of so many bytes to the device into `stream`.
pub(crate) fn copied(stream: Stream, bytes: i64, copy: impl FnOnce() -> Result<()>) -> Result<()> {
    if PROFILE.with_borrow(Option::is_none) {
        return copy();
    }
    let begun = mark(stream)?;
    copy()?;
    let marks = [begun, mark(stream)?];
    let done = Done { name: "copy to device".into(), kind: WorkKind::Copy, dtype: WorkType::Int8, operations: 0.0, bytes: bytes as f64 };
    PROFILE.with_borrow_mut(|profile| {
        if let Some(profile) = profile {
            profile.pieces.push(Piece { done, marks });
        }
    });
    Ok(())
}

/// The device has passed all that it was given: adds it up.
pub(crate) fn settle() -> Result<()> {
    PROFILE.with_borrow_mut(|profile| profile.as_mut().map_or(Ok(()), Profile::settle))
}

/// What the stage's operations came to, the longest first. Nothing where no profile was asked for.
pub(crate) fn end_stage() -> Result<Vec<OperationTime>> {
    settle()?;
    let sums = PROFILE.with_borrow_mut(|profile| profile.as_mut().map(|profile| std::mem::take(&mut profile.sums)).unwrap_or_default());
    let mut operations: Vec<_> = sums.into_values().collect();
    operations.sort_by(|a, b| b.secs.expected.total_cmp(&a.secs.expected));
    Ok(operations)
}

/// The run is over.
pub(crate) fn finish() -> Result<()> {
    PROFILE.take().and_then(|mut profile| profile.trace.take()).map_or(Ok(()), |mut trace| trace.finish())
}

impl Profile {
    fn settle(&mut self) -> Result<()> {
        for Piece { done, marks: [begun, ended] } in std::mem::take(&mut self.pieces) {
            let secs = begun.until(&ended)?;
            if let Some(trace) = &mut self.trace {
                trace.note(&done, self.origin.until(&begun)?, secs)?;
            }
            let key = (done.name.clone(), done.kind, done.dtype);
            let sum = self.sums.entry(key).or_insert_with(|| OperationTime {
                name: done.name,
                kind: done.kind,
                dtype: done.dtype,
                calls: 0,
                secs: Secs::default(),
                operations: 0.0,
                bytes: 0.0,
            });
            sum.calls += 1;
            sum.secs = sum.secs + secs;
            sum.operations += done.operations;
            sum.bytes += done.bytes;
        }
        Ok(())
    }
}

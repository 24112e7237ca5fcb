//! Where the time of a run goes: each operation on the GPU and each copy of weights, between two of the device's own events. Times of stages are `timing`'s.
//!
//! Nothing is kept unless it was asked for. On a real GPU the events themselves take about a microsecond each, so the parts are a little longer than what
//! they are parts of.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use engine_protocol::{OperationTime, Secs, WorkKind, WorkType, unfinished};
use serde_json::json;

use crate::cuda::{Event, ObservedOperation, Stream};
use crate::error::{Error, Result};
use crate::timing::mark;

/// What was done, without when.
#[derive(Debug)]
struct Operation {
    name: String,
    kind: WorkKind,
    dtype: WorkType,
    operations: f64,
    bytes: f64,
}

/// An operation between two marks of its stream.
#[derive(Debug)]
struct MarkedOperation {
    operation: Operation,
    marks: [Event; 2],
}

/// The run so far.
#[derive(Debug)]
struct Recorder {
    /// When it began.
    origin: Event,
    /// Marks before the operations that this thread is in; none where one could not be made.
    open: Vec<Option<Event>>,
    /// What the device may not have passed yet.
    marked: Vec<MarkedOperation>,
    sums: BTreeMap<(String, WorkKind, WorkType), OperationTime>,
    trace: Option<Trace>,
}

/// A file of Chrome's trace events, which Perfetto opens.
#[derive(Debug)]
struct Trace {
    path: PathBuf,
    /// Beside its place, where it is put when it is complete.
    file: BufWriter<File>,
}

impl Trace {
    fn create(path: &Path) -> Result<Self> {
        let file = BufWriter::new(File::create(unfinished(path)).map_err(|error| Error::file(path, error))?);
        let mut trace = Self { path: path.to_owned(), file };
        let names = [(ARITHMETIC, "arithmetic"), (COPIES, "copies")];
        let names = names.map(|(row, name)| json!({"ph": "M", "name": "thread_name", "pid": 0, "tid": row, "args": {"name": name}}));
        trace.write(&format!("[\n{},\n{}", names[0], names[1]))?;
        Ok(trace)
    }

    fn write(&mut self, text: &str) -> Result<()> {
        self.file.write_all(text.as_bytes()).map_err(|error| Error::file(&self.path, error))
    }

    fn note(&mut self, operation: &Operation, begins: Secs, secs: Secs) -> Result<()> {
        let row = if operation.kind == WorkKind::Copy { COPIES } else { ARITHMETIC };
        let [begins, length] = [begins, secs].map(|secs| secs.expected * 1e6);
        let line =
            json!({"ph": "X", "pid": 0, "tid": row, "name": operation.name, "cat": operation.kind.name(), "ts": begins, "dur": length});
        self.write(&format!(",\n{line}"))
    }

    fn finish(&mut self) -> Result<()> {
        self.write("\n]\n")?;
        let placed = self.file.flush().and_then(|()| fs::rename(unfinished(&self.path), &self.path));
        placed.map_err(|error| Error::file(&self.path, error))
    }
}

/// Rows of the trace.
const ARITHMETIC: u32 = 1;
const COPIES: u32 = 2;

thread_local! {
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

/// Times what this thread does from here on; `trace` gets a Chrome trace.
pub(crate) fn start(trace: Option<&Path>) -> Result<()> {
    let trace = trace.map(Trace::create).transpose()?;
    let origin = mark(Stream::current()?)?;
    RECORDER.set(Some(Recorder { origin, open: Vec::new(), marked: Vec::new(), sums: BTreeMap::new(), trace }));
    Ok(())
}

/// An operation begins.
pub(crate) fn begin() {
    RECORDER.with_borrow_mut(|recorder| {
        if let Some(recorder) = recorder {
            recorder.open.push(Stream::current().and_then(mark).ok());
        }
    });
}

/// The innermost operation is over. One that was others in it, or of no kind that is told apart, is not kept.
pub(crate) fn end(observed: &ObservedOperation<'_>) {
    RECORDER.with_borrow_mut(|recorder| {
        let Some(recorder) = recorder else { return };
        let Some(begun) = recorder.open.pop().flatten() else { return };
        let &ObservedOperation { name, kind, dtype, operations, bytes, counts } = observed;
        if let (true, Some(kind), Ok(ended)) = (counts, kind, Stream::current().and_then(mark)) {
            let operation = Operation { name: name.to_string_lossy().into_owned(), kind, dtype, operations, bytes };
            recorder.marked.push(MarkedOperation { operation, marks: [begun, ended] });
        }
    });
}

/// Has `copy` put a copy of so many bytes to the device into `stream`.
pub(crate) fn copied(stream: Stream, bytes: i64, copy: impl FnOnce() -> Result<()>) -> Result<()> {
    if RECORDER.with_borrow(Option::is_none) {
        return copy();
    }
    let begun = mark(stream)?;
    copy()?;
    let marks = [begun, mark(stream)?];
    let operation =
        Operation { name: "copy to device".into(), kind: WorkKind::Copy, dtype: WorkType::Int8, operations: 0.0, bytes: bytes as f64 };
    RECORDER.with_borrow_mut(|recorder| {
        if let Some(recorder) = recorder {
            recorder.marked.push(MarkedOperation { operation, marks });
        }
    });
    Ok(())
}

/// The device has passed all that it was given: adds it up.
fn add_up() -> Result<()> {
    RECORDER.with_borrow_mut(|recorder| recorder.as_mut().map_or(Ok(()), Recorder::add_up))
}

/// What the stage's operations came to, the longest first. Nothing where that was not asked for.
pub(crate) fn end_stage() -> Result<Vec<OperationTime>> {
    add_up()?;
    let sums =
        RECORDER.with_borrow_mut(|recorder| recorder.as_mut().map(|recorder| std::mem::take(&mut recorder.sums)).unwrap_or_default());
    let mut operations: Vec<_> = sums.into_values().collect();
    operations.sort_by(|a, b| b.secs.expected.total_cmp(&a.secs.expected));
    Ok(operations)
}

/// The run is over.
pub(crate) fn finish() -> Result<()> {
    RECORDER.take().and_then(|mut recorder| recorder.trace.take()).map_or(Ok(()), |mut trace| trace.finish())
}

impl Recorder {
    fn add_up(&mut self) -> Result<()> {
        for MarkedOperation { operation, marks: [begun, ended] } in std::mem::take(&mut self.marked) {
            let secs = begun.until(&ended)?;
            if let Some(trace) = &mut self.trace {
                trace.note(&operation, self.origin.until(&begun)?, secs)?;
            }
            let key = (operation.name.clone(), operation.kind, operation.dtype);
            let sum = self.sums.entry(key).or_insert_with(|| OperationTime {
                name: operation.name,
                kind: operation.kind,
                dtype: operation.dtype,
                calls: 0,
                secs: Secs::default(),
                operations: 0.0,
                bytes: 0.0,
            });
            sum.calls += 1;
            sum.secs = sum.secs + secs;
            sum.operations += operation.operations;
            sum.bytes += operation.bytes;
        }
        Ok(())
    }
}

//! A record of the operations that have an order: what was put on which stream, which device memory it reads and writes, and who waits for whom.
//!
//! One JSON object a line, in the order in which the program asked. Kernels are not in it: what their arguments point to is theirs to know.

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::lock::lock;

/// Device memory: the first address and the bytes from there on.
pub type Range = (u64, u64);

/// An operation, as a line of the trace has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are handles, addresses and bytes, by name")]
pub enum Operation {
    /// A copy from the host into device memory.
    CopyToDevice { stream: u64, writes: [Range; 1] },
    /// A copy from device memory to the host.
    CopyToHost { stream: u64, reads: [Range; 1] },
    /// A copy from device memory to device memory.
    CopyOnDevice { stream: u64, reads: [Range; 1], writes: [Range; 1] },
    /// A fill of device memory.
    Fill { stream: u64, writes: [Range; 1] },
    /// A product of matrices, of cuBLAS or cuBLASLt: its factors, what it adds, and its result.
    Product { stream: u64, reads: Vec<Range>, writes: Vec<Range> },
    /// The event now marks all that the stream was given until here.
    RecordEvent { event: u64, stream: u64 },
    /// What the stream is given from here on comes after what the event marks.
    WaitEvent { stream: u64, event: u64 },
    /// The host goes on when the event has come.
    SynchronizeEvent { event: u64 },
    /// The host goes on when the stream has done all that it was given.
    SynchronizeStream { stream: u64 },
    /// The host goes on when every stream has.
    SynchronizeDevice,
    /// Memory that the program has from here on. `stream` where it was allocated in a stream's order.
    Allocate {
        address: u64,
        bytes: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        stream: Option<u64>,
    },
    /// Memory that it has no longer.
    Free {
        address: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        stream: Option<u64>,
    },
}

/// A line: the operation, and the thread of the host that asked for it, by a number of its own.
#[derive(Serialize)]
struct Line<'a> {
    thread: u64,
    #[serde(flatten)]
    operation: &'a Operation,
}

/// Where the operations are written, if anywhere.
#[derive(Default)]
pub struct Trace {
    out: Option<Mutex<Box<dyn Write + Send>>>,
}

impl Trace {
    /// A trace that goes to `out`. The default one goes nowhere.
    pub fn to(out: Box<dyn Write + Send>) -> Self {
        Self { out: Some(Mutex::new(out)) }
    }

    /// Writes what `operation` gives; where nobody wants a trace it is not called.
    pub fn note(&self, operation: impl FnOnce() -> Operation) {
        let Some(out) = &self.out else { return };
        let line = Line { thread: this_thread(), operation: &operation() };
        let mut out = lock(out);
        // A trace that cannot be written is cut short, and its reader sees that: the program goes on.
        let _ = serde_json::to_writer(&mut *out, &line).map_err(Into::into).and_then(|()| out.write_all(b"\n"));
    }

    /// Hands on what is still held back.
    pub fn flush(&self) {
        if let Some(out) = &self.out {
            let _ = lock(out).flush();
        }
    }
}

fn this_thread() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static THIS: u64 = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    THIS.with(|number| *number)
}

/// A matrix, or a batch of them at equal distances, in columns as BLAS has it.
#[derive(Debug, Clone, Copy)]
pub struct Matrix {
    /// Where it begins.
    pub address: u64,
    /// Elements of a column.
    pub rows: u64,
    /// Columns.
    pub columns: u64,
    /// Elements from one column to the next.
    pub leading: u64,
    /// Bytes of an element.
    pub element_bytes: u64,
    /// How many there are.
    pub count: u64,
    /// Elements from one to the next.
    pub distance: u64,
}

impl Matrix {
    /// From its first to its last byte.
    pub fn range(&self) -> Range {
        if self.rows == 0 || self.columns == 0 || self.count == 0 {
            return (self.address, 0);
        }
        // The numbers are the program's, and need not be possible ones.
        let before_last = (self.count - 1).saturating_mul(self.distance).saturating_add((self.columns - 1).saturating_mul(self.leading));
        (self.address, before_last.saturating_add(self.rows).saturating_mul(self.element_bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            lock(&self.0).write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_operation_is_a_line() {
        let out = Shared::default();
        let trace = Trace::to(Box::new(out.clone()));
        trace.note(|| Operation::CopyToDevice { stream: 256, writes: [(4096, 12)] });
        trace.note(|| Operation::SynchronizeDevice);
        trace.note(|| Operation::Allocate { address: 512, bytes: 3, stream: None });
        let text = String::from_utf8(lock(&out.0).clone()).expect("text");
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let thread = &lines[0]["thread"];
        assert_eq!(lines[0], serde_json::json!({"thread": thread, "op": "copy_to_device", "stream": 256, "writes": [[4096, 12]]}));
        assert_eq!(lines[1], serde_json::json!({"thread": thread, "op": "synchronize_device"}));
        assert_eq!(lines[2], serde_json::json!({"thread": thread, "op": "allocate", "address": 512, "bytes": 3}));
    }

    #[test]
    fn nothing_is_made_for_a_trace_that_nobody_wants() {
        Trace::default().note(|| unreachable!("nobody wants it"));
    }

    #[test]
    fn a_matrix_ends_with_its_last_column() {
        let one = Matrix { address: 1000, rows: 3, columns: 5, leading: 4, element_bytes: 2, count: 1, distance: 0 };
        assert_eq!(one.range(), (1000, 2 * (4 * 4 + 3)));
        assert_eq!(Matrix { count: 3, distance: 100, ..one }.range(), (1000, 2 * (2 * 100 + 4 * 4 + 3)));
        assert_eq!(Matrix { columns: 0, ..one }.range(), (1000, 0));
        assert_eq!(Matrix { leading: u64::MAX, ..one }.range(), (1000, u64::MAX));
    }
}

//! When each piece of work began and ended, for people to look at: a trace in Chrome's format, which Perfetto opens.
//!
//! Times are those of the likely world, in microseconds.

use std::io::Write;
use std::sync::Mutex;

use serde_json::json;

use super::clock::Engine;
use super::lock::lock;
use super::span::Span;

/// A row of the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Track {
    /// What a stream computes.
    Stream(u64),
    /// Copies to the device.
    ToDevice,
    /// Copies to the host.
    ToHost,
}

impl Track {
    /// Where that engine's work on that stream is shown.
    pub fn of(engine: Engine, stream: u64) -> Self {
        match engine {
            Engine::Compute => Self::Stream(stream),
            Engine::ToDevice => Self::ToDevice,
            Engine::ToHost => Self::ToHost,
        }
    }

    /// Rows are numbered: copies first, then streams by their handles.
    fn number(self) -> u64 {
        match self {
            Self::ToDevice => 1,
            Self::ToHost => 2,
            Self::Stream(stream) => 3 + stream,
        }
    }

    fn name(self) -> String {
        match self {
            Self::ToDevice => "copies to the device".to_owned(),
            Self::ToHost => "copies to the host".to_owned(),
            Self::Stream(0) => "default stream".to_owned(),
            Self::Stream(stream) => format!("stream {stream:#x}"),
        }
    }
}

struct Out {
    to: Box<dyn Write + Send>,
    /// Rows that have their names.
    named: Vec<(u32, u64)>,
}

/// Where it is written, if anywhere.
#[derive(Default)]
pub struct Timeline {
    out: Option<Mutex<Out>>,
}

impl Timeline {
    /// A timeline that goes to `to`. The default one goes nowhere.
    pub fn to(mut to: Box<dyn Write + Send>) -> Self {
        // The format allows that the list is never closed: a program may be killed.
        let _ = to.write_all(b"[\n");
        Self { out: Some(Mutex::new(Out { to, named: Vec::new() })) }
    }

    /// Something ran on a device from `begins` to `ends`.
    pub fn note(&self, device: u32, track: Track, name: &str, begins: Span, ends: Span) {
        let Some(out) = &self.out else { return };
        let mut out = lock(out);
        let row = (device, track.number());
        if !out.named.contains(&row) {
            out.named.push(row);
            out.line(&json!({"ph": "M", "name": "thread_name", "pid": row.0, "tid": row.1, "args": {"name": track.name()}}));
        }
        let (begins, length) = (begins.expected() * 1e6, (ends - begins).expected() * 1e6);
        out.line(&json!({"ph": "X", "name": name, "pid": row.0, "tid": row.1, "ts": begins, "dur": length}));
    }

    /// Whether anything is written.
    pub fn is_on(&self) -> bool {
        self.out.is_some()
    }

    /// Hands on what is still held back.
    pub fn flush(&self) {
        if let Some(out) = &self.out {
            let _ = lock(out).to.flush();
        }
    }
}

impl Out {
    fn line(&mut self, event: &serde_json::Value) {
        // A timeline that cannot be written is cut short: the program goes on.
        let _ = writeln!(self.to, "{event},");
    }
}

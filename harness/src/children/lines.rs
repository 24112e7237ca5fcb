//! What a process says, line by line, as far as there is room for it: nobody knows how much that will be.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

/// Lines that wait to be taken in, before whoever says more must wait.
const WAITING: usize = 16;

/// How much is kept of what a process says last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Lines.
    pub(crate) lines: usize,
    /// Bytes of each.
    pub(crate) bytes: usize,
}

/// A line of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// Without what ended it.
    pub(crate) text: String,
    /// Whether anything ended it: the last words of a process that was killed may be torn.
    pub(crate) is_whole: bool,
    /// Whether it was longer than there is room for.
    pub(crate) is_cut: bool,
}

/// A text without what there is no room for. It may be cut in the middle, and then says so.
pub(crate) fn cut(mut text: String, most_bytes: usize) -> String {
    if text.len() > most_bytes {
        text.truncate(text.floor_char_boundary(most_bytes));
        text.push('…');
    }
    text
}

/// Lines of output of so many bytes at most, read on a thread; the channel closes with the pipe. Whoever drops it closes the pipe.
pub(crate) fn read_lines(pipe: Option<impl Read + Send + 'static>, most_bytes: usize) -> Receiver<Line> {
    let (sender, receiver) = mpsc::sync_channel(WAITING);
    if let Some(pipe) = pipe {
        let send = move |line| if sender.send(line).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
        thread::spawn(move || each_line(pipe, most_bytes, send));
    }
    receiver
}

/// The last lines that came through a pipe, read on a thread.
pub(crate) struct LastWords {
    kept: Arc<Mutex<VecDeque<String>>>,
    is_over: Arc<AtomicBool>,
    closed: Receiver<()>,
}

impl LastWords {
    /// Begins to read.
    pub(crate) fn read(pipe: Option<impl Read + Send + 'static>, room: Room) -> Self {
        let (kept, is_over) = (Arc::<Mutex<VecDeque<String>>>::default(), Arc::<AtomicBool>::default());
        let (closing, closed) = mpsc::channel();
        if let Some(pipe) = pipe {
            let (kept, is_over) = (Arc::clone(&kept), Arc::clone(&is_over));
            thread::spawn(move || {
                each_line(pipe, room.bytes, |line| {
                    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    if kept.len() == room.lines {
                        kept.pop_front();
                    }
                    kept.push_back(if line.is_cut { line.text + "…" } else { line.text });
                    if is_over.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                });
                drop(closing);
            });
        }
        Self { kept, is_over, closed }
    }

    /// What they are when the pipe is closed, or at `deadline`.
    pub(crate) fn until(self, deadline: Instant) -> Vec<String> {
        while self.closed.recv_timeout(deadline.saturating_duration_since(Instant::now())) == Ok(()) {}
        self.is_over.store(true, Ordering::Relaxed);
        std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner)).into()
    }
}

/// Hands on all lines until `deadline`, or until the pipe is closed, or until `on_line` has enough.
pub(crate) fn drain(lines: &Receiver<Line>, deadline: Instant, on_line: &mut dyn FnMut(&Line) -> ControlFlow<()>) {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok(line) if !left.is_zero() && on_line(&line).is_continue() => {}
            Ok(_) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Hands on each line as soon as it has its end, or more than `most_bytes`; what is more is read and forgotten.
fn each_line(pipe: impl Read, most_bytes: usize, mut on_line: impl FnMut(Line) -> ControlFlow<()>) {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        line.clear();
        // One byte more for what ends it.
        let read = reader.by_ref().take(most_bytes as u64 + 1).read_until(b'\n', &mut line);
        if line.is_empty() {
            return;
        }
        let has_end = line.last() == Some(&b'\n');
        let is_cut = !has_end && line.len() > most_bytes;
        line.truncate(most_bytes);
        let text = String::from_utf8_lossy(&line);
        let line = Line { text: text.trim_end_matches(['\n', '\r']).to_owned(), is_whole: has_end || is_cut, is_cut };
        if on_line(line).is_break() || read.is_err() || is_cut && reader.skip_until(b'\n').is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8], most_bytes: usize) -> Vec<(String, bool, bool)> {
        let mut lines = Vec::new();
        each_line(text, most_bytes, |line| {
            lines.push((line.text, line.is_whole, line.is_cut));
            ControlFlow::Continue(())
        });
        lines
    }

    #[test]
    fn lines_have_ends_and_no_more_than_there_is_room_for() {
        let line = |text: &str, is_whole, is_cut| (text.to_owned(), is_whole, is_cut);
        assert_eq!(lines(b"", 4), []);
        assert_eq!(lines(b"a\n\r\nabcd\n", 4), [line("a", true, false), line("", true, false), line("abcd", true, false)]);
        assert_eq!(lines(b"abcdef\nb", 4), [line("abcd", true, true), line("b", false, false)]);
        assert_eq!(lines(b"abcde", 4), [line("abcd", true, true)]);
        assert_eq!(lines("ä\u{0}\n".as_bytes(), 1), [line("\u{fffd}", true, true)], "a letter may be cut");
    }

    #[test]
    fn a_text_is_cut_between_letters() {
        assert_eq!(cut("abc".into(), 3), "abc");
        assert_eq!(cut("abcä".into(), 4), "abc…");
    }
}

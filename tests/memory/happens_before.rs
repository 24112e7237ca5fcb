//! Which operations of a trace of the virtual GPU are ordered, and which touch the same memory without being so.
//!
//! Each stream and the host has a vector clock: for each stream, how many of its operations have surely ended. Work on a stream comes after what the stream was given
//! before and after what the host has waited for; an event keeps the clock of its stream, a wait takes it over. Two operations that touch a byte, at least one
//! of which writes it, must be ordered: that is checked for all of them, not for staging buffers alone. Streams do not wait for each other by themselves (libtorch makes
//! its streams so), a successful query orders nothing, and freeing memory waits for nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;

/// A line of the trace: see docs/virtual-gpu.md.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Operation {
    pub(crate) thread: u64,
    pub(crate) op: String,
    pub(crate) stream: u64,
    event: u64,
    reads: Vec<Range>,
    writes: Vec<Range>,
}

/// First address and bytes.
type Range = (u64, u64);

/// The operations of a trace, in the order in which the program asked for them.
pub(crate) fn parse(trace: &str) -> Vec<Operation> {
    trace.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in the trace's line {line}"))).collect()
}

/// For each stream, how many of its operations have ended.
type Clock = BTreeMap<u64, u64>;

fn join(clock: &mut Clock, other: &Clock) {
    for (&stream, &count) in other {
        let known = clock.entry(stream).or_default();
        *known = count.max(*known);
    }
}

/// An operation that touched memory which nothing has written since.
#[derive(Debug, Clone)]
struct Access {
    start: u64,
    end: u64,
    is_write: bool,
    by: Place,
}

/// An operation's place: its line, what it is, and its number on its stream.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    line: usize,
    op: String,
    stream: u64,
    number: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{} of line {} on stream {}", self.op, self.line, self.stream)
    }
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// One sentence for each two operations that touch the same memory and are not ordered.
    pub(crate) faults: Vec<String>,
    /// Lines of copies to the device that a product on another stream reads.
    pub(crate) copies_read: BTreeSet<usize>,
    /// Lines of copies to the device that write over what a product on another stream has read.
    pub(crate) copies_over_read: BTreeSet<usize>,
}

/// Compares each operation with those before it that touched the same memory.
pub(crate) fn check(operations: &[Operation]) -> Findings {
    let mut state = State::default();
    for (index, operation) in operations.iter().enumerate() {
        state.take(index + 1, operation);
    }
    state.findings
}

#[derive(Default)]
struct State {
    host: Clock,
    streams: BTreeMap<u64, Clock>,
    events: BTreeMap<u64, Clock>,
    accesses: Vec<Access>,
    findings: Findings,
}

impl State {
    fn take(&mut self, line: usize, operation: &Operation) {
        let Operation { stream, event, .. } = *operation;
        match operation.op.as_str() {
            "record_event" => {
                let mark = self.given_to(stream).clone();
                self.events.insert(event, mark);
            }
            "wait_event" => {
                let mark = self.events.get(&event).cloned().unwrap_or_default();
                join(self.given_to(stream), &mark);
            }
            "synchronize_event" => join(&mut self.host, self.events.entry(event).or_default()),
            "synchronize_stream" => join(&mut self.host, self.streams.entry(stream).or_default()),
            "synchronize_device" => self.streams.values().for_each(|clock| join(&mut self.host, clock)),
            "allocate" | "free" => {}
            _ => self.work(line, operation),
        }
    }

    /// The clock of what is put on the stream from here on.
    fn given_to(&mut self, stream: u64) -> &mut Clock {
        let clock = self.streams.entry(stream).or_default();
        join(clock, &self.host);
        clock
    }

    fn work(&mut self, line: usize, operation: &Operation) {
        let stream = operation.stream;
        let clock = self.given_to(stream);
        let before = clock.clone();
        let number = clock.entry(stream).or_default();
        *number += 1;
        let by = Place { line, op: operation.op.clone(), stream, number: *number };
        let touched = |ranges: &[Range], is_write: bool| {
            let access = |&(start, bytes): &Range| Access { start, end: start + bytes, is_write, by: by.clone() };
            ranges.iter().map(access).collect::<Vec<_>>()
        };
        let accesses = [touched(&operation.reads, false), touched(&operation.writes, true)].concat();
        for access in &accesses {
            self.compare(access, &before);
        }
        for access in accesses {
            self.remember(access);
        }
    }

    /// Holds an access against all before it, of which those in `before` have ended.
    fn compare(&mut self, access: &Access, before: &Clock) {
        let (start, end) = (access.start, access.end);
        for other in self.accesses.iter().filter(|other| other.start < end && start < other.end && (other.is_write || access.is_write)) {
            let (first, second) = (&other.by, &access.by);
            if first.stream != second.stream {
                let lines = match (first.op.as_str(), second.op.as_str()) {
                    ("copy_to_device", "product") if other.is_write && !access.is_write => {
                        Some((&mut self.findings.copies_read, first.line))
                    }
                    ("product", "copy_to_device") if !other.is_write => Some((&mut self.findings.copies_over_read, second.line)),
                    _ => None,
                };
                lines.map(|(lines, line)| lines.insert(line));
            }
            if before.get(&first.stream).is_none_or(|&ended| ended < first.number) {
                let verb = |access: &Access| if access.is_write { "writes" } else { "reads" };
                let fault = format!("{second} {} {start:#x} to {end:#x}, which {first} {}: nothing orders them", verb(access), verb(other));
                self.findings.faults.push(fault);
            }
        }
    }

    /// Keeps an access for those that come after it. Where it writes, whoever is ordered after it is ordered after all that was there; so too for
    /// reads of one stream, of which the last one stands for all.
    fn remember(&mut self, access: Access) {
        let is_replaced =
            |old: &Access| access.is_write || (!old.is_write && old.by.stream == access.by.stream && old.by.line != access.by.line);
        let mut left = Vec::with_capacity(self.accesses.len() + 1);
        for old in self.accesses.drain(..) {
            if old.end <= access.start || access.end <= old.start || !is_replaced(&old) {
                left.push(old);
                continue;
            }
            if old.start < access.start {
                left.push(Access { end: access.start, ..old.clone() });
            }
            if access.end < old.end {
                left.push(Access { start: access.end, ..old });
            }
        }
        left.push(access);
        self.accesses = left;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(lines: &[&str]) -> Vec<String> {
        check(&parse(&lines.join("\n"))).faults
    }

    const COPY: &str = r#"{"op": "copy_to_device", "stream": 1, "writes": [[100, 50]]}"#;
    const PRODUCT: &str = r#"{"op": "product", "stream": 0, "reads": [[140, 20], [10, 20]], "writes": [[500, 10]]}"#;
    const MARK: &str = r#"{"op": "record_event", "event": 7, "stream": 1}"#;
    const WAIT: &str = r#"{"op": "wait_event", "event": 7, "stream": 0}"#;

    #[test]
    fn an_event_orders_what_it_marks() {
        assert_eq!(faults(&[COPY, MARK, WAIT, PRODUCT]), [""; 0]);
        let unordered =
            "product of line 2 on stream 0 reads 0x8c to 0xa0, which copy_to_device of line 1 on stream 1 writes: nothing orders them";
        assert_eq!(faults(&[COPY, PRODUCT]), [unordered]);
        // Recorded before the copy, waited for before it is recorded, or by another stream.
        for lines in [[MARK, COPY, WAIT, PRODUCT], [COPY, WAIT, MARK, PRODUCT]] {
            assert_eq!(faults(&lines).len(), 1, "{lines:?}");
        }
        assert_eq!(faults(&[COPY, MARK, &WAIT.replace("\"stream\": 0", "\"stream\": 2"), PRODUCT]).len(), 1);
    }

    #[test]
    fn a_copy_over_what_is_read_is_found() {
        let lines = [COPY, MARK, WAIT, PRODUCT, COPY];
        assert_eq!(
            faults(&lines),
            ["copy_to_device of line 5 on stream 1 writes 0x64 to 0x96, which product of line 4 on stream 0 reads: nothing orders them"]
        );
        let (mark, wait) = (r#"{"op": "record_event", "event": 8, "stream": 0}"#, r#"{"op": "wait_event", "event": 8, "stream": 1}"#);
        let findings = check(&parse(&[COPY, MARK, WAIT, PRODUCT, mark, wait, COPY].join("\n")));
        assert_eq!((findings.faults.len(), findings.copies_read.len(), findings.copies_over_read.len()), (0, 1, 1));
    }

    #[test]
    fn what_the_host_waited_for_comes_first() {
        for wait in [r#"{"op": "synchronize_device"}"#, r#"{"op": "synchronize_stream", "stream": 1}"#] {
            assert_eq!(faults(&[COPY, wait, PRODUCT]), [""; 0], "{wait}");
        }
        assert_eq!(faults(&[COPY, MARK, r#"{"op": "synchronize_event", "event": 7}"#, PRODUCT]), [""; 0]);
        assert_eq!(faults(&[COPY, r#"{"op": "synchronize_stream", "stream": 0}"#, PRODUCT]).len(), 1);
    }

    #[test]
    fn order_goes_through_other_streams() {
        let through = [r#"{"op": "wait_event", "event": 7, "stream": 2}"#, r#"{"op": "record_event", "event": 9, "stream": 2}"#];
        let wait = r#"{"op": "wait_event", "event": 9, "stream": 0}"#;
        assert_eq!(faults(&[COPY, MARK, through[0], through[1], wait, PRODUCT]), [""; 0]);
        assert_eq!(faults(&[COPY, MARK, through[1], wait, PRODUCT]).len(), 1);
    }

    #[test]
    fn what_a_part_was_written_over_is_still_compared_in_the_rest() {
        // The second copy, on the product's own stream, covers what the product does not read.
        let other = r#"{"op": "copy_to_device", "stream": 0, "writes": [[90, 30]]}"#;
        let found = faults(&[COPY, other, PRODUCT]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[1].contains("0x8c to 0xa0, which copy_to_device of line 1"), "{found:?}");
    }
}

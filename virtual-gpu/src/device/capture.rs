//! Captures: which streams are being captured, and after which nodes of the graph each of them goes on.
//!
//! A stream joins the capture of another one when it waits for an event that was recorded there, as in CUDA, and leaves when the capture ends. By then all that it was
//! given has to come before the end of the stream on which the capture began.

use std::collections::BTreeMap;

use super::fault::Fault;
use super::graph::{Graphs, NodeKind, Step};
use super::span::Span;

#[derive(Debug)]
struct Capture {
    /// Where it began and must end.
    origin: u64,
    /// Its graph.
    graph: u64,
    /// Whether it has a graph of its own, which goes where it fails.
    owns_graph: bool,
    /// Whether something was asked of a captured stream that cannot be.
    is_broken: bool,
}

/// A stream's part in a capture.
#[derive(Debug)]
struct Part {
    capture: u64,
    /// The nodes that what the stream is given next comes after.
    ends: Vec<u64>,
}

/// Where in a capture an event was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The capture.
    capture: u64,
    /// The nodes that it comes after.
    ends: Vec<u64>,
}

/// What is known of a stream that is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Captured<'a> {
    /// The capture, a number that no other one has.
    pub id: u64,
    /// The graph that it makes.
    pub graph: u64,
    /// Whether it failed already.
    pub is_broken: bool,
    /// The nodes that what the stream is given next comes after.
    pub ends: &'a [u64],
}

/// The captures of a device that are going on, and its graphs.
#[derive(Debug, Default)]
pub struct Captures {
    /// The graphs.
    pub graphs: Graphs,
    captures: BTreeMap<u64, Capture>,
    last_id: u64,
    /// By the streams that take part.
    parts: BTreeMap<u64, Part>,
}

impl Captures {
    /// The captures of that device.
    pub fn of_device(ordinal: u32) -> Self {
        Self { graphs: Graphs::of_device(ordinal), ..Self::default() }
    }

    /// `cudaStreamBeginCapture`.
    pub fn begin(&mut self, stream: u64) -> Result<(), Fault> {
        self.may_begin(stream)?;
        let graph = self.graphs.create();
        self.start(stream, graph, true, Vec::new());
        Ok(())
    }

    /// `cudaStreamBeginCaptureToGraph`: what is captured comes after those nodes of a graph that is there.
    pub fn begin_to_graph(&mut self, stream: u64, graph: u64, ends: Vec<u64>) -> Result<(), Fault> {
        self.may_begin(stream)?;
        if !ends.iter().all(|end| self.graphs.nodes_of(graph).is_ok_and(|nodes| nodes.contains(end))) {
            return Err(Fault::InvalidValue);
        }
        self.graphs.nodes_of(graph)?;
        self.start(stream, graph, false, ends);
        Ok(())
    }

    /// The default stream cannot be captured.
    fn may_begin(&self, stream: u64) -> Result<(), Fault> {
        match stream {
            0 => Err(Fault::NotWhileCapturing),
            stream if self.parts.contains_key(&stream) => Err(Fault::IllegalState),
            _ => Ok(()),
        }
    }

    fn start(&mut self, stream: u64, graph: u64, owns_graph: bool, ends: Vec<u64>) {
        self.last_id += 1;
        self.captures.insert(self.last_id, Capture { origin: stream, graph, owns_graph, is_broken: false });
        self.parts.insert(stream, Part { capture: self.last_id, ends });
    }

    /// `cudaStreamEndCapture`: the graph.
    pub fn end(&mut self, stream: u64) -> Result<u64, Fault> {
        let id = self.parts.get(&stream).ok_or(Fault::IllegalState)?.capture;
        let capture = self.captures.get(&id).filter(|capture| capture.origin == stream).ok_or(Fault::CaptureUnmatched)?;
        let (graph, owns_graph, is_broken) = (capture.graph, capture.owns_graph, capture.is_broken);
        let (ended, others): (BTreeMap<u64, Part>, _) =
            std::mem::take(&mut self.parts).into_iter().partition(|(_, part)| part.capture == id);
        self.parts = others;
        self.captures.remove(&id);
        let at_end = ended.get(&stream).map_or(&[][..], |part| &part.ends);
        let is_joined = self.graphs.lead_to(ended.values().flat_map(|part| part.ends.iter().copied()), at_end);
        if !is_broken && is_joined {
            return Ok(graph);
        }
        if owns_graph {
            self.graphs.destroy(graph)?;
        }
        Err(if is_broken { Fault::CaptureBroken } else { Fault::CaptureUnjoined })
    }

    /// The capture that the stream takes part in.
    pub fn captured(&self, stream: u64) -> Option<Captured<'_>> {
        let part = self.parts.get(&stream)?;
        let capture = self.captures.get(&part.capture)?;
        Some(Captured { id: part.capture, graph: capture.graph, is_broken: capture.is_broken, ends: &part.ends })
    }

    /// Where an event is that is recorded on the stream now.
    pub fn place(&self, stream: u64) -> Option<Place> {
        self.captured(stream).map(|captured| Place { capture: captured.id, ends: captured.ends.to_vec() })
    }

    /// The stream waits for something in a capture: it takes part from here on, and goes on after that as well.
    pub fn join(&mut self, stream: u64, place: &Place) -> Result<(), Fault> {
        if !self.captures.contains_key(&place.capture) {
            return Ok(());
        }
        let part = self.parts.entry(stream).or_insert_with(|| Part { capture: place.capture, ends: Vec::new() });
        if part.capture != place.capture {
            return Err(Fault::IllegalState);
        }
        let new: Vec<u64> = place.ends.iter().copied().filter(|end| !part.ends.contains(end)).collect();
        part.ends.extend(new);
        Ok(())
    }

    /// The stream waits for something that is not captured: it must not be in a capture, which is spoilt.
    pub fn keep_apart(&mut self, stream: u64) -> Result<(), Fault> {
        let Some(capture) = self.parts.get(&stream).and_then(|part| self.captures.get_mut(&part.capture)) else { return Ok(()) };
        capture.is_broken = true;
        Err(Fault::CaptureIsolation)
    }

    /// `cudaStreamUpdateCaptureDependencies`: the nodes that the stream goes on after, all of them or more.
    pub fn go_on_after(&mut self, stream: u64, nodes: &[u64], are_all: bool) -> Result<(), Fault> {
        let graph = self.captured(stream).ok_or(Fault::IllegalState)?.graph;
        let all = self.graphs.nodes_of(graph)?;
        if !nodes.iter().all(|node| all.contains(node)) {
            return Err(Fault::InvalidValue);
        }
        let part = self.parts.get_mut(&stream).ok_or(Fault::IllegalState)?;
        if are_all {
            part.ends.clear();
        }
        let new: Vec<u64> = nodes.iter().copied().filter(|node| !part.ends.contains(node)).collect();
        part.ends.extend(new);
        Ok(())
    }

    /// The host wants to wait for a stream, or for all of them: nothing that is captured ever comes about, and the capture is spoilt.
    pub fn wait(&mut self, stream: Option<u64>) -> Result<(), Fault> {
        let waited_for = |id: &u64| stream.is_none_or(|stream| self.parts.get(&stream).is_some_and(|part| part.capture == *id));
        let ids: Vec<u64> = self.captures.keys().copied().filter(waited_for).collect();
        for id in &ids {
            if let Some(capture) = self.captures.get_mut(id) {
                capture.is_broken = true;
            }
        }
        if ids.is_empty() { Ok(()) } else { Err(Fault::NotWhileCapturing) }
    }

    /// Something is put on the stream. True where it was captured, and is not to be done.
    pub fn capture(&mut self, stream: u64, kind: NodeKind, steps: impl FnOnce() -> Vec<Step>) -> bool {
        let Some(captured) = self.captured(stream) else { return false };
        let (graph, ends) = (captured.graph, captured.ends.to_vec());
        // The graph of a capture may be gone where the program destroyed it: then what is captured goes nowhere.
        if let (Ok(node), Some(part)) = (self.graphs.add(graph, kind, steps(), &ends), self.parts.get_mut(&stream)) {
            part.ends = vec![node];
        }
        true
    }

    /// What was put last on the stream does more than was said. True where it was captured.
    pub fn extend_last(&mut self, stream: u64, secs: Span) -> bool {
        let Some(captured) = self.captured(stream) else { return false };
        if let Some(&last) = captured.ends.last() {
            self.graphs.lengthen(last, secs);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::graph::Load;
    use super::*;

    /// A kernel of a second.
    fn kernel(captures: &mut Captures, stream: u64) -> bool {
        captures.capture(stream, NodeKind::Kernel, || vec![Step::Run(Load { kernels: 1, secs: Span([1.0; 3]) })])
    }

    #[test]
    fn what_streams_of_a_capture_are_given_is_the_graph() {
        let mut captures = Captures::default();
        assert_eq!(captures.begin(0x100), Ok(()));
        let graph = captures.captured(0x100).expect("captured").graph;
        assert!(kernel(&mut captures, 0x100) && !kernel(&mut captures, 0x200));
        // Another stream takes part from when it waits for an event of this capture.
        let forked = captures.place(0x100).expect("captured");
        assert_eq!(captures.join(0x200, &forked), Ok(()));
        assert!(kernel(&mut captures, 0x200) && kernel(&mut captures, 0x100));
        assert_eq!(captures.end(0x200), Err(Fault::CaptureUnmatched));
        let there = captures.place(0x200).expect("captured");
        assert_eq!(captures.join(0x100, &there), Ok(()));
        assert!(kernel(&mut captures, 0x100));
        assert_eq!(captures.end(0x100), Ok(graph));
        let [first, side, main, last] = captures.graphs.nodes_of(graph).expect("a graph").try_into().expect("four nodes");
        assert_eq!(captures.graphs.edges_of(graph), Ok(vec![(first, side), (first, main), (main, last), (side, last)]));
        assert_eq!((captures.captured(0x100), captures.captured(0x200)), (None, None));
        // An event of a capture that is over is an ordinary one.
        assert_eq!(captures.join(0x200, &there), Ok(()));
        assert_eq!(captures.captured(0x200), None);
    }

    #[test]
    fn a_stream_that_does_not_come_back_fails_the_capture() {
        let mut captures = Captures::default();
        captures.begin(0x100).expect("nothing is captured");
        kernel(&mut captures, 0x100);
        let forked = captures.place(0x100).expect("captured");
        captures.join(0x200, &forked).expect("the same capture");
        kernel(&mut captures, 0x200);
        assert_eq!((captures.end(0x100), captures.graphs.count()), (Err(Fault::CaptureUnjoined), 0));
        // One that was given nothing need not.
        captures.begin(0x100).expect("nothing is captured");
        kernel(&mut captures, 0x100);
        let forked = captures.place(0x100).expect("captured");
        captures.join(0x200, &forked).expect("the same capture");
        kernel(&mut captures, 0x100);
        assert!(captures.end(0x100).is_ok());
    }

    #[test]
    fn a_program_may_say_what_a_stream_goes_on_after() {
        let mut captures = Captures::default();
        let graph = captures.graphs.create();
        let root = captures.graphs.add(graph, NodeKind::Empty, Vec::new(), &[]).expect("a node");
        assert_eq!(captures.begin_to_graph(0x100, graph, vec![root + 1]), Err(Fault::InvalidValue));
        assert_eq!(captures.begin_to_graph(0x100, graph, vec![root]), Ok(()));
        assert!(kernel(&mut captures, 0x100));
        let ends = captures.captured(0x100).expect("captured").ends.to_vec();
        let marker = captures.graphs.add(graph, NodeKind::Empty, Vec::new(), &ends).expect("a node");
        assert_eq!(captures.go_on_after(0x100, &[marker], true), Ok(()));
        assert_eq!(captures.captured(0x100).expect("captured").ends, [marker]);
        assert_eq!(captures.go_on_after(0x100, &[root], false), Ok(()));
        assert_eq!(captures.captured(0x100).expect("captured").ends, [marker, root]);
        assert_eq!(captures.go_on_after(0x100, &[root + 1], true), Err(Fault::InvalidValue));
        assert_eq!(captures.go_on_after(0x200, &[root], true), Err(Fault::IllegalState));
        assert_eq!(captures.end(0x100), Ok(graph));
        assert_eq!(captures.graphs.edges_of(graph), Ok(vec![(root, ends[0]), (ends[0], marker)]));
    }

    #[test]
    fn waiting_for_what_is_captured_spoils_it() {
        let mut captures = Captures::default();
        assert_eq!(captures.wait(None), Ok(()));
        assert_eq!(captures.begin(0), Err(Fault::NotWhileCapturing));
        assert_eq!(captures.end(0x100), Err(Fault::IllegalState));
        assert_eq!(captures.begin(0x100), Ok(()));
        assert_eq!(captures.begin(0x100), Err(Fault::IllegalState));
        assert_eq!(captures.wait(Some(0x200)), Ok(()));
        assert_eq!(captures.wait(Some(0x100)), Err(Fault::NotWhileCapturing));
        assert!(captures.captured(0x100).is_some_and(|captured| captured.is_broken));
        assert_eq!(captures.end(0x100), Err(Fault::CaptureBroken));
        assert_eq!(captures.begin(0x100), Ok(()));
        assert_eq!(captures.wait(None), Err(Fault::NotWhileCapturing));
    }
}

//! CUDA graphs: which streams are being captured, and how much work each graph holds.
//!
//! Nothing is computed, so a graph is a number of operations and the time that they take one after another: captured once, counted at each launch. A stream joins the capture of another
//! one when it waits for an event that was recorded there, as in CUDA, and leaves when the capture ends.

use std::collections::BTreeMap;

use super::fault::Fault;
use super::handles::Handles;
use super::span::Span;

#[derive(Debug)]
struct Capture {
    /// Where it began and must end.
    origin: u64,
    /// Its graph.
    graph: u64,
    /// Whether something was asked of a captured stream that cannot be.
    is_broken: bool,
}

/// What a graph comes to.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Load {
    /// How many operations.
    pub operations: u64,
    /// How long they take, one after another.
    pub secs: Span,
}

/// What is known of a stream that is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Captured {
    /// The capture, a number that no other one has.
    pub id: u64,
    /// The graph that it makes.
    pub graph: u64,
    /// Whether it failed already.
    pub is_broken: bool,
}

/// The graphs of a device and the captures that are going on.
#[derive(Debug, Default)]
pub struct Graphs {
    captures: BTreeMap<u64, Capture>,
    last_id: u64,
    /// Captures by the streams that take part.
    streams: BTreeMap<u64, u64>,
    graphs: Handles<Load>,
    /// Those that were made ready to be launched.
    executables: Handles<Load>,
}

impl Graphs {
    /// The graphs of that device.
    pub fn of_device(ordinal: u32) -> Self {
        Self { graphs: Handles::of_device(ordinal), executables: Handles::of_device(ordinal), ..Self::default() }
    }

    /// `cudaStreamBeginCapture`. The default stream cannot be captured.
    pub fn begin(&mut self, stream: u64) -> Result<(), Fault> {
        if stream == 0 {
            return Err(Fault::NotWhileCapturing);
        }
        if self.streams.contains_key(&stream) {
            return Err(Fault::IllegalState);
        }
        self.last_id += 1;
        let graph = self.graphs.insert(Load::default());
        self.captures.insert(self.last_id, Capture { origin: stream, graph, is_broken: false });
        self.streams.insert(stream, self.last_id);
        Ok(())
    }

    /// `cudaStreamEndCapture`: the graph.
    pub fn end(&mut self, stream: u64) -> Result<u64, Fault> {
        let id = *self.streams.get(&stream).ok_or(Fault::IllegalState)?;
        let capture = self.captures.get(&id).filter(|capture| capture.origin == stream).ok_or(Fault::CaptureUnmatched)?;
        let (graph, is_broken) = (capture.graph, capture.is_broken);
        self.captures.remove(&id);
        self.streams.retain(|_, &mut other| other != id);
        if is_broken {
            self.graphs.remove(graph)?;
            return Err(Fault::CaptureBroken);
        }
        Ok(graph)
    }

    /// The capture that the stream takes part in.
    pub fn captured(&self, stream: u64) -> Option<Captured> {
        let id = *self.streams.get(&stream)?;
        let capture = self.captures.get(&id)?;
        Some(Captured { id, graph: capture.graph, is_broken: capture.is_broken })
    }

    /// The stream waits for something in that capture: it takes part from here on.
    pub fn join(&mut self, stream: u64, id: u64) -> Result<(), Fault> {
        if self.captures.contains_key(&id) && *self.streams.entry(stream).or_insert(id) != id {
            return Err(Fault::IllegalState);
        }
        Ok(())
    }

    /// The host wants to wait for a stream, or for all of them: nothing that is captured ever comes about, and the capture is spoilt.
    pub fn wait(&mut self, stream: Option<u64>) -> Result<(), Fault> {
        let waited_for = |id: &u64| stream.is_none_or(|stream| self.streams.get(&stream) == Some(id));
        let ids: Vec<u64> = self.captures.keys().copied().filter(waited_for).collect();
        for id in &ids {
            if let Some(capture) = self.captures.get_mut(id) {
                capture.is_broken = true;
            }
        }
        if ids.is_empty() { Ok(()) } else { Err(Fault::NotWhileCapturing) }
    }

    /// Something is put on the stream. True where it was captured, and is not to be done.
    pub fn capture(&mut self, stream: u64, load: Load) -> bool {
        let Some(captured) = self.captured(stream) else { return false };
        if let Ok(graph) = self.graphs.get_mut(captured.graph) {
            graph.operations += load.operations;
            graph.secs += load.secs;
        }
        true
    }

    /// How many operations a graph holds.
    pub fn operations(&self, graph: u64) -> Result<u64, Fault> {
        self.graphs.get(graph).map(|load| load.operations).map_err(|_| Fault::InvalidValue)
    }

    /// `cudaGraphDestroy`.
    pub fn destroy(&mut self, graph: u64) -> Result<(), Fault> {
        self.graphs.remove(graph).map(drop).map_err(|_| Fault::InvalidValue)
    }

    /// `cudaGraphInstantiate`: the graph itself may go.
    pub fn instantiate(&mut self, graph: u64) -> Result<u64, Fault> {
        let load = *self.graphs.get(graph).map_err(|_| Fault::InvalidValue)?;
        Ok(self.executables.insert(load))
    }

    /// How many exist, made ready or not.
    pub fn count(&self) -> usize {
        self.graphs.count() + self.executables.count()
    }

    /// What a launch of it comes to.
    pub fn launched(&self, executable: u64) -> Result<Load, Fault> {
        self.executables.get(executable).copied().map_err(|_| Fault::InvalidValue)
    }

    /// `cudaGraphExecDestroy`.
    pub fn destroy_executable(&mut self, executable: u64) -> Result<(), Fault> {
        self.executables.remove(executable).map(drop).map_err(|_| Fault::InvalidValue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many operations of a second each.
    fn load(operations: u64) -> Load {
        Load { operations, secs: Span([operations as f64; 3]) }
    }

    #[test]
    fn what_streams_of_a_capture_are_given_is_the_graph() {
        let mut graphs = Graphs::default();
        assert_eq!(graphs.begin(0x100), Ok(()));
        let captured = graphs.captured(0x100).expect("captured");
        assert!(graphs.capture(0x100, load(1)) && !graphs.capture(0x200, load(1)));
        // Another stream takes part from when it waits for an event of this capture.
        assert_eq!(graphs.join(0x200, captured.id), Ok(()));
        assert!(graphs.capture(0x200, load(2)));
        assert_eq!(graphs.end(0x200), Err(Fault::CaptureUnmatched));
        let graph = graphs.end(0x100).expect("a graph");
        assert_eq!((graph, graphs.operations(graph)), (captured.graph, Ok(3)));
        assert_eq!((graphs.captured(0x100), graphs.captured(0x200)), (None, None));
        let executable = graphs.instantiate(graph).expect("an executable");
        assert_eq!(graphs.destroy(graph), Ok(()));
        assert_eq!(graphs.launched(executable), Ok(load(3)));
        assert_eq!(graphs.destroy_executable(executable), Ok(()));
        assert_eq!(graphs.launched(executable), Err(Fault::InvalidValue));
        // An event of a capture that is over is an ordinary one.
        assert_eq!(graphs.join(0x200, captured.id), Ok(()));
        assert_eq!(graphs.captured(0x200), None);
    }

    #[test]
    fn waiting_for_what_is_captured_spoils_it() {
        let mut graphs = Graphs::default();
        assert_eq!(graphs.wait(None), Ok(()));
        assert_eq!(graphs.begin(0), Err(Fault::NotWhileCapturing));
        assert_eq!(graphs.end(0x100), Err(Fault::IllegalState));
        assert_eq!(graphs.begin(0x100), Ok(()));
        assert_eq!(graphs.begin(0x100), Err(Fault::IllegalState));
        assert_eq!(graphs.wait(Some(0x200)), Ok(()));
        assert_eq!(graphs.wait(Some(0x100)), Err(Fault::NotWhileCapturing));
        assert!(graphs.captured(0x100).is_some_and(|captured| captured.is_broken));
        assert_eq!(graphs.end(0x100), Err(Fault::CaptureBroken));
        assert_eq!(graphs.begin(0x100), Ok(()));
        assert_eq!(graphs.wait(None), Err(Fault::NotWhileCapturing));
    }
}

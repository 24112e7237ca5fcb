//! Events: marks in a stream, with the moment when they are passed.

use super::capture::Place;
use super::clock::Moment;
use super::fault::Fault;
use super::handles::Handles;
use super::span::Span;

/// Whether an event may be asked for times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// The usual kind.
    Timed,
    /// Made with `cudaEventDisableTiming`: for ordering only.
    Untimed,
}

/// Where and when an event was last recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    /// In which stream, and when that passes it.
    pub moment: Moment,
    /// Where in the capture that the stream took part in.
    pub place: Option<Place>,
}

#[derive(Debug)]
struct Event {
    kind: EventKind,
    mark: Option<Mark>,
}

/// The events of a device.
#[derive(Debug, Default)]
pub struct Events {
    made: Handles<Event>,
}

impl Events {
    /// The events of that device.
    pub fn of_device(ordinal: u32) -> Self {
        Self { made: Handles::of_device(ordinal) }
    }

    /// Makes an event that was never recorded.
    pub fn create(&mut self, kind: EventKind) -> u64 {
        self.made.insert(Event { kind, mark: None })
    }

    /// Destroys it.
    pub fn destroy(&mut self, event: u64) -> Result<(), Fault> {
        self.made.remove(event).map(drop)
    }

    /// How many exist.
    pub fn count(&self) -> usize {
        self.made.count()
    }

    /// Records it.
    pub fn record(&mut self, event: u64, mark: Mark) -> Result<(), Fault> {
        self.made.get_mut(event)?.mark = Some(mark);
        Ok(())
    }

    /// Where it was last recorded. One that never was counts as passed, as in CUDA.
    pub fn mark(&self, event: u64) -> Result<Option<Mark>, Fault> {
        Ok(self.made.get(event)?.mark.clone())
    }

    /// Seconds from one to the other: both must be recorded, and not in a capture, and timed.
    pub fn elapsed(&self, start: u64, end: u64) -> Result<Span, Fault> {
        let time = |event: u64| {
            let event = self.made.get(event)?;
            if event.mark.as_ref().is_some_and(|mark| mark.place.is_some()) {
                return Err(Fault::CapturedEvent);
            }
            let mark = event.mark.as_ref().filter(|_| event.kind == EventKind::Timed);
            mark.map(|mark| mark.moment.time).ok_or(Fault::InvalidHandle)
        };
        Ok(time(end)? - time(start)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: f64) -> Mark {
        Mark { moment: Moment { time: Span([secs; 3]), ..Moment::default() }, place: None }
    }

    #[test]
    fn elapsed_time_needs_two_recorded_timed_events() {
        let mut events = Events::default();
        let (start, end, untimed) = (events.create(EventKind::Timed), events.create(EventKind::Timed), events.create(EventKind::Untimed));
        assert_eq!(events.elapsed(start, end), Err(Fault::InvalidHandle));
        for (event, secs) in [(start, 1.0), (end, 3.5), (untimed, 4.0)] {
            assert_eq!(events.record(event, at(secs)), Ok(()));
        }
        assert_eq!(events.elapsed(start, end), Ok(Span([2.5; 3])));
        assert_eq!(events.elapsed(end, start), Ok(Span([-2.5; 3])));
        assert_eq!(events.elapsed(start, untimed), Err(Fault::InvalidHandle));
    }

    #[test]
    fn a_destroyed_event_is_invalid() {
        let mut events = Events::default();
        let event = events.create(EventKind::Timed);
        assert_eq!(events.mark(event), Ok(None));
        assert_eq!(events.destroy(event), Ok(()));
        assert_eq!(events.destroy(event), Err(Fault::InvalidHandle));
        assert_eq!(events.record(event, at(1.0)), Err(Fault::InvalidHandle));
        assert_eq!(events.mark(event), Err(Fault::InvalidHandle));
    }
}

//! Events. An event that was recorded is complete: work is over as soon as it is put on a stream.
//!
//! Times are not modelled yet: the time between two events is 0.

use super::{Fault, Handles};

/// Whether an event may be asked for times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// The usual kind.
    Timed,
    /// Made with `cudaEventDisableTiming`: for ordering only.
    Untimed,
}

#[derive(Debug)]
struct Event {
    kind: EventKind,
    recorded: bool,
    /// The capture that it was last recorded in.
    capture: Option<u64>,
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
        self.made.insert(Event { kind, recorded: false, capture: None })
    }

    /// Destroys it.
    pub fn destroy(&mut self, event: u64) -> Result<(), Fault> {
        self.made.remove(event).map(drop)
    }

    /// Records it on a stream, which may be part of a capture.
    pub fn record(&mut self, event: u64, capture: Option<u64>) -> Result<(), Fault> {
        let event = self.made.get_mut(event)?;
        event.recorded = true;
        event.capture = capture;
        Ok(())
    }

    /// The capture that it was last recorded in.
    pub fn capture(&self, event: u64) -> Result<Option<u64>, Fault> {
        Ok(self.made.get(event)?.capture)
    }

    /// Fails for an event that does not exist. One that was never recorded counts as complete, as in CUDA.
    pub fn check(&self, event: u64) -> Result<(), Fault> {
        self.made.get(event).map(drop)
    }

    /// Milliseconds from one to the other: both must be recorded and timed.
    pub fn elapsed_millis(&self, start: u64, end: u64) -> Result<f32, Fault> {
        for event in [self.made.get(start)?, self.made.get(end)?] {
            if !event.recorded || event.kind == EventKind::Untimed {
                return Err(Fault::InvalidHandle);
            }
        }
        Ok(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elapsed_time_needs_two_recorded_timed_events() {
        let mut events = Events::default();
        let (start, end, untimed) = (events.create(EventKind::Timed), events.create(EventKind::Timed), events.create(EventKind::Untimed));
        assert_eq!(events.elapsed_millis(start, end), Err(Fault::InvalidHandle));
        for event in [start, end, untimed] {
            assert_eq!(events.record(event, None), Ok(()));
        }
        assert_eq!(events.elapsed_millis(start, end), Ok(0.0));
        assert_eq!(events.elapsed_millis(start, untimed), Err(Fault::InvalidHandle));
    }

    #[test]
    fn a_destroyed_event_is_invalid() {
        let mut events = Events::default();
        let event = events.create(EventKind::Timed);
        assert_eq!(events.check(event), Ok(()));
        assert_eq!(events.destroy(event), Ok(()));
        assert_eq!(events.destroy(event), Err(Fault::InvalidHandle));
        assert_eq!(events.record(event, None), Err(Fault::InvalidHandle));
        assert_eq!(events.check(event), Err(Fault::InvalidHandle));
    }
}

//! Streams: handles with a priority. What is put on one is over at once, so a stream has no queue.

use super::fault::Fault;
use super::handles::Handles;

/// The lowest priority, CUDA's 0. Lower numbers go first.
pub const LEAST_PRIORITY: i32 = 0;
/// The highest priority of every architecture since Volta.
pub const GREATEST_PRIORITY: i32 = -5;

#[derive(Debug)]
struct Stream {
    priority: i32,
    flags: u32,
}

/// The streams of a device. The default stream (0, 1) and the calling thread's (2) always exist.
#[derive(Debug, Default)]
pub struct Streams {
    made: Handles<Stream>,
}

impl Streams {
    const BUILT_IN: std::ops::RangeInclusive<u64> = 0..=2;

    /// The streams of that device.
    pub fn of_device(ordinal: u32) -> Self {
        Self { made: Handles::of_device(ordinal) }
    }

    /// Makes a stream; a priority outside the range is taken to its end, as CUDA does.
    pub fn create(&mut self, flags: u32, priority: i32) -> u64 {
        self.made.insert(Stream { priority: priority.clamp(GREATEST_PRIORITY, LEAST_PRIORITY), flags })
    }

    /// Destroys a stream that was made; the built-in ones cannot be.
    pub fn destroy(&mut self, stream: u64) -> Result<(), Fault> {
        self.made.remove(stream).map(drop)
    }

    /// How many of those that were made exist.
    pub fn count(&self) -> usize {
        self.made.count()
    }

    /// Fails for a stream that does not exist.
    pub fn check(&self, stream: u64) -> Result<(), Fault> {
        if Self::BUILT_IN.contains(&stream) { Ok(()) } else { self.made.get(stream).map(drop) }
    }

    /// Its priority.
    pub fn priority(&self, stream: u64) -> Result<i32, Fault> {
        if Self::BUILT_IN.contains(&stream) { Ok(LEAST_PRIORITY) } else { Ok(self.made.get(stream)?.priority) }
    }

    /// The flags that it was made with.
    pub fn flags(&self, stream: u64) -> Result<u32, Fault> {
        if Self::BUILT_IN.contains(&stream) { Ok(0) } else { Ok(self.made.get(stream)?.flags) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_priority_is_taken_to_the_range() {
        let mut streams = Streams::default();
        let (high, low) = (streams.create(1, -100), streams.create(0, 3));
        assert_eq!(streams.priority(high), Ok(GREATEST_PRIORITY));
        assert_eq!(streams.priority(low), Ok(LEAST_PRIORITY));
        assert_eq!((streams.flags(high), streams.flags(low)), (Ok(1), Ok(0)));
        assert_eq!(streams.priority(0), Ok(LEAST_PRIORITY));
    }

    #[test]
    fn a_destroyed_stream_is_invalid_and_its_handle_is_not_used_again() {
        let mut streams = Streams::default();
        let stream = streams.create(0, 0);
        assert_eq!(streams.check(stream), Ok(()));
        assert_eq!(streams.destroy(stream), Ok(()));
        assert_eq!(streams.check(stream), Err(Fault::InvalidHandle));
        assert_eq!(streams.destroy(stream), Err(Fault::InvalidHandle));
        assert_ne!(streams.create(0, 0), stream);
        assert_eq!(streams.destroy(0), Err(Fault::InvalidHandle));
    }
}

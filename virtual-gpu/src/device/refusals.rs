//! Requests that the device had no memory for.
//!
//! A request that fails is not the end of a program: PyTorch's caching allocator gives back what it holds unused and asks for the
//! same again. So the same request, asked again with nothing else between, is one: it was met after all, or it was refused.

use virtual_gpu_protocol::{Refusal, Refusals};

use super::address_space::LARGE_GRANULE_BYTES;

/// What became of the requests that failed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct RefusalBook {
    closed: Refusals,
    /// One that may yet be asked again.
    open: Option<Refusal>,
}

impl RefusalBook {
    /// A request that fitted.
    pub fn met(&mut self, bytes: u64) {
        if self.is_open_for(bytes) {
            self.open = None;
            self.closed.met_later += 1;
        } else {
            self.close();
        }
    }

    /// A request that did not fit.
    pub fn refuse(&mut self, bytes: u64, free_bytes: u64) {
        if !self.is_open_for(bytes) {
            self.close();
        }
        self.open = Some(Refusal { requested_bytes: whole(bytes), free_bytes });
    }

    /// Whether the last request failed, and may yet be asked again.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// What there is to say if nothing is asked again.
    pub fn settled(mut self) -> Refusals {
        self.close();
        self.closed
    }

    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            self.closed.refused += 1;
            self.closed.last = Some(open);
        }
    }

    fn is_open_for(&self, bytes: u64) -> bool {
        self.open.is_some_and(|open| open.requested_bytes == whole(bytes))
    }
}

/// What a request takes at least.
fn whole(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(LARGE_GRANULE_BYTES).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn refusal(requested_bytes: u64, free_bytes: u64) -> Option<Refusal> {
        Some(Refusal { requested_bytes, free_bytes })
    }

    #[test]
    fn a_request_that_is_met_when_asked_again_was_not_refused() {
        let mut refusals = RefusalBook::default();
        refusals.refuse(4 * GIB, GIB);
        assert_eq!((refusals.settled().refused, refusals.settled().last), (1, refusal(4 * GIB, GIB)));
        assert!(refusals.is_open());
        refusals.met(4 * GIB);
        assert!(!refusals.is_open());
        // The same size later is a request of its own.
        refusals.met(4 * GIB);
        assert_eq!((refusals.settled().refused, refusals.settled().met_later, refusals.settled().last), (0, 1, None));
    }

    #[test]
    fn the_same_request_refused_twice_is_one() {
        let mut refusals = RefusalBook::default();
        refusals.refuse(4 * GIB, GIB);
        refusals.refuse(4 * GIB, 2 * GIB);
        assert_eq!((refusals.settled().refused, refusals.settled().last), (1, refusal(4 * GIB, 2 * GIB)));
        // Something else between: the program went on without it.
        refusals.met(GIB);
        refusals.met(4 * GIB);
        assert_eq!((refusals.settled().refused, refusals.settled().met_later), (1, 0));
        refusals.refuse(3 * GIB, GIB);
        assert_eq!((refusals.settled().refused, refusals.settled().last), (2, refusal(3 * GIB, GIB)));
        // One that is met leaves the one before it standing.
        refusals.met(3 * GIB);
        assert_eq!((refusals.settled().refused, refusals.settled().last), (1, refusal(4 * GIB, 2 * GIB)));
    }

    #[test]
    fn an_impossible_request_is_refused_like_any_other() {
        let mut refusals = RefusalBook::default();
        refusals.refuse(u64::MAX, GIB);
        assert_eq!(refusals.settled().last, refusal(u64::MAX, GIB));
    }
}

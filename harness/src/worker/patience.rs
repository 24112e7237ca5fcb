//! How long is waited for a case, and for each of its ranks.

use std::time::Duration;

/// How long is waited for a case.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// For all of it, where there is a limit.
    pub(crate) whole: Option<Duration>,
    /// For a sign of life of each of several ranks.
    pub(crate) rank: Duration,
}

/// One that works takes processor time or reads something many times a second. A machine that swaps, or whose disk is a network away, may stand still for a few.
pub(crate) const RANK_TIMEOUT_SECS: u32 = 10;

impl Default for Patience {
    fn default() -> Self {
        Self { whole: None, rank: Duration::from_secs(RANK_TIMEOUT_SECS.into()) }
    }
}

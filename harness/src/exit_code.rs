//! What `lowmem` tells the shell.

/// The exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitCode {
    /// Done.
    Done = 0,
    /// Our fault.
    Fault = 1,
    /// Wrong usage or input.
    BadInput = 2,
    /// Nothing fits the budget.
    NothingFits = 3,
    /// Some cases failed for another reason than memory.
    CasesFailed = 4,
    /// A comparison found something that got worse than it may, or a document that is not what its runs give.
    Differs = 5,
    /// Ended by Ctrl-C, as shells count it.
    Interrupted = 130,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

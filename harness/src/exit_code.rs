//! What `lowmem` tells the shell.

use std::fmt::Write;

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
    /// Memory in use crossed what `lowmem monitor --alarm` was told.
    Alarm = 6,
    /// Ended by Ctrl-C, as shells count it.
    Interrupted = 130,
}

impl ExitCode {
    const ALL: [Self; 8] =
        [Self::Done, Self::Fault, Self::BadInput, Self::NothingFits, Self::CasesFailed, Self::Differs, Self::Alarm, Self::Interrupted];

    /// In words.
    fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Fault => "our fault, or the system's: a full disk, a worker that crashed",
            Self::BadInput => "wrong usage or input: nothing was run",
            Self::NothingFits => "nothing fits the GPU or the machine's memory",
            Self::CasesFailed => "some cases failed for another reason than memory",
            Self::Differs => "a comparison found something that got worse, or a document that is not what its runs give",
            Self::Alarm => "an alarm of `monitor` was raised",
            Self::Interrupted => "interrupted: what was done is kept",
        }
    }

    /// All of them, as the end of `lowmem --help` says them.
    pub(crate) fn help() -> String {
        Self::ALL.into_iter().fold("Exit codes:".to_owned(), |mut text, code| {
            let _ = write!(text, "\n  {:<3}  {}", code as u8, code.meaning());
            text
        })
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

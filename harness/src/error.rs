//! What ends a command early: a wrong input, with what to change, or a fault of ours.

use std::path::Path;

use engine_protocol::ConfigError;

use crate::exit_code::ExitCode;

/// Why a command ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// What was asked for makes no sense or is not there.
    #[error("{0}")]
    BadInput(String),
    /// A configuration that is refused.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// A run directory.
    #[error(transparent)]
    Run(#[from] reports::Error),
    /// The user wants to end.
    #[error("interrupted")]
    Interrupted,
    /// Ours.
    #[error("{0}")]
    Fault(String),
}

impl Error {
    /// A wrong input.
    pub(crate) fn input(message: impl Into<String>) -> Self {
        Self::BadInput(message.into())
    }

    /// A file that could not be read or written.
    pub(crate) fn io(path: &Path, error: std::io::Error) -> Self {
        Self::Fault(format!("{}: {error}", path.display()))
    }

    /// What the shell is told.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Error::BadInput(_) | Error::Config(_) => ExitCode::BadInput,
            Error::Interrupted => ExitCode::Interrupted,
            Error::Run(error) if error.is_bad_input() => ExitCode::BadInput,
            Error::Run(_) | Error::Fault(_) => ExitCode::Fault,
        }
    }
}

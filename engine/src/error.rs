//! What can go wrong in the engine.

use std::path::Path;

use engine_protocol::ConfigError;
use tch::TchError;

/// The engine's result.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong in the engine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// libtorch refused: most often because memory ran out, see [`Error::is_out_of_memory`].
    #[error("{}", without_backtrace(.0))]
    Torch(#[from] TchError),
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The input cannot be used: what is wrong and what to do.
    #[error("{0}")]
    Input(String),
}

impl Error {
    /// A file that could not be read or written.
    pub(crate) fn file(path: &Path, source: std::io::Error) -> Self {
        Self::File { path: path.display().to_string(), source }
    }

    /// A file or folder that cannot be used, and why.
    pub(crate) fn at(path: &Path, what: &str) -> Self {
        Self::Input(format!("{}: {what}", path.display()))
    }

    /// Whether the GPU's memory ran out. libtorch says so in the text of its error alone.
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, Error::Torch(TchError::Torch(text)) if text.contains("CUDA out of memory"))
            || matches!(self, Error::Torch(TchError::Torch(text)) if text.contains("CUDA error: out of memory"))
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::Input(error.to_string())
    }
}

/// libtorch's own words, without tch's before and the C++ stack behind them.
fn without_backtrace(error: &TchError) -> String {
    let text = match error {
        TchError::Torch(text) => text.clone(),
        other => other.to_string(),
    };
    text.split("\nException raised from").next().unwrap_or_default().trim_end().to_owned()
}

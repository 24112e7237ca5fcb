//! What may go wrong with a run directory: reading it, and writing its report.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use engine_protocol::{OLDEST_SCHEMA, SCHEMA};

/// What went wrong with a run directory.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no run here.
    #[error("{} is not a run directory: it has no {file}", dir.display())]
    NotARun {
        /// The folder.
        dir: PathBuf,
        /// What is missing in it.
        file: &'static str,
    },
    /// A line or a file that is not what it should be.
    #[error("{path}:{line}: {source}", path = path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
    /// A line or a file in a schema that this program does not read.
    #[error(
        "{path}:{line}: written by {writer} with record schema {schema}; this program reads schema {OLDEST_SCHEMA} to {SCHEMA}: use {writer} for this \
         directory, or run the cases again into another --out",
        path = path.display(), writer = version.as_ref().map_or_else(|| "another lowmem".to_owned(), |version| format!("lowmem {version}"))
    )]
    Schema {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The schema that it says it has.
        schema: u64,
        /// The program that wrote it, where it says so.
        version: Option<String>,
    },
    /// A plot that could not be drawn.
    #[error("plot {name}: {message}")]
    Plot {
        /// The plot's name.
        name: &'static str,
        /// Why.
        message: String,
    },
    /// The page could not be filled in.
    #[error("report.html: {0}")]
    Page(#[from] askama::Error),
    /// The page's data could not be made.
    #[error("the page's data: {0}")]
    Data(#[from] serde_json::Error),
    /// A table could not be written as CSV.
    #[error("results.csv: {0}")]
    Csv(#[from] csv::Error),
    /// A run could not be written as Parquet.
    #[error("parquet: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
}

impl Error {
    /// An error of the file system, with the file.
    pub fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    /// Whether the directory or what is in it is at fault, and not this program.
    pub fn is_bad_input(&self) -> bool {
        match self {
            Error::NotARun { .. } | Error::Parse { .. } | Error::Schema { .. } => true,
            Error::Io { source, .. } => matches!(source.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
            Error::Plot { .. } | Error::Page(_) | Error::Data(_) | Error::Csv(_) | Error::Parquet(_) => false,
        }
    }
}

//! What can go wrong in the engine.

use std::io::ErrorKind;
use std::path::Path;

use engine_protocol::{ConfigError, HostShortage};
use tch::TchError;

/// The engine's result.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong in the engine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// libtorch refused: most often because memory ran out, see [`Error::is_out_of_memory`].
    #[error("{}", without_backtrace(.0))]
    Torch(#[source] TchError),
    /// The host has too little memory left.
    #[error("{0}")]
    HostMemory(HostShortage),
    /// A file could not be read or written.
    #[error("{}", untrusted::line(&format!("{path}: {source}")))]
    File {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The input cannot be used: what is wrong and what to do. What a checkpoint calls something goes into it [`untrusted::shown`], so that it is short; that it does nothing to
    /// a terminal is seen to here.
    #[error("{}", untrusted::line(.0))]
    Input(String),
    /// Ranks that work on one video are not in step, or one of them is gone.
    #[error("{0}")]
    Ranks(String),
    /// What was computed is NaN or infinite.
    #[error("{what}{}", if cause.is_empty() { String::new() } else { format!(": {cause}") })]
    NotFinite {
        /// What of it, and when.
        what: String,
        /// Where that comes from as far as is known, and what to do; empty where nobody has looked yet.
        cause: String,
    },
}

impl Error {
    /// A file that could not be read or written.
    pub(crate) fn file(path: &Path, source: std::io::Error) -> Self {
        match source.kind() {
            // Of a file that is mapped, no address space was left.
            ErrorKind::OutOfMemory => Self::lacks_host_memory(None, false),
            _ => Self::File { path: path.display().to_string(), source },
        }
    }

    /// The host did not give so many bytes. What it could still give is looked up now: as the error passes, memory is let go of.
    pub(crate) fn lacks_host_memory(requested_bytes: Option<u64>, is_page_locked: bool) -> Self {
        Self::HostMemory(HostShortage { requested_bytes, available_bytes: host_memory::available_bytes(), is_page_locked })
    }

    /// A file or folder that cannot be used, and why.
    pub(crate) fn at(path: &Path, what: &str) -> Self {
        Self::Input(format!("{}: {what}", path.display()))
    }

    /// Whether the GPU's memory ran out. libtorch says so in the text of its error alone: its two allocators, the driver, and the libraries whose own memory does not come from
    /// them.
    pub fn is_out_of_memory(&self) -> bool {
        const SAID: [&str; 5] = [
            "CUDA out of memory",
            "would exceed allowed memory. (out of memory)",
            "CUDA error: out of memory",
            "CUBLAS_STATUS_ALLOC_FAILED",
            "CUDNN_STATUS_ALLOC_FAILED",
        ];
        matches!(self, Error::Torch(TchError::Torch(text)) if SAID.iter().any(|said| text.contains(said)))
    }
}

impl From<TchError> for Error {
    fn from(error: TchError) -> Self {
        match &error {
            TchError::Torch(text) if lacks_host_memory(text) => Self::lacks_host_memory(tried_to_allocate(text), false),
            _ => Self::Torch(error),
        }
    }
}

/// Whether libtorch says that the host's memory ran out: its allocator for the CPU, or the C++ runtime, refused.
fn lacks_host_memory(text: &str) -> bool {
    ["DefaultCPUAllocator: ", "std::bad_alloc"].iter().any(|words| text.contains(words))
}

/// The bytes that libtorch's allocator for the CPU names: `you tried to allocate 141557760 bytes`.
fn tried_to_allocate(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once("you tried to allocate ")?;
    rest.split_whitespace().next()?.parse().ok()
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
    let stack = ["\nException raised from", "\nframe #", "\nC++ CapturedTraceback"];
    let end = stack.iter().filter_map(|begin| text.find(begin)).min().unwrap_or(text.len());
    text[..end].trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_lacks_is_told_apart_from_what_the_gpu_lacks() {
        let of = |text: &str| Error::from(TchError::Torch(text.into()));
        let refused = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 141557760 bytes. \
                       Error code 12 (Cannot allocate memory)\nframe #0: c10::ThrowEnforceNotMet + 0x6a";
        assert!(matches!(of(refused), Error::HostMemory(HostShortage { requested_bytes: Some(141_557_760), .. })));
        assert!(matches!(of("std::bad_alloc"), Error::HostMemory(HostShortage { requested_bytes: None, .. })));
        assert!(of("CUDA out of memory. Tried to allocate 1.50 GiB.").is_out_of_memory());
        assert!(
            of("Allocation on device 0 would exceed allowed memory. (out of memory)\nCurrently allocated     : 30.53 GiB")
                .is_out_of_memory()
        );
        assert!(of("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasGemmEx( handle, opa, opb`").is_out_of_memory());
        assert!(!of("CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasGemmEx( handle, opa, opb`").is_out_of_memory());
    }

    #[test]
    fn no_stack_of_c_plus_plus_is_told() {
        for stack in ["\nException raised from f at g.cpp:1\nframe #0", "\nframe #0: f + 0x6a", "\n\nframe #0: f"] {
            let error = Error::from(TchError::Torch(format!("shapes differ{stack}")));
            assert_eq!(error.to_string(), "shapes differ");
        }
    }
}

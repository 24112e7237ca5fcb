//! The machine at hand.

use std::fs;

use engine_protocol::{Dtype, ModelSpec, gib};
use reports::Host;

use crate::error::Error;
use crate::model::weight_bytes;

/// What this machine is.
pub(crate) fn describe() -> Host {
    let name = rustix::system::uname();
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor =
        cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim().to_owned()));
    Host {
        system: format!("{} {}", name.sysname().to_string_lossy(), name.release().to_string_lossy()),
        processor,
        cores: cores(),
        memory_bytes: host_memory::meminfo_bytes("MemTotal"),
    }
}

/// Processors that may be used.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The program of a process, harmless for a terminal; nothing where it is not this machine's to show.
pub(crate) fn program_of(process: u32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{process}/comm")).ok()?;
    Some(untrusted::line(name.trim()))
}

/// Refuses a model whose weights this machine's memory does not hold.
pub(crate) fn check_weights_fit(model: &ModelSpec, dtype: Dtype) -> Result<(), Error> {
    let (needed, available) = (weight_bytes(model, dtype), host_memory::available_bytes().unwrap_or(u64::MAX));
    if needed <= available {
        return Ok(());
    }
    Err(Error::input(format!(
        "device=cpu: the weights of {} take {:.1} GiB in {}, and this machine has {:.1} GiB of memory available: use --device virtual or cuda, or a \
         smaller model",
        model.name,
        gib(needed),
        dtype.name(),
        gib(available)
    )))
}

//! What this machine's processor reaches: measured when it is first needed, and kept in the user's configuration folder.

use std::fs;
use std::path::{Path, PathBuf};

use engine_protocol::{Config, Device, HostRates, OffloadTextEncoder};

use crate::error::Error;
use crate::testbed::Testbed;
use crate::worker::{self, Launcher};
use crate::{data, host};

/// The file, in the user's configuration folder.
const FILE: &str = "host.yaml";

/// The rates that these cases need on `testbed`: those that the virtual GPU's host leaves a stage out of.
pub(crate) fn for_cases<'a>(testbed: &Testbed, launcher: &Launcher, cases: impl IntoIterator<Item = &'a Config>) -> Option<HostRates> {
    let on_host = |config: &Config| config.offload_text_encoder == OffloadTextEncoder::Cpu;
    let are_needed = testbed.device == Device::Virtual && !launcher.is_replaced() && cases.into_iter().any(on_host);
    are_needed.then(known).flatten()
}

/// The rates of this machine. Nothing, with a word about it, where they cannot be measured: then stages on the CPU have no time.
fn known() -> Option<HostRates> {
    let file = data::user_folder().map(|folder| folder.join(FILE));
    let processor = host::describe().processor.unwrap_or_default();
    let kept = file.as_ref().and_then(|file| read(file).ok());
    if let Some(rates) = kept.filter(|rates| rates.processor == processor && rates.threads <= host::cores()) {
        return Some(rates);
    }
    tell!("Measuring this machine's processor, for times of what runs on it (once, a few seconds).");
    match worker::host_rates(&processor).and_then(|rates| keep(file, &rates).map(|()| rates)) {
        Ok(rates) => Some(rates),
        Err(error) => {
            tell!("warning: the processor could not be measured, so stages on the CPU have no time: {error}");
            None
        }
    }
}

fn read(file: &Path) -> Result<HostRates, Error> {
    data::parse(file, &data::read(file)?)
}

/// Writes them down. Without a folder they are measured again the next time.
fn keep(file: Option<PathBuf>, rates: &HostRates) -> Result<(), Error> {
    let Some(file) = file else { return Ok(()) };
    let failed = |why: &dyn std::fmt::Display| Error::input(format!("{}: {why}", file.display()));
    let text = serde_yaml::to_string(rates).map_err(|error| failed(&error))?;
    let folder = file.parent().expect("a file in a folder");
    fs::create_dir_all(folder).and_then(|()| fs::write(&file, text)).map_err(|error| failed(&error))
}

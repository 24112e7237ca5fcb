//! What this machine's processor reaches: measured when it is first needed, and kept.

use engine_protocol::{Config, Device, HostRates, OffloadTextEncoder};

use crate::host;
use crate::kept_rates::KeptRates;
use crate::testbed::Testbed;
use crate::worker::{self, Launcher};

/// The rates that these cases need on `testbed`: those that the virtual GPU's host leaves a stage out of.
pub(crate) fn for_cases<'a>(testbed: &Testbed, launcher: &Launcher, cases: impl IntoIterator<Item = &'a Config>) -> Option<HostRates> {
    let on_host = |config: &Config| config.offload_text_encoder == OffloadTextEncoder::Cpu;
    let are_needed = testbed.device == Device::Virtual && !launcher.is_replaced() && cases.into_iter().any(on_host);
    are_needed.then(known).flatten()
}

/// The rates of this machine. Nothing, with a word about it, where they cannot be measured: then stages on the CPU have no time.
fn known() -> Option<HostRates> {
    let processor = host::describe().processor.unwrap_or_default();
    let is_of_this = |rates: &HostRates| rates.processor == processor && rates.threads <= host::cores();
    if let Some(rates) = KeptRates::load().processor.filter(is_of_this) {
        return Some(rates);
    }
    tell!("Measuring this machine's processor, for times of what runs on it (once, a few seconds).");
    let keep = |rates: HostRates| KeptRates { processor: Some(rates.clone()), ..KeptRates::load() }.save().map(|()| rates);
    match worker::host_rates(&processor).and_then(keep) {
        Ok(rates) => Some(rates),
        Err(error) => {
            tell!("warning: the processor could not be measured, so stages on the CPU have no time: {error}");
            None
        }
    }
}

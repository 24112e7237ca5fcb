//! What cases on a real GPU will take, said before the first one: time, loading included, and memory of the host.

use std::collections::{BTreeMap, BTreeSet};

use engine_protocol::{Device, gib};
use reports::rough_time;

use super::alike::{OF_DECODE, text_without};
use super::expand::Case;
use super::forecast::Forecasts;
use crate::error::Error;
use crate::host;
use crate::model::{Models, weight_bytes};
use crate::shared_weights::{SharedWeights, weights_of};
use crate::testbed::Testbed;
use crate::worker;

/// Values that a core draws a second: 16 cores of the host of a real H100 took 40 to 45 s for the 20 thousand million of Wan2.1 14B and its text encoder.
const VALUES_PER_CORE_SEC: f64 = 29e6;
/// Bytes of weights that are copied to where they live a second. That host copied 8 to 9 GB/s from ordinary memory; a rule makes it half of that, since memory is
/// new and part of it is page-locked.
const COPIED_BYTES_PER_SEC: f64 = 4e9;
/// From a worker's start to its first stage, and from the last one to its end: 1 to 4 s on that machine.
const START_SECS: f64 = 3.0;

/// Flags that move no weights, beside those of decoding: cases that differ in them alone have the same on the host.
const NOT_OF_PLACES: [&str; 2] = ["attn_type", "resolution"];

/// How long cases take together, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Duration {
    /// Encoding, sampler steps and decoding, by the forecast.
    pub(crate) computing: f64,
    /// Making weights from the seed.
    pub(crate) making: f64,
    /// Starting, and copying weights to where they live.
    pub(crate) loading: f64,
}

impl Duration {
    /// All of it.
    pub(crate) fn total(self) -> f64 {
        self.computing + self.making + self.loading
    }

    /// Of `cases` in this order; nothing where nothing is forecast. Weights that are shared are made once.
    pub(crate) fn of(
        cases: &[&Case],
        forecasts: &Forecasts,
        models: &Models,
        cores: usize,
        is_shared: bool,
    ) -> Result<Option<Self>, Error> {
        let Some(computing) = forecasts.secs_of_all(cases) else { return Ok(None) };
        let (mut making, mut loading) = (0.0, 0.0);
        let mut made = BTreeSet::new();
        for Case { config, .. } in cases {
            let bytes = weight_bytes(models.get(&config.model)?, config.dtype) as f64;
            if made.insert(weights_of(config)) || !is_shared {
                making += bytes / config.dtype.bytes() as f64 / (VALUES_PER_CORE_SEC * cores as f64);
            }
            loading += START_SECS + bytes / COPIED_BYTES_PER_SEC;
        }
        Ok(Some(Self { computing, making, loading }))
    }
}

/// What is said of `cases` before the first one runs on a real GPU; nothing of other devices.
pub(super) fn sentences(
    testbed: &Testbed,
    models: &Models,
    cases: &[&Case],
    forecasts: &Forecasts,
    shared: Option<&SharedWeights>,
) -> Result<Vec<String>, Error> {
    if testbed.device != Device::Cuda || cases.is_empty() {
        return Ok(Vec::new());
    }
    let mut said = Vec::new();
    if let Some(time) = Duration::of(cases, forecasts, models, host::cores(), shared.is_some())? {
        let unknown = cases.iter().filter(|case| forecasts.of_case(case).is_none()).count();
        let but = if unknown > 0 { format!(" What {unknown} of the cases take is not known, and left out.") } else { String::new() };
        let once = if shared.is_some() { "once" } else { "for each case" };
        said.push(format!(
            "Estimated for all {} cases: {}. Of it {} are encoding, sampler steps and decoding by the forecast; making weights {once} on {} cores takes {}, \
             starting and copying them {}.{but}",
            cases.len(),
            rough_time(time.total()),
            rough_time(time.computing),
            host::cores(),
            rough_time(time.making),
            rough_time(time.loading),
        ));
    }
    said.extend(host_memory(testbed, models, cases, shared));
    Ok(said)
}

/// What the largest case takes of the host's memory, and what all share; nothing where a plan cannot be had.
fn host_memory(testbed: &Testbed, models: &Models, cases: &[&Case], shared: Option<&SharedWeights>) -> Option<String> {
    let mut distinct = BTreeMap::new();
    for case in cases {
        let places = text_without(&case.config, &[&NOT_OF_PLACES[..], &OF_DECODE].concat()).ok()?;
        distinct.entry(places).or_insert(*case);
    }
    let plan = |case: &Case| {
        let request = testbed.request(&case.name, models.get(&case.config.model).ok()?, &case.config, None);
        let report = worker::plan(&request).ok()?;
        Some((report.host().peak_bytes?, report.host().pinned_peak_bytes, case.name.clone()))
    };
    let plans: Option<Vec<_>> = distinct.into_values().map(plan).collect();
    let (bytes, locked, name) = plans?.into_iter().max()?;
    let shared_bytes = shared.filter(|shared| shared.is_in_memory).map_or(0, |shared| shared.bytes);
    let beside = if shared_bytes > 0 { format!(", and {:.1} GiB are those that all share", gib(shared_bytes)) } else { String::new() };
    let mut text = format!(
        "Memory of the host: the largest case ({name}) is predicted to take {:.1} GiB of RAM, {:.1} of them page-locked{beside}.",
        gib(bytes),
        gib(locked)
    );
    if let Some(available) = host_memory::available_bytes() {
        text += &format!(" {:.1} GiB are available.", gib(available));
        if bytes + shared_bytes > available {
            text += " That is too little: cases may be killed for lack of memory.";
        }
    }
    Some(text)
}

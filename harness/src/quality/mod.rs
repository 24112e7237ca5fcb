//! What a saving costs in quality: a case that gives some up is run to its video, and so is the same video without that; then the two are compared.

mod metrics;
mod numbers;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use engine_protocol::{Config, Outcome, Quality, Request};

use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::model::Models;
use crate::scratch::Scratch;
use crate::testbed::Testbed;
use crate::worker::{self, Launcher, Patience};
use metrics::{psnr, squared_error, ssim};
use numbers::Numbers;

/// What runs videos.
#[derive(Debug)]
pub(crate) struct Videos<'a> {
    testbed: &'a Testbed,
    launcher: &'a Launcher,
    models: &'a Models,
    interrupt: &'a Interrupt,
    scratch: Scratch,
    /// Videos that give nothing up, by what is in them.
    exact: HashMap<String, PathBuf>,
}

impl<'a> Videos<'a> {
    /// Videos on what computes values.
    pub(crate) fn new(testbed: &'a Testbed, launcher: &'a Launcher, models: &'a Models, interrupt: &'a Interrupt) -> Result<Self, Error> {
        Ok(Self { testbed, launcher, models, interrupt, scratch: Scratch::new()?, exact: HashMap::new() })
    }

    /// The quality of a case whose configuration gives some up against the `exact` one.
    pub(crate) fn quality(&mut self, case: &str, config: &Config, exact: &Config) -> Result<Quality, Error> {
        let key = serde_json::to_string(exact).map_err(|error| Error::Fault(format!("a configuration is no JSON: {error}")))?;
        let reference = match self.exact.get(&key) {
            Some(path) => path.clone(),
            None => {
                let path = self.scratch.path().join(format!("exact-{}.safetensors", self.exact.len()));
                self.make(&format!("{case} without loss"), exact, &path)?;
                self.exact.insert(key, path.clone());
                path
            }
        };
        let path = self.scratch.path().join("case.safetensors");
        self.make(case, config, &path)?;
        let compared = self.compared(case, &path, &reference);
        std::fs::remove_file(&path).map_err(|error| Error::io(&path, error))?;
        compared
    }

    /// Makes a video.
    fn make(&self, case: &str, config: &Config, path: &Path) -> Result<(), Error> {
        // A video needs all of its steps.
        let config = Config { steps_measured: None, ..config.clone() };
        let request =
            Request { output: Some(path.to_owned()), ..self.testbed.request(case, self.models.get(&config.model)?, &config, None) };
        let Some(record) = worker::run_case(self.launcher, self.testbed, &request, Patience::default(), self.interrupt, &mut |_| {})?
        else {
            return Err(Error::Interrupted);
        };
        if record.outcome == Outcome::Ok {
            return Ok(());
        }
        let why = record.error.unwrap_or_else(|| record.outcome.name().into());
        Err(Error::Fault(format!("{case}: its quality is not known, since its video was not made: {why}")))
    }

    /// How near one video is to another of the same size.
    fn compared(&self, case: &str, path: &Path, reference: &Path) -> Result<Quality, Error> {
        let (mut ours, mut theirs) = (Numbers::open(path)?, Numbers::open(reference)?);
        let (latents, exact_latents) = (ours.latents()?, theirs.latents()?);
        if latents.len() != exact_latents.len() || ours.frames() != theirs.frames() || ours.frames() == 0 {
            return Err(Error::Fault(format!("{case}: the two videos are of different sizes")));
        }
        let energy: f64 = exact_latents.iter().map(|value| f64::from(*value).powi(2)).sum();
        let (mut error, mut values, mut similarity) = (0.0, 0, 0.0);
        for index in 0..ours.frames() {
            let (frame, exact) = (ours.frame(index)?, theirs.frame(index)?);
            error += squared_error(&frame.values, &exact.values);
            values += frame.values.len();
            similarity += ssim(&frame, &exact);
        }
        Ok(Quality {
            case: case.to_owned(),
            device: self.testbed.device,
            psnr_db: psnr(error / values as f64),
            ssim: similarity / ours.frames() as f64,
            latents_error: (squared_error(&latents, &exact_latents) / energy).sqrt(),
        })
    }
}

//! The runs that a GPU is calibrated by: a model cut down to two blocks, at its own sizes, long enough for the GPU's clocks to settle. Each runs twice: on the GPU, and on a
//! virtual one that has the profile so far.

use engine_protocol::{
    AttnType, Config, Device, GpuProfile, ModelSpec, OperationTiming, Outcome, Request, RunRecord, Settings, Stage, WorkKind,
};

use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::model::Models;
use crate::testbed::Testbed;
use crate::worker::{self, Launcher, Patience};

/// The largest model: what it does at 832x480 and 1280x720, others do too.
const MODEL: &str = "wan2.1-t2v-14b";
/// Of its blocks, and of the text encoder's: a step is twenty times as short, and its operations are as large.
const LAYERS: i64 = 2;
/// Sizes, and seconds of sampler steps of each. Public measurements have clocks settled within two or three.
const SIZES: [(&str, f64); 2] = [("832x480", 8.0), ("1280x720", 4.0)];
/// Steps at least and at most.
const STEPS: (u32, u32) = (4, 60);

/// One run on the GPU, and on a virtual one of its kind.
#[derive(Debug)]
pub(crate) struct Twin {
    /// On the GPU.
    pub(crate) measured: RunRecord,
    /// On the virtual one.
    pub(crate) modelled: RunRecord,
}

/// Runs all of them. `profile` is what is known of the GPU so far. None where somebody interrupted.
pub(crate) fn run(testbed: &Testbed, profile: &GpuProfile, interrupt: &Interrupt) -> Result<Option<Vec<Twin>>, Error> {
    let models = Models::load()?;
    let mut model = models.get(MODEL)?.clone();
    model.transformer.num_layers = LAYERS;
    model.text_encoder.num_layers = LAYERS;
    let on_virtual = Testbed { device: Device::Virtual, uuid: None, profile: Some(profile.clone()), ..testbed.clone() };
    let runs = Runs { testbed, on_virtual: &on_virtual, model: &model, interrupt };
    let mut twins = Vec::new();
    for (size, secs) in SIZES {
        let Some(twin) = runs.twin(size, secs, AttnType::Sdpa)? else { return Ok(None) };
        twins.push(twin);
    }
    // Where PyTorch prefers cuDNN's attention, its own is measured too.
    if twins.iter().any(|twin| uses(&twin.measured, WorkKind::CudnnAttention)) {
        let (size, secs) = SIZES[0];
        let Some(twin) = runs.twin(size, secs, AttnType::Flash)? else { return Ok(None) };
        twins.push(twin);
    }
    Ok(Some(twins))
}

fn uses(record: &RunRecord, kind: WorkKind) -> bool {
    record.stage(Stage::Denoise).is_some_and(|stage| stage.operations.iter().any(|sum| sum.kind == kind))
}

struct Runs<'a> {
    testbed: &'a Testbed,
    on_virtual: &'a Testbed,
    model: &'a ModelSpec,
    interrupt: &'a Interrupt,
}

impl Runs<'_> {
    fn twin(&self, size: &str, secs: f64, attention: AttnType) -> Result<Option<Twin>, Error> {
        let trial = self.config(size, STEPS.0, attention)?;
        let Some(modelled) = self.run_on(self.on_virtual, &trial)? else { return Ok(None) };
        let step = modelled.step_secs().map_or(secs, |step| step.expected);
        let steps = ((secs / step).ceil() as u32).clamp(STEPS.0, STEPS.1);
        let config = self.config(size, steps, attention)?;
        tell!("{steps} steps at {size} with attn_type={} (of a model that is cut to {LAYERS} blocks)", attention.name());
        let Some(measured) = self.run_on(self.testbed, &config)? else { return Ok(None) };
        let Some(modelled) = self.run_on(self.on_virtual, &config)? else { return Ok(None) };
        Ok(Some(Twin { measured, modelled }))
    }

    /// At level 3, which fits 8 GB, and with the text encoder on the GPU too.
    fn config(&self, size: &str, steps: u32, attention: AttnType) -> Result<Config, Error> {
        let words = [
            ("model", MODEL.to_owned()),
            ("low_mem_level", "3".into()),
            ("offload_text_encoder", "stream".into()),
            ("resolution", size.into()),
            ("steps", steps.to_string()),
            ("attn_type", attention.name().into()),
        ];
        let settings = Settings::from_pairs(words.map(|(key, value)| (key.to_owned(), value.into())))?;
        Ok(Config::resolve(&settings, self.model)?)
    }

    fn run_on(&self, testbed: &Testbed, config: &Config) -> Result<Option<RunRecord>, Error> {
        let launcher = Launcher::find(testbed.device)?;
        let request =
            Request { operation_times: Some(OperationTiming { trace: None }), ..testbed.request("calibrate", self.model, config, None) };
        let Some(record) = worker::run_case(&launcher, testbed, &request, Patience::default(), self.interrupt, &mut |_| {})? else {
            return Ok(None);
        };
        if record.outcome != Outcome::Ok {
            let why = record.error.as_deref().unwrap_or("the worker did not say why");
            return Err(Error::input(format!(
                "a run of {} at {} ended in {}: {why}",
                config.model,
                config.resolution,
                record.outcome.name()
            )));
        }
        Ok(Some(record))
    }
}

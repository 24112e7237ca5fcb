//! Options that several commands have.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use engine_protocol::{CheckpointFiles, DiskRate, LoraFile, MOST_GPUS};
use serde_json::Value;

use crate::error::Error;
use crate::pcie_slot::PcieSlot;
use crate::sweep::Limits;
use crate::testbed::{DeviceChoice, Testbed, Wanted};
use crate::web;
use crate::worker::RANK_TIMEOUT_SECS;

/// Which video: options that stand for keys of a configuration.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct VideoArguments {
    /// Settings to begin with, such as a run's recommended.yaml
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Model, as `lowmem models` lists it
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// 480p, 720p or WIDTHxHEIGHT (the model's by default)
    #[arg(long, visible_alias = "size")]
    pub(crate) resolution: Option<String>,
    /// Frames of the video (the model's by default)
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) frames: Option<i64>,
}

impl VideoArguments {
    /// The keys that options stand for, with their values.
    pub(crate) fn keys(&self) -> Vec<(&'static str, Value)> {
        let model = self.model.as_ref().map(|model| ("model", Value::from(model.as_str())));
        let resolution = self.resolution.as_ref().map(|size| ("resolution", Value::from(size.as_str())));
        [model, resolution, self.frames.map(|frames| ("frames", frames.into()))].into_iter().flatten().collect()
    }
}

/// Over how many GPUs a video is split.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct GpusArguments {
    /// Split the video over so many GPUs; what cp_size, cp_ulysses, cp_ring and cfg_size leave open of how is chosen by the plan
    #[arg(long = "gpus", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_GPUS)))]
    pub(crate) count: Option<u32>,
}

impl GpusArguments {
    /// How many, and who wants that, where `named` ones are one for each rank; nothing where flags alone say it.
    pub(crate) fn wanted(self, named: Option<u32>) -> Result<Option<(u32, String)>, Error> {
        match (self.count, named) {
            (Some(count), Some(named)) if count != named => {
                Err(Error::input(format!("--gpus {count}: --gpu names {named} GPUs. Leave --gpus out, or name one kind for all")))
            }
            (Some(count), _) => Ok(Some((count, format!("--gpus {count}")))),
            (None, Some(named)) => Ok(Some((named, format!("{named} GPUs are named")))),
            (None, None) => Ok(None),
        }
    }
}

/// How ranks are waited for.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct RanksArguments {
    /// Seconds after which one of several ranks that does nothing counts as one that hangs, and ends all
    #[arg(long, value_name = "SECS", default_value_t = RANK_TIMEOUT_SECS, value_parser = clap::value_parser!(u32).range(1..))]
    rank_timeout: u32,
}

impl RanksArguments {
    /// The same as a time.
    pub(crate) fn patience(self) -> Duration {
        Duration::from_secs(self.rank_timeout.into())
    }
}

/// Whether and where a run's page is served.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct ServeArguments {
    /// Serve the page to browsers on this machine while cases run
    #[arg(long)]
    pub(crate) serve: bool,
    /// Port of the page (7861 by default, or the next one that is free); 0 takes any that is free
    #[arg(long, requires = "serve")]
    pub(crate) port: Option<u16>,
    /// Serve it to other machines at this address of this one (0.0.0.0 is all), with a token in the page's address that lets in
    #[arg(long, value_name = "ADDRESS", requires = "serve")]
    pub(crate) host: Option<IpAddr>,
}

impl ServeArguments {
    /// Where it is wanted.
    pub(crate) fn wanted(self) -> Option<web::Wanted> {
        self.serve.then_some(web::Wanted { host: self.host, port: self.port })
    }
}

/// How a run is told.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct FormArguments {
    /// Print JSON: what the run says
    #[arg(long)]
    pub(crate) json: bool,
    /// Print every column of the table, as wide as it is
    #[arg(long, conflicts_with = "json")]
    pub(crate) wide: bool,
}

/// What cases run on.
#[derive(Debug, Default, Args)]
pub(crate) struct DeviceArguments {
    /// Budget (24GB) or profile (rtx-4090); several for a sweep: 12GB,24GB; one for each rank of a video: rtx-4090,rtx-3090, in a sweep rtx-4090+rtx-3090
    #[arg(long, value_name = "GPU", allow_hyphen_values = true)]
    pub(crate) gpu: Option<String>,
    /// What runs the cases
    #[arg(long, value_enum, default_value_t = DeviceChoice::Auto)]
    pub(crate) device: DeviceChoice,
    /// The machine's memory as a budget (by default this machine's where cases run here; without limit where the virtual GPU plans for another)
    #[arg(long, value_name = "32GB", allow_hyphen_values = true)]
    pub(crate) ram: Option<String>,
    /// The GPU's slot where it is not the one that it is made for, as PCI Express generation and lanes: 3x8
    #[arg(long, value_name = "GENxLANES")]
    pub(crate) pcie: Option<PcieSlot>,
    /// What the disk gives that weights are read from with stream_from=file: 3GB/s (by default measured once in the checkpoint's folder, and assumed where there is none)
    #[arg(long, value_name = "RATE", allow_hyphen_values = true)]
    pub(crate) disk: Option<DiskRate>,
}

impl DeviceArguments {
    /// As a testbed is chosen by them.
    pub(crate) fn wanted(&self) -> Wanted<'_> {
        Wanted { gpu: self.gpu.as_deref(), device: self.device, ram: self.ram.as_deref(), pcie: self.pcie, disk: self.disk }
    }
}

/// How cases run.
#[derive(Debug, Args)]
pub(crate) struct ExecutionArguments {
    /// Run directory (by default a new one in reports/out of a checkout, elsewhere in lowmem-runs)
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Cases at once (by default one a processor on the virtual GPU, one elsewhere)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) jobs: Option<u16>,
    /// Time limit of a case in seconds
    #[arg(long, value_name = "SECS", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) case_timeout: u32,
    #[command(flatten)]
    ranks: RanksArguments,
}

impl ExecutionArguments {
    /// How much at once, and how long, on that testbed.
    pub(crate) fn limits(&self, testbed: &Testbed) -> Result<Limits, Error> {
        Ok(Limits {
            jobs: testbed.jobs(self.jobs)?,
            case_timeout: Duration::from_secs(self.case_timeout.into()),
            rank_timeout: self.ranks.patience(),
        })
    }
}

/// Where the model's weights are.
#[derive(Debug, Clone, Args)]
pub(crate) struct FilesArguments {
    /// Folder with the model's weights, ComfyUI's `models` too (without it and without files they come from the seed)
    #[arg(long, value_name = "DIR")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// The transformer's file, as ComfyUI has it in models/diffusion_models; of Wan2.2 A14B the one for high noise
    #[arg(long, value_name = "FILE")]
    pub(crate) transformer: Option<PathBuf>,
    /// The file of Wan2.2 A14B's transformer for low noise
    #[arg(long, value_name = "FILE")]
    pub(crate) low_noise_transformer: Option<PathBuf>,
    /// The text encoder's file, as ComfyUI has it in models/text_encoders
    #[arg(long, value_name = "FILE")]
    pub(crate) text_encoder: Option<PathBuf>,
    /// The VAE's file, as ComfyUI has it in models/vae
    #[arg(long, value_name = "FILE")]
    pub(crate) vae: Option<PathBuf>,
    /// The file of CLIP's vision encoder, as ComfyUI has it in models/clip_vision; for image to video of Wan2.1
    #[arg(long, value_name = "FILE")]
    pub(crate) image_encoder: Option<PathBuf>,
    /// tokenizer.json or spiece.model, where the text encoder's file has none
    #[arg(long, value_name = "FILE")]
    pub(crate) tokenizer: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) loras: LoraArguments,
}

/// What is added to the model's weights.
#[derive(Debug, Clone, Args)]
pub(crate) struct LoraArguments {
    /// A LoRA to add to the transformer, so many times (1 by default); of Wan2.2 A14B to both, or to the one for high or low noise. Several are added one after the other
    #[arg(long = "lora", value_name = "FILE[:STRENGTH[:high|low]]")]
    pub(crate) files: Vec<LoraFile>,
}

impl FilesArguments {
    /// The files that were named; nothing where none was.
    pub(crate) fn named(&self) -> Option<CheckpointFiles> {
        let Self { checkpoint, transformer, low_noise_transformer, text_encoder, vae, image_encoder, tokenizer, loras } = self.clone();
        let loras = loras.files;
        let files =
            CheckpointFiles { folder: checkpoint, transformer, low_noise_transformer, text_encoder, vae, image_encoder, tokenizer, loras };
        (files != CheckpointFiles::default()).then_some(files)
    }
}

/// Arguments of a command that lists what it knows.
#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

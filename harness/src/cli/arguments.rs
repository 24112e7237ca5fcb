//! The arguments of each command.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use engine_protocol::DiskRate;

use super::options::{
    DeviceArguments, ExecutionArguments, FilesArguments, FormArguments, GpusArguments, ListArguments, LoraArguments, RanksArguments,
    ServeArguments, VideoArguments,
};
use crate::autotune::Objective;
use crate::gpu_profile::size;
use crate::monitor::Threshold;
use crate::sweep::Shard;
use crate::web;
use crate::worker::EventOrder;

/// Arguments of `lowmem advise`.
#[derive(Debug, Default, Args)]
pub(crate) struct AdviseArguments {
    #[command(flatten)]
    pub(crate) device: DeviceArguments,
    #[command(flatten)]
    pub(crate) gpus: GpusArguments,
    /// One model, as `lowmem models` lists it (all by default)
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `lowmem max`.
#[derive(Debug, Args)]
pub(crate) struct MaxArguments {
    #[command(flatten)]
    pub(crate) device: DeviceArguments,
    #[command(flatten)]
    pub(crate) video: VideoArguments,
    #[command(flatten)]
    pub(crate) gpus: GpusArguments,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// key=value pairs, which fix a key
    #[arg(value_name = "key=value")]
    pub(crate) settings: Vec<String>,
}

/// Arguments of `lowmem cards`.
#[derive(Debug, Args)]
pub(crate) struct CardsArguments {
    #[command(flatten)]
    pub(crate) video: VideoArguments,
    /// GPUs, with commas between them (all by default)
    #[arg(long = "gpu", value_name = "GPU,GPU", value_delimiter = ',')]
    pub(crate) gpus: Vec<String>,
    /// The machine's memory as a budget (without limit by default)
    #[arg(long, value_name = "32GB", allow_hyphen_values = true)]
    pub(crate) ram: Option<String>,
    /// What an hour of each costs: a YAML file of lines such as `rtx-4090: 0.35`
    #[arg(long, value_name = "FILE.yaml")]
    pub(crate) prices: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// key=value pairs, which fix a key
    #[arg(value_name = "key=value")]
    pub(crate) settings: Vec<String>,
}

/// Arguments of `lowmem compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareArguments {
    /// Run directory of before
    #[arg(value_name = "RUN_A")]
    pub(crate) before: PathBuf,
    /// Run directory of after
    #[arg(value_name = "RUN_B")]
    pub(crate) after: PathBuf,
    /// End with exit code 5 where memory or time of a case grew by more than this: 2%
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(crate) fail_above: Option<f64>,
    /// Write the comparison as a page of one file
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `lowmem quality`.
#[derive(Debug, Args)]
pub(crate) struct QualityArguments {
    /// Run directory
    #[arg(value_name = "RUN")]
    pub(crate) run_dir: PathBuf,
    #[command(flatten)]
    pub(crate) device: DeviceArguments,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `lowmem sweep`.
#[derive(Debug, Args)]
pub(crate) struct SweepArguments {
    /// Sweep definition (a file, or a name in sweeps/) and key=value pairs, which fix a key
    #[arg(value_name = "SWEEP.yaml | key=value")]
    pub(crate) words: Vec<String>,
    #[command(flatten)]
    pub(crate) device: DeviceArguments,
    #[command(flatten)]
    pub(crate) execution: ExecutionArguments,
    #[command(flatten)]
    pub(crate) files: FilesArguments,
    /// Go on with the run in --out: cases that have an answer are not run again
    #[arg(long, requires = "out")]
    pub(crate) resume: bool,
    /// With --resume: go on although the definition, the GPU, the version or the weights are others than before; the run then has both
    #[arg(long, requires = "resume")]
    pub(crate) keep_both: bool,
    /// Run nothing: list the cases, and which combinations came out the same
    #[arg(long, conflicts_with_all = ["resume", "shard", "serve"])]
    pub(crate) dry_run: bool,
    /// Run one part of so many, on one machine of several: 3/8. `lowmem merge` puts the parts together
    #[arg(long, value_name = "PART/PARTS")]
    pub(crate) shard: Option<Shard>,
    /// Run nothing: write a script for Slurm into --out that runs so many parts and puts them together
    #[arg(long, value_name = "PARTS", value_parser = clap::value_parser!(u16).range(1..=10_000), requires = "out", conflicts_with_all = ["resume", "shard", "dry_run", "serve"])]
    pub(crate) slurm: Option<u16>,
    /// Compare the videos of cases that give up quality with those that do not: PSNR and SSIM. For devices that compute
    #[arg(long, conflicts_with_all = ["dry_run", "slurm"])]
    pub(crate) quality: bool,
    /// Write PyTorch's memory snapshot of each case that runs into the run directory, as snapshots/CASE.pickle
    #[arg(long, conflicts_with_all = ["dry_run", "slurm"])]
    pub(crate) snapshot: bool,
    #[command(flatten)]
    pub(crate) serve: ServeArguments,
    #[command(flatten)]
    pub(crate) form: FormArguments,
}

/// Arguments of `lowmem merge`.
#[derive(Debug, Args)]
pub(crate) struct MergeArguments {
    /// Run directory to make
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Run directories of the parts
    #[arg(required = true, value_name = "RUN")]
    pub(crate) parts: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) form: FormArguments,
}

/// Arguments of `lowmem autotune`.
#[derive(Debug, Args)]
pub(crate) struct AutotuneArguments {
    #[command(flatten)]
    pub(crate) device: DeviceArguments,
    #[command(flatten)]
    pub(crate) execution: ExecutionArguments,
    #[command(flatten)]
    pub(crate) files: FilesArguments,
    #[command(flatten)]
    pub(crate) video: VideoArguments,
    #[command(flatten)]
    pub(crate) gpus: GpusArguments,
    /// Which of the three answers is the recommended one
    #[arg(long, value_enum, default_value_t = Objective::Speed)]
    pub(crate) objective: Objective,
    /// The longest that a video may take: 10min, 2h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) deadline: Option<Duration>,
    /// Share of the GPU's memory to leave free: 5%
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(crate) margin: Option<f64>,
    /// Memory of the GPU to leave to others, such as a display: 1GB
    #[arg(long, value_name = "SIZE", value_parser = gibibytes)]
    pub(crate) reserve: Option<f64>,
    /// Try what changes the video too: weights and attention in 8 bits, a cache of sampler steps
    #[arg(long)]
    pub(crate) allow_lossy: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// key=value pairs, which fix a key
    #[arg(value_name = "key=value")]
    pub(crate) settings: Vec<String>,
}

/// Arguments of `lowmem generate`.
#[derive(Debug, Args)]
pub(crate) struct GenerateArguments {
    #[command(flatten)]
    pub(crate) device: DeviceArguments,
    #[command(flatten)]
    pub(crate) video: VideoArguments,
    /// What the video shows
    #[arg(long)]
    pub(crate) prompt: Option<String>,
    /// What it does not show
    #[arg(long, value_name = "PROMPT")]
    pub(crate) negative_prompt: Option<String>,
    /// The picture that the video begins with: PNG, JPEG or WebP, for models that take one
    #[arg(long, value_name = "FILE")]
    pub(crate) image: Option<String>,
    /// The picture that it ends with
    #[arg(long, value_name = "FILE")]
    pub(crate) last_image: Option<String>,
    /// Seed of the starting noise
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) seed: Option<i64>,
    /// Sampler steps
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) steps: Option<i64>,
    /// Guidance scale; 1 is no guidance
    #[arg(long, value_name = "SCALE", allow_hyphen_values = true)]
    pub(crate) guidance: Option<f64>,
    #[command(flatten)]
    pub(crate) files: FilesArguments,
    /// Where the video goes: a file .mp4, .gif or .safetensors (latents and video as numbers), or a folder for PNGs (ends in / or has no extension)
    #[arg(long, value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) gpus: GpusArguments,
    /// Time limit in seconds (none by default)
    #[arg(long, value_name = "SECS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) timeout: Option<u32>,
    #[command(flatten)]
    pub(crate) ranks: RanksArguments,
    /// Write PyTorch's memory snapshot of it, which `lowmem snapshot` and pytorch.org/memory_viz read; each allocation names its stage, weights and purpose
    #[arg(long, value_name = "FILE.pickle")]
    pub(crate) snapshot: Option<PathBuf>,
    /// Append a line of JSON to this file for the video: peaks by stage, RAM, times, outcome; for a service that makes many (`lowmem schema "generate --log"`)
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// Print JSON: the run record
    #[arg(long)]
    pub(crate) json: bool,
    /// key=value pairs, for every key that has no option
    #[arg(value_name = "key=value")]
    pub(crate) settings: Vec<String>,
}

/// Arguments of `lowmem plan`.
#[derive(Debug, Args)]
pub(crate) struct PlanArguments {
    #[command(flatten)]
    pub(crate) video: VideoArguments,
    #[command(flatten)]
    pub(crate) files: FilesArguments,
    #[command(flatten)]
    pub(crate) gpus: GpusArguments,
    /// Budget (24GB) or profile (rtx-4090) to hold the predicted peak against; one for each rank: rtx-4090,rtx-3090
    #[arg(long, value_name = "GPU", allow_hyphen_values = true)]
    pub(crate) gpu: Option<String>,
    /// The machine's memory to hold the predicted RAM against
    #[arg(long, value_name = "32GB", allow_hyphen_values = true)]
    pub(crate) ram: Option<String>,
    /// What the disk gives that weights are read from with stream_from=file: 3GB/s (by default it is assumed)
    #[arg(long, value_name = "RATE", allow_hyphen_values = true)]
    pub(crate) disk: Option<DiskRate>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// key=value pairs: low_mem_level=3 resolution=720p
    #[arg(value_name = "key=value")]
    pub(crate) settings: Vec<String>,
}

/// Arguments of `lowmem profile`.
#[derive(Debug, Args)]
pub(crate) struct ProfileArguments {
    #[command(flatten)]
    pub(crate) device: DeviceArguments,
    #[command(flatten)]
    pub(crate) video: VideoArguments,
    /// Write a Chrome trace, which ui.perfetto.dev opens
    #[arg(long, value_name = "FILE.json")]
    pub(crate) trace: Option<PathBuf>,
    /// Print JSON: the run record, with all operations
    #[arg(long)]
    pub(crate) json: bool,
    /// key=value pairs: model=wan2.1-t2v-14b low_mem_level=3 resolution=720p; two sampler steps are run unless steps_measured says otherwise
    #[arg(value_name = "key=value")]
    pub(crate) settings: Vec<String>,
}

/// Arguments of `lowmem calibrate`.
#[derive(Debug, Args)]
pub(crate) struct CalibrateArguments {
    #[command(flatten)]
    pub(crate) device: DeviceArguments,
    /// GPU profile to begin with, by name (by default the GPU's own; on the virtual GPU one whose shares are all half)
    #[arg(long, value_name = "PROFILE")]
    pub(crate) start_from: Option<String>,
    /// Where the profile goes (by default ~/.config/lowmem/gpus/NAME.yaml; from the virtual GPU nowhere)
    #[arg(long, value_name = "FILE.yaml")]
    pub(crate) out: Option<PathBuf>,
    /// Print JSON: the profile as measured
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `lowmem on`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: the program's own, or 128 and the signal that ended it; 2 where it could not be started; 1 our fault, or \
                        with --strict something unsupported."
)]
pub(crate) struct OnArguments {
    /// Profile (rtx-4090) or size (24GB) of the virtual GPU
    #[arg(allow_hyphen_values = true)]
    pub(crate) gpu: String,
    /// How many such GPUs there are
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) gpus: u16,
    /// Let it go by the real GPU's name: for programs that choose by it
    #[arg(long)]
    pub(crate) mask_name: bool,
    /// Where its memory is at an end, go on with memory that no card has: one run then shows all that the program needs
    #[arg(long)]
    pub(crate) beyond: bool,
    /// Run it on other GPUs as well, to find the smallest that it really runs on: with no input, and with its output thrown away
    #[arg(long)]
    pub(crate) find: bool,
    /// Write the report as a page of one file
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Write the verdict as JSON: into FILE, or on standard output as the last line
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-")]
    pub(crate) json: Option<PathBuf>,
    /// Let the first call of something that the virtual GPU does not support fail for good
    #[arg(long)]
    pub(crate) strict: bool,
    /// When events count as passed, which decides when memory that two streams use is free again; by default the clock says it, and where much depends on it the
    /// program is run twice more, for both ends
    #[arg(long, value_enum)]
    pub(crate) events: Option<EventOrder>,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
    pub(crate) program: Vec<OsString>,
}

/// Arguments of `lowmem validate`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 all rows that were checked are within their tolerance; 1 one is not, or its program failed; 2 wrong usage or input, or \
                        no row could be checked."
)]
pub(crate) struct ValidateArguments {
    /// Published figures (by default ours; sweeps/README.md has the columns)
    #[arg(value_name = "CASES.csv")]
    pub(crate) cases: Option<PathBuf>,
    /// Compare times, and not peaks of memory
    #[arg(long)]
    pub(crate) times: bool,
    /// A checkout of Wan's official code (Wan2.1 or Wan2.2), or a folder that holds both; may be given twice
    #[arg(long, value_name = "DIR")]
    pub(crate) wan: Vec<PathBuf>,
    /// A Python with PyTorch for CUDA 13 and the programs' packages (by default python3.11 with what `make setup` and setup/python-packages.sh fetch)
    #[arg(long)]
    pub(crate) python: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `lowmem report`.
#[derive(Debug, Args)]
pub(crate) struct ReportArguments {
    /// Run directory
    pub(crate) run_dir: PathBuf,
    #[command(flatten)]
    pub(crate) serve: ServeArguments,
    #[command(flatten)]
    pub(crate) form: FormArguments,
}

/// Arguments of `lowmem export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArguments {
    /// Run directory
    #[arg(value_name = "RUN")]
    pub(crate) run_dir: PathBuf,
    /// As what
    #[arg(long, value_enum)]
    pub(crate) format: ExportFormat,
    /// Where it goes (by default to standard output)
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// What a run can be written as.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum ExportFormat {
    /// The tables of tables.md
    Md,
    /// What results.csv holds
    Csv,
    /// An array of objects, with numbers as numbers
    Json,
    /// A table `results`, as SQLite and PostgreSQL take it
    Sql,
    /// Columns of typed cells, for pandas, DuckDB and the like; into a file
    Parquet,
    /// How memory went within each stage and step, as CSV: what the page's timeline draws
    Timeline,
}

/// Arguments of `lowmem history`.
#[derive(Debug, Args)]
pub(crate) struct HistoryArguments {
    /// Folder with run directories (by default where runs go)
    pub(crate) dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `lowmem fill-tables`.
#[derive(Debug, Args)]
pub(crate) struct FillTablesArguments {
    /// A document with the headings of the page "Low Memory Mode"; what was filled in before is filled anew
    #[arg(value_name = "DOC.md")]
    pub(crate) document: PathBuf,
    /// Run directories, such as those of `lowmem sweep hardware --gpu 24GB`
    #[arg(long, value_name = "RUN", required = true, num_args = 1..)]
    pub(crate) from: Vec<PathBuf>,
    /// Change nothing; where the document is not what the runs give, print how it differs and end with exit code 5
    #[arg(long)]
    pub(crate) check: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `lowmem doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArguments {
    /// The Python whose PyTorch other engines use: its version is looked at too
    #[arg(long, default_value = "python3")]
    pub(crate) python: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `lowmem monitor`.
#[derive(Debug, Args)]
pub(crate) struct MonitorArguments {
    /// Time from one sample to the next: 500ms, 10s
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub(crate) interval: Duration,
    /// End after so many samples (by default at Ctrl-C)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Write a row for each sample and GPU into this file, after what it has
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,
    /// Let Prometheus fetch the newest sample at this port of this machine alone, or with HOST: (0.0.0.0 is all) let all who reach that address
    #[arg(long, value_name = "[HOST:]PORT", value_parser = place)]
    pub(crate) prometheus: Option<web::Wanted>,
    /// Say where memory in use reaches this share of a GPU or this size, and when it is below again; the exit code is then 6
    #[arg(long, value_name = "90%|20GiB")]
    pub(crate) alarm: Option<Threshold>,
    /// Print JSON: an object for each sample, on a line of its own
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `lowmem snapshot`.
#[derive(Debug, Args)]
pub(crate) struct SnapshotArguments {
    /// What torch.cuda.memory._dump_snapshot, `lowmem generate --snapshot` or `lowmem sweep --snapshot` wrote
    #[arg(value_name = "FILE.pickle")]
    pub(crate) file: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Write a page too: how memory went, the peak by modules and by stacks, and the segments; small however large the snapshot is
    #[arg(long, value_name = "FILE.html")]
    pub(crate) html: Option<PathBuf>,
}

/// Arguments of `lowmem models`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ModelsArguments {
    #[command(flatten)]
    pub(crate) list: ListArguments,
    #[command(subcommand)]
    pub(crate) command: Option<ModelsCommand>,
}

/// Arguments of `lowmem flags`.
#[derive(Debug, Args)]
pub(crate) struct FlagsArguments {
    /// A key, short or in the page's spelling
    #[arg(conflicts_with_all = ["markdown", "schema"])]
    pub(crate) key: Option<String>,
    /// Print a table for documents
    #[arg(long, conflicts_with = "schema")]
    pub(crate) markdown: bool,
    /// Print JSON
    #[arg(long, conflicts_with_all = ["markdown", "schema"])]
    pub(crate) json: bool,
    /// Print the JSON schema of sweep files, which editors take
    #[arg(long)]
    pub(crate) schema: bool,
}

/// What can be done with models besides listing them.
#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// Print what a checkpoint or a file holds: components, parameters, types and GiB, and what is missing or unexpected
    Inspect {
        /// Folder of the checkpoint, in diffusers' layout or in Wan's own, ComfyUI's `models`, or a file of weights
        path: PathBuf,
        /// tokenizer.json or spiece.model, where the checkpoint has none
        #[arg(long, value_name = "FILE")]
        tokenizer: Option<PathBuf>,
        #[command(flatten)]
        loras: LoraArguments,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Where something is served, as `PORT` or `HOST:PORT`.
fn place(text: &str) -> Result<web::Wanted, String> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (Some(host.trim_matches(['[', ']']).parse().ok()), port),
        None => (None, text),
    };
    match (host, port.parse()) {
        (None, Ok(port)) => Ok(web::Wanted { host: None, port: Some(port) }),
        (Some(Some(host)), Ok(port)) => Ok(web::Wanted { host: Some(host), port: Some(port) }),
        _ => Err("say a port such as 9400, or an address of this machine and a port: 0.0.0.0:9400".to_owned()),
    }
}

/// A time as people write it.
fn duration(text: &str) -> Result<Duration, String> {
    let span: Option<jiff::SignedDuration> = text.parse().ok();
    let time = span.and_then(|span| Duration::try_from(span).ok()).filter(|time| !time.is_zero());
    time.ok_or_else(|| "say a time such as 90s, 10min or 2h".to_owned())
}

/// A share of a whole, as a part of 1.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim_end_matches('%').trim().parse::<f64>().ok();
    number.filter(|number| (0.0..100.0).contains(number)).map(|number| number / 100.0).ok_or_else(|| "say a share such as 5%".to_owned())
}

/// A size in GiB, which people write GB.
fn gibibytes(text: &str) -> Result<f64, String> {
    let gib = size(text).or_else(|| text.parse().ok());
    gib.filter(|gib| gib.is_finite() && *gib >= 0.0).ok_or_else(|| "say a size such as 1GB".to_owned())
}

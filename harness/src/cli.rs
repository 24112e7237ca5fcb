//! The command line.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use engine_protocol::{CheckpointFiles, DiskRate, parse_setting};
use serde_json::Value;

use crate::autotune::Objective;
use crate::exit_code::ExitCode;
use crate::gpu_profile::size;
use crate::live;
use crate::pcie_slot::PcieSlot;
use crate::sweep::Shard;
use crate::testbed::{DeviceChoice, Wanted};
use crate::worker::EventOrder;

/// Runs video diffusion in as little GPU memory as can be, and measures every memory setting.
#[derive(Debug, Parser)]
#[command(name = "lowmem", version)]
#[command(after_help = ExitCode::help())]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say for each model how it runs on this machine, or on one that is named: what `lowmem` alone does
    Advise(AdviseArguments),
    /// Find the largest video that fits: the largest size, or with --resolution the most frames
    Max(MaxArguments),
    /// One video on many GPUs, side by side: level, memory, time, and with --prices what it costs
    Cards(CardsArguments),
    /// Run every case of a sweep definition and write a report
    Sweep(SweepArguments),
    /// Find the best memory level for a budget
    Autotune(AutotuneArguments),
    /// Make a video
    Generate(Box<GenerateArguments>),
    /// Print what will live where and the predicted peaks, before anything is allocated
    Plan(PlanArguments),
    /// Show where the time of one configuration goes, operation by operation, and what holds it up
    Profile(ProfileArguments),
    /// Measure what the GPU reaches, for later predictions of times and memory; on the virtual GPU, check that it gives back its profile
    Calibrate(CalibrateArguments),
    /// Run any program, unchanged, on a virtual GPU and say what it needed
    On(OnArguments),
    /// Hold the virtual GPU against peaks of memory and times that others have published
    Validate(ValidateArguments),
    /// Put runs of parts of a sweep together
    Merge(MergeArguments),
    /// Hold two runs against each other, case by case; with --fail-above for CI
    Compare(CompareArguments),
    /// Write the report of a run directory anew, from its records
    Report(ReportArguments),
    /// Write a run as CSV, Markdown, JSON, SQL or Parquet, for other programs
    Export(ExportArguments),
    /// List the runs of a folder, the oldest first, with what was recommended and what changed
    History(HistoryArguments),
    /// Look at this machine: who holds GPU memory, driver, link, clocks, RAM, page-locking; and what to do
    Doctor(DoctorArguments),
    /// Fill what is "to be tested" in a Markdown document from runs, each figure with where it is from
    FillTables(FillTablesArguments),
    /// List the GPU profiles, and the real GPUs that are here
    Gpus(ListArguments),
    /// List the models, or look into a checkpoint
    Models(ModelsArguments),
    /// List the flags of a configuration, or say all about one
    Flags(FlagsArguments),
    /// Print the JSON schema of what a command prints with --json, or list those commands
    Schema {
        /// The command: `plan`, `models inspect`
        of: Option<String>,
    },
    /// Fetch PyTorch, once: what an unpacked archive needs before anything else
    Setup,
    /// Print the completions of a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Write the pages for `man`, for those who make packages
    #[command(hide = true)]
    Man {
        /// Folder for them
        folder: PathBuf,
    },
}

impl Default for Command {
    fn default() -> Self {
        Self::Advise(AdviseArguments::default())
    }
}

/// Arguments of `lowmem advise`.
#[derive(Debug, Default, Args)]
pub(crate) struct AdviseArguments {
    #[command(flatten)]
    pub(crate) device: DeviceArguments,
    /// One model, as `lowmem models` lists it (all by default)
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

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

/// Arguments of `lowmem max`.
#[derive(Debug, Args)]
pub(crate) struct MaxArguments {
    #[command(flatten)]
    pub(crate) device: DeviceArguments,
    #[command(flatten)]
    pub(crate) video: VideoArguments,
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
    #[command(flatten)]
    pub(crate) serve: ServeArguments,
    #[command(flatten)]
    pub(crate) form: FormArguments,
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
    pub(crate) fn wanted(self) -> Option<live::Wanted> {
        self.serve.then_some(live::Wanted { host: self.host, port: self.port })
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

/// What cases run on.
#[derive(Debug, Default, Args)]
pub(crate) struct DeviceArguments {
    /// Budget (24GB) or profile (rtx-4090); several for a sweep: 12GB,24GB
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
}

/// Arguments of `lowmem autotune`.
#[derive(Debug, Args)]
pub(crate) struct AutotuneArguments {
    #[command(flatten)]
    pub(crate) device: DeviceArguments,
    #[command(flatten)]
    pub(crate) execution: ExecutionArguments,
    #[command(flatten)]
    pub(crate) video: VideoArguments,
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
    /// Try what changes the video too: weights in 8 bits
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
    /// Time limit in seconds (none by default)
    #[arg(long, value_name = "SECS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) timeout: Option<u32>,
    /// Print JSON: the run record
    #[arg(long)]
    pub(crate) json: bool,
    /// key=value pairs, for every key that has no option
    #[arg(value_name = "key=value")]
    pub(crate) settings: Vec<String>,
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
    /// tokenizer.json or spiece.model, where the text encoder's file has none
    #[arg(long, value_name = "FILE")]
    pub(crate) tokenizer: Option<PathBuf>,
}

impl FilesArguments {
    /// The files that were named; nothing where none was.
    pub(crate) fn named(&self) -> Option<CheckpointFiles> {
        let Self { checkpoint, transformer, low_noise_transformer, text_encoder, vae, tokenizer } = self.clone();
        let files = CheckpointFiles { folder: checkpoint, transformer, low_noise_transformer, text_encoder, vae, tokenizer };
        (files != CheckpointFiles::default()).then_some(files)
    }
}

/// Arguments of `lowmem plan`.
#[derive(Debug, Args)]
pub(crate) struct PlanArguments {
    #[command(flatten)]
    pub(crate) video: VideoArguments,
    /// Budget (24GB) or profile (rtx-4090) to hold the predicted peak against
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

/// Arguments of a command that lists what it knows.
#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
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
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// What a flag of a configuration that was written as an option should be: `low_mem_level=3` for `--low-mem-level=3`. None where no flag is meant.
pub(crate) fn as_setting(error: &clap::Error) -> Option<String> {
    let ContextValue::String(option) = error.get(ContextKind::InvalidArg)? else { return None };
    let key = option.trim_start_matches('-').split('=').next()?.replace('-', "_");
    let key = engine_protocol::flag(&key).ok()?.key;
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let at = words.iter().position(|word| word.split('=').next() == Some(option))?;
    let after = words.get(at + 1).filter(|next| !next.starts_with('-')).map(String::as_str);
    let value = words[at].split_once('=').map(|(_, value)| value).or(after).unwrap_or("VALUE");
    Some(format!("{option} is no option: write {key}={value}"))
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

/// Settings of `key=value` words.
pub(crate) fn settings(words: &[String]) -> Result<Vec<(String, Value)>, crate::error::Error> {
    Ok(words.iter().map(|word| parse_setting(word)).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }
}

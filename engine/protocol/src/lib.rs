//! What the harness asks of the engine and what the engine answers, as plain types.
//!
//! The harness starts one worker a case, writes a [`Request`] as JSON to its standard input and reads [`Event`]s as JSON lines
//! from its standard output. Neither side knows more of the other than this crate.

mod attention_kernel;
mod attribution;
mod calibration;
mod capability;
mod checkpoint_files;
mod config;
mod course;
mod device;
mod disk;
mod event;
mod flag_values;
mod gpu_state;
mod host_memory;
mod host_rates;
mod inventory;
mod linear;
mod model;
mod output;
mod plan;
mod profile;
mod quality;
mod record;
mod request;
mod sage;
mod signs;
mod stage;
mod step_cache;
mod thinned;
mod time;

pub use attention_kernel::{AttentionKernel, WAN_HEAD_SIZE, has_fused};
pub use attribution::{PeakParts, Purpose};
pub use calibration::{Calibration, Measured, MeasuredMemory, Measurement};
pub use checkpoint_files::{CheckpointFiles, LoraFile, Noise};
pub use config::{
    At, Config, ConfigError, FLAGS, FRESH_STEPS_OF_50, Flag, FlagOf, Group, MOST_GPUS, PARTS_OF_A_BLOCK, Published, Results, Settings,
    Split, flag, flattened, parse_setting, parse_values, setting_text, under_flexcache,
};
pub use course::{LiveAllocation, MemoryCourse};
pub use device::Device;
pub use disk::{DiskRate, DiskRateSource};
pub use event::Event;
pub use flag_values::{
    Allocator, AttnType, CpSplit, Dtype, FlagValue, Flexcache, FlexcacheOffload, Fused, Kind, LinearDtype, LoadWeights, OffloadTextEncoder,
    OnOom, PinnedMemory, ResidentBlocks, Resolution, Sampler, Sigmas, StepsMeasured, StreamFrom, WeightDtype, told,
};
pub use gpu_state::{GpuProcess, GpuState, Throttle};
pub use host_memory::{GPU_HOST_PROCESS_BYTES, HOST_COPY_BYTES_PER_SEC, HOST_PROCESS_BYTES, HostMemory, HostShortage, NotPageLocked};
pub use host_rates::{DtypeRates, HostRates};
pub use inventory::{ComponentInventory, Inventory};
pub use model::{ImageEncoderSpec, ImageInput, ModelSpec, PoolSpec, Sampling, TextEncoderSpec, TransformerSpec, VaeSpec};
pub use output::{OutputFormat, unfinished};
pub use plan::{
    BufferUse, Home, Moves, POOL_STREAMS, PassSecs, PlanReport, PlannedBuffers, PlannedGroups, PlannedHost, PlannedRanks, PlannedStage,
};
pub use profile::OperationTime;
pub use quality::Quality;
pub use record::{Forecast, OLDEST_SCHEMA, Outcome, RankRecord, RunRecord, SCHEMA, Source, StageRecord, first_schema};
pub use request::{OperationTiming, RankRequest, Request};
pub use sage::{BlockChoice, SAGE_CAPABILITIES, SAGE_HEAD_SIZE, has_sage, sage_refusal};
pub use signs::Signs;
pub use stage::{Lowered, Stage, StageMemory, Transfers};
pub use step_cache::{CacheDecision, CacheUse};
pub use thinned::{Moment, Thinned};
pub use time::{Secs, StageTime, StageWork};
pub use virtual_gpu_protocol::{
    Efficiency, Figure, GpuLink, GpuProfile, Interval, Pcie, PeakFlops, PowerLimit, ProcessUse, SmallKernels, WorkKind, WorkType,
};

/// Bytes of one GiB: what people see is always in GiB.
pub const GIB: u64 = 1 << 30;

/// Bytes as GiB.
pub fn gib(bytes: u64) -> f64 {
    bytes as f64 / GIB as f64
}

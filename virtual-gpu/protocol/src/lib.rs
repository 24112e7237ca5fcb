//! What the virtual GPU and the programs around it say to each other, as plain types: the GPU profile that it gets, the report that it
//! leaves, the kinds of work that it is told of, and the names of the environment variables.
//!
//! Both sides use this crate, and it uses none of ours: the virtual GPU itself is met through the loader alone. How a profile is found, what a report
//! means and what work costs is not said here.

pub mod environment;

mod gpu_profile;
mod process_memory;
mod report;
mod sensors;
mod work;

pub use gpu_profile::{Efficiency, Figure, GpuLink, GpuProfile, Interval, Pcie, PeakFlops, PowerLimit, SmallKernels};
pub use process_memory::ProcessUse;
pub use report::{DeviceReport, ModelledSecs, NotGivenBack, ProcessReport, Refusal, Refusals, WorkSum};
pub use sensors::Sensors;
pub use work::{WorkKind, WorkType};

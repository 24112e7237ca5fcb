//! GPUs as NVML sees them, sample by sample (`sample`): for people (`view`), as CSV (`csv`), for Prometheus (`prometheus`), and where memory crosses a line (`alarm`).

mod alarm;
mod csv;
mod prometheus;
mod sample;
mod view;

pub(crate) use alarm::{Alarms, Threshold};
pub(crate) use csv::CsvFile;
pub(crate) use prometheus::{KIND, exposition};
pub(crate) use sample::{Monitor, Sample};
pub(crate) use view::{lines, screen};

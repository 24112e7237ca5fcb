//! For tests: the record of a case that ran on the CPU and measured nothing, from which others are made.

use engine_protocol::{Config, Device, Outcome, RunRecord, SCHEMA};

/// The record of a case of that name.
pub(crate) fn bare_record(case: &str, config: &Config) -> RunRecord {
    RunRecord {
        schema: SCHEMA,
        version: None,
        began: None,
        case: case.into(),
        outcome: Outcome::Ok,
        error: None,
        failed_stage: None,
        requested_bytes: None,
        parts_at_failure: None,
        host_shortage: None,
        gpu: None,
        device: Device::Cpu,
        device_name: None,
        memory_source: None,
        time_source: None,
        config: config.clone(),
        settled_config: None,
        lowered: Vec::new(),
        stages: Vec::new(),
        h2d_bytes: None,
        d2h_bytes: None,
        host_pinned_peak_bytes: None,
        page_lock_warning: None,
        wall_secs: 1.0,
        forecast: None,
        steps_of: None,
        gpu_state: None,
        is_skipped: false,
        unsupported_calls: Default::default(),
    }
}

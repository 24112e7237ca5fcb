//! For tests: the record of a case that ran on the CPU and measured nothing, and a run of such cases, from which others are made.

use engine_protocol::{Config, Device, Outcome, RunRecord, SCHEMA};
use reports::{Manifest, Run};

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
        capacity_bytes: None,
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
        predicted_need_bytes: None,
        cache: None,
        ranks: Vec::new(),
        unsupported_calls: Default::default(),
    }
}

/// The manifest of a run of cases of these names.
pub(crate) fn bare_manifest(cases: &[&str]) -> Manifest {
    Manifest {
        schema: SCHEMA,
        version: "0".into(),
        begun: "now".into(),
        command_line: Vec::new(),
        sweep: "s".into(),
        definition: String::new(),
        device: Device::Cpu,
        gpu: None,
        choice: String::new(),
        capacity_bytes: None,
        smaller: Vec::new(),
        memory_limit_bytes: None,
        gpus: Vec::new(),
        ram_bytes: None,
        ram: None,
        disk: None,
        allows_lossy: false,
        models: Vec::new(),
        cases: cases.iter().map(|&case| case.to_owned()).collect(),
        values: Default::default(),
        mixed: Vec::new(),
        left_out: Vec::new(),
        host: crate::host::describe(),
    }
}

/// A run of these records.
pub(crate) fn bare_run(records: Vec<RunRecord>) -> Run {
    let names: Vec<String> = records.iter().map(|record| record.case.clone()).collect();
    Run::new(bare_manifest(&names.iter().map(String::as_str).collect::<Vec<_>>()), records)
}

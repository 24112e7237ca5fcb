//! Sweeps on a real GPU, as far as that goes without one: NVML is the virtual GPU's, which a process with another program in the worker's place takes for real.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use assert_cmd::Command;
use engine_protocol::{AttentionKernel, AttnType, Dtype, FlagValue, GpuProfile, RunRecord, Stage};
use lowmem_tests::{built, root};
use serde_json::json;

use crate::command::{Place, json as answer, lowmem, stderr, stdout};

/// A worker that runs three steps, or as many as it is asked for.
pub(crate) const STEPS: &str = r#"
begun load
timed load
begun encode
timed encode
begun denoise
case "$request" in
    *'"steps_measured":1,'*) stepped ;;
    *) stepped; stepped; stepped ;;
esac
timed denoise
begun decode
timed decode
finished
"#;

fn profile(gpu: &str) -> GpuProfile {
    let text = fs::read_to_string(root().join(format!("sweeps/gpus/{gpu}.yaml"))).expect("a profile");
    serde_yaml::from_str(&text).expect("a profile")
}

/// `lowmem` on a machine with that GPU, of which NVML says what `sensors` does.
pub(crate) fn with_gpu(place: &Place, script: &str, gpu: &str, sensors: &serde_json::Value) -> Command {
    let mut command = place.lowmem_with(script);
    command.envs(environment(place, gpu, sensors));
    command
}

/// What makes a machine one with that GPU, for a `lowmem` with another program in its worker's place.
pub(crate) fn environment(place: &Place, gpu: &str, sensors: &serde_json::Value) -> [(&'static str, OsString); 6] {
    [
        ("LOWMEM_VIRTUAL_GPU", serde_json::to_string(&profile(gpu)).expect("JSON").into()),
        ("LOWMEM_VIRTUAL_GPU_QUIET", "1".into()),
        ("LOWMEM_VIRTUAL_GPU_MASK_NAME", "1".into()),
        ("LOWMEM_VIRTUAL_GPU_SENSORS", sensors.to_string().into()),
        ("LD_LIBRARY_PATH", built("virtual-gpu").into()),
        // Shared memory is everybody's.
        ("LOWMEM_WEIGHTS", place.path("").into()),
    ]
}

#[test]
fn what_the_gpu_was_like_is_in_the_row_and_a_warning_is_said() {
    let place = Place::new();
    let sensors =
        json!({ "temperature_c": 83, "sm_clock_mhz": 1200, "throttle_reasons": 0x4 | 0x8 | 0x20, "processes": { "4242": 5_u64 << 30 } });
    let sweep = ["sweep", "smoke", "--device", "cuda", "attn_type=sdpa", "steps=20", "--out", "run"];
    let assert = with_gpu(&place, STEPS, "rtx-4090", &sensors).args(sweep).assert().success();
    let rows = place.rows("run");
    assert_eq!(rows.len(), 4, "{}", stderr(&assert));
    for row in &rows {
        let readings = ["gpu_temperature_c", "gpu_highest_temperature_c", "sm_clock_mhz", "lowest_sm_clock_mhz", "throttled_by"];
        assert_eq!(readings.map(|column| &row[column]), ["83", "83", "1200", "1200", "power_limit heat"]);
        assert_eq!((&row["other_processes"], row.bytes("gpu_held_bytes")), ("4242", 5 << 30));
        let wanted = "another program was on the GPU: process 4242 (5.00 GiB); the GPU's clocks were held down by its power limit and heat";
        assert_eq!((&row["warnings"], &row["device"], &row["time_source"]), (wanted, "cuda", "measured"));
        // Two steps after the first, which took as long.
        let steps = ["steps_measured", "step_secs", "step_secs_least", "step_secs_largest", "first_step_secs"];
        assert_eq!(steps.map(|column| &row[column]), ["3", "0.5", "0.5", "0.5", "0.5"]);
    }
    // Levels 0 and 1 differ in tiles alone.
    let steps_of: Vec<_> = rows.iter().map(|row| &row["steps_of"]).collect();
    assert_eq!(steps_of.iter().filter(|case| !case.is_empty()).count(), 1, "{steps_of:?}");
    let said = stderr(&assert);
    for part in [
        "A real GPU is here: NVIDIA GeForce RTX 4090.",
        "Of 20 sampler steps 3 are run: the first warms up and counts once",
        "steps_measured=all runs all",
        "Weights from the seed are made once and shared",
        "Estimated for all 4 cases",
        "level0: warning: another program was on the GPU",
    ] {
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
    let told = stdout(&assert);
    for part in
        ["ok, warned", "Warned: another program was on the GPU: process 4242 (5.00 GiB) (4 cases, the first is level0).", "; a step 0.50 s"]
    {
        assert!(told.contains(part), "`{part}` is missing in: {told}");
    }
}

#[test]
fn a_calm_gpu_and_one_without_sensors_give_no_warning() {
    for (sensors, temperature) in [(json!({ "temperature_c": 41, "sm_clock_mhz": 2520, "throttle_reasons": 0x1 }), "41"), (json!({}), "")] {
        let place = Place::new();
        let sweep = ["sweep", "smoke", "--device", "cuda", "attn_type=sdpa", "low_mem_level=1", "steps_measured=all", "--out", "run"];
        let assert = with_gpu(&place, STEPS, "rtx-4090", &sensors).args(sweep).assert().success();
        let rows = place.rows("run");
        assert_eq!((&rows[0]["warnings"], &rows[0]["gpu_temperature_c"], &rows[0]["steps_measured"]), ("", temperature, "2"));
        assert!(!stdout(&assert).to_lowercase().contains("warned"), "{}", stdout(&assert));
        assert!(!stderr(&assert).contains("are run: the first"), "{}", stderr(&assert));
    }
}

#[test]
fn cases_that_pick_the_same_kernel_run_once_and_that_is_said() {
    let place = Place::new();
    let sweep = ["sweep", "smoke", "--device", "cuda", "attn_type=sdpa,flash,math", "low_mem_level=3", "--out", "run"];
    let assert = with_gpu(&place, STEPS, "rtx-4090", &json!({})).args(sweep).assert().success();
    let names: Vec<_> = place.rows("run").iter().map(|row| row["attn_type"].to_owned()).collect();
    assert_eq!(names, ["sdpa", "math"], "{}", stderr(&assert));
    let wanted =
        "1 case is not run, since others are the same: on compute capability 8.9 attn_type=flash and sdpa both pick flash attention.";
    assert!(stderr(&assert).contains(wanted) && stdout(&assert).contains(wanted), "{}", stderr(&assert));
    for file in ["report.html", "tables.md"] {
        let text = fs::read_to_string(place.path("run").join(file)).expect(file);
        assert!(text.contains("both pick flash attention"), "{file}");
    }
}

/// The kernel that the engine's sampler steps call there, by the operations that it was seen to call; its record says the same.
fn called(gpu: &str, attn_type: AttnType, dtype: Dtype) -> AttentionKernel {
    let flags = ["low_mem_level=3", "resolution=480p", "frames=1", "steps=1", "model=wan2.1-t2v-1.3b"];
    let mut command = lowmem();
    command.args(["profile", "--device", "virtual", "--json", "--gpu", gpu]).args(flags);
    let assert = command
        .args([format!("attn_type={}", attn_type.name()), format!("dtype={}", dtype.tell().as_str().expect("a word"))])
        .assert()
        .success();
    let record: RunRecord = serde_json::from_str(&stdout(&assert)).expect("a record");
    let denoise = record.stage(Stage::Denoise).expect("it ran");
    let calls = |word: &str| {
        denoise.operations.iter().any(|operation| operation.name.contains(word) && operation.name.contains("attention_forward"))
    };
    let called = match () {
        () if calls("cudnn") => AttentionKernel::Cudnn,
        () if calls("flash") => AttentionKernel::Flash,
        () if calls("efficient") => AttentionKernel::MemEfficient,
        () => AttentionKernel::Math,
    };
    assert_eq!(denoise.attention, [called], "{gpu} {attn_type:?} {dtype:?}");
    called
}

#[test]
fn the_kernel_of_a_name_is_the_one_that_the_engine_calls() {
    let every = [Dtype::Bf16, Dtype::Fp16, Dtype::Fp32];
    let (half, mixed) = (&every[..1], &[Dtype::Bf16, Dtype::Fp32][..]);
    let gpus: [(&str, &[Dtype]); 7] =
        [("t4", &every), ("a100-80gb", half), ("rtx-3090", half), ("rtx-4090", mixed), ("h100", mixed), ("b200", half), ("rtx-5090", half)];
    for (gpu, dtypes) in gpus {
        let profile = profile(gpu);
        for &dtype in dtypes {
            let said = AttentionKernel::of(AttnType::Sdpa, dtype, Some(&profile), 128);
            assert_eq!(Some(called(gpu, AttnType::Sdpa, dtype)), said, "sdpa in {dtype:?} on {gpu}");
        }
    }
    for attn_type in [AttnType::Flash, AttnType::Cudnn, AttnType::MemEfficient, AttnType::Math] {
        let said = AttentionKernel::of(attn_type, Dtype::Bf16, Some(&profile("rtx-4090")), 128);
        assert_eq!(Some(called("rtx-4090", attn_type, Dtype::Bf16)), said, "{attn_type:?}");
    }
}

/// The README says that `make sweep GPU=24GB` takes at most half an hour on a real card, by prediction. Cases are forecast by the real worker on the virtual GPU; the
/// real GPU's are a script's.
#[test]
fn the_default_sweep_on_a_real_24_gb_card_takes_half_an_hour_by_prediction() {
    let place = Place::new();
    let worker = built("lowmem-worker");
    let script = place.worker(STEPS);
    let wrapper = format!(
        "#!/bin/sh\nif [ \"$1\" = plan ]; then exec {0} plan; fi\nrequest=$(cat)\n\
         case \"$request\" in\n    *'\"device\":\"virtual\"'*) printf '%s' \"$request\" | {0} \"$@\" ;;\n    *) printf '%s' \"$request\" | {1} ;;\nesac\n",
        worker.display(),
        script.display()
    );
    let wrapper = place.file("wrapper.sh", &wrapper);
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("executable");
    let sweep = ["sweep", "full", "--device", "cuda", "--gpu", "rtx-4090", "attn_type=sdpa,flash,mem_efficient", "--out", "run"];
    let assert = with_gpu(&place, STEPS, "rtx-4090", &json!({})).env("LOWMEM_WORKER", wrapper).args(sweep).assert().success();
    let said = stderr(&assert);
    println!("{said}");
    let computing = said.split_once("Of it ").and_then(|(_, rest)| rest.split_once(" min are encoding")).expect("an estimate").0;
    let computing: f64 = computing.parse().unwrap_or_else(|_| panic!("{said}"));
    assert!(computing <= 25.0, "{said}");
    assert!(said.contains("Memory of the host: the largest case"), "{said}");
}

#[test]
fn the_doctor_finds_who_holds_memory_and_what_holds_clocks_down() {
    let place = Place::new();
    let sensors = json!({ "temperature_c": 91, "sm_clock_mhz": 900, "throttle_reasons": 0x20, "processes": { "4242": 5_u64 << 30 } });
    let doctor = |sensors: &serde_json::Value| {
        let mut command = with_gpu(&place, "", "rtx-4090", sensors);
        answer(&command.args(["doctor", "--json"]).assert().success(), "doctor")
    };
    let of = |checks: &serde_json::Value, what: &str| {
        let found = checks.as_array().expect("checks").iter().find(|check| check["what"] == what);
        found.unwrap_or_else(|| panic!("{what}: {checks:#}")).clone()
    };
    let sick = doctor(&sensors);
    let memory = of(&sick, "GPU memory");
    assert!(memory["found"].as_str().is_some_and(|said| said.contains("(4242, 5.00 GiB)")), "{sick:#}");
    assert!(memory["advice"].as_str().is_some_and(|said| said.contains("reserve_gib=5")), "{sick:#}");
    assert_eq!([&memory["state"], &of(&sick, "clocks")["state"]], ["mind", "mind"]);
    let well = doctor(&json!({ "temperature_c": 45, "sm_clock_mhz": 2500, "throttle_reasons": 0, "processes": {} }));
    assert_eq!(["GPU", "driver", "GPU memory", "clocks", "PyTorch"].map(|what| of(&well, what)["state"].clone()), ["ok"; 5], "{well:#}");
}

//! The host's memory: what waits there is there once, since the pages of the file that it came from are let go of; and what is predicted is what is measured.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use engine::memory::{PageLocking, Place, Residency, Waits};
use engine::weights::{Group, GroupLayout, GroupName, Source, WeightTypes};
use engine_protocol::HostMemory;
use lowmem_tests::sweep::Swept;
use safetensors::tensor::{Dtype, TensorView};
use tch::{Device, Kind};

/// Tells the process that this test starts that it is the one that is measured, and where its weights are.
const WEIGHTS: &str = "LOWMEM_TEST_WEIGHTS";

/// 24 groups of 16 MiB in bf16.
fn groups() -> Vec<Group> {
    let group = |index| Group::new(GroupName::numbered("blocks", index, ""), format!("blocks.{index}."));
    (0..24).map(|index| group(index).linear("in", 2048, 2048).linear("out", 2048, 2048)).collect()
}

#[test]
fn weights_on_the_host_take_their_own_bytes_and_little_more() {
    if let Some(path) = std::env::var_os(WEIGHTS) {
        return measure(&PathBuf::from(path));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    write(&path);
    // A process of its own, so that no other test's memory is counted.
    let mut alone = Command::new(std::env::current_exe().expect("this program"));
    alone.args(["--exact", "host_memory::weights_on_the_host_take_their_own_bytes_and_little_more"]).env(WEIGHTS, &path);
    let output = alone.output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Loads the weights, and holds what that took of the host against their bytes.
fn measure(path: &Path) {
    let groups = groups();
    let bytes: i64 = groups.iter().map(|group| GroupLayout::new(group, Kind::BFloat16).bytes).sum();
    let places = vec![Place::Streamed { prefetch: 1, waits: Waits::Pageable { ring: PageLocking::Never } }; groups.len()];
    let source = Source::open(path).expect("the file");
    let before = status("VmRSS");
    let residency = Residency::new(groups, &places, WeightTypes::plain(Kind::BFloat16), Device::Cpu, &source).expect("it loads");
    let taken = status("VmHWM") - before;
    drop(residency);
    assert!(taken >= bytes && taken as f64 <= bytes as f64 * 1.05, "{taken} bytes of memory for {bytes} bytes of weights");
}

fn write(path: &Path) {
    let zeros = vec![0; 2048 * 2048 * 2];
    let groups = groups();
    let mut tensors = HashMap::new();
    for group in &groups {
        for param in &group.params {
            let shape: Vec<usize> = param.shape.iter().map(|&side| side as usize).collect();
            let bytes = &zeros[..shape.iter().product::<usize>() * 2];
            let view = TensorView::new(Dtype::BF16, shape, bytes).expect("a view");
            tensors.insert(format!("{}{}", group.prefix, param.name), view);
        }
    }
    safetensors::serialize_to_file(tensors, None, path).expect("written");
}

/// Bytes of a line of this process's status.
fn status(key: &str) -> i64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("it has one");
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).expect("the line");
    line.trim().trim_end_matches("kB").trim().parse::<i64>().expect("a number") * 1024
}

/// Some 400 MB of weights in fp32, a quarter of it the text encoder's table.
fn model() -> String {
    let tiny = include_str!("../../sweeps/models/wan-tiny.yaml");
    let larger = [
        ("name: wan-tiny", "name: wan-400mb"),
        ("vocab_size: 384", "vocab_size: 32000"),
        ("  d_model: 32", "  d_model: 1024"),
        ("d_kv: 8", "d_kv: 64"),
        ("num_heads: 4", "num_heads: 16"),
        ("d_ff: 64", "d_ff: 2048"),
        ("num_layers: 4", "num_layers: 10"),
        ("num_attention_heads: 2", "num_attention_heads: 8"),
        ("attention_head_dim: 24", "attention_head_dim: 64"),
        ("ffn_dim: 96", "ffn_dim: 2048"),
        ("text_dim: 32", "text_dim: 1024"),
    ];
    larger.into_iter().fold(tiny.to_owned(), |text, (old, new)| {
        assert!(text.contains(old), "{old}");
        text.replacen(old, new, 1)
    })
}

#[test]
fn what_is_predicted_of_the_host_is_what_is_measured() {
    const HALF_GIB: u64 = 1 << 29;
    let configuration = tempfile::tempdir().expect("a folder");
    let models = configuration.path().join("lowmem/models");
    std::fs::create_dir_all(&models).expect("made");
    std::fs::write(models.join("wan-400mb.yaml"), model()).expect("written");
    let settings = [
        "0}",
        "3}",
        "3, load_weights: as_used}",
        "3, stream_from: file}",
        "3, weight_dtype: fp8_e4m3}",
        "3, weight_dtype: q5_0}",
        "2, dtype: bf16}",
    ];
    let cases: String = settings.iter().map(|rest| format!("  - {{low_mem_level: {rest}\n")).collect();
    let definition = format!("model: wan-400mb\nsteps: 2\nframes: 5\ncases:\n{cases}");
    let swept = Swept::new(&definition, "24GB", "cpu", &[("XDG_CONFIG_HOME", configuration.path().into())]);
    let records = swept.run().records;
    assert_eq!(records.len(), settings.len());
    for record in &records {
        for stage in &record.stages {
            let of = |host: Option<HostMemory>| host.and_then(|host| host.peak_bytes).expect("known");
            let (measured, predicted) = (of(stage.host), of(stage.predicted_host));
            let what = format!("{} in {}: {measured} measured, {predicted} predicted", record.case, stage.stage.name());
            assert!(measured.abs_diff(predicted) <= HALF_GIB.max(measured / 20), "{what}");
        }
    }
    // One model after the other takes less than all at once.
    let peak = |case: usize| records[case].host().and_then(|host| host.peak_bytes).expect("measured");
    assert!(peak(2) + (100 << 20) < peak(1), "{} as used, {} from the start", peak(2), peak(1));
}

#[test]
fn what_is_predicted_to_be_page_locked_is_what_the_virtual_gpu_counts() {
    let definition = "model: wan2.1-t2v-1.3b\nresolution: 480p\nframes: 21\nsteps_measured: 1\ncases:\n  - {low_mem_level: 2}\n  - {low_mem_level: 3}\n  \
        - {low_mem_level: 3, load_weights: as_used}\n  - {low_mem_level: 3, offload_text_encoder: stream}\n  - {low_mem_level: 3, max_pinned_gib: 1}\n  \
        - {low_mem_level: 3, stream_from: file}\n  - {low_mem_level: 3, weight_dtype: fp8_e4m3}\n  - {low_mem_level: 3, weight_dtype: q4_k}\n  - {low_mem_level: 1, activation_offload: true}\n  \
        - {low_mem_level: 3, resident_blocks: 10, pinned_memory: false}\n  - {low_mem_level: 3, cp_size: 2}\n  - {low_mem_level: 3, cp_size: 3, load_weights: as_used}\n";
    let swept = Swept::new(definition, "rtx-4090", "virtual", &[]);
    let records = swept.run().records;
    for record in &records {
        for stage in &record.stages {
            let pinned = |host: Option<HostMemory>| host.expect("told").pinned_peak_bytes;
            assert_eq!(pinned(stage.host), pinned(stage.predicted_host), "{} in {}", record.case, stage.stage.name());
        }
    }
    // Ranks share the weights that wait.
    let [one, two] = [1, 10].map(|case| records[case].predicted_host().expect("told").pinned_peak_bytes);
    assert_eq!(records[10].ranks.len(), 2);
    assert!(one.abs_diff(two) < one / 10, "{one} of one rank, {two} of two");
}

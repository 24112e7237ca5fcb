//! Weights that wait on the host are there once: the pages of the file that they came from are let go of.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use engine::memory::{PageLocking, Place, Residency, Waits};
use engine::weights::{Group, GroupLayout, GroupName, Source, WeightTypes};
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

//! Our own kernels, compiled by NVIDIA's real compiler for every kind of GPU that they are for. That needs no GPU.

use std::collections::BTreeSet;
use std::env;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;

use engine::kernels::CompiledKernels;
use engine_protocol::SAGE_CAPABILITIES;
use lowmem_tests::{built, generated_between, root};

/// What every kernel comes to, by a worker that finds the real compiler before the virtual GPU's.
fn compiled() -> Vec<CompiledKernels> {
    let setup = Command::new(root().join("setup/nvrtc.sh")).output().expect("it starts");
    assert!(setup.status.success(), "{}", String::from_utf8_lossy(&setup.stderr));
    let folder = PathBuf::from(String::from_utf8(setup.stdout).expect("a path").trim());
    let others = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let all = env::join_paths([folder].into_iter().chain(env::split_paths(&others)).chain([root().join("target/release/virtual-gpu")]));
    let output =
        Command::new(built("lowmem-worker")).arg("kernels").env("LD_LIBRARY_PATH", all.expect("paths")).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("kernels")
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn every_kernel_compiles_for_every_gpu_and_the_table_is_what_came_of_it() {
    let kernels = compiled();
    let of = |kernel: &CompiledKernels| (kernel.capability.clone(), kernel.element.clone(), kernel.head, kernel.kernel.clone());
    assert_eq!(kernels.iter().map(of).collect::<BTreeSet<_>>().len(), SAGE_CAPABILITIES.len() * 3 * (2 * 6 + 4), "each of them once");
    let mut table = "| kernel | compute capability | head | registers | shared memory, bytes | spilled, bytes (stores, loads) |\n|---|---|--:|--:|--:|--:|\n".to_owned();
    for kernel in kernels.iter().filter(|kernel| kernel.element == "kernels::Bf16") {
        let CompiledKernels {
            kernel, capability, head, registers, shared_bytes, spill_store_bytes: stored, spill_load_bytes: loaded, ..
        } = kernel;
        let head = head.map_or_else(String::new, |head| head.to_string());
        writeln!(table, "| `{kernel}` | {capability} | {head} | {registers} | {shared_bytes} | {stored}, {loaded} |").expect("a string");
    }
    generated_between("docs/kernels.md", "registers", &table);
    for kernel in kernels {
        // A block has 128 threads: two of them share the 65,536 registers of a multiprocessor.
        assert!((16..=255).contains(&kernel.registers), "{kernel:?}");
        assert!(kernel.shared_bytes <= 48 << 10, "no more than a kernel has without being asked for: {kernel:?}");
        assert!(kernel.spill_store_bytes <= 128, "sums are in registers: {kernel:?}");
    }
}

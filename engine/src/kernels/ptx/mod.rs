//! Kernels run on the CPU by the instructions that NVIDIA's compiler makes of them (PTX), for tests. Their source has branches that only a compiler for GPUs sees: products on the tensor
//! cores, loads of matrices, shuffles, copies that are waited for. So those run without a GPU too, by what the PTX ISA (9.0) says of each instruction, and by nothing of ours.
//!
//! What a GPU would fault at ends the test: places that are not aligned, and lanes that miss what all of a warp have to do together.
#![expect(unsafe_code, reason = "kernels read and write memory by address")]

mod block;
mod lanes;
mod program;

use std::cell::Cell;
use std::collections::HashMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::slice;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use self::program::Program;
use super::nvrtc::{self, Source};

/// The compute capability that programs are compiled for: the oldest that our kernels are for. On newer ones their source is the same.
const CAPABILITY: (u32, u32) = (8, 0);

thread_local! {
    /// How many kernels were run so, where that is asked for.
    static RUN: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Runs `run`, in which kernels on the CPU are run so: in a test that [`with_nvidias_compiler`] started.
pub(crate) fn by_instructions<R>(run: impl FnOnce() -> R) -> R {
    RUN.set(Some(0));
    let result = run();
    assert!(RUN.take() > Some(0), "no kernel was run");
    result
}

/// Runs `run`, the body of the test of that name, in a process of its own, whose NVRTC is NVIDIA's: in this one it may be the virtual GPU's, which compiles nothing.
pub(crate) fn with_nvidias_compiler(test: &str, run: impl FnOnce()) {
    const IS_THAT_PROCESS: &str = "LOWMEM_TEST_WITH_NVRTC";
    if env::var_os(IS_THAT_PROCESS).is_some() {
        return run();
    }
    let setup = Path::new(env!("CARGO_MANIFEST_DIR")).join("../setup/nvrtc.sh");
    let output = Command::new(setup).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let folder = PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim());
    let others = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let folders = env::join_paths([folder].into_iter().chain(env::split_paths(&others))).expect("paths");
    let mut again = Command::new(env::current_exe().expect("this program"));
    again.args(["--exact", test, "--nocapture"]).env("LD_LIBRARY_PATH", folders).env(IS_THAT_PROCESS, "1");
    let Output { status, stdout, stderr } = again.output().expect("it starts");
    let said = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    println!("{said}");
    assert!(status.success() && said.contains("1 passed"), "{test}: {status}");
}

/// Runs a kernel in a grid of blocks of 128 threads, where that is asked for; false where it is not.
///
/// # Safety
/// The kernel takes a parameter of this layout, and reads and writes what it points to as far as the kernel's own text does.
pub(super) unsafe fn run<P>(
    source: &'static Source,
    kernel: &str,
    options: impl FnOnce((u32, u32)) -> Vec<String>,
    grid: [i64; 3],
    given: &P,
) -> bool {
    let Some(run_before) = RUN.get() else { return false };
    RUN.set(Some(run_before + 1));
    let program = program(source, options(CAPABILITY));
    // SAFETY: any value may be read as the bytes that it has; parameters have no gaps, since each of their fields has eight.
    let parameter = unsafe { slice::from_raw_parts(std::ptr::from_ref(given).cast::<u8>(), size_of::<P>()) };
    // SAFETY: as the caller says.
    unsafe { block::run_grid(program.kernel(kernel), grid, parameter) };
    true
}

/// Programs by the first file of their source and the options.
type Programs = HashMap<(&'static str, Vec<String>), Arc<Program>>;

fn program(source: &'static Source, options: Vec<String>) -> Arc<Program> {
    static PROGRAMS: LazyLock<Mutex<Programs>> = LazyLock::new(Mutex::default);
    let mut programs = PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner);
    let program = programs
        .entry((source[0].0, options))
        .or_insert_with_key(|(_, options)| Arc::new(Program::parse(&nvrtc::ptx(source, options).expect("it compiles"))));
    Arc::clone(program)
}

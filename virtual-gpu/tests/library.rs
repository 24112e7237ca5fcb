//! The shared object under test, and tests that run in a process of their own: it reads its environment once.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::{env, fs, process};

/// `cudaError_t`, where the driver has the same numbers.
pub(crate) const INVALID_VALUE: i32 = 1;
pub(crate) const OUT_OF_MEMORY: i32 = 2;
pub(crate) const INVALID_HANDLE: i32 = 400;
/// `cudaMemcpyKind`.
pub(crate) const HOST_TO_DEVICE: i32 = 1;
pub(crate) const DEVICE_TO_HOST: i32 = 2;

/// `dim3`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Dim3(pub(crate) u32, pub(crate) u32, pub(crate) u32);

/// A CUDA library, opened by its soname as the loader finds it.
pub(crate) struct Library(pub(crate) libloading::Library);

/// Calls `name` in the library with its C signature: `call!(cudart, cudaFree(u64), address)`.
macro_rules! call {
    ($library:expr, $name:ident($($kind:ty),*) $(, $argument:expr)*) => {{
        let library: &$crate::library::Library = &$library;
        // SAFETY: the signature is the one in the library's header, and every pointer outlives the call.
        unsafe {
            let function = library.0.get::<unsafe extern "C" fn($($kind),*) -> i32>(stringify!($name).as_bytes());
            function.expect(stringify!($name))($($argument),*)
        }
    }};
}

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is inside the workspace").to_path_buf()
}

/// `target/release`, or wherever this test was built to.
pub(crate) fn build_folder() -> PathBuf {
    let test = env::current_exe().expect("a test knows where it is");
    test.ancestors().nth(2).expect("tests are built into `deps`").to_path_buf()
}

/// Opens a library by its soname.
pub(crate) fn open(soname: &str) -> Library {
    let path = build_folder().join("virtual-gpu").join(soname);
    // SAFETY: loading our own shared object runs no code of ours.
    Library(unsafe { libloading::Library::new(&path) }.unwrap_or_else(|error| panic!("{error} (`make build` first)")))
}

/// The profile that the sweeps use, as the worker hands it over.
pub(crate) fn rtx_4090() -> serde_json::Value {
    let text = fs::read_to_string(root().join("sweeps/gpus/rtx-4090.yaml")).expect("the profile is there");
    serde_yaml::from_str(&text).expect("the profile is valid")
}

/// The profile with another amount of memory, of which the context takes a part, and nothing else that belongs to a process.
pub(crate) fn with_memory(memory_bytes: u64, context_bytes: u64) -> String {
    let mut profile = rtx_4090();
    profile["memory_bytes"]["value"] = memory_bytes.into();
    profile["context_bytes"]["value"] = context_bytes.into();
    for nothing in ["code_bytes", "stream_bytes", "page_table_share"] {
        profile[nothing] = serde_json::json!({ "value": 0, "source": "a test" });
    }
    profile.to_string()
}

/// Runs `body` in a process of its own: this test, started again with this environment. In that process it does not return.
pub(crate) fn in_own_process(test: &str, environment: &[(&str, &str)], body: fn()) -> Output {
    start_in_own_process(test, environment, body).wait_with_output().expect("it was started")
}

/// The same, and does not wait for its end.
pub(crate) fn start_in_own_process(test: &str, environment: &[(&str, &str)], body: fn()) -> Child {
    const INSIDE: &str = "LOWMEM_TEST_INSIDE";
    if env::var_os(INSIDE).is_some() {
        body();
        process::exit(0);
    }
    let mut command = Command::new(env::current_exe().expect("a test knows where it is"));
    command.args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LOWMEM_VIRTUAL_GPU")) {
        command.env_remove(name);
    }
    command.env_remove("CUDA_VISIBLE_DEVICES").envs(environment.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the test starts itself")
}

/// What the process wrote to standard error, once it is known to have passed.
pub(crate) fn passed(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}\n{errors}\n{}", output.status, String::from_utf8_lossy(&output.stdout));
    errors
}

//! Compiles the C++ shims against libtorch and links libtorch's CUDA part, which nothing else here names.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=src/cuda/shim.cpp");
    println!("cargo:rerun-if-changed=src/cuda/work.cpp");
    println!("cargo:rerun-if-changed=src/cuda/work.h");
    println!("cargo:rerun-if-changed=src/cuda/observer.cpp");
    println!("cargo:rerun-if-changed=src/cuda/peak.cpp");
    println!("cargo:rerun-if-changed=src/cuda/course.h");
    println!("cargo:rerun-if-changed=src/cuda/peak.h");
    println!("cargo:rerun-if-changed=src/attention/sage");
    println!("cargo:rerun-if-changed=src/kernels/cuda");
    println!("cargo:rerun-if-changed=src/kernels/gate_and_residual");
    println!("cargo:rerun-if-changed=src/kernels/layer_norm");
    println!("cargo:rerun-if-changed=src/kernels/norm_and_turn");
    println!("cargo:rerun-if-changed=src/kernels/unpack");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    // As in tests/build.rs: whether a missing Python is meant.
    println!("cargo:rerun-if-env-changed=LOWMEM_WITHOUT_PYTHON");
    println!("cargo:rustc-check-cfg=cfg(without_python)");
    if std::env::var_os("LOWMEM_WITHOUT_PYTHON").is_some_and(|value| value == "1") {
        println!("cargo:rustc-cfg=without_python");
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let libtorch = std::env::var_os("LIBTORCH").map_or_else(|| root.join(".libtorch/torch"), PathBuf::from);
    let libtorch = libtorch.canonicalize().unwrap_or_else(|error| panic!("{}: {error}: run `make setup`", libtorch.display()));
    let cuda = root.join(".libtorch/cuda");
    assert!(cuda.exists(), "{}: not there: run `make setup`", cuda.display());

    let lib = libtorch.join("lib");
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++20")
        .include(libtorch.join("include"))
        .include(libtorch.join("include/torch/csrc/api/include"))
        .include(cuda.join("include"))
        // As libtorch itself was compiled: some of its classes have other members without.
        .define("NDEBUG", None)
        // libtorch's headers are not ours to mend.
        .flag("-Wno-unused-parameter");
    let observer = build.clone().files(["src/cuda/work.cpp", "src/cuda/peak.cpp", "src/cuda/observer.cpp"]).compile_intermediates();
    link_observer(&build, &observer, &lib, &profile().join("liblowmem_observer.so"));
    build.file("src/cuda/shim.cpp").objects(observer).compile("lowmem_shim");

    // The source of our own kernels, for the CPU.
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .opt_level(2)
        .flag("-Wno-unknown-pragmas")
        // Products and sums are rounded each by itself, as libtorch rounds them.
        .flag("-ffp-contract=off")
        .include("src/kernels/cuda")
        .files(
            [
                "src/attention/sage",
                "src/kernels/gate_and_residual",
                "src/kernels/layer_norm",
                "src/kernels/norm_and_turn",
                "src/kernels/unpack",
            ]
            .map(|folder| format!("{folder}/on_cpu.cpp")),
        )
        .compile("lowmem_kernels");

    println!("cargo:rustc-link-search=native={}", lib.display());
    for name in ["torch_cuda", "c10_cuda", "torch_cpu", "c10"] {
        println!("cargo:rustc-link-lib=dylib={name}");
    }
    // For the linker alone: at run time the loader takes the CUDA runtime that libtorch takes, real or virtual.
    println!("cargo:rustc-link-search=native={}", cuda.join("lib").display());
    println!("cargo:rustc-link-lib=dylib:+verbatim=libcudart.so.13");
    // Not for the linker: cargo puts this folder on the library path of tests, which must find some CUDA libraries even for the CPU.
    println!("cargo:rustc-link-search=native={}", profile().join("virtual-gpu").display());
    // The worker finds PyTorch beside itself. A worker that was unpacked somewhere else has no such link: who starts it says where PyTorch is.
    let beside = profile().join("libtorch");
    link(&libtorch, &beside);
    println!("cargo:rustc-link-arg-bins=-Wl,-rpath,$ORIGIN/libtorch/lib");
    // Cargo puts this folder on the library path of tests too; benchmarks are also started by hand.
    println!("cargo:rustc-link-search=native={}", beside.join("lib").display());
    println!("cargo:rustc-link-arg-benches=-Wl,-rpath,{}", lib.display());
}

/// Makes `link` point to `folder`.
fn link(folder: &Path, link: &Path) {
    if std::fs::read_link(link).is_ok_and(|there| there == folder) {
        return;
    }
    // Made beside it and moved there: a worker may be starting through it at this moment.
    let made = link.with_extension("part");
    let _ = std::fs::remove_file(&made);
    std::os::unix::fs::symlink(folder, &made).and_then(|()| std::fs::rename(&made, link)).expect("a link in the target folder");
}

/// `target/PROFILE`.
fn profile() -> PathBuf {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    out.ancestors().nth(3).expect("OUT_DIR is target/PROFILE/build/CRATE/out").to_owned()
}

/// The observer of operations as a library of its own, for Python programs with the same libtorch: `lowmem on` has them load it.
fn link_observer(build: &cc::Build, objects: &[PathBuf], lib: &Path, library: &Path) {
    // Made beside it and moved there: a program may be starting with it at this moment.
    let made = library.with_extension("so.part");
    let mut link = build.get_compiler().to_command();
    link.args(["-shared", "-o"]).arg(&made).args(objects).arg("-L").arg(lib).args(["-ltorch_cuda", "-ltorch_cpu", "-lc10_cuda", "-lc10"]);
    let status = link.status().expect("a C++ compiler");
    assert!(status.success(), "{link:?}: {status}");
    std::fs::rename(&made, library).expect("a library in the target folder");
}

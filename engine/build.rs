//! Compiles the C++ shims against libtorch and links libtorch's CUDA part, which nothing else here names.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=src/cuda/shim.cpp");
    println!("cargo:rerun-if-changed=src/cuda/work.cpp");
    println!("cargo:rerun-if-changed=src/cuda/work.h");
    println!("cargo:rerun-if-changed=src/cuda/observer.cpp");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let libtorch = std::env::var_os("LIBTORCH").map_or_else(|| root.join(".libtorch/torch"), PathBuf::from);
    let libtorch = libtorch.canonicalize().unwrap_or_else(|error| panic!("{}: {error}: run `make setup`", libtorch.display()));
    let cuda = root.join(".libtorch/cuda");
    assert!(cuda.exists(), "{}: not there: run `make setup`", cuda.display());

    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .include(libtorch.join("include"))
        .include(libtorch.join("include/torch/csrc/api/include"))
        .include(cuda.join("include"))
        // As libtorch itself was compiled: some of its classes have other members without.
        .define("NDEBUG", None)
        // libtorch's headers are not ours to mend.
        .flag("-Wno-unused-parameter")
        .file("src/cuda/shim.cpp")
        .file("src/cuda/work.cpp")
        .file("src/cuda/observer.cpp")
        .compile("lowmem_shim");

    let lib = libtorch.join("lib");
    println!("cargo:rustc-link-search=native={}", lib.display());
    for name in ["torch_cuda", "c10_cuda", "torch_cpu", "c10"] {
        println!("cargo:rustc-link-lib=dylib={name}");
    }
    // For the linker alone: at run time the loader takes the CUDA runtime that libtorch takes, real or virtual.
    println!("cargo:rustc-link-search=native={}", cuda.join("lib").display());
    println!("cargo:rustc-link-lib=dylib:+verbatim=libcudart.so.13");
    // Not for the linker: cargo puts this folder on the library path of tests, which must find some CUDA libraries even for the CPU.
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let profile = out.ancestors().nth(3).expect("OUT_DIR is target/PROFILE/build/CRATE/out");
    println!("cargo:rustc-link-search=native={}", profile.join("virtual-gpu").display());
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
}

//! Tells the tests that link libtorch where it is, and all of them whether a missing Python is meant and Slurm is here.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    let libtorch = std::env::var_os("LIBTORCH").expect(".cargo/config.toml sets LIBTORCH");
    let lib = Path::new(&libtorch).join("lib").canonicalize().expect("`make setup` made .libtorch");
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());

    println!("cargo::rerun-if-env-changed=LOWMEM_WITHOUT_PYTHON");
    println!("cargo::rustc-check-cfg=cfg(without_python)");
    if std::env::var_os("LOWMEM_WITHOUT_PYTHON").is_some_and(|value| value == "1") {
        println!("cargo::rustc-cfg=without_python");
    }

    println!("cargo::rustc-check-cfg=cfg(without_slurm)");
    let daemons = ["slurmctld", "slurmd"].map(|name| Path::new("/usr/sbin").join(name));
    println!("cargo::rerun-if-changed=/usr/sbin");
    if !daemons.iter().all(|daemon| daemon.exists()) {
        println!("cargo::rustc-cfg=without_slurm");
    }
}

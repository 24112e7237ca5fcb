//! Tells the tests that link libtorch where it is, and all of them whether a missing Python or browser is meant and Slurm is here.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    let libtorch = std::env::var_os("LIBTORCH").expect(".cargo/config.toml sets LIBTORCH");
    let lib = Path::new(&libtorch).join("lib").canonicalize().expect("`make setup` made .libtorch");
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());

    for (variable, cfg) in [("LOWMEM_WITHOUT_PYTHON", "without_python"), ("LOWMEM_WITHOUT_BROWSER", "without_browser")] {
        println!("cargo::rerun-if-env-changed={variable}");
        println!("cargo::rustc-check-cfg=cfg({cfg})");
        if std::env::var_os(variable).is_some_and(|value| value == "1") {
            println!("cargo::rustc-cfg={cfg}");
        }
    }

    println!("cargo::rustc-check-cfg=cfg(without_slurm)");
    let daemons = ["slurmctld", "slurmd"].map(|name| Path::new("/usr/sbin").join(name));
    println!("cargo::rerun-if-changed=/usr/sbin");
    if !daemons.iter().all(|daemon| daemon.exists()) {
        println!("cargo::rustc-cfg=without_slurm");
    }
}

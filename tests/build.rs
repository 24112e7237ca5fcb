//! Tells the tests that link libtorch where it is.

use std::path::Path;

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let libtorch = std::env::var_os("LIBTORCH").expect(".cargo/config.toml sets LIBTORCH");
    let lib = Path::new(&libtorch).join("lib").canonicalize().expect("`make setup` made .libtorch");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
}

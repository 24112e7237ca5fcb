//! Has the program built again where a file of its data comes or goes: `include_dir` sees only those change that were there.

fn main() {
    for folder in ["../sweeps", "../setup"] {
        println!("cargo::rerun-if-changed={folder}");
    }
}

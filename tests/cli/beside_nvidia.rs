//! Beside NVIDIA's own libraries: where pip installed them, PyTorch's libraries find those first, by a path of their own. The virtual GPU is met all the same, and only
//! where it is asked for.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use lowmem_tests::{built, root};

use crate::command::{Place, stderr, stdout};
use crate::on::on;
use crate::python::{PYTHON, path_to_torch};

/// Says whether NVIDIA's runtime is loaded, and what answers.
const PROGRAM: &str = "
import torch
with open('/proc/self/maps') as maps:
    print('nvidia/cu13/lib/libcudart.so.13' in maps.read(), torch.cuda.device_count())
if torch.cuda.is_available():
    kept = torch.zeros(1 << 30, dtype=torch.uint8, device='cuda')
    print(torch.cuda.get_device_name(), torch.cuda.memory_allocated() >> 30)
";

/// PyTorch as pip installs it, with NVIDIA's runtime beside it (the one that setup fetched for its headers). A folder that is a link would lead out of here by its
/// `..`, so only what lies in folders is.
fn installed_together(place: &Place) -> String {
    let torch = path_to_torch();
    let packages = place.path("packages");
    let fetched = |name: &str| root().join(".libtorch").join(name).canonicalize().expect("`make setup` first");
    links(&fetched("torch"), &packages.join("torch"));
    links(&fetched("torch").join("lib"), &packages.join("torch/lib"));
    links(&fetched("cuda"), &packages.join("nvidia/cu13"));
    format!("{}:{torch}", packages.display())
}

/// A folder with links to what lies in another one, but for its own `lib` where PyTorch has one.
fn links(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").map(|entry| entry.expect("an entry")) {
        if !(from.ends_with("torch") && entry.file_name() == "lib") {
            symlink(entry.path(), to.join(entry.file_name())).expect("a link");
        }
    }
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn the_virtual_gpu_answers_although_nvidias_runtime_is_loaded() {
    let place = Place::new();
    let path = installed_together(&place);
    let mut command = on(&place, &["rtx-4090", "--strict"], PROGRAM, &[]);
    let assert = command.env("PYTHONPATH", path).assert().success();
    assert_eq!(stdout(&assert), "True 1\nVirtual NVIDIA GeForce RTX 4090 1\n", "{}", stderr(&assert));
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn nvidias_runtime_answers_where_the_virtual_gpu_is_not_asked_for() {
    // The other libraries are the virtual GPU's, since there are no others here; but for the driver's, which NVIDIA's runtime and PyTorch would find.
    let place = Place::new();
    let path = installed_together(&place);
    place.file("program.py", PROGRAM);
    let libraries = place.path("target/virtual-gpu");
    fs::create_dir_all(&libraries).expect("a folder");
    symlink(built("libvirtual_gpu.so"), place.path("target/libvirtual_gpu.so")).expect("a link");
    for entry in fs::read_dir(built("virtual-gpu")).expect("the libraries") {
        let entry = entry.expect("a library");
        if !["libcuda.so", "libnvidia-ml.so"].iter().any(|driver| entry.file_name().to_string_lossy().starts_with(driver)) {
            fs::copy(entry.path(), libraries.join(entry.file_name())).expect("a copy");
        }
    }
    let profile = r#"{"name": "none"}"#;
    let mut command = Command::new(PYTHON);
    command.current_dir(place.path("")).arg("program.py").env("PYTHONPATH", path).env("PYTHONDONTWRITEBYTECODE", "1");
    let output =
        command.env("LD_LIBRARY_PATH", &libraries).env("LOWMEM_VIRTUAL_GPU", profile).env_remove("LD_PRELOAD").output().expect("Python");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "True 0\n", "{said}");
    // It would have said that this is no profile of a GPU.
    assert!(!said.contains("virtual GPU"), "{said}");
}

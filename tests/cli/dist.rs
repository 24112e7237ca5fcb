//! The archive of `make dist`, unpacked on a machine that has nothing of ours: an empty home, another folder, no Rust.
//!
//! What it fetches is not fetched here: PyTorch's wheel is half a gigabyte, and lies in the home's cache by a link to the one that `make setup` fetched, with the
//! same script.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::LazyLock;

use lowmem_tests::root;

use crate::command::Place;

/// A machine: an empty home, and the folder that the archive was unpacked in.
struct Machine {
    place: Place,
    folder: PathBuf,
}

impl Machine {
    fn new() -> Self {
        static ARCHIVE: LazyLock<PathBuf> = LazyLock::new(|| {
            let made = Command::new(root().join("setup/dist.sh")).output().expect("a shell");
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            root().join(String::from_utf8_lossy(&made.stdout).trim())
        });
        let archive = &*ARCHIVE;
        // Wherever it is unpacked: the loader takes colons and spaces in a path for ends of it.
        let place = Place::new().inside("an odd: folder; indeed");
        fs::create_dir(place.path("home")).expect("a home");
        let unpacked = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(place.path("")).status().expect("tar");
        assert!(unpacked.success());
        let name = archive.file_name().expect("a name").to_string_lossy().replace(".tar.gz", "");
        let folder = place.path(&name);
        Self { place, folder }
    }

    /// Runs the unpacked `lowmem` in the home, with nothing in its environment but a home and a path.
    fn lowmem(&self, words: &[&str]) -> Output {
        let home = self.place.path("home");
        let mut command = Command::new(self.folder.join("lowmem"));
        command.args(words).current_dir(&home).env_clear().env("HOME", &home).env("PATH", "/usr/bin:/bin");
        command.output().expect("the unpacked lowmem")
    }

    /// Puts PyTorch's wheel where `lowmem setup` would have unpacked it.
    fn has_fetched(&self) {
        let pin = fs::read_to_string(root().join("setup/libtorch.txt")).expect("the pin");
        let version = pin.lines().find_map(|line| line.strip_prefix("torch==")?.split(' ').next()).expect("a version");
        let wheel = self.place.path(&format!("home/.cache/lowmem/torch-{version}"));
        fs::create_dir_all(&wheel).expect("a folder");
        symlink(root().join(".libtorch/torch").canonicalize().expect("`make setup` first"), wheel.join("torch")).expect("a link");
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn an_unpacked_archive_answers_once_pytorch_is_there() {
    let machine = Machine::new();
    for file in [
        "LICENSE",
        "THIRD-PARTY-LICENSES",
        "README.md",
        "completions/lowmem.bash",
        "completions/lowmem.zsh",
        "completions/lowmem.fish",
        "man/man1/lowmem-sweep.1",
    ] {
        let length = fs::metadata(machine.folder.join(file)).unwrap_or_else(|error| panic!("{file}: {error}")).len();
        assert!(length > 0, "{file} is empty");
    }
    // Data is in the binary.
    let models = machine.lowmem(&["models"]);
    assert!(models.status.success() && said(&models).contains("wan2.2-t2v-a14b"), "{}", said(&models));

    let early = machine.lowmem(&["autotune", "--gpu", "24GB"]);
    assert_eq!(early.status.code(), Some(2), "{}", said(&early));
    assert!(said(&early).contains("home/.cache/lowmem: run `lowmem setup`"), "{}", said(&early));
    assert!(!machine.place.path("home/lowmem-runs").exists(), "a run directory was made");

    machine.has_fetched();
    let setup = machine.lowmem(&["setup"]);
    assert!(setup.status.success() && said(&setup).contains("PyTorch is in "), "{}", said(&setup));
    let answer = machine.lowmem(&["autotune", "--gpu", "24GB"]);
    assert!(answer.status.success(), "{}", said(&answer));
    for part in ["wan2.1-t2v-14b at 1280x720, 81 frames", "Fastest, recommended: level ", "Report: lowmem-runs/"] {
        assert!(said(&answer).contains(part), "`{part}` is missing in: {}", said(&answer));
    }
    assert!(machine.place.path("home/lowmem-runs/latest/report.html").is_file());
}

#[test]
fn nothing_is_looked_for_where_it_was_built() {
    let machine = Machine::new();
    let program = fs::read(machine.folder.join("lowmem")).expect("lowmem");
    let checkout = root().display().to_string();
    assert!(!program.windows(checkout.len()).any(|window| window == checkout.as_bytes()), "lowmem names {checkout}");
    for library in ["lowmem-worker", "libvirtual_gpu.so", "liblowmem_observer.so", "virtual-gpu/libcudart.so.13"] {
        let read = Command::new("readelf").arg("-d").arg(machine.folder.join(library)).output().expect("readelf, of the linker's package");
        assert!(read.status.success(), "{library}: {}", said(&read));
        for line in said(&read).lines().filter(|line| line.contains("(RUNPATH)") || line.contains("(RPATH)")) {
            assert!(line.contains("[$ORIGIN"), "{library}: {line}");
        }
    }
}

#[test]
fn a_users_own_data_is_found_and_a_checkouts_comes_first() {
    let machine = Machine::new();
    let own = machine.place.path("home/.config/lowmem");
    let tiny = fs::read_to_string(root().join("sweeps/models/wan-tiny.yaml")).expect("a model");
    let model = |folder: PathBuf, name: &str, title: &str| {
        fs::create_dir_all(&folder).expect("a folder");
        let lines = tiny.lines().map(|line| match line.split_once(": ") {
            Some(("name", _)) => format!("name: {name}"),
            Some(("title", _)) => format!("title: {title}"),
            _ => line.to_owned(),
        });
        fs::write(folder.join(format!("{name}.yaml")), lines.collect::<Vec<_>>().join("\n")).expect("written");
    };
    model(own.join("models"), "mine", "A model of mine");
    model(own.join("models"), "wan-tiny", "Another tiny one");
    let listed = said(&machine.lowmem(&["models"]));
    assert!(listed.contains("A model of mine") && listed.contains("Another tiny one") && listed.contains("wan2.1-t2v-14b"), "{listed}");

    // A folder is a checkout where it has models and GPUs.
    model(machine.place.path("home/sweeps/models"), "wan-tiny", "The one of the checkout");
    fs::create_dir_all(machine.place.path("home/sweeps/gpus")).expect("a folder");
    let listed = said(&machine.lowmem(&["models"]));
    assert!(listed.contains("A model of mine") && listed.contains("The one of the checkout"), "{listed}");
    assert!(!listed.contains("Another tiny one") && !listed.contains("wan2.1-t2v-14b"), "{listed}");
}

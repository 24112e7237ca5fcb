//! Which crate may know which.

use std::collections::BTreeSet;

use lowmem_tests::root;

use crate::tree::files;

/// What a crate's manifest depends on, tests and build scripts included.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let path = root().join(manifest).join("Cargo.toml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut inside = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        if let Some(section) = line.strip_prefix('[') {
            inside = section.trim_end_matches(']').ends_with("dependencies");
        } else if inside && let Some((name, _)) = line.split_once(['=', '.']) {
            found.insert(name.trim().to_owned());
        }
    }
    found
}

fn ours(manifest: &str) -> Vec<String> {
    let members =
        ["engine", "engine-protocol", "harness", "host-memory", "picture", "reports", "untrusted", "virtual-gpu", "virtual-gpu-protocol"];
    dependencies(manifest).into_iter().filter(|name| members.contains(&name.as_str())).collect()
}

#[test]
fn arrows_point_as_the_architecture_says() {
    assert_eq!(ours("virtual-gpu/protocol"), [""; 0]);
    assert_eq!(ours("host-memory"), [""; 0]);
    assert_eq!(ours("untrusted"), [""; 0]);
    assert_eq!(ours("picture"), ["untrusted"]);
    assert_eq!(ours("engine/protocol"), ["virtual-gpu-protocol"]);
    assert_eq!(ours("engine"), ["engine-protocol", "host-memory", "picture", "untrusted"]);
    assert_eq!(ours("reports"), ["engine-protocol", "untrusted"]);
    assert_eq!(ours("harness"), ["engine-protocol", "host-memory", "picture", "reports", "untrusted", "virtual-gpu-protocol"]);
    assert_eq!(ours("virtual-gpu"), ["virtual-gpu-protocol"]);
}

#[test]
fn only_the_engine_knows_libtorch() {
    for manifest in ["engine/protocol", "harness", "host-memory", "picture", "reports", "untrusted", "virtual-gpu", "virtual-gpu/protocol"]
    {
        let known = dependencies(manifest);
        assert!(!known.contains("tch") && !known.contains("torch-sys"), "{manifest} depends on libtorch");
    }
    assert!(dependencies("engine").contains("tch"));
}

#[test]
fn models_know_nothing_of_memory_levels() {
    for folder in ["text_encoder", "image_encoder", "transformer", "vae", "attention", "scheduler"] {
        let folder = format!("engine/src/{folder}/");
        let of_folder: Vec<_> = files("rs").into_iter().filter(|(path, _)| path.starts_with(&folder)).collect();
        assert!(!of_folder.is_empty(), "{folder}");
        for (path, text) in of_folder {
            for known in ["low_mem_level", "crate::memory", "crate::cuda", "crate::components", "crate::pipeline"] {
                assert!(!text.contains(known), "{path}: a model that knows of {known}");
            }
        }
    }
}

#[test]
fn the_virtual_device_is_safe_rust_without_c() {
    let folder = root().join("virtual-gpu/src/device");
    for entry in std::fs::read_dir(&folder).expect("the device's folder") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a source file is text");
        assert!(!text.contains("extern \"C\""), "{}: C in the device's own logic", path.display());
    }
}

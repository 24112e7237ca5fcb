//! The prototypes of NVIDIA's headers, as bindgen wrote them down.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use syn::{FnArg, ImplItem, Item, ReturnType, Signature};

use super::class::{Class, Types, is_there};

/// One function of a header.
pub(super) struct Prototype {
    pub(super) parameters: Vec<Class>,
    pub(super) result: Class,
}

/// What is on of the crates' features: the versions that the virtual GPU stands in for, and the one of cuDNN that is nearest to its.
const FEATURES: [&str; 3] = ["cuda-13000", "cudnn-09021", "nccl-02029"];
/// Headers in which others' types are meant, in cudarc's words.
const COMMON: [&str; 2] = ["driver", "runtime"];

/// Where cargo has the sources of these packages.
fn sources(names: &[&str]) -> Vec<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let output = Command::new(cargo)
        // What other platforms need was never fetched.
        .args(["metadata", "--format-version", "1", "--offline", "--filter-platform", "x86_64-unknown-linux-gnu", "--manifest-path"])
        .arg(manifest)
        .output()
        .expect("cargo can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let folder = |name: &&str| {
        let package = packages.iter().find(|package| package["name"] == **name).unwrap_or_else(|| panic!("no package {name}"));
        Path::new(package["manifest_path"].as_str().expect("a path")).parent().expect("a folder").join("src")
    };
    names.iter().map(folder).collect()
}

fn parse(path: &Path) -> Vec<Item> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())).items
}

/// The prototype that a signature is.
pub(super) fn prototype(signature: &Signature, types: &Types) -> Prototype {
    let parameters = signature.inputs.iter().filter_map(|input| match input {
        FnArg::Typed(typed) => Some(types.class(&typed.ty)),
        FnArg::Receiver(_) => None,
    });
    let result = match &signature.output {
        ReturnType::Default => Class::Nothing,
        ReturnType::Type(_, kind) => types.class(kind),
    };
    Prototype { parameters: parameters.collect(), result }
}

/// Those of the functions that are wanted, by name.
pub(super) fn prototypes(is_wanted: impl Fn(&str) -> bool) -> BTreeMap<String, Prototype> {
    let [cudarc, nvml] = sources(&["cudarc", "nvml-wrapper-sys"]).try_into().expect("two packages");
    let entries = fs::read_dir(&cudarc).expect("cudarc's sources").map(|entry| entry.expect("an entry").path());
    let mut libraries: Vec<(String, Vec<Item>)> = entries
        .filter(|folder| folder.join("sys/mod.rs").is_file())
        .map(|folder| (folder.file_name().expect("a name").to_string_lossy().into_owned(), parse(&folder.join("sys/mod.rs"))))
        .collect();
    libraries.push(("nvml".into(), parse(&nvml.join("bindings.rs"))));
    let mut found = BTreeMap::new();
    for (library, items) in &libraries {
        let mut types = Types::default();
        let common = libraries.iter().filter(|(name, _)| library == "cupti" && COMMON.contains(&name.as_str()));
        common.flat_map(|(_, items)| items).chain(items).for_each(|item| types.learn(item, &FEATURES));
        for item in items {
            match item {
                Item::Fn(function) if is_there(&function.attrs, &FEATURES) && is_wanted(&function.sig.ident.to_string()) => {
                    found.insert(function.sig.ident.to_string(), prototype(&function.sig, &types));
                }
                // With bindgen's own way to load a library, its functions are methods.
                Item::Impl(methods) => {
                    for method in &methods.items {
                        if let ImplItem::Fn(method) = method
                            && is_wanted(&method.sig.ident.to_string())
                        {
                            found.insert(method.sig.ident.to_string(), prototype(&method.sig, &types));
                        }
                    }
                }
                _ => {}
            }
        }
    }
    found
}

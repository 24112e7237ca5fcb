//! The shared object against PyTorch's own libraries: nothing that they ask for is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use object::read::ReadCache;
use object::read::elf::{Dyn, ElfFile64, Sym};
use object::{LittleEndian, elf};

use crate::library::{build_folder, root};

/// What one library needs and has.
#[derive(Default)]
pub(crate) struct Symbols {
    /// Undefined symbols that must be found, with the library that the linker found them in where it is written down.
    wanted: BTreeMap<String, Option<String>>,
    pub(crate) defined: BTreeSet<String>,
    needed: BTreeSet<String>,
}

pub(crate) fn symbols(path: &Path) -> Symbols {
    let cache = ReadCache::new(File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
    let file = ElfFile64::<LittleEndian, _>::parse(&cache).expect("a shared object");
    let (endian, data) = (file.endian(), file.data());
    let sections = file.elf_section_table();
    let dynamic = sections.symbols(endian, data, elf::SHT_DYNSYM).expect("dynamic symbols");
    let versions = sections.versions(endian, data).expect("versions");
    let mut found = Symbols::default();
    for (index, symbol) in dynamic.enumerate() {
        let name = String::from_utf8_lossy(dynamic.symbol_name(endian, symbol).expect("a name")).into_owned();
        if name.is_empty() || symbol.st_bind() == elf::STB_LOCAL {
            continue;
        }
        if !symbol.is_undefined(endian) {
            found.defined.insert(name);
        } else if symbol.st_bind() != elf::STB_WEAK {
            let version = versions.as_ref().and_then(|versions| versions.version(versions.version_index(endian, index)).ok().flatten());
            let library = version.and_then(|version| version.file()).map(|file| String::from_utf8_lossy(file).into_owned());
            found.wanted.insert(name, library);
        }
    }
    let (entries, strings) = sections.dynamic(endian, data).expect("a dynamic section").expect("a dynamic section");
    let strings = sections.strings(endian, data, strings).expect("its strings");
    for entry in entries.iter().filter(|entry| entry.tag(endian) == elf::DT_NEEDED) {
        found.needed.insert(String::from_utf8_lossy(entry.string(endian, strings).expect("a name")).into_owned());
    }
    found
}

fn wheel_libraries() -> Vec<PathBuf> {
    let folder = root().join(".libtorch/torch/lib");
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error} (`make setup` first)", folder.display()));
    let paths = entries.map(|entry| entry.expect("a file").path());
    paths.filter(|path| path.is_file() && path.to_string_lossy().contains(".so")).collect()
}

fn lines(path: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(path)).expect("a committed file");
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

fn sonames() -> Vec<String> {
    lines("virtual-gpu/sonames.txt").iter().filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
}

/// Every CUDA symbol that the wheel's libraries want: what none of them defines, and what is neither Python's, nor
/// C++'s, nor the system's. A system symbol has a version that names its library, in at least one of those that want it.
fn asked_for() -> BTreeSet<String> {
    let libraries: Vec<Symbols> = wheel_libraries().iter().map(|path| symbols(path)).collect();
    let sonames = sonames();
    let is_ours = |library: &Option<String>| library.as_ref().is_none_or(|library| sonames.contains(library));
    let defined: BTreeSet<&String> = libraries.iter().flat_map(|library| &library.defined).collect();
    let wanted = || libraries.iter().flat_map(|library| &library.wanted);
    let system: BTreeSet<&String> = wanted().filter(|(_, library)| !is_ours(library)).map(|(name, _)| name).collect();
    let names = wanted().map(|(name, _)| name).filter(|name| !defined.contains(name) && !system.contains(name));
    names.filter(|name| !["Py", "_Py", "_Z"].iter().any(|start| name.starts_with(start))).cloned().collect()
}

#[test]
fn nothing_that_pytorch_asks_for_is_missing() {
    let asked_for = asked_for();
    assert!(asked_for.len() > 700, "only {} symbols: the wheel was not read", asked_for.len());
    let exported = symbols(&build_folder().join("libvirtual_gpu.so")).defined;
    let missing: Vec<&String> = asked_for.difference(&exported).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_library_that_pytorch_needs_leads_to_the_shared_object() {
    let sonames = sonames();
    for soname in &sonames {
        let library = symbols(&build_folder().join("virtual-gpu").join(soname));
        assert_eq!(library.needed, BTreeSet::from(["libvirtual_gpu.so".to_owned()]), "{soname}");
        assert!(library.defined.iter().all(|name| sonames.contains(name) || name == "NVSHMEM"), "{soname} holds more than its version");
    }
    let needed: BTreeSet<String> = wheel_libraries().iter().flat_map(|path| symbols(path).needed).collect();
    let cuda = needed.iter().filter(|soname| ["libcu", "libnv", "libnccl"].iter().any(|start| soname.starts_with(start)));
    let missing: Vec<&String> = cuda.filter(|soname| !sonames.contains(soname)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn what_is_listed_as_unsupported_is_wanted_and_listed_once() {
    let listed = lines("virtual-gpu/unsupported.txt");
    let mut sorted = listed.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(listed, sorted, "unsupported.txt is in order, each line once");
    let asked_for = asked_for();
    let packages: Vec<String> =
        lines("virtual-gpu/packages.csv").iter().filter_map(|line| Some(line.split_once(',')?.0.to_owned())).collect();
    for line in &listed {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            // The driver's and NVML's functions are looked up at run time, by PyTorch and by management programs.
            ["cuda" | "nvml", _] => {}
            [_, name] => assert!(asked_for.contains(name), "PyTorch asks no longer for {name}"),
            [_, name, by] => {
                assert!(!asked_for.contains(name), "{name} is PyTorch's too");
                let unknown: Vec<&str> = by.split(',').filter(|by| !packages.iter().any(|package| package.starts_with(by))).collect();
                assert!(unknown.is_empty(), "{name} is for {unknown:?}, of which packages.csv knows nothing");
            }
            _ => panic!("unsupported.txt: {line}"),
        }
    }
}

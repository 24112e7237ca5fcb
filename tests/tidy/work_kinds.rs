//! The numbers of kinds of work, which Rust and C++ both have.

use std::collections::BTreeMap;
use std::fs;

use lowmem_tests::root;
use virtual_gpu_protocol::{WorkKind, WorkType};

/// The numbers of an `enum class` in `work.h`, by name.
fn numbers(name: &str) -> BTreeMap<String, i32> {
    let path = root().join("engine/src/cuda/work.h");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (_, rest) = text.split_once(&format!("enum class {name} : int {{")).expect("the enumeration");
    let (inside, _) = rest.split_once('}').expect("its end");
    let entry = |entry: &str| {
        let (name, number) = entry.split_once('=').unwrap_or_else(|| panic!("{entry}: no number"));
        (name.trim().to_owned(), number.trim().parse().expect("a number"))
    };
    inside.split(',').map(entry).collect()
}

fn name(value: impl serde::Serialize) -> String {
    serde_json::to_value(value).expect("JSON").as_str().expect("a name").to_owned()
}

#[test]
fn kinds_have_the_same_numbers_in_rust_and_in_cpp() {
    let mut ours: BTreeMap<_, _> = WorkKind::NUMBERED.into_iter().map(name).zip(1..).collect();
    ours.insert("unknown".into(), 0);
    assert_eq!(numbers("Kind"), ours);
    for (kind, number) in WorkKind::NUMBERED.into_iter().zip(1..) {
        assert_eq!(WorkKind::of(number), Some(kind));
    }
}

#[test]
fn types_have_the_same_numbers_in_rust_and_in_cpp() {
    assert_eq!(numbers("Type"), WorkType::NUMBERED.into_iter().map(name).zip(0..).collect());
}

//! Fixtures, and a model's groups loaded from one onto the CPU.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use engine::weights::{Group, GroupLayout, GroupName, Groups, Source, Weights};
use safetensors::{Dtype, SafeTensors};
use serde::de::DeserializeOwned;
use tch::{Device, Kind, Tensor};

/// The fixture of that name.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(format!("{name}.safetensors"))
}

/// One fixture's inputs and outputs.
pub(crate) struct Fixture {
    bytes: Vec<u8>,
}

impl Fixture {
    /// Reads `tests/fixtures/NAME.safetensors`.
    pub(crate) fn open(name: &str) -> Self {
        Self { bytes: std::fs::read(path(name)).unwrap() }
    }

    /// The tensor `name`, on the CPU.
    pub(crate) fn tensor(&self, name: &str) -> Tensor {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(name).unwrap();
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::I64 => Kind::Int64,
            other => panic!("{name} is {other:?}"),
        };
        let shape: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
        Tensor::from_data_size(view.data(), &shape, kind)
    }

    /// The fact `name` that the generator wrote into the header.
    pub(crate) fn fact<T: DeserializeOwned>(&self, name: &str) -> T {
        let (_, header) = SafeTensors::read_metadata(&self.bytes).unwrap();
        let facts: serde_json::Value = serde_json::from_str(&header.metadata().as_ref().unwrap()["fixture"]).unwrap();
        serde_json::from_value(facts[name].clone()).unwrap()
    }
}

/// All groups of a model, on the CPU from the start.
pub(crate) struct Resident {
    weights: HashMap<GroupName, Weights>,
}

impl Resident {
    /// Loads `groups` from a fixture, in `compute` where a parameter does not insist on fp32.
    pub(crate) fn load(fixture: &str, groups: &[Group], compute: Kind) -> Self {
        let source = Source::open(&path(fixture)).unwrap();
        let load = |group: &Group| {
            let layout = GroupLayout::new(group, compute);
            let slab = Tensor::zeros([layout.bytes], (Kind::Uint8, Device::Cpu));
            let weights = Weights::bind(group, &layout, &slab).unwrap();
            for param in &group.params {
                source.fill(group, param, &mut weights.get(&param.name).shallow_clone()).unwrap();
            }
            (group.name, weights)
        };
        Self { weights: groups.iter().map(load).collect() }
    }
}

impl Groups for Resident {
    fn with<R>(&mut self, name: GroupName, run: impl FnOnce(&Weights) -> engine::Result<R>) -> engine::Result<R> {
        run(&self.weights[&name])
    }
}

/// Asserts that `got` is off `wanted` by no more than `tolerance`, as a share of the largest value that is wanted, and prints by how much it is.
#[track_caller]
pub(crate) fn assert_close(what: &str, got: &Tensor, wanted: &Tensor, tolerance: f64) {
    assert_eq!(got.size(), wanted.size(), "{what}: shape");
    let wanted = wanted.to_kind(Kind::Double);
    let error = (got.to_kind(Kind::Double) - &wanted).abs().max().double_value(&[]) / wanted.abs().max().double_value(&[]);
    println!("{what}: relative error {error:.1e}, at most {tolerance:.0e}");
    assert!(error <= tolerance, "{what}: relative error {error:.1e} is over {tolerance:.0e}");
}

/// The same as a whole, and not value by value: the norm of the difference over the norm of the values. Of many values in 16 bits the worst says little.
pub(crate) fn assert_close_as_a_whole(what: &str, got: &Tensor, wanted: &Tensor, tolerance: f64) {
    assert_eq!(got.size(), wanted.size(), "{what}: shape");
    let wanted = wanted.to_kind(Kind::Double);
    let error = (got.to_kind(Kind::Double) - &wanted).norm().double_value(&[]) / wanted.norm().double_value(&[]);
    println!("{what}: relative error {error:.1e} as a whole, at most {tolerance:.0e}");
    assert!(error <= tolerance, "{what}: relative error {error:.1e} as a whole is over {tolerance:.0e}");
}

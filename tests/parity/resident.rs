//! Fixtures, and a model's groups loaded from one onto what computes: the CPU, or a real GPU where LOWMEM_TEST_DEVICE=cuda, as `make test-gpu` has it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use engine::ComputeDevice;
use engine::weights::{Group, GroupLayout, GroupName, Groups, Source, Weights};
use safetensors::{Dtype, SafeTensors};
use serde::de::DeserializeOwned;
use tch::{Device, Kind, Tensor};

/// On a GPU tolerances are so many times those on the CPU: rounding is as large, and falls on other values.
const OF_A_GPU: f64 = 2.0;

/// What computes.
pub(crate) fn device() -> ComputeDevice {
    static DEVICE: OnceLock<ComputeDevice> = OnceLock::new();
    let is_cuda = || std::env::var("LOWMEM_TEST_DEVICE").is_ok_and(|device| device == "cuda");
    *DEVICE.get_or_init(|| if is_cuda() { ComputeDevice::gpu().expect("a GPU") } else { ComputeDevice::cpu() })
}

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

    /// The tensor `name`, on what computes.
    pub(crate) fn input(&self, name: &str) -> Tensor {
        self.tensor(name).to_device(device().torch)
    }

    /// The fact `name` that the generator wrote into the header.
    pub(crate) fn fact<T: DeserializeOwned>(&self, name: &str) -> T {
        let (_, header) = SafeTensors::read_metadata(&self.bytes).unwrap();
        let facts: serde_json::Value = serde_json::from_str(&header.metadata().as_ref().unwrap()["fixture"]).unwrap();
        serde_json::from_value(facts[name].clone()).unwrap()
    }
}

/// All groups of a model, on what computes from the start.
pub(crate) struct Resident {
    weights: HashMap<GroupName, Weights>,
}

impl Resident {
    /// Loads `groups` from a fixture, in `compute` where a parameter does not insist on fp32.
    pub(crate) fn load(fixture: &str, groups: &[Group], compute: Kind) -> Self {
        let source = Source::open(&path(fixture)).unwrap();
        let load = |group: &Group| {
            let layout = GroupLayout::new(group, compute);
            let slab = Tensor::zeros([layout.bytes], (Kind::Uint8, device().torch));
            let weights = Weights::bind(group, &layout, &slab).unwrap();
            for param in &group.params {
                source.fill(group, param, &mut weights.get(&param.name).shallow_clone()).unwrap();
            }
            (group.name, weights)
        };
        Self { weights: groups.iter().map(load).collect() }
    }

    /// Groups in fp32 on the CPU whose values `make` makes, of the shape and the place of each parameter among all.
    pub(crate) fn made_up(groups: &[Group], make: impl Fn(&[i64], usize) -> Tensor) -> Self {
        let mut place = 0;
        let mut load = |group: &Group| {
            let layout = GroupLayout::new(group, Kind::Float);
            let weights = Weights::bind(group, &layout, &Tensor::zeros([layout.bytes], (Kind::Uint8, Device::Cpu))).unwrap();
            for param in &group.params {
                let mut values = weights.get(&param.name).shallow_clone();
                values.copy_(&make(&values.size(), place));
                place += 1;
            }
            (group.name, weights)
        };
        Self { weights: groups.iter().map(&mut load).collect() }
    }
}

impl Groups for Resident {
    fn with<R>(&mut self, name: GroupName, run: impl FnOnce(&Weights) -> engine::Result<R>) -> engine::Result<R> {
        run(&self.weights[&name])
    }
}

/// Both in fp64 on the CPU, and the tolerance of what computed.
fn comparable(got: &Tensor, wanted: &Tensor, tolerance: f64) -> (Tensor, Tensor, f64) {
    let plain = |tensor: &Tensor| tensor.to_device(Device::Cpu).to_kind(Kind::Double);
    (plain(got), plain(wanted), if device().is_gpu() { tolerance * OF_A_GPU } else { tolerance })
}

/// Asserts that `got` is off `wanted` by no more than `tolerance`, as a share of the largest value that is wanted, and prints by how much it is.
#[track_caller]
pub(crate) fn assert_close(what: &str, got: &Tensor, wanted: &Tensor, tolerance: f64) {
    assert_eq!(got.size(), wanted.size(), "{what}: shape");
    let (got, wanted, tolerance) = comparable(got, wanted, tolerance);
    let error = (got - &wanted).abs().max().double_value(&[]) / wanted.abs().max().double_value(&[]);
    println!("{what}: relative error {error:.1e}, at most {tolerance:.0e}");
    assert!(error <= tolerance, "{what}: relative error {error:.1e} is over {tolerance:.0e}");
}

/// The same as a whole, and not value by value: the norm of the difference over the norm of the values. Of many values in 16 bits the worst says little.
pub(crate) fn assert_close_as_a_whole(what: &str, got: &Tensor, wanted: &Tensor, tolerance: f64) {
    assert_eq!(got.size(), wanted.size(), "{what}: shape");
    let (got, wanted, tolerance) = comparable(got, wanted, tolerance);
    let error = (got - &wanted).norm().double_value(&[]) / wanted.norm().double_value(&[]);
    println!("{what}: relative error {error:.1e} as a whole, at most {tolerance:.0e}");
    assert!(error <= tolerance, "{what}: relative error {error:.1e} as a whole is over {tolerance:.0e}");
}

//! Weights from a seed that the processes of one run share: the first that needs a component's makes a file of them, and the others map it. The values are those
//! that each would draw for itself.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use tch::{Device, Kind, Tensor};

use super::source::fill_seeded;
use super::{Group, Source};
use crate::error::{Error, Result};

/// A component's weights from `seed`, in the types in which they are asked for where arithmetic is in `compute`: from a file in `folder`, which is made where it
/// is not there. A process that finds another one making it waits.
///
/// # Errors
/// A folder that cannot be written, and libtorch's.
pub fn shared(folder: &Path, component: &str, seed: i64, groups: &[Group], compute: Kind) -> Result<Source> {
    let tensors = tensors(groups, compute);
    // What makes the bytes differ: the seed, and each tensor's name, shape and type.
    let name = format!("{component}-{seed}-{:016x}", super::source::fnv1a(&format!("{tensors:?}")));
    let path = folder.join(format!("{name}.safetensors"));
    let lock = folder.join(format!("{name}.lock"));
    let guard = File::create(&lock).map_err(|error| Error::file(&lock, error))?;
    guard.lock().map_err(|error| Error::file(&lock, error))?;
    if !path.is_file() {
        let unfinished = folder.join(format!("{name}.part"));
        if let Err(error) = write(&unfinished, seed, &tensors) {
            // Half a file is of no use, and the room that it takes may be what was lacking.
            let _ = fs::remove_file(&unfinished);
            return Err(error);
        }
        fs::rename(&unfinished, &path).map_err(|error| Error::file(&path, error))?;
    }
    Source::open(&path)
}

/// One tensor of the file.
#[derive(Debug)]
struct Seeded {
    key: String,
    shape: Vec<i64>,
    kind: Kind,
}

/// All tensors of a component, each once. The wider type comes first, so that each lies at a multiple of its size.
fn tensors(groups: &[Group], compute: Kind) -> Vec<Seeded> {
    let all = groups.iter().flat_map(|group| group.params.iter().map(move |param| (group, param)));
    let mut tensors: Vec<Seeded> = all
        .map(|(group, param)| Seeded { key: group.key(param), shape: param.shape.clone(), kind: param.precision.kind(compute) })
        .collect();
    tensors.sort_by(|a, b| (b.kind.elt_size_in_bytes(), &a.key).cmp(&(a.kind.elt_size_in_bytes(), &b.key)));
    tensors.dedup_by(|a, b| a.key == b.key);
    tensors
}

/// Writes them as a safetensors file, one after the other, so that no more than one is in memory.
fn write(path: &Path, seed: i64, tensors: &[Seeded]) -> Result<()> {
    let failed = |error: std::io::Error| Error::file(path, error);
    let malformed = |error: &dyn std::fmt::Display| Error::at(path, &format!("cannot be a safetensors file: {error}"));
    // 1. The header: its length, and where each tensor lies.
    let mut end = 0;
    let mut infos = Vec::with_capacity(tensors.len());
    for Seeded { key, shape, kind } in tensors {
        let begin = end;
        end += shape.iter().product::<i64>() as usize * kind.elt_size_in_bytes();
        let shape = shape.iter().map(|&side| side as usize).collect();
        infos.push((key.clone(), TensorInfo { dtype: dtype_of(*kind)?, shape, data_offsets: (begin, end) }));
    }
    let metadata = Metadata::new(None, infos).map_err(|error| malformed(&error))?;
    let mut header = serde_json::to_vec(&metadata).map_err(|error| malformed(&error))?;
    header.resize(header.len().next_multiple_of(size_of::<u64>()), b' ');
    let mut file = BufWriter::new(File::create(path).map_err(failed)?);
    file.write_all(&(header.len() as u64).to_le_bytes()).and_then(|()| file.write_all(&header)).map_err(failed)?;

    // 2. The values.
    for Seeded { key, shape, kind } in tensors {
        let mut tensor = Tensor::f_empty(shape.as_slice(), (*kind, Device::Cpu))?;
        fill_seeded(seed, key, &mut tensor)?;
        let mut bytes = vec![0; tensor.numel() * kind.elt_size_in_bytes()];
        tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
        file.write_all(&bytes).map_err(failed)?;
    }
    file.flush().map_err(failed)
}

/// The format's name of a type.
fn dtype_of(kind: Kind) -> Result<Dtype> {
    match kind {
        Kind::Float => Ok(Dtype::F32),
        Kind::BFloat16 => Ok(Dtype::BF16),
        Kind::Half => Ok(Dtype::F16),
        other => Err(Error::Input(format!("{other:?}: no type of weights"))),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom};

    use engine_protocol::{ModelSpec, WeightDtype};

    use super::*;
    use crate::components;
    use crate::weights::{WaitingGroup, WeightTypes};

    const SEED: i64 = 5;

    fn tiny() -> ModelSpec {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../sweeps/models/wan-tiny.yaml");
        serde_yaml::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    }

    /// A group's bytes as it waits.
    fn bytes(group: &Group, types: WeightTypes, source: &Source) -> Vec<u8> {
        let waiting = WaitingGroup::new(group, types);
        let slab = Tensor::zeros([waiting.layout.bytes], (Kind::Uint8, Device::Cpu));
        waiting.filled(group, types, &slab, source).unwrap();
        Vec::try_from(slab).unwrap()
    }

    #[test]
    fn shared_weights_are_those_that_each_would_draw() {
        let folder = tempfile::tempdir().unwrap();
        let model = tiny();
        for component in components::of(&model) {
            let groups = component.groups();
            for compute in [Kind::Float, Kind::BFloat16, Kind::Half] {
                let shared = shared(folder.path(), component.key(), SEED, groups, compute).unwrap();
                for waiting in [WeightDtype::AsStored, WeightDtype::Fp8E4m3] {
                    let types = WeightTypes { waiting, ..WeightTypes::plain(compute) };
                    for group in groups {
                        let drawn = bytes(group, types, &Source::Seeded(SEED));
                        assert!(drawn == bytes(group, types, &shared), "{} {} in {types:?}", component.key(), group.name);
                    }
                }
            }
        }
        // A file for each component and type; in 8 bits weights wait that are drawn in the type of arithmetic.
        let is_file = |entry: &fs::DirEntry| entry.path().extension().is_some_and(|it| it == "safetensors");
        assert_eq!(fs::read_dir(folder.path()).unwrap().flatten().filter(is_file).count(), 3 * 3);
    }

    #[test]
    fn what_is_made_is_not_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let model = tiny();
        let components = components::of(&model);
        let (component, groups) = (&components[1], components[1].groups());
        let open = |seed| shared(folder.path(), component.key(), seed, groups, Kind::Float).unwrap();
        let files = || {
            let paths = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
            paths.filter(|path| path.extension().is_some_and(|it| it == "safetensors")).collect::<Vec<_>>()
        };
        drop(open(SEED));
        // Whoever draws again does not see what stands in the file.
        let mut file = File::options().write(true).open(&files()[0]).unwrap();
        file.seek(SeekFrom::End(-4)).unwrap();
        file.write_all(&1234.5_f32.to_le_bytes()).unwrap();
        let last = tensors(groups, Kind::Float).pop().unwrap();
        let (group, param) = groups
            .iter()
            .flat_map(|group| group.params.iter().map(move |param| (group, param)))
            .find(|(group, param)| group.key(param) == last.key)
            .unwrap();
        let value = |source: &Source| {
            let mut tensor = Tensor::zeros(param.shape.as_slice(), (Kind::Float, Device::Cpu));
            source.fill(group, param, &mut tensor).unwrap();
            tensor.view(-1).double_value(&[-1])
        };
        assert_eq!(value(&open(SEED)), 1234.5);
        assert_ne!(value(&open(SEED + 1)), 1234.5, "another seed's are others");
        assert_eq!(files().len(), 2);
    }

    #[test]
    fn only_one_of_two_makes_them() {
        let folder = tempfile::tempdir().unwrap();
        let written = || fs::read_dir(folder.path()).unwrap().flatten().map(|entry| entry.file_name()).collect::<Vec<_>>();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let model = tiny();
                    let components = components::of(&model);
                    drop(shared(folder.path(), components[0].key(), SEED, components[0].groups(), Kind::BFloat16).unwrap());
                });
            }
        });
        assert_eq!(written().len(), 2, "the file and its lock, and nothing unfinished: {:?}", written());
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_told_and_leaves_nothing() {
        let model = tiny();
        let components = components::of(&model);
        let error = shared(Path::new("/nowhere"), "vae", SEED, components[2].groups(), Kind::Float).unwrap_err().to_string();
        assert!(error.starts_with("/nowhere/vae-5-"), "{error}");
    }
}

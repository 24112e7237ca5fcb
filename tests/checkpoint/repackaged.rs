//! The fixture's checkpoint as ComfyUI's files have it: fp8_scaled, under prefixes and in folders of their own; and the same weights unpacked, in diffusers' layout.

use std::fs;
use std::path::{Path, PathBuf};

use engine::weights::TensorStore;
use engine_protocol::CheckpointFiles;
use lowmem_tests::copy_folder;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

use crate::folder::fixture;

/// A type of 8 bits, its name in files, and its largest number.
pub(crate) const E4M3: (Kind, Dtype, f64) = (Kind::Float8e4m3fn, Dtype::F8_E4M3, 448.0);
pub(crate) const E5M2: (Kind, Dtype, f64) = (Kind::Float8e5m2, Dtype::F8_E5M2, 57344.0);
pub(crate) const INT8: (Kind, Dtype, f64) = (Kind::Int8, Dtype::I8, 127.0);

/// What a file's tensors are called, and the tensors.
type Tensors = Vec<(String, Tensor)>;

/// All tensors of a file, in its types.
pub(crate) fn read(path: &Path) -> Tensors {
    let store = TensorStore::open(path).expect("weights");
    let copy = |(name, stored): (&str, &engine::weights::StoredTensor)| {
        let mut tensor = Tensor::zeros(stored.shape(), (stored.kind(), Device::Cpu));
        stored.copy_to(&mut tensor).expect("values");
        (name.to_owned(), tensor)
    };
    store.iter().map(copy).collect()
}

/// Writes a safetensors file.
pub(crate) fn write(path: &Path, tensors: &Tensors) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    let bytes = |tensor: &Tensor| {
        let flat = tensor.contiguous().view([-1]);
        if flat.numel() == 0 { Vec::new() } else { Vec::<u8>::try_from(flat.view_dtype(Kind::Uint8)).expect("bytes") }
    };
    let all: Vec<_> = tensors.iter().map(|(name, tensor)| (name, tensor, bytes(tensor))).collect();
    let views = all.iter().map(|(name, tensor, bytes)| {
        let dtype = match tensor.kind() {
            Kind::BFloat16 => Dtype::BF16,
            Kind::Float => Dtype::F32,
            Kind::Half => Dtype::F16,
            Kind::Int8 => Dtype::I8,
            Kind::Float8e4m3fn => Dtype::F8_E4M3,
            Kind::Float8e5m2 => Dtype::F8_E5M2,
            other => panic!("{other:?}"),
        };
        (*name, TensorView::new(dtype, tensor.size().iter().map(|&side| side as usize).collect(), bytes).expect("a tensor"))
    });
    safetensors::serialize_to_file(views.collect::<Vec<_>>(), None, path).expect("a file");
}

/// Whether a weight is that of a linear layer within a block.
fn is_quantised(name: &str, tensor: &Tensor) -> bool {
    name.contains("block")
        && name.ends_with(".weight")
        && tensor.dim() == 2
        && !name.contains("relative")
        && !name.contains("pos_embedding")
}

/// A weight in 8 bits and its scale.
fn quantised(weight: &Tensor, (kind, _, largest): (Kind, Dtype, f64)) -> (Tensor, Tensor) {
    let weight = weight.to_kind(Kind::Float);
    // Whole numbers have a scale a row.
    if kind == Kind::Int8 {
        let scale = weight.abs().amax([1], true) / largest;
        return ((&weight / &scale).round().to_kind(kind), scale);
    }
    let scale = weight.abs().max() / largest;
    ((&weight / &scale).to_kind(kind), scale)
}

/// A file with its linear layers in 8 bits, as they are in ComfyUI's.
fn packed(tensors: Tensors, prefix: &str, scale_name: &str, kind: (Kind, Dtype, f64)) -> Tensors {
    let mut all = vec![(format!("{prefix}scaled_fp8"), Tensor::zeros([2], (Kind::Float, Device::Cpu)).to_kind(kind.0))];
    for (name, tensor) in tensors {
        let full = format!("{prefix}{name}");
        match is_quantised(&name, &tensor) {
            true => {
                let (weight, scale) = quantised(&tensor, kind);
                let layer = full.strip_suffix(".weight").expect("a weight");
                all.extend([
                    (format!("{layer}.{scale_name}"), scale),
                    (format!("{layer}.scale_input"), Tensor::ones([0i64; 0], (Kind::Float, Device::Cpu))),
                    (full, weight),
                ]);
            }
            false => all.push((full, tensor)),
        }
    }
    all
}

/// The same weights, unpacked in fp32.
fn unpacked(tensors: Tensors, kind: (Kind, Dtype, f64)) -> Tensors {
    let unpack = |(name, tensor): (String, Tensor)| match is_quantised(&name, &tensor) {
        true => {
            let (weight, scale) = quantised(&tensor, kind);
            (name, weight.to_kind(Kind::Float) * scale)
        }
        false => (name, tensor),
    };
    tensors.into_iter().map(unpack).collect()
}

/// A folder `models` as ComfyUI has it, with the fixture's weights in 8 bits, and beside it a checkpoint with the same weights unpacked.
pub(crate) struct Repackaged(TempDir);

impl Repackaged {
    pub(crate) fn new(kind: (Kind, Dtype, f64)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let this = Self(folder);
        // 1. ComfyUI's. Heads of 12 are in no file of its own, so the config that says so lies beside it.
        let original = fixture("original");
        write(
            &this.transformer(),
            &packed(read(&original.join("diffusion_pytorch_model.safetensors")), "model.diffusion_model.", "scale_weight", kind),
        );
        fs::copy(original.join("config.json"), this.models().join("diffusion_models/config.json")).expect("a config");
        let text_encoder = fixture("diffusers").join("text_encoder/model.safetensors");
        write(&this.text_encoder(), &packed(read(&text_encoder), "", "weight_scale", kind));
        write(&this.vae(), &read(&original.join("Wan2.1_VAE.pth")));

        // 2. diffusers', unpacked.
        copy_folder(&fixture("diffusers"), &this.reference());
        write(&this.reference().join("text_encoder/model.safetensors"), &unpacked(read(&text_encoder), kind));
        let index = "transformer/diffusion_pytorch_model.safetensors.index.json";
        let transformer = unpacked(read(&fixture("diffusers").join(index)), kind);
        fs::remove_dir_all(this.reference().join("transformer")).expect("the folder");
        write(&this.reference().join("transformer/model.safetensors"), &transformer);
        fs::copy(fixture("diffusers").join("transformer/config.json"), this.reference().join("transformer/config.json")).expect("a config");
        this
    }

    pub(crate) fn models(&self) -> PathBuf {
        self.0.path().join("models")
    }

    pub(crate) fn reference(&self) -> PathBuf {
        self.0.path().join("reference")
    }

    pub(crate) fn transformer(&self) -> PathBuf {
        self.models().join("diffusion_models/video.safetensors")
    }

    pub(crate) fn text_encoder(&self) -> PathBuf {
        self.models().join("text_encoders/words.safetensors")
    }

    pub(crate) fn vae(&self) -> PathBuf {
        self.models().join("vae/pictures.safetensors")
    }

    pub(crate) fn tokenizer(&self) -> PathBuf {
        self.reference().join("tokenizer/tokenizer.json")
    }

    /// All files, named one by one.
    pub(crate) fn files(&self) -> CheckpointFiles {
        CheckpointFiles {
            transformer: Some(self.transformer()),
            text_encoder: Some(self.text_encoder()),
            vae: Some(self.vae()),
            tokenizer: Some(self.tokenizer()),
            ..CheckpointFiles::default()
        }
    }
}

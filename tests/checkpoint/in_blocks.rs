//! Weights in blocks: each type is what the reference makes of it, a video from a GGUF file is that from the same weights unpacked, and damaged files are refused.

use std::fs;
use std::path::{Path, PathBuf};

use engine::weights::TensorStore;
use engine::weights::blocks::BlockType;
use engine::{Checkpoint, components};
use engine_protocol::{CheckpointFiles, ModelSpec, TransformerSpec, WeightDtype};
use lowmem_tests::root;
use rstest::rstest;
use tch::{Device, Kind, Tensor};

use crate::folder::Folder;
use crate::gguf::{self, Written};
use crate::repackaged::{self, E4M3, Repackaged};
use crate::single_files::video;

pub(crate) fn fp32(stored: &engine::weights::StoredTensor) -> Tensor {
    let mut tensor = Tensor::zeros(stored.shape(), (Kind::Float, Device::Cpu));
    stored.copy_to(&mut tensor).expect("values");
    tensor
}

#[test]
fn each_type_is_what_the_reference_makes_of_it() {
    let store = |name: &str| TensorStore::open(&root().join("tests/fixtures").join(name)).unwrap();
    let (ours, reference) = (store("blocks.gguf"), store("blocks.safetensors"));
    assert_eq!(ours.iter().count(), 16);
    for (name, wanted) in reference.iter() {
        let stored = ours.get(name).unwrap_or_else(|| panic!("{name} is not read"));
        assert_eq!(stored.shape(), wanted.shape(), "{name}");
        assert_eq!(fp32(stored), fp32(wanted), "{name}: bit for bit");
    }
    // diffusers' own reader computes most types in fp16.
    for (name, wanted) in store("blocks.diffusers.safetensors").iter() {
        let (ours, wanted) = (fp32(ours.get(name).expect(name)), fp32(wanted));
        let error = (ours - &wanted).abs().max().double_value(&[]) / wanted.abs().max().double_value(&[]);
        assert!(error < 1e-3, "{name}: {error:e} from what diffusers makes of it");
    }
    let types = WeightDtype::ALL.iter().filter(|&&dtype| BlockType::of(dtype).is_some());
    assert!(types.clone().count() == 12 && types.into_iter().all(|dtype| reference.get(dtype.name()).is_some()), "one of each type");
}

/// The fixture's model with a transformer that is wide enough for blocks of 256.
fn model() -> ModelSpec {
    let model = Checkpoint::open(&crate::folder::fixture("original")).expect("the fixture").model().clone();
    let transformer = TransformerSpec { num_layers: 2, num_attention_heads: 2, attention_head_dim: 128, ffn_dim: 512, ..model.transformer };
    ModelSpec { transformer, ..model }
}

/// A transformer as a GGUF file whose linear layers are in `kinds` in turn, and the same weights unpacked.
pub(crate) fn transformer(folder: &Path, kinds: &[WeightDtype]) -> [PathBuf; 2] {
    tch::manual_seed(3);
    let (model, mut turns) = (model(), kinds.iter().cycle());
    let (mut written, mut unpacked) = (Vec::new(), Vec::new());
    for group in components::of(&model)[1].groups() {
        for param in &group.params {
            let name = group.key(param);
            let inputs = param.shape.iter().skip(1).product::<i64>().max(1);
            let values = Tensor::randn(param.shape.as_slice(), (Kind::Float, Device::Cpu)) / (inputs as f64).sqrt();
            let kind = BlockType::of(*turns.next().expect("a type")).filter(|_| name.starts_with("blocks.") && param.shape.len() == 2);
            let (tensor, values) = match kind {
                Some(kind) => Written::in_blocks(&name, &values, kind),
                None => (Written::plain(&name, &values), values),
            };
            written.push(tensor);
            unpacked.push((name, values));
        }
    }
    let paths = [folder.join("packed/model"), folder.join("unpacked/model.safetensors")];
    gguf::write(&paths[0], &written);
    repackaged::write(&paths[1], &unpacked);
    paths
}

#[rstest]
fn a_video_is_that_from_the_weights_unpacked_first(#[values("fp32", "bf16")] dtype: &str) {
    let folder = tempfile::tempdir().unwrap();
    let repackaged = Repackaged::new(E4M3);
    let mixture = [WeightDtype::Q4K, WeightDtype::Q6K, WeightDtype::Q4K, WeightDtype::Q8_0, WeightDtype::Iq4Xs];
    let [packed, unpacked] = transformer(folder.path(), &mixture);
    let opened = |transformer: &PathBuf| {
        Checkpoint::open_files(&CheckpointFiles { transformer: Some(transformer.clone()), ..repackaged.files() }).unwrap()
    };
    let (packed, unpacked) = (opened(&packed), opened(&unpacked));
    assert_eq!(packed.inventory().refusal, None);
    assert_eq!((packed.model().packed_dtype(), unpacked.model().packed_dtype()), (Some(WeightDtype::Q4K), None));
    for level in ["0", "3"] {
        let reference = video(&unpacked, &[("dtype", dtype), ("low_mem_level", level)]);
        for settings in
            [&[("weight_dtype", "as_stored")][..], &[("weight_dtype", "q4_k")], &[("weight_dtype", "q4_k"), ("stream_from", "file")]]
        {
            if level == "0" && settings.len() > 1 {
                continue;
            }
            let ours = video(&packed, &[&[("dtype", dtype), ("low_mem_level", level)], settings].concat());
            assert!(ours == reference, "{dtype}, level {level}, {settings:?}");
        }
    }
}

#[test]
fn what_a_file_has_in_blocks_is_not_packed_anew() {
    let folder = tempfile::tempdir().unwrap();
    let repackaged = Repackaged::new(E4M3);
    let [packed, _] = transformer(folder.path(), &[WeightDtype::Q5K]);
    let checkpoint = Checkpoint::open_files(&CheckpointFiles { transformer: Some(packed), ..repackaged.files() }).unwrap();
    let settings = engine_protocol::Settings::from_pairs([("weight_dtype".to_owned(), "q8_0".into())]).unwrap();
    let said = engine_protocol::Config::resolve(&settings, checkpoint.model()).unwrap_err().to_string();
    assert!(
        said.contains("weight_dtype=q8_0: the file has its weights in q5_k") && said.contains("use weight_dtype=q5_k or as_stored"),
        "{said}"
    );
}

#[test]
fn a_text_encoder_under_the_names_of_llama_cpp_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let repackaged = Repackaged::new(E4M3);
    let theirs = |name: &str| {
        const NAMES: [(&str, &str); 10] = [
            ("layer.0.SelfAttention.relative_attention_bias", "attn_rel_b"),
            ("layer.0.SelfAttention.", "attn_"),
            ("layer.0.layer_norm", "attn_norm"),
            ("layer.1.layer_norm", "ffn_norm"),
            ("layer.1.DenseReluDense.wi_0", "ffn_gate"),
            ("layer.1.DenseReluDense.wi_1", "ffn_up"),
            ("layer.1.DenseReluDense.wo", "ffn_down"),
            ("encoder.block", "enc.blk"),
            ("encoder.final_layer_norm", "enc.output_norm"),
            ("shared", "token_embd"),
        ];
        NAMES.iter().fold(name.to_owned(), |name, (ours, theirs)| name.replace(ours, theirs))
    };
    let text_encoder = crate::folder::fixture("diffusers").join("text_encoder/model.safetensors");
    let written: Vec<_> =
        TensorStore::open(&text_encoder).unwrap().iter().map(|(name, stored)| Written::plain(&theirs(name), &fp32(stored))).collect();
    let path = folder.path().join("umt5.gguf");
    let keys = lowmem_tests::root().join("tests/fixtures/tokenizer/tokenizer.gguf");
    gguf::write_with_keys_of(&keys, &path, &written);
    let opened = |text_encoder: PathBuf, tokenizer: Option<PathBuf>| {
        Checkpoint::open_files(&CheckpointFiles { text_encoder: Some(text_encoder), tokenizer, ..repackaged.files() }).unwrap()
    };
    // The one that is in the file, and the same one in a file of its own.
    let (ours, reference) = (opened(path, None), opened(text_encoder, Some(repackaged.tokenizer())));
    assert_eq!(ours.inventory().refusal, None);
    assert_eq!(ours.model().text_encoder, reference.model().text_encoder);
    assert!(video(&ours, &[("dtype", "fp32")]) == video(&reference, &[("dtype", "fp32")]));
}

#[test]
fn a_model_in_several_files_is_read_from_any_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let ones = |value: f64| Tensor::full([2, 4], value, (Kind::Float, Device::Cpu));
    let names = ["a", "b", "c", "d", "e"];
    let written: Vec<_> = names.iter().zip(1..).map(|(name, value)| Written::plain(name, &ones(value.into()))).collect();
    let first = gguf::write_split(folder.path(), &written, 3);
    let file = |number: usize| folder.path().join(format!("model-{number:05}-of-00003.gguf"));
    assert_eq!(first, file(1));
    for number in 1..=3 {
        let store = TensorStore::open(&file(number)).unwrap();
        assert_eq!(store.iter().map(|(name, _)| name).collect::<Vec<_>>(), names);
        assert!(names.iter().zip(1..).all(|(name, value)| fp32(store.get(name).unwrap()) == ones(value.into())));
        assert_eq!(store.files().len(), 3);
    }

    // One that is another, one that is called otherwise, and one that is not there.
    let said = |path: &Path| TensorStore::open(path).unwrap_err().to_string();
    let third = fs::read(file(3)).unwrap();
    fs::copy(file(2), file(3)).unwrap();
    let error = said(&first);
    assert!(error.contains("00003-of-00003.gguf: it says that it is number 2 of 3 files"), "{error}");
    fs::rename(file(3), folder.path().join("other.gguf")).unwrap();
    let error = said(&folder.path().join("other.gguf"));
    assert!(error.contains("it is number 2 of 3 files: have its name end in -00002-of-00003.gguf"), "{error}");
    let error = said(&first);
    assert!(error.contains("00003-of-00003.gguf: it is not there, and the model is in 3 files: fetch it again"), "{error}");
    fs::write(file(3), third).unwrap();
    assert!(TensorStore::open(&first).is_ok());
}

#[test]
fn a_transformer_in_several_files_is_one_to_a_folder() {
    let folder = Folder::of("original");
    let weights = folder.file("diffusion_pytorch_model.safetensors");
    let written: Vec<_> = repackaged::read(&weights).iter().map(|(name, tensor)| Written::plain(name, tensor)).collect();
    fs::remove_file(weights).unwrap();
    gguf::write_split(folder.path(), &written, 3);
    assert_eq!(Checkpoint::open(folder.path()).unwrap().inventory().refusal, None);

    let comfyui = Repackaged::new(E4M3);
    fs::remove_file(comfyui.transformer()).unwrap();
    gguf::write_split(&comfyui.models().join("diffusion_models"), &written, 2);
    let files = CheckpointFiles { tokenizer: Some(comfyui.tokenizer()), ..CheckpointFiles::folder(comfyui.models()) };
    assert_eq!(Checkpoint::open_files(&files).unwrap().inventory().refusal, None);
}

#[test]
fn what_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let tensor = Tensor::ones([2, 256], (Kind::Float, Device::Cpu));
    gguf::write(&path, &[Written::plain("a", &tensor), Written::in_blocks("b", &tensor, BlockType::of(WeightDtype::Q4K).unwrap()).0]);
    let whole = fs::read(&path).unwrap();
    assert!(TensorStore::open(&path).is_ok());
    // The type of `b` stands before its place, which is the last number before the tensors.
    let header = whole.windows(9).position(|bytes| bytes == b"\x01\0\0\0\0\0\0\0b").unwrap() + 9;
    let number = header + 4 + 16;
    let changed = |at: usize, bytes: &[u8]| {
        let mut file = whole.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    for (file, said) in [
        (changed(number, &16u32.to_le_bytes()), "b: type IQ2_XXS is not read: use the file in Q4_K, Q8_0"),
        (changed(number, &77u32.to_le_bytes()), "b: type number 77 is not read"),
        (changed(number + 4, &0u64.to_le_bytes()), "two of its tensors lie over each other"),
        (changed(4, &1u32.to_le_bytes()), "GGUF of version 1 is not read"),
        (changed(4, &3u32.to_be_bytes()), "is not read: versions 2 and 3, little-endian, are"),
        (changed(8, &u64::MAX.to_le_bytes()), "it says that it has 18446744073709551615 tensors"),
        (changed(header + 4, &255u64.to_le_bytes()), "b: lies beyond the end of the file"),
        (whole[..40].to_vec(), "it ends before its tensors begin"),
        (whole[..whole.len() - 40].to_vec(), "b: lies beyond the end of the file"),
        (b"nothing of the kind".to_vec(), "not a GGUF file, which begins with those four letters"),
    ] {
        fs::write(&path, file).unwrap();
        let error = TensorStore::open(&path).expect_err(said).to_string();
        assert!(error.contains(said) && error.contains("model.gguf") && error.lines().count() == 1, "`{said}` is missing in: {error}");
    }
}

//! Files that are named one by one or found in ComfyUI's folder, in 8 bits with scales: the same video, bit for bit, as from the same weights unpacked.

use std::fs;
use std::path::Path;

use engine::{Checkpoint, ComputeDevice, Pipeline};
use engine_protocol::{CheckpointFiles, Config, LinearDtype, Settings, WeightDtype};
use rstest::rstest;
use safetensors::{Dtype, SafeTensors};
use serde_json::json;
use tch::{Kind, Tensor};

use crate::folder::{Folder, fixture};
use crate::repackaged::{E4M3, E5M2, INT8, Repackaged};

/// The numbers of the latents.
pub(crate) fn latents(video: &[u8]) -> Tensor {
    let file = SafeTensors::deserialize(video).unwrap();
    let view = file.tensor("latents").unwrap();
    Tensor::from_data_size(view.data(), &[view.data().len() as i64 / 4], Kind::Float)
}

/// The bytes of latents and video.
pub(crate) fn video(checkpoint: &Checkpoint, more: &[(&str, &str)]) -> Vec<u8> {
    video_of(checkpoint, &config(checkpoint, more))
}

fn config(checkpoint: &Checkpoint, more: &[(&str, &str)]) -> Config {
    let settings =
        [("prompt", json!("a cat")), ("seed", json!(7)), ("steps", json!(2)), ("frames", json!(5)), ("resolution", json!("32x32"))];
    let more = more.iter().map(|&(key, value)| (key.to_owned(), json!(value)));
    let all = settings.into_iter().map(|(key, value)| (key.to_owned(), value)).chain(more);
    Config::resolve(&Settings::from_pairs(all).unwrap(), checkpoint.model()).unwrap()
}

fn video_of(checkpoint: &Checkpoint, config: &Config) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("cat.safetensors");
    Pipeline::from_checkpoint(checkpoint, config, ComputeDevice::cpu()).unwrap().generate(&output).unwrap();
    fs::read(output).unwrap()
}

#[rstest]
fn scaled_weights_are_those_unpacked_first(#[values("fp32", "bf16")] dtype: &str) {
    for kind in [E4M3, E5M2, INT8] {
        let repackaged = Repackaged::new(kind);
        let files = Checkpoint::open_files(&repackaged.files()).unwrap();
        let own = [(E4M3, WeightDtype::Fp8E4m3), (E5M2, WeightDtype::Fp8E5m2), (INT8, WeightDtype::Int8)];
        let own = own.into_iter().find(|(known, _)| *known == kind).unwrap().1;
        assert_eq!(files.model().packed_dtype(), Some(own));
        assert!(files.model().text_encoder.packed.values().all(|&dtype| dtype == own));
        assert_eq!(files.model().text_encoder.packed.len(), 7 * files.model().text_encoder.num_layers as usize, "all linear layers");
        for level in ["0", "3"] {
            let reference = video(&Checkpoint::open(&repackaged.reference()).unwrap(), &[("dtype", dtype), ("low_mem_level", level)]);
            for weight_dtype in ["as_stored", own.name()] {
                let settings = [("dtype", dtype), ("low_mem_level", level), ("weight_dtype", weight_dtype)];
                assert!(video(&files, &settings) == reference, "{:?} in {dtype}, level {level}, {weight_dtype}", kind.0);
                if level == "3" {
                    let ours = video(&files, &[&settings[..], &[("stream_from", "file"), ("offload_text_encoder", "stream")]].concat());
                    assert!(ours == reference, "{:?} in {dtype} from the file, {weight_dtype}", kind.0);
                }
            }
        }
    }
}

/// Products in 8 bits take the numbers and scales of a file in 8 bits as they are. The fixture's layers are
/// 24 wide, which a GPU's products do not take, so that no configuration asks for it; the CPU's do.
#[rstest]
#[case::fp8_scaled(E4M3, LinearDtype::Fp8)]
#[case::int8(INT8, LinearDtype::Int8)]
fn products_in_8_bits_take_the_weights_of_a_file_as_they_are(#[case] kind: (Kind, Dtype, f64), #[case] linear: LinearDtype) {
    let repackaged = Repackaged::new(kind);
    let files = Checkpoint::open_files(&repackaged.files()).unwrap();
    let unpacked = Checkpoint::open(&repackaged.reference()).unwrap();
    let in_8_bits = |checkpoint: &Checkpoint, more: &[(&str, &str)]| {
        let config = config(checkpoint, &[&[("dtype", "fp32")], more].concat());
        video_of(checkpoint, &Config { linear_dtype: linear, weight_dtype: linear.weight_dtype().unwrap(), ..config })
    };
    let exact = latents(&video(&unpacked, &[("dtype", "fp32")]));
    let off = |video: &[u8]| ((latents(video) - &exact).norm() / exact.norm()).double_value(&[]);
    let [ours, packed_here] = [&files, &unpacked].map(|checkpoint| in_8_bits(checkpoint, &[]));
    assert!(off(&ours) > 1e-4 && off(&ours) < 0.1, "{:e} off the products of the same weights in fp32", off(&ours));
    // A file's scale in FP8 is no power of two, as ours are, so that other numbers stand for the same weights.
    assert!(linear != LinearDtype::Fp8 || latents(&ours) != latents(&packed_here), "the file's weights were packed anew");
    for more in [&[("low_mem_level", "3")][..], &[("low_mem_level", "3"), ("stream_from", "file")]] {
        assert!(latents(&in_8_bits(&files, more)) == latents(&ours), "{more:?}");
    }
}

#[test]
fn the_folder_of_comfyui_is_found_to_hold_them() {
    let repackaged = Repackaged::new(E4M3);
    let with_tokenizer = CheckpointFiles { tokenizer: Some(repackaged.tokenizer()), ..CheckpointFiles::folder(repackaged.models()) };
    let found = Checkpoint::open_files(&with_tokenizer).unwrap();
    assert_eq!(found.inventory().refusal, None);
    assert_eq!(found.model().transformer, Checkpoint::open(&repackaged.reference()).unwrap().model().transformer);

    // Without a tokenizer it is asked for.
    let refusal = Checkpoint::open(&repackaged.models()).unwrap().inventory().refusal.unwrap();
    assert!(refusal.contains("name umT5's tokenizer.json or spiece.model with --tokenizer"), "{refusal}");

    // Another program's file makes no difference; a second text encoder does.
    fs::write(repackaged.models().join("vae/other.safetensors"), b"nonsense").unwrap();
    assert!(Checkpoint::open_files(&with_tokenizer).is_ok());
    fs::copy(repackaged.text_encoder(), repackaged.models().join("text_encoders/again.safetensors")).unwrap();
    let said = Checkpoint::open_files(&with_tokenizer).unwrap_err().to_string();
    assert!(
        said.contains(
            "2 files could be the text encoder: name one with --text-encoder: text_encoders/again.safetensors, text_encoders/words"
        ),
        "{said}"
    );
    let named = CheckpointFiles { text_encoder: Some(repackaged.text_encoder()), ..with_tokenizer };
    assert!(Checkpoint::open_files(&named).is_ok());
}

#[test]
fn two_transformers_are_a_pool() {
    let repackaged = Repackaged::new(E4M3);
    let low = repackaged.models().join("diffusion_models/low_noise.safetensors");
    fs::copy(repackaged.transformer(), &low).unwrap();
    let files = CheckpointFiles { low_noise_transformer: Some(low), ..repackaged.files() };
    let checkpoint = Checkpoint::open_files(&files).unwrap();
    assert_eq!(checkpoint.inventory().refusal, None);
    assert_eq!(checkpoint.model().pool.as_ref().map(|pool| pool.boundary), Some(0.875));
    assert!(Checkpoint::open(&repackaged.models()).unwrap_err().to_string().contains("2 files could be the transformer"));
    fs::rename(repackaged.transformer(), repackaged.models().join("diffusion_models/High_noise.safetensors")).unwrap();
    assert!(Checkpoint::open(&repackaged.models()).unwrap().model().pool.is_some());
}

#[test]
fn a_file_that_is_another_one_or_alone_is_named() {
    let repackaged = Repackaged::new(E4M3);
    let all = repackaged.files();
    let opened = |files: CheckpointFiles| Checkpoint::open_files(&files).unwrap_err().to_string();
    for (files, said) in [
        (CheckpointFiles { vae: all.text_encoder.clone(), ..all.clone() }, "it is a text encoder (umT5), and --vae is for a VAE of Wan"),
        (CheckpointFiles { transformer: all.vae.clone(), ..all.clone() }, "it is a VAE of Wan, and --transformer is for a transformer"),
        (CheckpointFiles { vae: None, ..all.clone() }, "--vae is missing: name its file, which ComfyUI has in models/vae"),
        (
            CheckpointFiles::folder(repackaged.transformer()),
            "it is a transformer alone, of a model of 2 blocks that is not published: text encoder and VAE",
        ),
        (CheckpointFiles::folder(repackaged.vae()), "it is a VAE of Wan alone: the transformer is missing"),
        (CheckpointFiles { folder: Some(repackaged.reference()), ..all.clone() }, "it is a whole checkpoint: leave out --transformer"),
    ] {
        let error = opened(files);
        assert!(error.contains(said), "`{said}` is missing in: {error}");
    }
    fs::remove_file(repackaged.models().join("diffusion_models/config.json")).unwrap();
    let error = opened(all);
    assert!(error.contains("it is 24 wide") && error.contains("put the model's config.json beside it"), "{error}");
}

#[test]
fn downloads_that_did_not_end_say_what_mends_them() {
    const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";
    const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 28577077624\n";
    type Damage = fn(&Path);
    let cases: [(Damage, &str); 4] = [
        (
            |path| fs::write(path, POINTER).unwrap(),
            "it is a Git LFS pointer, which stands for the file itself: run `git lfs pull` in its folder",
        ),
        (
            |path| fs::rename(path, path.with_extension("safetensors.incomplete")).unwrap(),
            "this download has not ended: fetch it again (`hf download",
        ),
        (|path| fs::rename(path, path.with_extension("gguf")).unwrap(), "not a GGUF file, which begins with those four letters"),
        (
            |path| {
                let whole = fs::read(path).unwrap();
                fs::write(path, &whole[..whole.len() - 9]).unwrap();
            },
            "it is truncated or damaged, fetch it again (`hf download",
        ),
    ];
    for (damage, said) in cases {
        let folder = Folder::of("original");
        damage(&folder.file(WEIGHTS));
        let error = folder.refusal();
        assert!(error.contains(said) && error.lines().count() == 1, "`{said}` is missing in: {error}");
    }
}

#[test]
fn half_of_a_pool_says_which_is_missing() {
    let folder = Folder::of("original");
    fs::create_dir(folder.file("high_noise_model")).unwrap();
    fs::rename(folder.file("config.json"), folder.file("high_noise_model/config.json")).unwrap();
    let error = folder.refusal();
    assert!(error.contains("low_noise_model: it is not there, and a pool has two transformers: fetch it again"), "{error}");
}

#[test]
fn text_encoder_and_vae_are_read_in_other_forms() {
    // Safetensors beside Wan's own transformer, and a name before all names of the VAE.
    let folder = Folder::of("original");
    let repackaged = Repackaged::new(E4M3);
    fs::remove_file(folder.file("Wan2.1_VAE.pth")).unwrap();
    fs::copy(repackaged.vae(), folder.file("Wan2.1_VAE.safetensors")).unwrap();
    assert_eq!(Checkpoint::open(folder.path()).unwrap().inventory().refusal, None);

    // `pytorch_model.bin`, as transformers wrote it before safetensors: the same names as Wan's file has, so that it is read and found to lack all.
    let folder = Folder::of("diffusers");
    fs::remove_file(folder.file("text_encoder/model.safetensors")).unwrap();
    fs::copy(fixture("original").join("models_t5_umt5-xxl-enc-bf16.pth"), folder.file("text_encoder/pytorch_model.bin")).unwrap();
    assert!(folder.refusal().contains("pytorch_model.bin"), "{}", folder.refusal());
}

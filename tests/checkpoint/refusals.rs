//! What is wrong with a checkpoint is one clear error, with the file and the key, before anything is loaded.

use std::fs;

use rstest::rstest;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::folder::{Folder, LAYOUTS, with_pickle};

const SHARD_2: &str = "transformer/diffusion_pytorch_model-00002-of-00002.safetensors";
const INDEX: &str = "transformer/diffusion_pytorch_model.safetensors.index.json";
const TEXT_ENCODER: &str = "text_encoder/model.safetensors";
const T5: &str = "models_t5_umt5-xxl-enc-bf16.pth";

/// Writes a safetensors file anew, with `change` made to its list of tensors: name, type, shape.
fn rewrite(folder: &Folder, name: &str, change: impl Fn(&str, Dtype, &[usize]) -> Option<(Dtype, Vec<usize>)>) {
    let bytes = fs::read(folder.file(name)).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.tensors();
    let kept = tensors.iter().filter_map(|(key, view)| Some((key.clone(), view, change(key, view.dtype(), view.shape())?)));
    let views: Vec<_> = kept.map(|(key, view, (dtype, shape))| (key, TensorView::new(dtype, shape, view.data()).unwrap())).collect();
    safetensors::serialize_to_file(views, None, &folder.file(name)).unwrap();
}

#[rstest]
#[case::wrong_shape(
    |folder: &Folder| folder.edit("transformer/config.json", "\"ffn_dim\": 32", "\"ffn_dim\": 33"),
    &["transformer/diffusion_pytorch_model-0000", "blocks.0.ffn.net.0.proj.weight: shape is [32, 24], expected [33, 24]"],
)]
#[case::sides_swapped(
    |folder: &Folder| rewrite(folder, TEXT_ENCODER, |key, dtype, shape| {
        let swapped = key == "encoder.block.1.layer.1.DenseReluDense.wo.weight";
        Some((dtype, if swapped { shape.iter().rev().copied().collect() } else { shape.to_vec() }))
    }),
    &["text_encoder/model.safetensors", "encoder.block.1.layer.1.DenseReluDense.wo.weight: shape is [24, 16], expected [16, 24]"],
)]
#[case::wrong_type(
    |folder: &Folder| rewrite(folder, TEXT_ENCODER, |key, dtype, shape| {
        Some((if key == "shared.weight" { Dtype::I16 } else { dtype }, shape.to_vec()))
    }),
    &["text_encoder/model.safetensors", "shared.weight: type is Int16, expected a floating-point type"],
)]
#[case::missing_tensor(
    |folder: &Folder| rewrite(folder, TEXT_ENCODER, |key, dtype, shape| (key != "encoder.final_layer_norm.weight").then(|| (dtype, shape.to_vec()))),
    &["text_encoder/model.safetensors", "encoder.final_layer_norm.weight: no such tensor in text_encoder"],
)]
#[case::missing_shard(
    |folder: &Folder| fs::remove_file(folder.file(SHARD_2)).unwrap(),
    &[INDEX, "blocks.1.", "its file `diffusion_pytorch_model-00002-of-00002.safetensors` is not there"],
)]
#[case::truncated_shard(
    |folder: &Folder| folder.damage(SHARD_2, |bytes| bytes.truncate(bytes.len() - 7)),
    &[SHARD_2, "lies beyond the end of the file: it is truncated or damaged"],
)]
#[case::truncated_header(
    |folder: &Folder| folder.damage(TEXT_ENCODER, |bytes| bytes.truncate(100)),
    &[TEXT_ENCODER, "not a whole safetensors file: its header should have"],
)]
#[case::too_long(
    |folder: &Folder| folder.damage(TEXT_ENCODER, |bytes| bytes.extend([0; 3])),
    &[TEXT_ENCODER, "not a whole safetensors file: its header speaks of"],
)]
#[case::empty_file(|folder: &Folder| folder.damage(TEXT_ENCODER, Vec::clear), &[TEXT_ENCODER, "the file is empty"])]
#[case::index_names_another_file(
    |folder: &Folder| folder.edit(INDEX, "\"proj_out.bias\": \"diffusion_pytorch_model-00002", "\"proj_out.bias\": \"diffusion_pytorch_model-00003"),
    &[INDEX, "proj_out.bias: its file `diffusion_pytorch_model-00003-of-00002.safetensors` is not there"],
)]
#[case::index_names_the_wrong_shard(
    |folder: &Folder| folder.edit(INDEX, "\"proj_out.bias\": \"diffusion_pytorch_model-00002", "\"proj_out.bias\": \"diffusion_pytorch_model-00001"),
    &["transformer/diffusion_pytorch_model-00001-of-00002.safetensors", "proj_out.bias: not in this file"],
)]
#[case::path_outside_the_folder(
    |folder: &Folder| folder.edit(INDEX, "\"proj_out.bias\": \"diffusion", "\"proj_out.bias\": \"../transformer/diffusion"),
    &[INDEX, "proj_out.bias: its file `../transformer/diffusion_pytorch_model-00002-of-00002.safetensors` lies outside the folder"],
)]
#[case::absolute_path(
    |folder: &Folder| folder.edit(INDEX, "\"proj_out.bias\": \"diffusion", "\"proj_out.bias\": \"/etc/diffusion"),
    &[INDEX, "proj_out.bias", "lies outside the folder"],
)]
#[case::index_that_is_no_json(|folder: &Folder| folder.damage(INDEX, |bytes| bytes.truncate(50)), &[INDEX, "not an index of shards"])]
#[case::no_weights(|folder: &Folder| fs::remove_file(folder.file(TEXT_ENCODER)).unwrap(), &["text_encoder", "no .safetensors file in this folder"])]
#[case::no_config(|folder: &Folder| fs::remove_file(folder.file("vae/config.json")).unwrap(), &["vae/config.json", "No such file"])]
#[case::no_tokenizer(|folder: &Folder| fs::remove_dir_all(folder.file("tokenizer")).unwrap(), &["tokenizer/tokenizer.json"])]
#[case::another_tokenizer(
    |folder: &Folder| folder.edit("text_encoder/config.json", "\"vocab_size\": 512", "\"vocab_size\": 64"),
    &["text_encoder/model.safetensors", "shared.weight: shape is [512, 16], expected [64, 16]"],
)]
#[case::image_to_video(
    |folder: &Folder| folder.edit("transformer/config.json", "\"image_dim\": null", "\"image_dim\": 1280"),
    &["transformer/config.json", "image_dim: it sees a picture by CLIP, and the image encoder is missing"],
)]
#[case::another_pipeline(
    |folder: &Folder| folder.edit("model_index.json", "\"WanPipeline\"", "\"FluxPipeline\""),
    &["model_index.json", "_class_name: is `FluxPipeline`: WanPipeline and WanImageToVideoPipeline are supported"],
)]
#[case::unknown_scheduler(
    |folder: &Folder| folder.edit("scheduler/scheduler_config.json", "UniPCMultistepScheduler", "LCMScheduler"),
    &["scheduler/scheduler_config.json", "`LCMScheduler` is not supported"],
)]
#[case::key_without_value(
    |folder: &Folder| folder.edit("transformer/config.json", "\"num_layers\": 2,", ""),
    &["transformer/config.json", "num_layers: is missing"],
)]
#[case::impossible_size(
    |folder: &Folder| folder.edit("transformer/config.json", "\"num_layers\": 2,", "\"num_layers\": 99999999999,"),
    &["transformer/config.json", "num_layers: 99999999999 is out of range"],
)]
#[case::statistics_of_another_vae(
    |folder: &Folder| folder.edit("vae/config.json", "\"z_dim\": 16", "\"z_dim\": 17"),
    &["vae/config.json", "latents_mean: has 16 values for 17 channels"],
)]
#[case::statistics_that_are_no_numbers(
    |folder: &Folder| folder.edit("vae/config.json", "-0.7571", "1e308"),
    &["vae/config.json", "latents_mean: 1e308 is out of range: -1000 to 1000"],
)]
#[case::no_deviation(
    |folder: &Folder| folder.edit("vae/config.json", "2.8184", "0"),
    &["vae/config.json", "latents_std: 0.0 is out of range: above 0, to 1000"],
)]
fn in_the_layout_of_diffusers(#[case] damage: fn(&Folder), #[case] parts: &[&str]) {
    let folder = Folder::of("diffusers");
    damage(&folder);
    let said = folder.refusal();
    for part in parts {
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[rstest]
#[case::truncated_pth(
    |folder: &Folder| folder.damage(T5, |bytes| bytes.truncate(bytes.len() / 2)),
    &[T5, "not a whole file of `torch.save`", "fetch it again"],
)]
#[case::no_pth(|folder: &Folder| fs::remove_file(folder.file("Wan2.1_VAE.pth")).unwrap(), &["no file Wan*.pth in this folder"])]
#[case::code_in_a_pickle(
    |folder: &Folder| with_pickle(folder, T5, |_| b"\x80\x02}X\x01\x00\x00\x00wcos\nsystem\nX\x04\x00\x00\x00true\x85Rs.".to_vec()),
    &[T5, "w: it is no tensor but `os.system`, which is not executed"],
)]
#[case::values_of_another_tensor(
    // Its first width, 16, becomes 17: the table would reach beyond its own values.
    |folder: &Folder| with_pickle(folder, T5, |mut bytes| {
        let at = bytes.windows(5).position(|window| window == b"M\x00\x02K\x10").expect("the shape of the table");
        bytes[at + 4] = 17;
        bytes
    }),
    &[T5, "token_embedding.weight", "lies beyond the end of its values"],
)]
#[case::image_to_video(
    |folder: &Folder| folder.edit("config.json", "\"t2v\"", "\"i2v\""),
    &["config.json", "model_type: is `i2v`, and its channels are those of text to video"],
)]
#[case::heads_that_do_not_divide(|folder: &Folder| folder.edit("config.json", "\"num_heads\": 2", "\"num_heads\": 5"), &["config.json", "dim: 24 cannot be split over 5 heads"])]
fn in_the_original_layout(#[case] damage: fn(&Folder), #[case] parts: &[&str]) {
    let folder = Folder::of("original");
    damage(&folder);
    let said = folder.refusal();
    for part in parts {
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
}

#[test]
fn a_folder_without_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let said = engine::Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(said.contains("no checkpoint in this folder: name the one that has model_index.json"), "{said}");
    let said = engine::Checkpoint::open(&folder.path().join("nowhere")).unwrap_err().to_string();
    assert!(said.contains("no such folder"), "{said}");
}

#[test]
fn nothing_is_wrong_with_the_fixtures() {
    for layout in LAYOUTS {
        let folder = Folder::of(layout);
        let checkpoint = engine::Checkpoint::open(folder.path()).unwrap();
        assert_eq!(checkpoint.inventory().refusal, None, "the cases above could not fail otherwise");
    }
}

//! Checkpoints of models that take a picture: the same video from each layout, and what is missing is said.

use std::fs;
use std::path::{Path, PathBuf};

use engine::Checkpoint;
use engine_protocol::{CheckpointFiles, ImageInput};
use lowmem_tests::root;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::folder::{Folder, fixture};
use crate::repackaged::{read, write};
use crate::single_files::video;

/// Width of what the small CLIP says, and of the fixture's hidden state.
const CLIP_WIDTH: i64 = 16;
const DIM: i64 = 24;

fn picture() -> String {
    root().join("tests/fixtures/picture.png").display().to_string()
}

/// Numbers that are neither zero nor alike.
fn waves(shape: &[i64], seed: f64) -> Tensor {
    let count = shape.iter().product::<i64>();
    ((Tensor::arange(count, (Kind::Float, Device::Cpu)) + seed).sin() * 0.3).view(shape)
}

/// What an image-to-video transformer has more than the fixture's: channels, and where `sees` the layers for CLIP, under names of diffusers or Wan's own.
fn widened(tensors: Vec<(String, Tensor)>, sees: bool, is_original: bool) -> Vec<(String, Tensor)> {
    let more = |(name, tensor): (String, Tensor)| match name.as_str() {
        "patch_embedding.weight" => {
            let beside = waves(&[DIM, 20, 1, 2, 2], 1.0);
            (name, Tensor::cat(&[tensor.to_kind(Kind::Float), beside], 1))
        }
        _ => (name, tensor),
    };
    let mut all: Vec<_> = tensors.into_iter().map(more).collect();
    if sees {
        let pick = |ours: &str, original: &str| if is_original { original.to_owned() } else { ours.to_owned() };
        let mut add = |name: String, shape: &[i64]| {
            let seed = shape.iter().sum::<i64>() as f64;
            all.push((name, waves(shape, seed)));
        };
        let image = "condition_embedder.image_embedder";
        for (ours, original, [inputs, outputs]) in [
            ("norm1", "0", [0, CLIP_WIDTH]),
            ("ff.net.0.proj", "1", [CLIP_WIDTH, CLIP_WIDTH]),
            ("ff.net.2", "3", [CLIP_WIDTH, DIM]),
            ("norm2", "4", [0, DIM]),
        ] {
            let name = pick(&format!("{image}.{ours}"), &format!("img_emb.proj.{original}"));
            let weight = if inputs > 0 { vec![outputs, inputs] } else { vec![outputs] };
            add(format!("{name}.weight"), &weight);
            add(format!("{name}.bias"), &[outputs]);
        }
        for block in 0..2 {
            for (ours, original) in [("add_k_proj", "k_img"), ("add_v_proj", "v_img")] {
                let name = pick(&format!("blocks.{block}.attn2.{ours}"), &format!("blocks.{block}.cross_attn.{original}"));
                add(format!("{name}.weight"), &[DIM, DIM]);
                add(format!("{name}.bias"), &[DIM]);
            }
            let norm = pick(&format!("blocks.{block}.attn2.norm_added_k"), &format!("blocks.{block}.cross_attn.norm_k_img"));
            add(format!("{norm}.weight"), &[DIM]);
        }
    }
    all
}

/// A JSON file with some keys changed.
fn edit(path: &Path, changes: &Value) {
    let mut value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    value.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    fs::write(path, value.to_string()).unwrap();
}

/// The small CLIP, whose heads are 80 wide as in ViT-H: `config.json` and weights in `folder`.
fn write_clip(folder: &Path) -> PathBuf {
    let file = root().join("tests/fixtures/image_to_video.image_encoder.safetensors");
    fs::create_dir_all(folder).unwrap();
    let path = folder.join("model.safetensors");
    fs::copy(file, &path).unwrap();
    let config = json!({
        "hidden_size": CLIP_WIDTH, "num_attention_heads": 1, "intermediate_size": 24, "num_hidden_layers": 3, "image_size": 28, "patch_size": 7,
        "layer_norm_eps": 1e-5, "hidden_act": "gelu",
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    path
}

/// The fixture in diffusers' layout as a model for image to video.
fn diffusers(sees: bool) -> Folder {
    let folder = Folder::of("diffusers");
    let index = "transformer/diffusion_pytorch_model.safetensors.index.json";
    let tensors = widened(read(&folder.file(index)), sees, false);
    let config = fs::read(folder.file("transformer/config.json")).unwrap();
    fs::remove_dir_all(folder.file("transformer")).unwrap();
    write(&folder.file("transformer/model.safetensors"), &tensors);
    fs::write(folder.file("transformer/config.json"), config).unwrap();
    edit(&folder.file("transformer/config.json"), &json!({ "in_channels": 36 }));
    edit(&folder.file("model_index.json"), &json!({ "_class_name": "WanImageToVideoPipeline" }));
    if sees {
        edit(&folder.file("transformer/config.json"), &json!({ "image_dim": CLIP_WIDTH, "added_kv_proj_dim": DIM }));
        edit(&folder.file("model_index.json"), &json!({ "image_encoder": ["transformers", "CLIPVisionModel"] }));
        write_clip(&folder.file("image_encoder"));
    }
    folder
}

/// The same in Wan's own layout.
fn original(sees: bool) -> Folder {
    let folder = Folder::of("original");
    let file = folder.file("diffusion_pytorch_model.safetensors");
    write(&file, &widened(read(&file), sees, true));
    edit(&folder.file("config.json"), &json!({ "model_type": "i2v", "in_dim": 36 }));
    if sees {
        let clip = read(&root().join("tests/fixtures/image_to_video.image_encoder.safetensors"));
        write(&folder.file("models_clip_vit-huge-14.safetensors"), &as_wan_has_it(clip));
    }
    folder
}

/// CLIP's vision encoder as Wan's own layout has it: other names, one layer for queries, keys and values, and the half that reads texts.
fn as_wan_has_it(clip: Vec<(String, Tensor)>) -> Vec<(String, Tensor)> {
    const NAMES: [(&str, &str); 8] = [
        ("embeddings.patch_embedding", "patch_embedding"),
        ("pre_layrnorm", "pre_norm"),
        ("post_layernorm", "post_norm"),
        ("self_attn.out_proj", "attn.proj"),
        ("layer_norm1", "norm1"),
        ("layer_norm2", "norm2"),
        ("mlp.fc1", "mlp.0"),
        ("mlp.fc2", "mlp.2"),
    ];
    let get = |name: &str| clip.iter().find(|(other, _)| other == name).expect(name).1.shallow_clone();
    let mut all = vec![("textual.model.weight".to_owned(), Tensor::ones([2], (Kind::Float, Device::Cpu)))];
    for (name, tensor) in &clip {
        let rest = name.strip_prefix("vision_model.").expect("CLIP's");
        let (name, tensor) = match rest {
            "embeddings.class_embedding" => ("cls_embedding".to_owned(), tensor.view([1, 1, -1])),
            "embeddings.position_embedding.weight" => ("pos_embedding".to_owned(), tensor.unsqueeze(0)),
            _ if rest.contains("k_proj") || rest.contains("v_proj") => continue,
            _ if rest.contains("q_proj") => {
                let parts = ["q_proj", "k_proj", "v_proj"].map(|part| get(&name.replace("q_proj", part)));
                (rest.replace("encoder.layers", "transformer").replace("self_attn.q_proj", "attn.to_qkv"), Tensor::cat(&parts, 0))
            }
            _ => {
                let layer = rest.replace("encoder.layers", "transformer");
                (NAMES.iter().fold(layer, |name, (ours, theirs)| name.replace(ours, theirs)), tensor.shallow_clone())
            }
        };
        all.push((format!("visual.{name}"), tensor));
    }
    all
}

/// The same as ComfyUI's files.
fn comfyui(sees: bool) -> (Folder, CheckpointFiles) {
    let folder = Folder::of("original");
    let models = folder.file("models");
    let transformer = models.join("diffusion_models/video.safetensors");
    write(&transformer, &widened(read(&folder.file("diffusion_pytorch_model.safetensors")), sees, true));
    fs::copy(folder.file("config.json"), models.join("diffusion_models/config.json")).unwrap();
    write(&models.join("text_encoders/words.safetensors"), &read(&fixture("diffusers").join("text_encoder/model.safetensors")));
    write(&models.join("vae/pictures.safetensors"), &read(&folder.file("Wan2.1_VAE.pth")));
    if sees {
        write_clip(&models.join("clip_vision"));
    }
    let tokenizer = Some(fixture("diffusers").join("tokenizer/tokenizer.json"));
    let files = CheckpointFiles { tokenizer, ..CheckpointFiles::folder(models) };
    (folder, files)
}

fn run(checkpoint: &Checkpoint, more: &[(&str, &str)]) -> Vec<u8> {
    assert_eq!(checkpoint.model().image, Some(ImageInput::Channels));
    assert_eq!(checkpoint.inventory().refusal, None);
    video(checkpoint, &[&[("image", picture().as_str()), ("dtype", "fp32")], more].concat())
}

#[test]
fn each_layout_gives_the_same_video() {
    let folder = diffusers(false);
    let reference = run(&Checkpoint::open(folder.path()).unwrap(), &[]);
    assert!(run(&Checkpoint::open(original(false).path()).unwrap(), &[]) == reference, "Wan's own layout");
    let (_held, files) = comfyui(false);
    assert!(run(&Checkpoint::open_files(&files).unwrap(), &[]) == reference, "ComfyUI's files");
    assert!(
        run(&Checkpoint::open(folder.path()).unwrap(), &[("low_mem_level", "3"), ("vae_tiling", "false"), ("stream_from", "file")])
            == reference,
        "from files"
    );
    assert!(run(&Checkpoint::open(folder.path()).unwrap(), &[("last_image", &picture())]) != reference, "a last picture changes nothing");
}

#[test]
fn what_sees_by_clip_is_found_in_each_layout() {
    let folder = diffusers(true);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.inventory().components.len(), 4);
    let reference = run(&checkpoint, &[]);
    let (_held, files) = comfyui(true);
    assert!(run(&Checkpoint::open_files(&files).unwrap(), &[]) == reference, "ComfyUI's files");
    let own = original(true);
    assert!(run(&Checkpoint::open(own.path()).unwrap(), &[]) == reference, "Wan's own layout");
    fs::remove_file(own.file("models_clip_vit-huge-14.safetensors")).unwrap();
    let said = Checkpoint::open(own.path()).unwrap_err().to_string();
    assert!(said.contains("no file models_clip*.pth in this folder"), "{said}");

    fs::remove_file(files.folder.as_ref().unwrap().join("clip_vision/model.safetensors")).unwrap();
    let said = Checkpoint::open_files(&files).unwrap_err().to_string();
    assert!(said.contains("no image encoder of Wan in clip_vision there"), "{said}");
    let other = CheckpointFiles { image_encoder: Some(files.folder.as_ref().unwrap().join("vae/pictures.safetensors")), ..files };
    let said = Checkpoint::open_files(&other).unwrap_err().to_string();
    assert!(said.contains("it is a VAE of Wan, and --image-encoder is for an image encoder (CLIP)"), "{said}");
    edit(&folder.file("model_index.json"), &json!({ "image_encoder": [null, null] }));
    let said = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(said.contains("it sees a picture by CLIP, and the image encoder is missing"), "{said}");
}

#[test]
fn transformers_of_other_channels_are_refused() {
    let folder = diffusers(false);
    edit(&folder.file("transformer/config.json"), &json!({ "in_channels": 52 }));
    let said = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(said.contains("it takes 52 channels and makes 16") && said.contains("image to video 20 more"), "{said}");
}

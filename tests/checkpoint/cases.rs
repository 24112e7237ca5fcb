//! Checkpoints as people have them, one by one: with what lies beside, in other types, under other names, copied in odd ways. Each opens, or says what mends it.

use std::fs;
use std::path::Path;

use engine::Checkpoint;
use lowmem_tests::copy_folder;
use rstest::rstest;
use tch::Kind;

use crate::folder::{Folder, fixture};
use crate::gguf::{self, Written};
use crate::repackaged::{self, read};

const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

/// Writes the transformer of Wan's own layout anew, under names with `prefix` before them, in one type.
fn rewrite(folder: &Folder, prefix: &str, kind: Kind) {
    let tensors = read(&folder.file(WEIGHTS)).into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor.to_kind(kind)));
    repackaged::write(&folder.file(WEIGHTS), &tensors.collect());
}

#[rstest]
#[case::under_comfyuis_prefix("original", |folder: &Folder| rewrite(folder, "model.diffusion_model.", Kind::BFloat16))]
#[case::in_fp32("original", |folder: &Folder| rewrite(folder, "", Kind::Float))]
#[case::in_fp16("original", |folder: &Folder| rewrite(folder, "", Kind::Half))]
#[case::in_plain_e4m3("original", |folder: &Folder| rewrite(folder, "", Kind::Float8e4m3fn))]
#[case::in_e5m2("original", |folder: &Folder| rewrite(folder, "", Kind::Float8e5m2))]
#[case::renamed("original", |folder: &Folder| fs::rename(folder.file(WEIGHTS), folder.file("wan2.1_t2v_14B_bf16.safetensors")).unwrap())]
#[case::as_gguf("original", |folder: &Folder| {
    let tensors: Vec<_> = read(&folder.file(WEIGHTS)).iter().map(|(name, tensor)| Written::plain(name, tensor)).collect();
    fs::remove_file(folder.file(WEIGHTS)).unwrap();
    gguf::write(&folder.file("wan2.1-t2v-14b-Q4_K_M.gguf"), &tensors);
})]
#[case::with_a_lora_beside("original", |folder: &Folder| {
    let lora = lowmem_tests::root().join("tests/fixtures/lora/kohya.safetensors");
    fs::copy(lora, folder.file("Wan21_T2V_14B_lightx2v_cfg_step_distill_lora_rank32.safetensors")).unwrap();
})]
#[case::with_other_files_beside("diffusers", |folder: &Folder| {
    for name in [".DS_Store", "README.md", "transformer/._config.json"] {
        fs::write(folder.file(name), "x").unwrap();
    }
    fs::create_dir(folder.file("assets")).unwrap();
    fs::write(folder.file("assets/a.png"), "x").unwrap();
    let shard = "transformer/diffusion_pytorch_model-00001-of-00002.safetensors";
    fs::copy(folder.file(shard), folder.file("transformer/diffusion_pytorch_model.fp16.safetensors")).unwrap();
})]
#[case::in_a_variant("diffusers", |folder: &Folder| {
    fs::rename(folder.file("text_encoder/model.safetensors"), folder.file("text_encoder/model.fp16.safetensors")).unwrap();
})]
fn opens(#[case] layout: &str, #[case] change: fn(&Folder)) {
    let folder = Folder::of(layout);
    change(&folder);
    let inventory = Checkpoint::open(folder.path()).unwrap().inventory();
    assert_eq!(inventory.refusal, None);
    assert_eq!(inventory.model.transformer, Checkpoint::open(&fixture(layout)).unwrap().model().transformer);
}

#[test]
fn a_folder_of_any_name_opens() {
    let around = tempfile::tempdir().unwrap();
    let folder = around
        .path()
        .join("17 \u{41c}\u{43e}\u{438} \u{43c}\u{43e}\u{434}\u{435}\u{43b}\u{438} \u{2014} Wan 2.1 (\u{43a}\u{43e}\u{43f}\u{438}\u{44f})");
    copy_folder(&fixture("diffusers"), &folder);
    assert_eq!(Checkpoint::open(&folder).unwrap().inventory().refusal, None);
}

#[test]
fn a_models_folder_in_hugging_faces_cache_means_its_snapshot() {
    let cache = tempfile::tempdir().unwrap();
    let (model, snapshot) = (cache.path().join("models--Wan-AI--Wan2.1"), "snapshots/0fad780a");
    copy_folder(&fixture("diffusers"), &model.join(snapshot));
    assert_eq!(Checkpoint::open(&model).unwrap().inventory().refusal, None);
    // Of several the one of the main branch.
    fs::create_dir(model.join("snapshots/1bad")).unwrap();
    assert!(refusal(&model).contains("no checkpoint in this folder"), "{}", refusal(&model));
    fs::create_dir(model.join("refs")).unwrap();
    for (main, opens) in [("0fad780a\n", true), ("1bad", false), ("../snapshots/0fad780a", false)] {
        fs::write(model.join("refs/main"), main).unwrap();
        assert_eq!(Checkpoint::open(&model).is_ok(), opens, "{main}");
    }
}

/// What is wrong with a file or a folder.
fn refusal(path: &Path) -> String {
    Checkpoint::open(path).unwrap_err().to_string()
}

#[test]
fn what_is_no_model_says_what_it_is_and_what_to_do() {
    let folder = Folder::of("original");
    fs::write(folder.file("empty.gguf"), [b"GGUF\x03\0\0\0".to_vec(), vec![0; 80]].concat()).unwrap();
    let lora = lowmem_tests::root().join("tests/fixtures/lora/comfyui.safetensors");
    for (path, said) in [
        (folder.file("empty.gguf"), "not a whole GGUF file: it has no tensors"),
        (lora, "it is a LoRA, which holds changes to a model's weights. Name it with --lora"),
        (fixture("diffusers").join("transformer"), "it is a transformer alone, of a model of 2 blocks that is not published"),
    ] {
        let error = refusal(&path);
        assert!(error.contains(said) && error.lines().count() == 1, "`{said}` is missing in: {error}");
    }
    // Parts of a checkpoint: by themselves, and without one that is asked for.
    let part = Folder::of("diffusers");
    fs::remove_file(part.file("model_index.json")).unwrap();
    fs::remove_dir_all(part.file("vae")).unwrap();
    let said = "scheduler, tokenizer, text_encoder, transformer is there, and model_index.json, vae is missing: fetch it again";
    assert!(refusal(part.path()).contains(said), "{}", refusal(part.path()));
    let part = Folder::of("diffusers");
    fs::remove_dir_all(part.file("vae")).unwrap();
    assert!(
        refusal(part.path()).contains("vae: it is not there, and model_index.json names it: fetch it again"),
        "{}",
        refusal(part.path())
    );
    // Hugging Face's cache, copied by something that keeps links as texts.
    let copied = Folder::of("diffusers");
    fs::write(copied.file("model_index.json"), format!("../../blobs/{}", "0".repeat(64))).unwrap();
    assert!(refusal(copied.path()).contains("copied without its links: copy it with them (`cp -rL`)"), "{}", refusal(copied.path()));
}

//! Both layouts are opened and understood.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use engine::Checkpoint;
use engine::components;
use engine::weights::TensorStore;
use engine_protocol::{ComponentInventory, Sampler};

use serde_json::json;

use crate::folder::{Folder, LAYOUTS, fixture, reference};

fn is_whole(component: &ComponentInventory) -> bool {
    component.faults.is_empty() && component.missing.is_empty() && component.unexpected.is_empty()
}

#[test]
fn both_layouts_hold_the_same_model() {
    let [diffusers, original] = LAYOUTS.map(|layout| Checkpoint::open(&fixture(layout)).unwrap());
    assert_eq!(diffusers.model().transformer, original.model().transformer);
    assert_eq!(diffusers.model().text_encoder, original.model().text_encoder);
    assert_eq!(diffusers.model().vae, original.model().vae);
    for checkpoint in [&diffusers, &original] {
        let inventory = checkpoint.inventory();
        assert_eq!(inventory.refusal, None);
        assert!(inventory.tokenizer.is_some());
        let [text_encoder, transformer, vae] = inventory.components.as_slice() else { panic!("three components") };
        for component in [text_encoder, transformer, vae] {
            assert!(is_whole(component), "{component:?}");
            assert_eq!(component.types.keys().collect::<Vec<_>>(), ["bf16"]);
            assert_eq!(component.bytes, 2 * component.parameters);
        }
        let parameters = [text_encoder, transformer, vae].map(|component| component.parameters);
        assert_eq!(json!(parameters), reference("parameters"), "as the reference counts them");
    }
}

#[test]
fn the_scheduler_says_how_to_sample() {
    let sampling = |class: &str, shift: &str| {
        let folder = Folder::of("diffusers");
        folder.edit("scheduler/scheduler_config.json", "\"UniPCMultistepScheduler\"", &format!("\"{class}\", {shift}"));
        let sampling = Checkpoint::open(folder.path()).unwrap().model().sampling.clone();
        (sampling.sampler, sampling.flow_shift)
    };
    assert_eq!(sampling("UniPCMultistepScheduler", "\"x\": 1"), (Sampler::Unipc, 3.0));
    assert_eq!(sampling("FlowMatchEulerDiscreteScheduler", "\"shift\": 8.0"), (Sampler::Euler, 8.0));
    assert_eq!(sampling("FlowMatchLCMScheduler", "\"shift\": 5.0"), (Sampler::Lcm, 5.0));
    assert_eq!(sampling("DPMSolverMultistepScheduler", "\"x\": 1"), (Sampler::Dpmpp, 3.0));
}

#[test]
fn a_pool_of_two_transformers_in_both_layouts() {
    // 1. diffusers: a second folder, and where the first hands over.
    let folder = Folder::of("diffusers");
    lowmem_tests::copy_folder(&folder.file("transformer"), &folder.file("transformer_2"));
    folder.edit("model_index.json", "\"boundary_ratio\": null", "\"boundary_ratio\": 0.875");
    folder.edit(
        "model_index.json",
        "\"transformer_2\": [\n    null,\n    null",
        "\"transformer_2\": [\n    \"diffusers\",\n    \"WanTransformer3DModel\"",
    );
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.model().pool.as_ref().map(|pool| pool.boundary), Some(0.875));
    let components = components::of(checkpoint.model());
    let second = components.iter().find(|component| component.key() == components::LOW_NOISE_TRANSFORMER).unwrap();
    assert!(checkpoint.sources().unwrap().get(second.as_ref()).is_ok());

    // 2. Wan's own: a folder each, the weights in shards.
    let folder = Folder::of("original");
    for name in ["high_noise_model", "low_noise_model"] {
        fs::create_dir(folder.file(name)).unwrap();
        fs::copy(folder.file("config.json"), folder.file(&format!("{name}/config.json"))).unwrap();
        let weights = "diffusion_pytorch_model.safetensors";
        fs::copy(folder.file(weights), folder.file(&format!("{name}/{weights}"))).unwrap();
    }
    fs::remove_file(folder.file("config.json")).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let inventory = checkpoint.inventory();
    assert_eq!(inventory.refusal, None);
    let names: Vec<_> = inventory.components.iter().map(|component| component.name.as_str()).collect();
    assert_eq!(names, ["models_t5_umt5-xxl-enc-bf16.pth", "high_noise_model", "low_noise_model", "Wan2.1_VAE.pth"]);
    assert_eq!(checkpoint.model().pool.as_ref().map(|pool| pool.boundary), Some(0.875));
}

#[test]
fn the_vae_of_wan2_2_in_its_own_layout() {
    let folder = Folder::of("original");
    fs::remove_file(folder.file("Wan2.1_VAE.pth")).unwrap();
    fs::copy(fixture("Wan2.2_VAE.pth"), folder.file("Wan2.2_VAE.pth")).unwrap();
    let said = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(said.contains("it makes 16 channels, and the VAE's latents have 48: the two are not of one model"), "{said}");
    folder.edit("config.json", "\"in_dim\": 16", "\"in_dim\": 48");
    folder.edit("config.json", "\"out_dim\": 16", "\"out_dim\": 48");
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let vae = &checkpoint.model().vae;
    assert_eq!((vae.residual, vae.z_dim, vae.patch_size, vae.decoder_base_dim, vae.num_res_blocks), (true, 48, 2, Some(2), 2));
    assert_eq!((vae.dim_mult.as_slice(), vae.temporal_downsample.as_slice()), (&[1, 2, 4, 4][..], &[false, true, true][..]));
    let inventory = checkpoint.inventory();
    let component = inventory.components.last().unwrap();
    assert!(is_whole(component), "{component:?}");
}

/// An opened checkpoint whose transformer has one more tensor.
fn with_one_more(name: &str) -> Checkpoint {
    let folder = Folder::of("original");
    let bytes = fs::read(folder.file("diffusion_pytorch_model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let extra = file.tensor("head.head.bias").unwrap();
    let all = file.tensors().into_iter().chain([(name.to_owned(), extra)]);
    safetensors::serialize_to_file(all, None, &folder.file("diffusion_pytorch_model.safetensors")).unwrap();
    Checkpoint::open(folder.path()).unwrap()
}

#[test]
fn what_would_be_left_out_is_named_and_refused() {
    for (name, what) in [
        ("img_emb.proj.0.bias", "it is a model that sees a picture by CLIP"),
        ("blocks.0.ffn.0.lora_A.weight", "it holds changes to weights (LoRA)"),
        ("something.else", "what they are for is not known"),
    ] {
        let checkpoint = with_one_more(name);
        let inventory = checkpoint.inventory();
        assert_eq!(inventory.components[1].unexpected.len(), 1);
        let refusal = inventory.refusal.unwrap_or_default();
        let unexpected = &inventory.components[1].unexpected[0];
        assert!(refusal.contains(&format!("{unexpected}: it is the only tensor here that")) && refusal.contains(what), "{refusal}");
        assert_eq!(checkpoint.sources().unwrap_err().to_string(), refusal);
    }
}

/// Writes a safetensors file anew, a tensor under each of the names that `names` gives for its own.
fn rename(path: &std::path::Path, names: impl Fn(&str) -> Vec<String>) {
    let bytes = fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let all = file
        .tensors()
        .into_iter()
        .flat_map(|(name, view)| names(&name).into_iter().map(move |name| (name, view.clone())).collect::<Vec<_>>());
    safetensors::serialize_to_file(all.collect::<Vec<_>>(), None, path).unwrap();
}

#[test]
fn the_embedding_table_under_either_name_or_both() {
    for names in [&["shared.weight"][..], &["encoder.embed_tokens.weight"], &["shared.weight", "encoder.embed_tokens.weight"]] {
        let folder = Folder::of("diffusers");
        rename(&folder.file("text_encoder/model.safetensors"), |name| match name {
            "shared.weight" => names.iter().map(|&name| name.to_owned()).collect(),
            other => vec![other.to_owned()],
        });
        let inventory = Checkpoint::open(folder.path()).unwrap().inventory();
        assert_eq!(inventory.refusal, None, "{names:?}");
        assert!(is_whole(&inventory.components[0]), "{names:?}: {:?}", inventory.components[0]);
    }
}

/// Bytes that the kernel counts as this process's own: not those of files that are mapped and never read.
fn resident_bytes() -> u64 {
    let statistics = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statistics.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[test]
fn a_large_file_is_opened_without_reading_it() {
    // A file with holes: 57 GB of one tensor, of which the disk holds the header alone.
    const BYTES: u64 = 57_000_000_000;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.safetensors");
    let header = format!(r#"{{"w":{{"dtype":"BF16","shape":[{}],"data_offsets":[0,{BYTES}]}}}}"#, BYTES / 2);
    let file = File::create(&path).unwrap();
    file.set_len(8 + header.len() as u64 + BYTES).unwrap();
    file.write_all_at(&(header.len() as u64).to_le_bytes(), 0).unwrap();
    file.write_all_at(header.as_bytes(), 8).unwrap();

    let before = resident_bytes();
    let store = TensorStore::open(&path).unwrap();
    assert_eq!(store.get("w").unwrap().bytes(), BYTES);
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "opening a file of {BYTES} bytes took {grown} bytes of memory");
}

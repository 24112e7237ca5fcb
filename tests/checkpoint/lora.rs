//! LoRAs: the sum is that of the reference, under the names of three programs; a video with weights packed is near that with the sum made before; what is not known is refused.

use std::path::{Path, PathBuf};

use engine::weights::TensorStore;
use engine::{Checkpoint, components};
use engine_protocol::{CheckpointFiles, LoraFile, Noise, WeightDtype};
use lowmem_tests::root;
use tch::{Device, Kind, Tensor};

use crate::folder::fixture;
use crate::in_blocks::{fp32, transformer};
use crate::repackaged::{self, E4M3, Repackaged};
use crate::single_files::{latents, video};

fn file(name: &str) -> PathBuf {
    root().join("tests/fixtures/lora").join(name)
}

fn lora(path: &Path, strength: f64) -> LoraFile {
    LoraFile { path: path.to_owned(), strength, noise: None }
}

/// The fixture's checkpoint with all LoRAs.
fn with_all() -> Checkpoint {
    let loras = [("kohya", 0.8), ("comfyui", -0.5), ("diffusers", 1.0)];
    let loras = loras.map(|(name, strength)| lora(&file(&format!("{name}.safetensors")), strength));
    Checkpoint::open_files(&CheckpointFiles { loras: loras.into(), ..CheckpointFiles::folder(fixture("original")) }).unwrap()
}

#[test]
fn the_sum_is_that_of_the_reference() {
    let (checkpoint, reference) = (with_all(), TensorStore::open(&file("changed.safetensors")).unwrap());
    let sources = checkpoint.sources().unwrap();
    let components = components::of(checkpoint.model());
    let transformer = components[1].as_ref();
    let mut compared = 0;
    for group in transformer.groups() {
        for param in &group.params {
            let Some(wanted) = reference.get(&group.key(param)) else { continue };
            let mut ours = Tensor::zeros(param.shape.as_slice(), (Kind::Float, Device::Cpu));
            sources.get(transformer).unwrap().fill(group, param, &mut ours).unwrap();
            let error = (&ours - fp32(wanted)).abs().max().double_value(&[]);
            assert!(error < 2e-6, "{}: {error}", group.key(param));
            compared += 1;
        }
    }
    assert_eq!(compared, 8, "six layers, a norm and a bias");
    // Ranks of 4, 2 and 3 each.
    let ranks = &checkpoint.model().lora_ranks["transformer"];
    assert!(ranks.len() == 6 && ranks.values().all(|&rank| rank == 9), "{ranks:?}");
}

/// A LoRA in fp32 under diffusers' names for some layers of a wide transformer.
fn wide_lora(path: &Path) {
    tch::manual_seed(5);
    let randn = |sides: [i64; 2]| Tensor::randn(sides, (Kind::Float, Device::Cpu)) * 0.2;
    let layers = ["blocks.0.attn1.to_q", "blocks.1.attn2.to_v"].into_iter();
    let tensors = layers.flat_map(|layer| {
        [(format!("transformer.{layer}.lora_A.weight"), randn([8, 256])), (format!("transformer.{layer}.lora_B.weight"), randn([256, 8]))]
    });
    repackaged::write(path, &tensors.collect());
}

#[test]
fn packed_weights_have_it_added_as_they_are_used() {
    let folder = tempfile::tempdir().unwrap();
    let repackaged = Repackaged::new(E4M3);
    let [packed, unpacked] = transformer(folder.path(), &[WeightDtype::Q4K]);
    let added = folder.path().join("lora.safetensors");
    wide_lora(&added);
    let opened = |transformer: &Path, loras: Vec<LoraFile>| {
        Checkpoint::open_files(&CheckpointFiles { transformer: Some(transformer.to_owned()), loras, ..repackaged.files() }).unwrap()
    };
    let run = |checkpoint: &Checkpoint, settings: &[(&str, &str)]| latents(&video(checkpoint, &[&[("dtype", "fp32")], settings].concat()));
    let twice = || vec![lora(&added, 0.7), lora(&added, 0.3)];
    let reference = run(&opened(&unpacked, twice()), &[]);
    let error = |ours: Tensor| (ours - &reference).abs().max().double_value(&[]) / reference.abs().max().double_value(&[]);
    assert!(error(run(&opened(&unpacked, Vec::new()), &[])) > 1e-3, "it makes a difference");
    assert!(error(run(&opened(&packed, twice()), &[("weight_dtype", "as_stored")])) < 1e-5);
    for level in ["0", "3"] {
        let off = error(run(&opened(&packed, twice()), &[("weight_dtype", "q4_k"), ("low_mem_level", level)]));
        assert!(off < 1e-5, "level {level}: {off}");
    }
    // From their files both are read anew each time, with what is added.
    for (transformer, weight_dtype) in [(&packed, "q4_k"), (&unpacked, "as_stored")] {
        let settings = [("weight_dtype", weight_dtype), ("low_mem_level", "3"), ("stream_from", "file")];
        let off = error(run(&opened(transformer, twice()), &settings));
        assert!(off < 1e-5, "{weight_dtype} from the file: {off}");
    }
    // Nor is it lost where weights are packed here.
    let [plain, with] = [Vec::new(), twice()].map(|loras| run(&opened(&unpacked, loras), &[("weight_dtype", "fp8_e4m3")]));
    assert!((plain - &with).abs().max().double_value(&[]) > 1e-3 * reference.abs().max().double_value(&[]));
    assert!(error(with) < 0.1);
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lora.safetensors");
    let ones = |sides: &[i64]| Tensor::ones(sides, (Kind::Float, Device::Cpu));
    let pair = |layer: &str| vec![(format!("{layer}.lora_A.weight"), ones(&[2, 24])), (format!("{layer}.lora_B.weight"), ones(&[24, 2]))];
    let layer = "diffusion_model.blocks.0.self_attn.q";
    let with = |name: &str, sides: &[i64]| pair(layer).into_iter().chain([(format!("{layer}{name}"), ones(sides))]).collect();
    let said = |tensors: Vec<(String, Tensor)>, noise: Option<Noise>| {
        repackaged::write(&path, &tensors);
        let loras = vec![LoraFile { path: path.clone(), strength: 1.0, noise }];
        let opened = Checkpoint::open_files(&CheckpointFiles { loras, ..CheckpointFiles::folder(fixture("original")) });
        opened.map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(said(pair(layer), None), Ok(()));
    for (tensors, what) in [
        (with(".dora_scale", &[24, 1]), "q.dora_scale: DoRA is not read"),
        (with(".lora_mid.weight", &[2, 2]), "q.lora_mid.weight: what it is for is not known"),
        (with(".diff", &[24, 24]), "q.diff: it changes a whole layer, which is not read"),
        (with(".diff_b", &[23]), "q.diff_b: shape is [23], expected [24]"),
        (with(".alpha", &[2]), "q.alpha: it is no number"),
        (pair("diffusion_model.blocks.7.self_attn.q"), "the transformer has no such layer: this LoRA is for another model"),
        (pair("lora_te1_text_model_q"), "the transformer has no such layer"),
        (pair("diffusion_model.blocks.0.ffn.0"), "and the layer is [32, 24]: this LoRA is for another model"),
        (pair(layer).into_iter().take(1).collect(), "blocks.0.attn1.to_q.weight: one of its two matrices is missing"),
        (Vec::new(), "it holds no LoRA"),
    ] {
        let error = said(tensors, None).expect_err(what);
        assert!(
            error.contains(what) && error.contains("lora.safetensors") && error.lines().count() == 1,
            "`{what}` is missing in: {error}"
        );
    }
    let error = said(pair(layer), Some(Noise::High)).unwrap_err();
    assert!(error.contains("this model has one transformer"), "{error}");
}

#[test]
fn each_transformer_of_a_pool_has_its_own() {
    let repackaged = Repackaged::new(E4M3);
    let low = repackaged.transformer();
    let of = |noise: Option<Noise>| {
        let loras = vec![LoraFile { noise, ..lora(&file("kohya.safetensors"), 1.0) }];
        let files = CheckpointFiles { low_noise_transformer: Some(low.clone()), loras, ..repackaged.files() };
        Checkpoint::open_files(&files).unwrap().model().lora_ranks.keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(of(None), ["transformer", "transformer_2"]);
    assert_eq!([of(Some(Noise::High)), of(Some(Noise::Low))], [["transformer"], ["transformer_2"]]);
}

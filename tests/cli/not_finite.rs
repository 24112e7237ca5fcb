//! A run whose values become NaN or infinite fails: it says where that began and why, and leaves no video.

use std::fs;
use std::path::Path;

use lowmem_tests::{copy_folder, root};
use rstest::rstest;
use safetensors::SafeTensors;

use crate::command::{Place, lowmem, stderr};

/// NaN, infinity and the largest number of bf16, the type of the fixture's weights.
const NAN: [u8; 2] = [0xC0, 0x7F];
const INFINITY: [u8; 2] = [0x80, 0x7F];
const LARGE: [u8; 2] = [0x00, 0x50];

/// A folder with a copy of the fixture's checkpoint.
fn with_checkpoint() -> Place {
    let place = Place::new();
    copy_folder(&root().join("tests/fixtures/checkpoint/diffusers"), &place.path("checkpoint"));
    place
}

/// Puts `value` into each place of the first tensor of `component` whose name has `part` in it, or into the first place alone. Gives the tensor's file and name.
fn damage(place: &Place, component: &str, part: &str, value: [u8; 2], is_whole: bool) -> (String, String) {
    let files = fs::read_dir(place.path("checkpoint").join(component)).expect("its folder").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|extension| extension == "safetensors")).collect();
    files.sort();
    files.iter().find_map(|path| damage_file(path, part, value, is_whole)).unwrap_or_else(|| panic!("no {part} in {component}"))
}

fn damage_file(path: &Path, part: &str, value: [u8; 2], is_whole: bool) -> Option<(String, String)> {
    let mut bytes = fs::read(path).expect("a file");
    let (header, metadata) = SafeTensors::read_metadata(&bytes).expect("a header");
    let mut tensors: Vec<_> = metadata.tensors().into_iter().collect();
    tensors.sort_by(|(one, _), (other, _)| one.cmp(other));
    let (name, place) = tensors.into_iter().find(|(name, _)| name.contains(part))?;
    let (begin, end) = place.data_offsets;
    let places = bytes[8 + header + begin..8 + header + end].chunks_exact_mut(2);
    places.take(if is_whole { usize::MAX } else { 1 }).for_each(|place| place.copy_from_slice(&value));
    fs::write(path, bytes).expect("written");
    Some((path.file_name().expect("a name").to_string_lossy().into_owned(), name))
}

/// What is said of a run that fails, and that leaves nothing.
fn failure(place: &Place, output: &str, more: &[&str]) -> String {
    let run = ["generate", "--device", "cpu", "--prompt", "a cat", "--size", "32x32", "--frames", "5", "--steps", "2", "--checkpoint"];
    fs::create_dir(place.path("videos")).expect("a folder");
    let mut command = lowmem();
    command.args(run).arg(place.path("checkpoint")).arg("--output").arg(place.path("videos").join(output)).args(more);
    let said = stderr(&command.assert().code(1));
    assert_eq!(fs::read_dir(place.path("videos")).expect("the folder").count(), 0, "something was written");
    said
}

/// Of ranks that are threads the one that failed first is told of, and not those that wait for it.
#[test]
fn a_rank_that_fails_is_told_of_and_leaves_nothing() {
    let place = with_checkpoint();
    damage(&place, "transformer", "patch_embedding.weight", NAN, true);
    let said = failure(&place, "cat.mp4", &["cp_size=2"]);
    assert!(said.contains("failed: denoise: ") && said.contains("hold NaN in step 1 of 2"), "{said}");
    assert!(!said.contains("is gone"), "{said}");
}

#[rstest]
#[case::text_encoder(["text_encoder", "SelfAttention.q.weight"], (INFINITY, true), ["failed: encode: ", "the prompt embeddings hold NaN", "holds infinity"])]
#[case::one_value(["transformer", "attn1.norm_k.weight"], (NAN, false), ["failed: denoise: ", "the keys of attention hold NaN in step 1 of 2", "holds NaN"])]
#[case::a_whole_weight(["transformer", "patch_embedding.weight"], (NAN, true), ["failed: denoise: ", "hold NaN in step 1 of 2", "holds NaN"])]
#[case::some_channels(["transformer", "proj_out.weight"], (NAN, false), ["failed: denoise: ", "the latents hold NaN in step 1 of 2", "holds NaN"])]
#[case::vae(["vae", "decoder.conv_out.weight"], (NAN, true), ["failed: decode: ", "the pixels of frames 1 to ", "holds NaN"])]
#[case::a_colour(["vae", "decoder.conv_out.bias"], (NAN, false), ["failed: decode: ", "the pixels of frames 1 to ", "holds NaN"])]
fn weights_that_are_not_finite_are_named(
    #[case] place_of: [&str; 2],
    #[case] value: ([u8; 2], bool),
    #[case] words: [&str; 3],
    #[values("cat.gif", "cat.safetensors")] output: &str,
) {
    let (place, [component, part], (value, is_whole), [stage, what, weight]) = (with_checkpoint(), place_of, value, words);
    let (file, tensor) = damage(&place, component, part, value, is_whole);
    let said = failure(&place, output, &[]);
    let cause = format!("{component}/{file}: {tensor}: this weight {weight}: the file is damaged, fetch it again");
    for part in [stage, what, &cause] {
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
}

#[rstest]
#[case::text_encoder("text_encoder", "SelfAttention.q.weight", "the prompt embeddings hold NaN")]
#[case::transformer("transformer", "patch_embedding.weight", " in step 1 of 2: ")]
#[case::vae("vae", "decoder.conv_out.weight", "the pixels of frames 1 to ")]
fn what_overflows_in_fp16_is_told_to_use_bf16(#[case] component: &str, #[case] part: &str, #[case] what: &str) {
    let place = with_checkpoint();
    damage(&place, component, part, LARGE, true);
    let said = failure(&place, "cat.gif", &["dtype=fp16"]);
    for part in [what, "the likely cause is fp16, which ends at 65504: use dtype=bf16, or fp32"] {
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
}

#[test]
fn tiles_are_looked_at_too() {
    let place = with_checkpoint();
    damage(&place, "vae", "decoder.conv_out.bias", NAN, false);
    let said = failure(&place, "cat.gif", &["vae_tiling=true", "vae_tile_size=16"]);
    assert!(said.contains("the pixels of frames 1 to 5 hold NaN"), "{said}");
}

/// A run that measures keeps no pixels, and finds what is wrong with latents all the same.
#[test]
fn nothing_is_said_of_pixels_that_nobody_keeps() {
    let place = with_checkpoint();
    damage(&place, "vae", "decoder.conv_out.weight", NAN, true);
    let run = [
        "generate",
        "--device",
        "virtual",
        "--gpu",
        "rtx-3060",
        "--prompt",
        "a cat",
        "--size",
        "32x32",
        "--frames",
        "5",
        "--steps",
        "2",
        "--checkpoint",
    ];
    lowmem().args(run).arg(place.path("checkpoint")).assert().success();
}

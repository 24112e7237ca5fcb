//! `lowmem generate --image`: a video from a picture, on the CPU, and what it says of pictures that will not do.

use std::fs;

use lowmem_tests::root;

use crate::command::{Place, lowmem, stderr};

fn picture(name: &str) -> String {
    root().join("tests/fixtures").join(name).display().to_string()
}

#[test]
fn a_video_begins_with_the_picture_and_has_its_proportions() {
    let place = Place::new();
    let make = |name: &str, more: &[&str]| {
        let output = place.path(name);
        let (first, output_text) = (picture("picture.png"), output.display().to_string());
        let call = ["generate", "--model", "wan-tiny-i2v", "--device", "cpu", "--image", &first, "--output", &output_text, "--steps", "2"];
        let said = stderr(&lowmem().args(call).args(more).assert().success());
        (fs::read(output).expect("a video"), said)
    };
    let (first, said) = make("first.gif", &[]);
    // A picture of 60 x 40 pixels, and a video of as many pixels as the model's own 96 x 64.
    assert!(said.contains("The video is 96x64: it has the picture's proportions"), "{said}");
    assert!(first.starts_with(b"GIF89a"));
    assert_eq!(make("again.gif", &[]).0, first, "the same picture, the same video");
    let last = picture("last_picture.png");
    assert_ne!(make("last.gif", &["--last-image", &last]).0, first, "with a last picture, another video");
    let (squeezed, said) = make("squeezed.gif", &["--size", "64x64"]);
    assert!(squeezed != first && said.contains("the picture is 60x40 and the video 64x64: it is squeezed"), "{said}");
}

#[test]
fn pictures_that_will_not_do_are_refused_before_anything_runs() {
    let place = Place::new();
    place.file("cat.png", "no picture");
    let refused = |words: &[&str]| {
        let call = ["generate", "--device", "cpu", "--output", "cat.gif"];
        let said = stderr(&lowmem().current_dir(place.path("")).args(call).args(words).assert().code(2));
        assert!(!place.path("cat.gif").exists());
        said
    };
    let (first, last) = (picture("picture.png"), picture("last_picture.png"));
    for (words, part) in [
        (["--model", "wan-tiny-i2v"].as_slice(), "--image is missing: Wan, tiny, image to video makes a video from a picture"),
        (&["--model", "wan-tiny-i2v", "--image", "cat.png"], "cat.png: it is no picture that is read here: use a PNG, JPEG or WebP file"),
        (&["--model", "wan-tiny-i2v", "--image", "nowhere.png"], "nowhere.png: No such file"),
        (&["--model", "wan-tiny-i2v", "--image", "."], ".: it is a folder"),
        (&["--model", "wan-tiny-i2v", "--image", &first, "--last-image", "cat.png"], "cat.png: it is no picture"),
        (&["--model", "wan-tiny-i2v", "--last-image", &last], "there is no picture to begin with"),
        (&["--model", "wan-tiny", "--image", &first], "Wan, tiny takes no picture: use a model that does"),
        (&["--model", "wan2.2-ti2v-5b", "--image", &first, "--last-image", &last], "Wan2.2 TI2V 5B takes the first picture alone"),
    ] {
        let said = refused(words);
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
}

#[test]
fn a_picture_is_a_stage_of_its_own_in_plan_and_results() {
    let place = Place::new();
    let call =
        ["sweep", "--device", "virtual", "--gpu", "24GB", "model=wan-tiny-i2v", "low_mem_level=3", "attn_type=sdpa", "resolution=96x64"];
    lowmem().args(call).arg("--out").arg(place.path("run")).assert().success();
    for row in place.rows("run") {
        assert_eq!((&row["outcome"], &row["memory_source"]), ("ok", "virtual"), "{}", &row["error"]);
        assert!(row.bytes("encode_image_peak_allocated_bytes") > 0 && row.bytes("encode_image_host_pinned_peak_bytes") < 1 << 30);
        let secs = |column: &str| row[column].parse::<f64>().expect("seconds");
        let parts = ["text_encode_secs", "image_encode_secs", "denoise_secs", "vae_decode_secs"].map(secs);
        let total = secs("total_secs");
        assert!(parts[1] > 0.0 && (parts.iter().sum::<f64>() - total).abs() < 1e-9 * total, "{parts:?} {total}");
    }
    let said = |model: &str, more: &[&str]| {
        let call = ["plan", "--gpu", "24GB", "--model", model, "low_mem_level=3"];
        String::from_utf8(lowmem().args(call).args(more).assert().success().get_output().stdout.clone()).expect("text")
    };
    assert!(said("wan2.2-i2v-a14b", &[]).contains("VAE encoder"));
    assert!(!said("wan2.2-ti2v-5b", &[]).contains("VAE encoder"), "no picture, no encoder");
    assert!(said("wan2.2-ti2v-5b", &[&format!("image={}", picture("picture.png"))]).contains("VAE encoder"));
}

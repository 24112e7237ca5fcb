//! Videos in every format: `lowmem generate` from a checkpoint, read back with other libraries than those that wrote them.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use lowmem_tests::root;
use mp4_atom::{Any, Codec, ReadFrom, StszSamples};
use openh264::decoder::Decoder;
use openh264::formats::YUVSource;
use safetensors::SafeTensors;

use crate::command::{Place, json, lowmem, stderr, stdout};

const FRAMES: usize = 9;
const WIDTH: usize = 48;
const HEIGHT: usize = 32;

/// The fixture's checkpoint in the layout of that name.
fn checkpoint(layout: &str) -> PathBuf {
    root().join("tests/fixtures/checkpoint").join(layout)
}

/// Makes the same video each time, at `output`; what it printed.
fn generate(output: &Path) -> String {
    let size = format!("{WIDTH}x{HEIGHT}");
    let assert = lowmem()
        .args(["generate", "--device", "cpu", "--prompt", "a cat", "--seed", "7", "--steps", "2", "--size", &size, "--checkpoint"])
        .arg(checkpoint("diffusers"))
        .args(["--frames", &FRAMES.to_string(), "--output"])
        .arg(output)
        .assert()
        .success();
    format!("{}{}", stdout(&assert), stderr(&assert))
}

/// All frames in bytes of RGB.
type Frames = Vec<Vec<u8>>;

fn read_pngs(folder: &Path) -> Frames {
    let mut paths: Vec<_> = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    assert_eq!(paths[0].file_name().and_then(|name| name.to_str()), Some("frame-0000.png"));
    let read = |path: &PathBuf| {
        let mut reader = png::Decoder::new(BufReader::new(File::open(path).expect("a file"))).read_info().expect("a PNG");
        let mut rgb = vec![0; reader.output_buffer_size().expect("a size")];
        let info = reader.next_frame(&mut rgb).expect("a frame");
        assert_eq!((info.width as usize, info.height as usize, info.color_type), (WIDTH, HEIGHT, png::ColorType::Rgb));
        rgb
    };
    paths.iter().map(read).collect()
}

fn read_tensors(path: &Path) -> Frames {
    let bytes = fs::read(path).expect("a file");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    assert_eq!(file.tensor("latents").expect("latents").shape(), [1, 16, 3, HEIGHT / 8, WIDTH / 8]);
    let video = file.tensor("video").expect("a video");
    assert_eq!(video.shape(), [1, FRAMES, 3, HEIGHT, WIDTH]);
    let values: Vec<f32> = video.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let plane = HEIGHT * WIDTH;
    let pixel = |frame: usize, place: usize| (0..3).map(move |colour| values_at(frame * 3 + colour, place, plane));
    let indices = (0..FRAMES).map(|frame| (0..plane).flat_map(|place| pixel(frame, place)).collect::<Vec<_>>());
    indices.map(|frame| frame.into_iter().map(|index| (values[index] * 255.0).round() as u8).collect()).collect()
}

fn values_at(channel: usize, place: usize, plane: usize) -> usize {
    channel * plane + place
}

fn read_gif(path: &Path) -> Frames {
    let mut options = gif::DecodeOptions::new();
    options.set_color_output(gif::ColorOutput::RGBA);
    let mut decoder = options.read_info(File::open(path).expect("a file")).expect("a GIF");
    let mut frames = Vec::new();
    while let Some(frame) = decoder.read_next_frame().expect("a frame") {
        assert_eq!(frame.delay, 6, "16 frames a second are 6.25 hundredths each");
        frames.push(frame.buffer.as_chunks::<4>().0.iter().flat_map(|[r, g, b, _]| [*r, *g, *b]).collect());
    }
    frames
}

fn read_mp4(path: &Path) -> Frames {
    // 1. The one track: 16 frames a second, H.264.
    let bytes = fs::read(path).expect("a file");
    let mut reader = std::io::Cursor::new(&bytes);
    let moov = loop {
        match Any::read_from(&mut reader).expect("a box") {
            Any::Moov(moov) => break moov,
            _ => continue,
        }
    };
    let [track] = moov.trak.as_slice() else { panic!("one track") };
    let table = &track.mdia.minf.stbl;
    let [times] = table.stts.entries.as_slice() else { panic!("every frame lasts as long") };
    assert_eq!(track.mdia.mdhd.timescale / times.sample_delta, 16);
    let [Codec::Avc1(codec)] = table.stsd.codecs.as_slice() else { panic!("H.264") };
    assert_eq!((usize::from(codec.visual.width), usize::from(codec.visual.height)), (WIDTH, HEIGHT));

    // 2. Its samples, one after the other: lengths and units, which the decoder wants behind start codes.
    let StszSamples::Different { sizes } = &table.stsz.samples else { panic!("frames of different sizes") };
    let chunks = &table.stco.as_ref().expect("offsets").entries;
    let mut at = chunks[0] as usize;
    let mut decoder = Decoder::new().expect("a decoder");
    let start = |unit: &[u8]| [&[0, 0, 0, 1], unit].concat();
    let parameters: Vec<u8> =
        codec.avcc.sequence_parameter_sets.iter().chain(&codec.avcc.picture_parameter_sets).flat_map(|unit| start(unit)).collect();
    let mut frames = Vec::new();
    for (index, &size) in sizes.iter().enumerate() {
        if chunks.len() == sizes.len() {
            at = chunks[index] as usize;
        }
        let mut sample = &bytes[at..at + size as usize];
        at += size as usize;
        let mut stream = if index == 0 { parameters.clone() } else { Vec::new() };
        while let Some((length, rest)) = sample.split_first_chunk::<4>() {
            let (unit, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
            stream.extend(start(unit));
            sample = rest;
        }
        let picture = decoder.decode(&stream).expect("decodes").expect("a picture each");
        let mut rgb = vec![0; picture.rgb8_len()];
        picture.write_rgb8(&mut rgb);
        frames.push(rgb);
    }
    frames
}

/// Peak signal-to-noise ratio in dB.
fn psnr(a: &Frames, b: &Frames) -> f64 {
    assert_eq!((a.len(), a[0].len()), (b.len(), b[0].len()), "frames and their size");
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    let squares: f64 = pairs.map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum();
    let mean = squares / (a.len() * a[0].len()) as f64;
    10.0 * (255.0 * 255.0 / mean.max(1e-9)).log10()
}

#[test]
fn every_format_holds_the_same_video() {
    let place = Place::new();
    let make = |name: &str| {
        let said = generate(&place.path(name));
        assert!(said.contains("2/2 denoise") && said.contains("decode"), "{said}");
        place.path(name)
    };
    let pngs = read_pngs(&make("frames/"));
    assert_eq!(pngs.len(), FRAMES);
    assert!(read_tensors(&make("cat.safetensors")) == pngs, "the tensors, rounded, are the pictures");
    // Random weights make noise, which a palette of 256 colours and halved chroma are worst at; frames in another order are worse by far.
    let backwards = |frames: &Frames| frames.iter().rev().cloned().collect::<Frames>();
    for (name, frames) in [("GIF", read_gif(&make("cat.gif"))), ("MP4", read_mp4(&make("cat.mp4")))] {
        let (right, wrong) = (psnr(&frames, &pngs), psnr(&backwards(&frames), &pngs));
        println!("{name}: {right:.1} dB, backwards {wrong:.1} dB");
        assert!(right > 18.0 && right > wrong + 6.0, "{name}: {right:.1} dB, backwards {wrong:.1} dB");
    }
    assert_eq!(fs::read(make("again.mp4")).expect("a file"), fs::read(place.path("cat.mp4")).expect("a file"), "same seed, same bytes");
}

#[test]
fn a_checkpoint_is_inspected() {
    for (layout, words) in [("diffusers", "diffusers' layout"), ("original", "Wan's own layout")] {
        let assert = lowmem().args(["models", "inspect"]).arg(checkpoint(layout)).assert().success();
        let said = stdout(&assert);
        for part in [words, "transformer", "bf16", "0.07 M", "tokenizer: ", "285"] {
            assert!(said.contains(part), "`{part}` is missing in: {said}");
        }
        assert!(!said.contains("missing") && !said.contains("unexpected"), "{said}");
    }
    let assert = lowmem().args(["models", "inspect", "--json"]).arg(checkpoint("diffusers")).assert().success();
    let inventory = json(&assert, "models inspect");
    assert_eq!(inventory["components"][1]["tensors"], 69);
}

#[test]
fn files_are_named_one_by_one() {
    let (place, original) = (Place::new(), checkpoint("original"));
    let video = |name: &str, files: &[(&str, &str)]| {
        let output = place.path(name);
        let mut command = lowmem();
        command.args(["generate", "--device", "cpu", "--prompt", "a cat", "--size", "32x32", "--frames", "5", "--steps", "1", "--output"]);
        command.arg(&output);
        for (option, file) in files {
            command.arg(format!("--{option}")).arg(original.join(file));
        }
        command.assert().success();
        fs::read(output).expect("a video")
    };
    let files = [
        ("transformer", "diffusion_pytorch_model.safetensors"),
        ("text-encoder", "models_t5_umt5-xxl-enc-bf16.pth"),
        ("vae", "Wan2.1_VAE.pth"),
        ("tokenizer", "google/umt5-xxl/tokenizer.json"),
    ];
    assert!(video("a.safetensors", &files) == video("b.safetensors", &[("checkpoint", "")]));

    let refused = |words: &[&str]| {
        let mut command = lowmem();
        let assert = command.args(words).arg(original.join(files[0].1)).assert().code(2);
        stderr(&assert)
    };
    for words in [&["models", "inspect"][..], &["generate", "--device", "cpu", "--output", "cat.gif", "--checkpoint"]] {
        let said = refused(words);
        assert!(said.contains("it is a transformer alone") && said.contains("models/text_encoders and models/vae"), "{said}");
    }
    let said = refused(&["generate", "--device", "cpu", "--output", "cat.gif", "--transformer"]);
    assert!(said.contains("--text-encoder is missing: name its file, which ComfyUI has in models/text_encoders"), "{said}");
}

#[test]
fn a_checkpoint_that_cannot_be_used_is_refused_before_anything_runs() {
    let place = Place::new();
    let broken = place.path("broken");
    let copied = std::process::Command::new("cp").arg("-r").arg(checkpoint("diffusers")).arg(&broken).status();
    assert!(copied.expect("cp").success());
    let weights = broken.join("transformer/diffusion_pytorch_model-00002-of-00002.safetensors");
    fs::remove_file(weights).expect("the file");
    let output = place.path("cat.gif");
    for folder in [broken, place.path("nowhere")] {
        let assert = lowmem().args(["models", "inspect"]).arg(&folder).assert().code(2);
        let why = stderr(&assert).trim().trim_start_matches("lowmem: ").to_owned();
        assert!(why.contains(folder.to_str().expect("a name")), "{why}");
        let assert =
            lowmem().args(["generate", "--device", "cpu", "--output"]).arg(&output).arg("--checkpoint").arg(&folder).assert().code(2);
        assert!(stderr(&assert).contains(&why) && stderr(&assert).contains("--checkpoint"), "{}", stderr(&assert));
    }
    let assert = lowmem()
        .args(["generate", "--device", "cpu", "--model", "wan-tiny", "--output"])
        .arg(&output)
        .arg("--checkpoint")
        .arg(checkpoint("diffusers"))
        .assert()
        .code(2);
    assert!(stderr(&assert).contains("that is diffusers, not wan-tiny: leave the model out"), "{}", stderr(&assert));
    assert!(!output.exists(), "nothing was written");
}

#[test]
fn a_checkpoint_on_the_virtual_gpu_shows_its_memory() {
    let arguments = ["generate", "--device", "virtual", "--gpu", "8GB", "--size", "48x32", "--frames", "9", "--checkpoint"];
    let assert = lowmem().args(arguments).arg(checkpoint("original")).assert().success();
    let said = stdout(&assert);
    assert!(said.contains("allocated") && said.contains("memory is counted by PyTorch's allocator (virtual)"), "{said}");
}

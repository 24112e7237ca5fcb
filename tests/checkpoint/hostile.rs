//! Checkpoints that somebody made to do harm: what is no file, links that lead out, files that would take many times their size, names that act on a terminal. Each is
//! refused with one line, before much of it is read.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use engine::Checkpoint;
use lowmem_tests::copy_folder;
use rstest::rstest;

use crate::folder::{Folder, fixture, with_pickle};

const CONFIG: &str = "text_encoder/config.json";
const TEXT_ENCODER: &str = "text_encoder/model.safetensors";
const INDEX: &str = "transformer/diffusion_pytorch_model.safetensors.index.json";
const TOKENIZER: &str = "tokenizer/tokenizer.json";
const VAE: &str = "Wan2.1_VAE.pth";

/// Holds what is said of a damaged checkpoint against parts that it has: on one line, and a short one.
fn assert_refused(folder: &Folder, parts: &[&str]) {
    let said = folder.refusal();
    for part in parts {
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
    let bytes_of_paths = 2 * folder.path().as_os_str().len();
    assert!(said.len() < 600 + bytes_of_paths, "{} bytes: {said}", said.len());
    assert!(!said.chars().any(|character| character.is_control() || ('\u{202a}'..='\u{202e}').contains(&character)), "{said:?}");
}

/// Puts a link to `target` in the place of a file.
fn link(folder: &Folder, name: &str, target: &str) {
    fs::remove_file(folder.file(name)).unwrap();
    symlink(target, folder.file(name)).unwrap();
}

/// Puts a pipe in the place of a file.
fn pipe(folder: &Folder, name: &str) {
    fs::remove_file(folder.file(name)).unwrap();
    assert!(Command::new("mkfifo").arg(folder.file(name)).status().unwrap().success());
}

#[rstest]
fn what_is_no_regular_file_is_not_opened(
    #[values("model_index.json", "scheduler/scheduler_config.json", CONFIG, TEXT_ENCODER, INDEX, TOKENIZER)] name: &str,
) {
    let folder = Folder::of("diffusers");
    pipe(&folder, name);
    assert_refused(&folder, &[name, "it is a pipe (FIFO), and only regular files are read"]);
    link(&folder, name, "/dev/zero");
    assert_refused(&folder, &[name, "it is a device, and only regular files are read"]);
    fs::remove_file(folder.file(name)).unwrap();
    fs::create_dir(folder.file(name)).unwrap();
    assert_refused(&folder, &[name, "it is a folder, and only regular files are read"]);
}

#[rstest]
fn nor_is_it_in_the_original_layout(#[values("config.json", VAE, "diffusion_pytorch_model.safetensors")] name: &str) {
    let folder = Folder::of("original");
    pipe(&folder, name);
    assert_refused(&folder, &[name, "it is a pipe (FIFO), and only regular files are read"]);
}

#[rstest]
fn a_link_out_of_the_folder_is_not_followed(#[values("model_index.json", CONFIG, TEXT_ENCODER, INDEX, TOKENIZER)] name: &str) {
    let (folder, outside) = (Folder::of("diffusers"), tempfile::tempdir().unwrap());
    let secret = outside.path().join("secret");
    fs::write(&secret, r#"{"model_type": "s3cr3t-token-value"}"#).unwrap();
    link(&folder, name, secret.to_str().unwrap());
    let said = folder.refusal();
    assert!(said.contains("a link leads out of the checkpoint's folder, to /") && said.contains("LOWMEM_LINKED_FOLDERS"), "{said}");
    assert!(!said.contains("s3cr3t"), "{said}");
}

#[test]
fn a_shard_and_a_folder_that_lead_out_are_not_followed() {
    for name in ["transformer/diffusion_pytorch_model-00001-of-00002.safetensors", "vae"] {
        let (folder, outside) = (Folder::of("diffusers"), Folder::of("diffusers"));
        let _ = fs::remove_dir_all(folder.file(name));
        let _ = fs::remove_file(folder.file(name));
        symlink(outside.file(name), folder.file(name)).unwrap();
        assert_refused(&folder, &[name, "a link leads out of the checkpoint's folder"]);
    }
}

/// As `huggingface_hub` lays it out: each file of a snapshot is a link to one that is named after its contents.
#[rstest]
fn a_snapshot_in_hugging_faces_cache_is_opened(#[values("diffusers", "original")] layout: &str) {
    let place = tempfile::tempdir().unwrap();
    let (blobs, snapshot) = (place.path().join("models--Wan-AI--tiny/blobs"), place.path().join("models--Wan-AI--tiny/snapshots/0fad"));
    copy_folder(&fixture(layout), &snapshot);
    fs::create_dir(&blobs).unwrap();
    let mut folders = vec![(snapshot.clone(), "../../blobs".to_owned())];
    let mut count = 0;
    while let Some((folder, up)) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push((entry, format!("../{up}")));
                continue;
            }
            count += 1;
            fs::rename(&entry, blobs.join(count.to_string())).unwrap();
            symlink(format!("{up}/{count}"), &entry).unwrap();
        }
    }
    assert!(count > 4);
    assert_eq!(Checkpoint::open(&snapshot).unwrap().inventory().refusal, None);
    // And by another name.
    let named = place.path().join("tiny");
    symlink(&snapshot, &named).unwrap();
    assert_eq!(Checkpoint::open(&named).unwrap().inventory().refusal, None);
}

#[test]
fn a_link_within_the_folder_is_followed() {
    let folder = Folder::of("diffusers");
    fs::rename(folder.file(TEXT_ENCODER), folder.file("shared.safetensors")).unwrap();
    symlink("../shared.safetensors", folder.file(TEXT_ENCODER)).unwrap();
    assert_eq!(Checkpoint::open(folder.path()).unwrap().inventory().refusal, None);
}

/// A safetensors file with this header and nothing behind it.
fn header(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

/// Lengthens a file to so many bytes, of which the disk holds none.
fn lengthen(folder: &Folder, name: &str, bytes: u64) {
    fs::File::options().write(true).open(folder.file(name)).unwrap().set_len(bytes).unwrap();
}

#[rstest]
#[case::config_of_many_bytes(|folder: &Folder| lengthen(folder, CONFIG, 20 << 30), &[CONFIG, "it has 21474836480 bytes, and at most 262144 are read"])]
#[case::index_of_many_bytes(|folder: &Folder| lengthen(folder, INDEX, 20 << 30), &[INDEX, "at most 4194304 are read"])]
#[case::tokenizer_of_many_bytes(|folder: &Folder| lengthen(folder, TOKENIZER, 20 << 30), &[TOKENIZER, "at most 50331648 are read"])]
#[case::weights_of_many_bytes(|folder: &Folder| lengthen(folder, TEXT_ENCODER, 20 << 30), &[TEXT_ENCODER, "its header speaks of"])]
#[case::config_of_many_values(
    |folder: &Folder| fs::write(folder.file(CONFIG), format!("[{}[]]", "[],".repeat(50_000))).unwrap(),
    &[CONFIG, "it has more than 20000 values, which no config has"],
)]
#[case::index_of_many_values(
    |folder: &Folder| fs::write(folder.file(INDEX), format!("[{}[]]", "[],".repeat(1_000_000))).unwrap(),
    &[INDEX, "it has more than 50000 values, which no index of shards has"],
)]
#[case::tokenizer_of_many_values(
    |folder: &Folder| fs::write(folder.file(TOKENIZER), format!("[{}[]]", "[],".repeat(10_000_000))).unwrap(),
    &[TOKENIZER, "it has more than 2500000 values, which no tokenizer has"],
)]
#[case::tokenizer_of_long_pieces(
    |folder: &Folder| fs::write(folder.file(TOKENIZER), format!(r#"{{"model": {{"vocab": [["{}", 0.0]]}}}}"#, "x".repeat(7 << 20))).unwrap(),
    &[TOKENIZER, "it has more than 6291456 bytes of text, which no tokenizer has"],
)]
#[case::nested_config(|folder: &Folder| fs::write(folder.file(CONFIG), "[".repeat(100_000)).unwrap(), &[CONFIG, "not JSON: recursion limit exceeded"])]
#[case::header_of_many_bytes(
    |folder: &Folder| fs::write(folder.file(TEXT_ENCODER), header(&" ".repeat(9 << 20))).unwrap(),
    &[TEXT_ENCODER, "its header has 9437184 bytes, and a header of a safetensors file has at most 8388608"],
)]
#[case::header_of_many_tensors(
    |folder: &Folder| {
        let tensor = |index: u32| format!(r#""t{index}":{{"dtype":"F32","shape":[],"data_offsets":[0,0]}}"#);
        let text = format!("{{{}}}", (0..60_000).map(tensor).collect::<Vec<_>>().join(","));
        fs::write(folder.file(TEXT_ENCODER), header(&text)).unwrap();
    },
    &[TEXT_ENCODER, "its header has more than 200000 values"],
)]
#[case::more_tensors_than_any_model_has(
    |folder: &Folder| {
        let tensor = |index: u32| format!(r#""t{index}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#);
        let text = format!("{{{}}}", (0..25_000).map(tensor).collect::<Vec<_>>().join(","));
        fs::write(folder.file(TEXT_ENCODER), header(&text)).unwrap();
    },
    &[TEXT_ENCODER, "no component of a model has more than 20000 tensors"],
)]
#[case::tensor_of_many_sides(
    |folder: &Folder| {
        let text = format!(r#"{{"t":{{"dtype":"F32","shape":[{}0],"data_offsets":[0,0]}}}}"#, "1,".repeat(1000));
        fs::write(folder.file(TEXT_ENCODER), header(&text)).unwrap();
    },
    &[TEXT_ENCODER, "t: it has 1001 sides, and no tensor of a model has more than 16"],
)]
#[case::index_of_many_shards(
    |folder: &Folder| {
        let shard = |index: u32| format!(r#""t{index}": "{index}.safetensors""#);
        let text = format!(r#"{{"weight_map": {{{}}}}}"#, (0..1000).map(shard).collect::<Vec<_>>().join(","));
        fs::write(folder.file(INDEX), text).unwrap();
    },
    &[INDEX, "it names 1000 files, and no model has more than 256"],
)]
#[case::folder_of_many_files(
    |folder: &Folder| (0..1100).for_each(|index| fs::write(folder.file(&format!("vae/{index}.safetensors")), "").unwrap()),
    &["vae: more than 1000 files of weights"],
)]
#[case::long_name_of_a_shard(
    |folder: &Folder| folder.edit(INDEX, "\"proj_out.bias\": \"", &format!("\"proj_out.bias\": \"{}", "a".repeat(5000))),
    &[INDEX, "aaa... (5"],
)]
#[case::name_that_acts(
    |folder: &Folder| {
        let name = r"\u001b]0;pwned\u0007\u001b[2J\u202egnp\n\u009b";
        fs::write(folder.file(TEXT_ENCODER), header(&format!(r#"{{"{name}":{{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}}}"#))).unwrap();
    },
    &[TEXT_ENCODER, r"\u{1b}]0;pwned\u{7}\u{1b}[2J\u{202e}gnp\n\u{9b}: lies beyond the end of the file"],
)]
#[case::value_that_acts(
    |folder: &Folder| folder.edit(CONFIG, "\"umt5\"", &format!("\"{}{}\"", r"\u001b[2J", "x".repeat(100_000))),
    &[CONFIG, "model_type: is \"\\u001b[2Jxxx", "and only \"umt5\" is supported"],
)]
#[case::type_that_acts(
    |folder: &Folder| folder.edit(CONFIG, "\"d_model\": 16", &format!("\"d_model\": \"{}{}\"", r"\u001b[2J", "x".repeat(100_000))),
    &[CONFIG, "d_model: invalid type: string"],
)]
#[case::shard_that_acts(
    |folder: &Folder| folder.edit(INDEX, "\"proj_out.bias\": \"", r#""proj_out.bias": "\u001b[2J"#),
    &[INDEX, r"proj_out.bias: its file `\u{1b}[2Jdiffusion"],
)]
fn what_would_take_many_times_its_size_or_acts_is_refused(#[case] damage: fn(&Folder), #[case] parts: &[&str]) {
    let folder = Folder::of("diffusers");
    damage(&folder);
    assert_refused(&folder, parts);
}

/// Writes a `.pth` file with these entries.
fn archive(folder: &Folder, entries: impl IntoIterator<Item = (String, Vec<u8>)>) {
    let mut writer = zip::ZipWriter::new(fs::File::create(folder.file(VAE)).unwrap());
    let options = zip::write::FileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in entries {
        writer.start_file(name, options).unwrap();
        std::io::Write::write_all(&mut writer, &bytes).unwrap();
    }
    writer.finish().unwrap();
}

/// Where the last entry of an archive's directory begins.
fn last_entry(bytes: &[u8]) -> usize {
    bytes.windows(4).rposition(|window| window == b"PK\x01\x02").expect("a directory")
}

fn end_of(bytes: &[u8]) -> usize {
    bytes.windows(4).rposition(|window| window == b"PK\x05\x06").expect("an end")
}

const PICKLE: &[u8] = b"\x80\x02}.";

#[rstest]
#[case::many_entries(
    |folder: &Folder| archive(folder, [("a/data.pkl".into(), PICKLE.to_vec())].into_iter().chain((0..20_100).map(|index| (format!("a/data/{index}"), Vec::new())))),
    &[VAE, "it has 20101 entries, and that of a model has at most 20000"],
)]
#[case::entries_that_are_not_there(
    |folder: &Folder| folder.damage(VAE, |bytes| {
        let at = end_of(bytes);
        bytes[at + 8..at + 12].fill(0xFF);
    }),
    &[VAE, "it has 65535 entries"],
)]
#[case::one_pickle_that_many_entries_show(
    |folder: &Folder| {
        archive(folder, [("a/data.pkl".into(), PICKLE.to_vec())]);
        folder.damage(VAE, |bytes| {
            let (entry, end) = (last_entry(bytes), end_of(bytes));
            let directory = bytes[entry..end].repeat(60);
            let mut tail = bytes[end..].to_vec();
            tail[8..10].copy_from_slice(&60u16.to_le_bytes());
            tail[10..12].copy_from_slice(&60u16.to_le_bytes());
            tail[12..16].copy_from_slice(&(directory.len() as u32).to_le_bytes());
            bytes.truncate(entry);
            bytes.extend(directory);
            bytes.extend(tail);
        });
    },
    &[VAE, "it has two entries `data.pkl`"],
)]
#[case::two_pickles(
    |folder: &Folder| archive(folder, ["a/data.pkl", "b/data.pkl"].map(|name| (name.into(), PICKLE.to_vec()))),
    &[VAE, "it has two folders, `a` and `b`"],
)]
#[case::entries_over_each_other(
    |folder: &Folder| {
        archive(folder, [("a/data.pkl".into(), PICKLE.to_vec()), ("a/data/0".into(), vec![0; 100])]);
        // The second begins where the first does.
        folder.damage(VAE, |bytes| { let at = last_entry(bytes); bytes[at + 42..at + 46].fill(0) });
    },
    &[VAE, "its entries `data.pkl` and `data/0` lie over each other"],
)]
#[case::entry_beyond_the_end(
    |folder: &Folder| folder.damage(VAE, |bytes| { let at = last_entry(bytes); bytes[at + 20..at + 28].copy_from_slice(&[0, 0, 0, 0x7F, 0, 0, 0, 0x7F]) }),
    &[VAE, "lies beyond the end of the file"],
)]
#[case::large_directory(
    |folder: &Folder| archive(folder, (0..200).map(|index| (format!("a/{index}{}", "n".repeat(60_000)), Vec::new()))),
    &[VAE, "its directory is larger than that of any model"],
)]
#[case::name_of_an_entry_that_acts(
    |folder: &Folder| archive(folder, ["a/data.pkl", "\x1b[2J\u{202e}/data.pkl"].map(|name| (name.into(), PICKLE.to_vec()))),
    &[VAE, r"it has two folders, `a` and `\u{1b}[2J\u{202e}`"],
)]
#[case::large_pickle(
    |folder: &Folder| with_pickle(folder, VAE, |_| b"N".repeat(5 << 20)),
    &[VAE, "its pickle has 5242880 bytes, and that of a model has at most 4194304"],
)]
#[case::many_values(|folder: &Folder| with_pickle(folder, VAE, |_| b"N".repeat(4 << 20)), &[VAE, "it makes more values than the pickle of any model"])]
#[case::long_key(
    |folder: &Folder| with_pickle(folder, VAE, |_| [&b"\x80\x02}X\x40\x42\x0f\x00"[..], &b"\x1bk".repeat(500_000), b"Ns."].concat()),
    &[VAE, r"\u{1b}k\u{1b}k", "... (1000000 bytes): it is no tensor"],
)]
#[case::long_function(
    |folder: &Folder| with_pickle(folder, VAE, |_| [&b"\x80\x02}X\x01\x00\x00\x00wc"[..], &b"\x1bk".repeat(500_000), b"\nf\n)Rs."].concat()),
    &[VAE, "w: it is no tensor but `", "which is not executed"],
)]
#[case::one_long_shape_of_many_tensors(
    |folder: &Folder| with_pickle(folder, VAE, |_| {
        // {"w": _rebuild_tensor_v2(('storage', torch.FloatStorage, '0', 'cpu', 1), 0, (1, 1, ...), (1, 1, ...))}
        let start = b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQK\x00";
        [&start[..], b"(", &b"K\x01".repeat(100_000), b"tq\x00h\x00tRs."].concat()
    }),
    &[VAE, "w: its shape is none"],
)]
fn an_archive_that_would_take_many_times_its_size_or_acts_is_refused(#[case] damage: fn(&Folder), #[case] parts: &[&str]) {
    let folder = Folder::of("original");
    damage(&folder);
    assert_refused(&folder, parts);
}

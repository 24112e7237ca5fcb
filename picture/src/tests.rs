//! Pictures that are read as they are, and files that are none.

use std::fs;
use std::path::PathBuf;

use image::{ImageFormat, Rgba, RgbaImage};
use tempfile::TempDir;

use super::*;

/// A picture of 3 x 2 pixels, all of them different.
fn small() -> RgbaImage {
    RgbaImage::from_fn(3, 2, |x, y| Rgba([(x * 80) as u8, (y * 200) as u8, 7, if x == 0 { 0 } else { 255 }]))
}

fn written(folder: &TempDir, name: &str, format: ImageFormat) -> PathBuf {
    let path = folder.path().join(name);
    small().save_with_format(&path, format).unwrap();
    path
}

/// A JPEG file of `picture` whose camera says that it is to be turned so.
fn turned(orientation: u8) -> Vec<u8> {
    let mut jpeg = Vec::new();
    DynamicImage::ImageRgba8(RgbaImage::from_pixel(24, 16, Rgba([200, 10, 10, 255])))
        .into_rgb8()
        .write_to(&mut Cursor::new(&mut jpeg), ImageFormat::Jpeg)
        .unwrap();
    // Exif within an APP1 segment, which stands behind the first marker: one entry, the orientation (tag 0x112).
    let mut exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
    let mut segment = vec![0xff, 0xe1];
    segment.extend(((exif.len() + 2) as u16).to_be_bytes());
    segment.extend(exif);
    [&jpeg[..2], &segment, &jpeg[2..]].concat()
}

#[test]
fn what_a_file_is_is_told_by_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    for (name, format) in [("a.png", ImageFormat::Png), ("b.webp", ImageFormat::WebP), ("png.jpg", ImageFormat::Png)] {
        let path = written(&folder, name, format);
        let picture = Picture::open(&path).unwrap();
        assert_eq!(picture.size(), Size { width: 3, height: 2 }, "{name}");
        assert_eq!(size_of(&path).unwrap(), picture.size(), "{name}");
        // The first pixel is transparent, and has a colour all the same.
        assert_eq!(picture.rgb()[..6], [0, 0, 7, 80, 0, 7], "{name}");
        assert_eq!(picture.rgb()[9..12], [0, 200, 7], "{name}");
    }
}

#[test]
fn a_picture_stands_as_its_camera_says() {
    let folder = tempfile::tempdir().unwrap();
    for (orientation, size) in [(1, (24, 16)), (3, (24, 16)), (6, (16, 24)), (8, (16, 24))] {
        let path = folder.path().join(format!("{orientation}.jpg"));
        fs::write(&path, turned(orientation)).unwrap();
        let wanted = Size { width: size.0, height: size.1 };
        assert_eq!((size_of(&path).unwrap(), Picture::open(&path).unwrap().size()), (wanted, wanted), "{orientation}");
    }
}

#[test]
fn a_picture_is_fitted_as_pillow_does_it() {
    let from = Size { width: 7, height: 5 };
    let rgb: Vec<u8> = (0..from.width * from.height * 3).map(|i| (i * 37 % 256) as u8).collect();
    let picture = Picture { size: from, rgb };
    // Image.frombytes("RGB", (7, 5), bytes(i * 37 % 256 for i in range(105))).resize((4, 3), Image.LANCZOS).tobytes(), and the same to (9, 8).
    let smaller = picture.fitted(Size { width: 4, height: 3 }, Filter::Lanczos);
    assert_eq!(smaller.rgb(), SMALLER);
    let wider = picture.fitted(Size { width: 9, height: 8 }, Filter::Lanczos);
    assert_eq!(wider.rgb(), WIDER);
    assert_eq!(picture.fitted(from, Filter::Lanczos), picture);
}

#[test]
fn the_middle_of_a_picture_is_a_square() {
    let picture = Picture { size: Size { width: 3, height: 2 }, rgb: (0..18).collect() };
    assert_eq!(picture.middle(2, Filter::Bicubic).rgb(), [0, 1, 2, 3, 4, 5, 9, 10, 11, 12, 13, 14], "of three columns the first two");
    let tall = Picture { size: Size { width: 1, height: 3 }, rgb: (0..9).collect() };
    assert_eq!(tall.middle(1, Filter::Lanczos).rgb(), [3, 4, 5]);
    assert_eq!(tall.middle(7, Filter::Bicubic).size(), Size { width: 7, height: 7 });
}

#[test]
fn what_is_no_picture_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let png = fs::read(written(&folder, "a.png", ImageFormat::Png)).unwrap();
    let mut huge = png.clone();
    huge[16..20].copy_from_slice(&100_000u32.to_be_bytes());
    for (path, said) in [
        (at("text.png", b"a cat"), "use a PNG, JPEG or WebP file"),
        (at("empty", b""), "use a PNG, JPEG or WebP file"),
        (at("gif.png", b"GIF89a\x01\0\x01\0\0\0\0"), "use a PNG, JPEG or WebP file"),
        (at("half.png", &png[..png.len() / 2]), "it is damaged"),
        (at("huge.png", &huge), "it is "),
        (folder.path().join("nowhere.png"), "No such file"),
        (folder.path().to_owned(), "it is a folder"),
    ] {
        let error = Picture::open(&path).unwrap_err().to_string();
        assert!(error.contains(said) && error.starts_with(&path.display().to_string()), "{error}");
    }
}

#[test]
fn damaged_pictures_are_refused_or_read_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = 1u64;
    let mut draw = |most: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % most
    };
    let whole = [
        fs::read(written(&folder, "a.png", ImageFormat::Png)).unwrap(),
        fs::read(written(&folder, "a.webp", ImageFormat::WebP)).unwrap(),
        turned(6),
    ];
    let path = folder.path().join("damaged");
    for round in 0..3000 {
        let mut bytes = whole[round % 3].clone();
        let place = draw(bytes.len());
        if round % 2 == 0 {
            bytes[place] ^= 1 << draw(8)
        } else {
            bytes.truncate(place)
        }
        fs::write(&path, &bytes).unwrap();
        let _ = size_of(&path);
        if let Ok(picture) = Picture::open(&path) {
            assert_eq!(picture.rgb().len(), picture.size().width as usize * picture.size().height as usize * COLOURS);
        }
    }
}

/// What Pillow makes of it.
const SMALLER: [u8; 36] = [
    60, 87, 122, 172, 68, 113, 121, 163, 59, 112, 147, 171, 76, 102, 137, 200, 82, 128, 135, 191, 73, 127, 163, 199, 84, 116, 152, 120,
    103, 140, 156, 111, 100, 141, 171, 121,
];
const WIDER: [u8; 216] = [
    0, 26, 63, 55, 126, 163, 194, 90, 121, 195, 0, 50, 76, 113, 150, 176, 228, 31, 105, 136, 32, 63, 100, 171, 163, 200, 232, 1, 30, 67,
    59, 130, 167, 198, 94, 125, 199, 2, 54, 80, 117, 154, 180, 232, 35, 109, 140, 36, 67, 104, 175, 167, 204, 236, 4, 37, 74, 66, 137, 174,
    205, 101, 132, 206, 9, 61, 87, 124, 161, 187, 239, 42, 116, 147, 43, 74, 111, 182, 174, 211, 243, 10, 43, 80, 73, 143, 180, 206, 106,
    138, 204, 15, 67, 93, 130, 167, 193, 237, 47, 121, 148, 50, 80, 118, 185, 180, 216, 241, 16, 47, 84, 73, 147, 184, 228, 112, 142, 237,
    18, 71, 97, 134, 171, 196, 255, 53, 127, 170, 50, 84, 118, 200, 184, 222, 255, 22, 53, 90, 81, 153, 190, 228, 118, 148, 233, 25, 77,
    103, 140, 177, 203, 255, 59, 133, 170, 57, 90, 126, 203, 190, 228, 255, 25, 60, 97, 110, 160, 197, 141, 121, 155, 85, 42, 84, 110, 147,
    184, 220, 117, 60, 136, 83, 90, 97, 155, 149, 197, 231, 97, 26, 64, 101, 130, 164, 201, 76, 121, 159, 0, 52, 88, 114, 151, 188, 230, 8,
    60, 136, 18, 112, 101, 175, 109, 201, 232, 0,
];

//! Damaged checkpoints: whatever is cut off or flipped, the answer is a checkpoint or an error, and never a panic.

use std::fs;
use std::path::{Path, PathBuf};

use engine::Checkpoint;
use proptest::prelude::*;

use crate::folder::{Folder, LAYOUTS};

/// All files of a folder, those that say most about the others first.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// What is done to a file.
#[derive(Debug, Clone)]
enum Damage {
    /// Only this share of it is left.
    Cut(f64),
    /// One bit is flipped at this share of its first so many bytes: headers and pickles are what is read of large files.
    Flip { at: f64, bit: u8, within: usize },
}

fn damage() -> impl Strategy<Value = Damage> {
    let flip = |within| (0.0..1.0, 0u8..8).prop_map(move |(at, bit)| Damage::Flip { at, bit, within });
    prop_oneof![(0.0..1.0).prop_map(Damage::Cut), flip(4096), flip(64), flip(usize::MAX)]
}

fn apply(damage: &Damage, bytes: &mut Vec<u8>) {
    let place = |share: f64, length: usize| ((share * length as f64) as usize).min(length.saturating_sub(1));
    match *damage {
        Damage::Cut(share) => bytes.truncate(place(share, bytes.len())),
        Damage::Flip { at, bit, within } => {
            let place = place(at, bytes.len().min(within));
            bytes[place] ^= 1 << bit;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_damage_makes_it_panic(layout in 0usize..2, file in any::<prop::sample::Index>(), damages in prop::collection::vec(damage(), 1..3)) {
        let folder = Folder::of(LAYOUTS[layout]);
        let files = files(folder.path());
        let file = &files[file.index(files.len())];
        let mut bytes = fs::read(file).expect("a file");
        for damage in &damages {
            if !bytes.is_empty() {
                apply(damage, &mut bytes);
            }
        }
        fs::write(file, bytes).expect("the file");
        match Checkpoint::open(folder.path()) {
            Ok(checkpoint) => {
                let inventory = checkpoint.inventory();
                prop_assert_eq!(inventory.refusal.is_none(), checkpoint.sources().is_ok() && checkpoint.open_tokenizer().is_ok());
            }
            Err(error) => prop_assert!(error.to_string().contains(folder.path().to_str().expect("a name")), "names no file: {}", error),
        }
    }
}

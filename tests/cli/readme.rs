//! Every command that the README and the pages on RAM and on the command line show, run as it stands there.

use std::process::Command;

use lowmem_tests::{built, root};

/// The checkpoint that the README speaks of.
const CHECKPOINT: &str = "Wan2.1-T2V-1.3B-Diffusers";

/// The pages' shell blocks.
fn blocks() -> Vec<String> {
    let text: String = ["README.md", "docs/ram.md", "docs/command-line.md"]
        .map(|page| std::fs::read_to_string(root().join(page)).expect("the page"))
        .concat();
    text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next()).map(str::to_owned).collect()
}

#[test]
fn the_commands_of_the_readme_work() {
    let blocks = blocks();
    assert!(blocks[0].starts_with("make sweep GPU=24GB\n"), "{blocks:?}");
    let lowmem = built("lowmem");
    let path = format!("{}:{}", lowmem.parent().expect("a folder").display(), std::env::var("PATH").expect("a path"));
    for block in blocks {
        // Those about a person's own files run in a folder that holds some: a checkpoint, which stands for the published one of that name.
        let folder = tempfile::tempdir().expect("a folder");
        let checkpoint = root().join("tests/fixtures/checkpoint/diffusers");
        std::os::unix::fs::symlink(checkpoint, folder.path().join(CHECKPOINT)).expect("a link");
        std::os::unix::fs::symlink(root().join("tests/fixtures/picture.png"), folder.path().join("cat.png")).expect("a link");
        let is_about_files = block.contains("--out") || block.contains(CHECKPOINT);
        let here = if is_about_files { folder.path().to_owned() } else { root() };
        for command in block.lines() {
            let run = Command::new("sh").args(["-c", command]).current_dir(&here).env("PATH", &path).env_remove("LD_LIBRARY_PATH").output();
            let run = run.expect("a shell");
            let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
            assert!(run.status.success(), "`{command}` ended with {}:\n{said}", run.status);
            let wanted = if command.starts_with("make sweep") { "Recommended" } else { "" };
            assert!(said.contains(wanted), "`{command}` said:\n{said}");
        }
    }
}

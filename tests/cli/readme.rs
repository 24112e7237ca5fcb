//! Every command that the README and the page on RAM show, run as it stands there.

use std::process::Command;

use lowmem_tests::{built, root};

/// The checkpoint that the README speaks of.
const CHECKPOINT: &str = "Wan2.1-T2V-1.3B-Diffusers";

/// The lines of the pages' shell blocks.
fn commands() -> Vec<String> {
    let text: String = ["README.md", "docs/ram.md"].map(|page| std::fs::read_to_string(root().join(page)).expect("the page")).concat();
    let blocks = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.flat_map(str::lines).map(str::to_owned).collect()
}

#[test]
fn the_commands_of_the_readme_work() {
    let commands = commands();
    assert!(commands.iter().any(|command| command == "make sweep GPU=24GB"), "{commands:?}");
    let lowmem = built("lowmem");
    let path = format!("{}:{}", lowmem.parent().expect("a folder").display(), std::env::var("PATH").expect("a path"));
    for command in commands {
        // Those about a person's own files run in a folder that holds some: a checkpoint, which stands for the published one of that name.
        let folder = tempfile::tempdir().expect("a folder");
        let checkpoint = root().join("tests/fixtures/checkpoint/diffusers");
        std::os::unix::fs::symlink(checkpoint, folder.path().join(CHECKPOINT)).expect("a link");
        let is_about_files = command.contains("--output") || command.contains(CHECKPOINT);
        let here = if is_about_files { folder.path().to_owned() } else { root() };
        let run = Command::new("sh").args(["-c", &command]).current_dir(here).env("PATH", &path).env_remove("LD_LIBRARY_PATH").output();
        let run = run.expect("a shell");
        let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
        assert!(run.status.success(), "`{command}` ended with {}:\n{said}", run.status);
        let wanted = if command.starts_with("make sweep") { "Recommended" } else { "" };
        assert!(said.contains(wanted), "`{command}` said:\n{said}");
    }
}

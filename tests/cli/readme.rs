//! Every command that the README shows, run as it stands there.

use std::process::Command;

use lowmem_tests::{built, root};

/// The lines of the README's shell blocks.
fn commands() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("README.md")).expect("the README");
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
        // The one that writes into the current folder writes into one of its own.
        let folder = tempfile::tempdir().expect("a folder");
        let here = if command.contains("--output") { folder.path().to_owned() } else { root() };
        let run = Command::new("sh").args(["-c", &command]).current_dir(here).env("PATH", &path).env_remove("LD_LIBRARY_PATH").output();
        let run = run.expect("a shell");
        let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
        assert!(run.status.success(), "`{command}` ended with {}:\n{said}", run.status);
        let wanted = if command.starts_with("make sweep") { "Recommended" } else { "" };
        assert!(said.contains(wanted), "`{command}` said:\n{said}");
    }
}

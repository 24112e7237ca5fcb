//! Documents that are made from tables in the code: `make generated` writes them anew.

use lowmem_tests::{generated, generated_between, root};

use super::command::{lowmem, schema_path};

fn printed(arguments: &[&str]) -> String {
    let output = lowmem().args(arguments).assert().success().get_output().stdout.clone();
    String::from_utf8(output).expect("text")
}

#[test]
fn the_table_of_flags_is_that_of_the_code() {
    generated_between("sweeps/README.md", "flags", &printed(&["flags", "--markdown"]));
}

#[test]
fn the_schema_of_sweep_files_is_that_of_the_code() {
    generated("sweeps/schema.json", &printed(&["flags", "--schema"]));
}

#[test]
fn the_schemas_of_answers_are_those_of_the_code() {
    let commands = printed(&["schema"]);
    let mut files: Vec<String> = commands.lines().map(schema_path).collect();
    commands.lines().for_each(|command| generated(&schema_path(command), &printed(&["schema", command])));
    let there = std::fs::read_dir(root().join("docs/schemas")).expect("a folder");
    let mut there: Vec<_> = there.map(|entry| format!("docs/schemas/{}", entry.expect("an entry").file_name().display())).collect();
    files.sort();
    there.sort();
    assert_eq!(there, files, "a schema of a command that is gone");
}

/// What stands in a section of `lowmem --help`: each line's first word, and the rest.
fn of_help(section: &str) -> Vec<(String, String)> {
    let help = printed(&["--help"]);
    let lines = help.lines().skip_while(|line| *line != section).skip(1).take_while(|line| !line.is_empty());
    let words = lines.filter_map(|line| line.trim().split_once(' '));
    words.map(|(word, rest)| (word.to_owned(), rest.trim().to_owned())).collect()
}

#[test]
fn commands_and_exit_codes_are_those_of_the_help() {
    let commands = of_help("Commands:").into_iter().filter(|(name, _)| name != "help");
    let commands = commands
        .fold("| command | what it does |\n|---|---|\n".to_owned(), |text, (name, what)| text + &format!("| `{name}` | {what} |\n"));
    generated_between("docs/command-line.md", "commands", &commands);
    let codes = of_help("Exit codes:").into_iter();
    let codes =
        codes.fold("| exit code | what it means |\n|--:|---|\n".to_owned(), |text, (code, what)| text + &format!("| {code} | {what} |\n"));
    assert!(codes.contains("| 130 | "), "{codes}");
    generated_between("docs/command-line.md", "exit codes", &codes);
}

#[test]
fn the_columns_of_results_are_those_of_the_code() {
    generated("docs/results.md", &reports::results_page());
}

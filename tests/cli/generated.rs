//! Documents that are made from tables in the code: `make generated` writes them anew.

use lowmem_tests::{generated, generated_between};

use super::command::lowmem;

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
fn the_columns_of_results_are_those_of_the_code() {
    generated("docs/results.md", &reports::results_page());
}

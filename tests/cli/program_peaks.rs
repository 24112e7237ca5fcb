//! Peaks of programs that are not ours, as `program_peaks/peaks.csv` has them: diffusers' pipelines and a Llama of transformers, on the H100 profile.
//!
//! Rows that say so in `quick` are held against a run each time; `make program-peaks` runs all of them and writes the table and its copy in
//! `docs/virtual-gpu.md` anew.
//!
//! # Note: the Llama's figures by arithmetic
//! 6,738,415,616 parameters in bf16 are 12.55 GiB. Its cache has two vectors of 4096 in bf16 a layer and token: 32 * 2 * 4096 * 2 bytes are 0.5 MiB, so
//! 2112 tokens are 1.03 GiB; with the weights that is 13.58, and the rest of 13.78 is one layer's cache being lengthened and the logits. In training weights, gradients and both moments of AdamW, all bf16, are
//! 4 * 12.55 = 50.20 GiB, and that plus one layer is all with gradient checkpointing.

use std::fs;
use std::path::PathBuf;

use lowmem_tests::root;
use serde::{Deserialize, Serialize};

use crate::command::{lowmem, stderr};
use crate::on::last_row;
use crate::python::{PYTHON, path_to_torch};

const REMEDY: &str = "if that is meant, `make program-peaks` writes the table anew";
const MARKS: [&str; 2] = ["<!-- begin program peaks -->\n", "<!-- end program peaks -->\n"];

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
struct Row {
    program: String,
    options: String,
    quick: String,
    peak_allocated_gib: String,
    peak_reserved_gib: String,
    peak_device_gib: String,
}

impl Row {
    /// The row as it is now.
    fn measured(&self, path_to_torch: &str) -> Self {
        let script = format!("tests/cli/program_peaks/{}.py", self.program);
        let mut command = lowmem();
        command.current_dir(root()).env("PYTHONPATH", path_to_torch).env("PYTHONDONTWRITEBYTECODE", "1");
        let assert =
            command.args(["on", "h100", "--events", "clock", "--", PYTHON, &script]).args(self.options.split(' ')).assert().success();
        assert!(stderr(&assert).contains("Fits: "), "{}: {}", self.options, stderr(&assert));
        let [_, _, allocated, reserved, device] = <[String; 5]>::try_from(last_row(&assert)).expect("five columns");
        Self { peak_allocated_gib: allocated, peak_reserved_gib: reserved, peak_device_gib: device, ..self.clone() }
    }
}

fn table() -> PathBuf {
    root().join("tests/cli/program_peaks/peaks.csv")
}

/// The table as it stands in the documentation.
fn markdown(rows: &[Row]) -> String {
    let titles = "| program | options | allocated GiB | reserved GiB | device GiB |\n|---|---|--:|--:|--:|\n";
    let line = |row: &Row| {
        format!(
            "| {} | `{}` | {} | {} | {} |\n",
            row.program, row.options, row.peak_allocated_gib, row.peak_reserved_gib, row.peak_device_gib
        )
    };
    titles.to_owned() + &rows.iter().map(line).collect::<String>()
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn peaks_of_other_programs_are_those_of_the_table() {
    let path_to_torch = path_to_torch();
    let is_renewing = std::env::var_os("LOWMEM_RENEW_PEAKS").is_some();
    let mut rows: Vec<Row> = csv::Reader::from_path(table()).expect("the table").deserialize().map(|row| row.expect("a row")).collect();
    for row in rows.iter_mut().filter(|row| is_renewing || !row.quick.is_empty()) {
        let measured = row.measured(path_to_torch);
        assert!(is_renewing || *row == measured, "{}: {REMEDY}:\n{row:?}\n{measured:?}", table().display());
        *row = measured;
    }
    let page = root().join("docs/virtual-gpu.md");
    let text = fs::read_to_string(&page).expect("the page");
    let parts = text.split_once(MARKS[0]).and_then(|(before, rest)| Some((before, rest.split_once(MARKS[1])?)));
    let (before, (shown, after)) = parts.expect("the marks are in the page");
    if is_renewing {
        let mut writer = csv::Writer::from_path(table()).expect("the table is written");
        rows.iter().for_each(|row| writer.serialize(row).expect("a row is written"));
        writer.flush().expect("the table is written");
        fs::write(&page, [before, MARKS[0], &markdown(&rows), MARKS[1], after].concat()).expect("the page is written");
    } else {
        assert_eq!(shown, markdown(&rows), "{} has another table: {REMEDY}", page.display());
    }
}

//! `lowmem export` and `lowmem history`: a run for other programs, and runs side by side.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::command::{ANSWERS, Place, as_its_schema_says, json, lowmem, stderr, stdout};

const SWEEP: [&str; 7] = ["sweep", "smoke", "--gpu", "24GB", "--device", "virtual", "--out"];

fn swept() -> Place {
    let place = Place::new();
    place.lowmem_with(ANSWERS).args(SWEEP).arg("run").assert().success();
    place
}

fn exported(place: &Place, format: &str) -> String {
    stdout(&lowmem().current_dir(place.path("")).args(["export", "run", "--format", format]).assert().success())
}

#[test]
fn csv_and_markdown_are_the_files_that_are_there() {
    let place = swept();
    for (format, file) in [("csv", "results.csv"), ("md", "tables.md")] {
        assert_eq!(exported(&place, format), fs::read_to_string(place.path("run").join(file)).expect(file));
        let out = place.path("out");
        lowmem().current_dir(place.path("")).args(["export", "run", "--format", format, "--out", "out"]).assert().success();
        assert_eq!(fs::read_to_string(out).expect("written"), exported(&place, format));
    }
}

#[test]
fn json_is_typed_as_the_page_of_columns_says() {
    let place = swept();
    let rows = as_its_schema_says(&exported(&place, "json"), "export");
    let rows = rows.as_array().expect("rows");
    assert_eq!(rows.len(), 8);
    let page = fs::read_to_string(lowmem_tests::root().join("docs/results.md")).expect("docs/results.md");
    let typed: Vec<(&str, &str)> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .filter_map(|(name, rest)| Some((name, rest.split(" |").next()?)))
        .collect();
    for row in rows {
        let row = row.as_object().expect("an object");
        for (name, value) in row {
            let kind = typed.iter().find(|(column, _)| column == name).unwrap_or_else(|| panic!("{name} is not in docs/results.md")).1;
            let fits = match kind {
                "integer" => value.is_u64() || value.is_i64(),
                "real" => value.is_number(),
                "bool" => value.is_boolean(),
                _ => value.is_string(),
            };
            assert!(fits || value.is_null(), "{name} is {kind}: {value}");
        }
        assert!(row["low_mem_level"].is_u64() && row["is_skipped"].is_boolean() && row["outcome"].is_string(), "{row:?}");
    }
}

#[test]
fn parquet_goes_into_a_file() {
    let place = swept();
    let export =
        |arguments: &[&str]| lowmem().current_dir(place.path("")).args(["export", "run", "--format", "parquet"]).args(arguments).assert();
    assert!(stderr(&export(&[]).code(2)).contains("name a file with --out"));
    export(&["--out", "run.parquet"]).success();
    let bytes = fs::read(place.path("run.parquet")).expect("written");
    // What is in it is read back in `reports`.
    assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1") && bytes.len() > 1000, "{} bytes", bytes.len());
}

#[test]
fn sqlite_takes_the_sql() {
    let place = swept();
    place.file("run.sql", &exported(&place, "sql"));
    let script = "import sqlite3\ndb = sqlite3.connect(':memory:')\ndb.executescript(open('run.sql').read())\n\
                  print(*db.execute('select count(*), typeof(max(peak_device_bytes)), max(peak_device_bytes), sum(outcome = \\'oom\\'), typeof(min(wall_secs)), min(\"case\"), sum(is_skipped) from results').fetchone())\n";
    let output = Command::new("python3").current_dir(place.path("")).args(["-c", script]).output().expect("python3");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said.trim(), format!("8 integer {} 2 real level0-math 0", 21u64 << 30), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn history_has_a_line_for_each_run_and_what_changed() {
    let place = Place::new();
    let history = |arguments: &[&str]| lowmem().current_dir(place.path("")).arg("history").args(arguments).assert();
    let said = stderr(&history(&["runs"]).code(2));
    assert!(said.contains("runs: "), "{said}");
    place.lowmem_with(ANSWERS).args(SWEEP).arg("runs/a").assert().success();
    // Level 1 needs less.
    place.lowmem_with(&ANSWERS.replace("denoise 20", "denoise 19")).args(SWEEP).arg("runs/b").assert().success();
    place.lowmem_with(ANSWERS).args(["sweep", "smoke", "--gpu", "80GB", "--device", "virtual", "--out", "runs/c"]).assert().success();
    fs::create_dir(place.path("runs/empty")).expect("a folder");
    let runs = json(&history(&["runs", "--json"]).success(), "history");
    let runs = runs.as_array().expect("runs");
    assert_eq!(runs.len(), 3);
    let of = |gpu: &str| runs.iter().filter(|run| run["gpu"] == gpu).collect::<Vec<_>>();
    let changed: Vec<_> = of("rtx-4090").iter().map(|run| run["changed"].clone()).collect();
    assert!(changed.contains(&Value::Null), "{changed:?}");
    assert!(
        changed.iter().any(|change| change.as_str().is_some_and(|change| change.starts_with("peak ") && change.ends_with("1.00 GiB"))),
        "{changed:?}"
    );
    assert_eq!((&of("h100")[0]["changed"], &of("h100")[0]["cases"]), (&Value::Null, &8.into()));
    let said = stdout(&history(&["runs"]).success());
    assert!(said.contains("wan-tiny 96x64, level 1") && said.contains("peak "), "{said}");
}

//! `lowmem flags`: every flag of a configuration, from the table in `engine/protocol/src/config/table.rs`.

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width};
use engine_protocol::{FLAGS, Flag, Kind};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::table;
use crate::cli::FlagsArguments;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::json;
use crate::print::WIDTH;
use crate::sweep::schema;

/// What of them keys and defaults take.
const KEYS: u16 = 28;

/// Prints one flag, or all: for a terminal, as a table for documents, or as the schema of sweep files.
pub(crate) fn run(arguments: &FlagsArguments) -> Result<ExitCode, Error> {
    match &arguments.key {
        Some(key) if arguments.json => json::print(&FlagJson::of(engine_protocol::flag(key)?))?,
        None if arguments.json => json::print(&FLAGS.iter().map(FlagJson::of).collect::<Vec<_>>())?,
        Some(key) => one(engine_protocol::flag(key)?),
        None if arguments.schema => say!("{}", schema::text()?),
        None if arguments.markdown => say!("{}", markdown().trim_end()),
        None => all(),
    }
    Ok(ExitCode::Done)
}

/// A flag of a configuration.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Flag")]
pub(crate) struct FlagJson {
    key: String,
    /// What it is.
    doc: String,
    /// What can be written, in words.
    values: String,
    /// What holds where it is left out, in words.
    default: String,
    /// What becomes of the video with another value, in words.
    another_value: String,
    /// How Smart-Diffusion's page writes it.
    also_written: String,
    /// When it has no effect.
    no_effect: Vec<String>,
    /// What its value is in records and in JSON.
    schema: Value,
}

impl FlagJson {
    fn of(flag: &Flag) -> Self {
        Self {
            key: flag.key.to_owned(),
            doc: flag.doc.clone(),
            values: flag.values(),
            default: flag.default.clone(),
            another_value: flag.results.words().to_owned(),
            also_written: flag.page_spelling(),
            no_effect: flag.idle_reasons().map(str::to_owned).collect(),
            schema: flag.kind.json_schema().into(),
        }
    }
}

fn all() {
    let mut rows = narrow(["flag and default", "what it is"]);
    let mut group = None;
    for flag in FLAGS.iter() {
        if group.replace(flag.group).is_some_and(|before| before != flag.group) {
            rows.add_row(["", ""]);
        }
        rows.add_row([&format!("{}\n  {}", flag.key, flag.default.replace("; ", "\n  ")), first_sentence(&flag.doc)]);
    }
    say!("{}", trimmed(&rows.to_string()));
    say!("\nWrite key=value: low_mem_level=3. `lowmem flags KEY` says all about one.");
}

fn one(flag: &Flag) {
    let mut rows = narrow([flag.key, &flag.doc]);
    rows.add_row(["values", &flag.values()]);
    for (word, means) in words(&flag.kind) {
        rows.add_row([&format!("  {word}"), *means]);
    }
    rows.add_row(["default", &flag.default]);
    rows.add_row(["another value", &format!("gives {}", flag.results.words())]);
    rows.add_row(["also written", &flag.page_spelling()]);
    for why in flag.idle_reasons() {
        rows.add_row(["no effect", why]);
    }
    say!("{}", trimmed(&rows.to_string()));
}

fn words(kind: &Kind) -> &[(&'static str, &'static str)] {
    match kind {
        Kind::Word(words) | Kind::WordOrSwitch(words) | Kind::IntegerOrWord(words) => words,
        _ => &[],
    }
}

fn first_sentence(doc: &str) -> &str {
    doc.find(". ").map_or(doc, |end| &doc[..=end])
}

/// Two columns that fit a terminal; the first one takes what its words need.
fn narrow(titles: [&str; 2]) -> Table {
    let mut rows = table(&titles, &[]);
    rows.set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    if let Some(column) = rows.column_mut(0) {
        column.set_constraint(ColumnConstraint::UpperBoundary(Width::Fixed(KEYS)));
    }
    rows
}

/// Without the spaces that fill up lines.
fn trimmed(text: &str) -> String {
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// The table of `sweeps/README.md`.
fn markdown() -> String {
    let mut text = String::from("| key | what it is | values | when it is left out | another value gives |\n|---|---|---|---|---|\n");
    for flag in FLAGS.iter() {
        let explained = words(&flag.kind).iter().map(|(word, means)| format!("`{word}`: {}", means.trim_end_matches('.')));
        let values = match &flag.kind {
            Kind::Word(_) | Kind::WordOrSwitch(_) => String::new(),
            _ => flag.values(),
        };
        let values: Vec<_> = Some(values).filter(|values| !values.is_empty()).into_iter().chain(explained).collect();
        let results = flag.results.words();
        text += &format!("| `{}` | {} | {} | {} | {results} |\n", flag.key, flag.doc, values.join("; "), flag.default);
    }
    text
}

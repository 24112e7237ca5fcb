//! A run for other programs: what stands in `results.csv`, with types, as JSON, SQL or Parquet. What the columns are stands in `columns`.

use schemars::{Schema, json_schema};
use serde_json::{Map, Value, json};

use crate::columns::{Column, ColumnType, columns};
use crate::error::Error;
use crate::run::Run;
use crate::summary::Summary;
use crate::{csv, markdown, parquet, timeline};

/// What a run can be written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The tables of `tables.md`.
    Markdown,
    /// What `results.csv` holds.
    Csv,
    /// An array of objects, one a case: what is not known is null.
    Json,
    /// A table `results` and its rows, as SQLite and PostgreSQL take it.
    Sql,
    /// Columns of typed cells, for pandas, DuckDB and the like.
    Parquet,
    /// How memory went in each case, as CSV: one row a moment.
    Timeline,
}

/// The file of a run in a format: a text, but for Parquet.
///
/// # Errors
/// None that a healthy machine has: it is made in memory.
pub fn export(summary: &Summary<'_>, format: Format) -> Result<Vec<u8>, Error> {
    Ok(match format {
        Format::Markdown => markdown::tables(summary).into(),
        Format::Csv => csv::results(summary)?.into(),
        Format::Json => json(summary.run).into(),
        Format::Sql => sql(summary.run).into(),
        Format::Parquet => parquet::file(summary.run)?,
        Format::Timeline => timeline::timeline(summary.run)?,
    })
}

fn json(run: &Run) -> String {
    let columns = columns();
    let object = |record| columns.iter().map(|column| (column.name.to_owned(), column.value(run, record))).collect::<Map<_, _>>();
    let rows: Vec<String> = run.records.iter().map(|record| Value::Object(object(record)).to_string()).collect();
    // A case a line: such a file can be looked through.
    format!("[\n{}\n]\n", rows.join(",\n"))
}

/// What `Format::Json` is, as a schema.
pub fn export_schema() -> Schema {
    let columns = columns();
    let of = |column: &Column| {
        let kind = match column.kind {
            ColumnType::Text => "string",
            ColumnType::Integer => "integer",
            ColumnType::Real => "number",
            ColumnType::Bool => "boolean",
        };
        (column.name.to_owned(), json!({ "type": [kind, "null"], "description": column.doc }))
    };
    let properties: Map<String, Value> = columns.iter().map(of).collect();
    let required: Vec<&str> = columns.iter().map(|column| column.name).collect();
    json_schema!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Array_of_Result",
        "type": "array",
        "items": { "type": "object", "properties": properties, "required": required },
    })
}

fn sql(run: &Run) -> String {
    let columns = columns();
    let defined: Vec<String> = columns.iter().map(|column| format!("  {} {}", quoted(column), sql_type(column.kind))).collect();
    let mut text = format!("BEGIN;\nCREATE TABLE results (\n{}\n);\n", defined.join(",\n"));
    let names = columns.iter().map(quoted).collect::<Vec<_>>().join(", ");
    for record in &run.records {
        let values = columns.iter().map(|column| literal(&column.value(run, record))).collect::<Vec<_>>().join(", ");
        text += &format!("INSERT INTO results ({names}) VALUES ({values});\n");
    }
    text + "COMMIT;\n"
}

/// A name of a column may be a word of SQL: `case` is.
fn quoted(column: &Column) -> String {
    format!("\"{}\"", column.name)
}

fn sql_type(kind: ColumnType) -> &'static str {
    match kind {
        ColumnType::Text => "TEXT",
        ColumnType::Integer => "BIGINT",
        ColumnType::Real => "DOUBLE PRECISION",
        ColumnType::Bool => "BOOLEAN",
    }
}

fn literal(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Bool(yes) => yes.to_string().to_uppercase(),
        // No text of SQL may hold a zero byte.
        Value::String(text) => format!("'{}'", text.replace('\'', "''").replace('\0', "")),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn json_has_typed_values_and_null_for_what_is_not_known() {
        let run = samples::run(vec![samples::ok("a", 1, 10), samples::oom("b", 3, 20)]);
        let rows: Vec<Map<String, Value>> = serde_json::from_str(&json(&run)).expect("JSON");
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0]["peak_device_bytes"], Value::from(10u64 << 30));
        assert_eq!(rows[1]["peak_device_bytes"], Value::Null);
        assert_eq!([&rows[0]["is_skipped"], &rows[0]["vae_tiling"]], [&Value::from(false), &Value::from(true)]);
        assert_eq!((&rows[0]["wall_secs"], &rows[0]["low_mem_level"], &rows[1]["outcome"]), (&0.5.into(), &1.into(), &"oom".into()));
    }

    #[test]
    fn a_text_ends_no_literal_of_sql() {
        let run = samples::run(vec![samples::ok("it's'); DROP TABLE results; --", 1, 10)]);
        let text = sql(&run);
        assert!(text.contains("('it''s''); DROP TABLE results; --', 'wan-tiny', "), "{text}");
        assert!(text.contains("\"case\" TEXT,") && text.contains("\"peak_device_bytes\" BIGINT,"), "{text}");
    }
}

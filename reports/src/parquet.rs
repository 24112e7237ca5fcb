//! A run as Parquet: what stands in `results.csv`, with types, in columns. What the columns are stands in `columns`.

use std::sync::Arc;

use engine_protocol::RunRecord;
use parquet::basic::{LogicalType, Repetition, Type as PhysicalType};
use parquet::data_type::{BoolType, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::Type;

use crate::columns::{Column, ColumnType, columns};
use crate::run::Run;

/// The file's bytes: one group of rows, not compressed.
pub(crate) fn file(run: &Run) -> Result<Vec<u8>, ParquetError> {
    let columns = columns();
    let fields = columns.iter().map(|column| field(column).map(Arc::new)).collect::<Result<_, _>>()?;
    let schema = Arc::new(Type::group_type_builder("results").with_fields(fields).build()?);
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(WriterProperties::new()))?;
    let mut rows = writer.next_row_group()?;
    for column in &columns {
        if let Some(mut cells) = rows.next_column()? {
            write(&mut cells, column, run)?;
            cells.close()?;
        }
    }
    rows.close()?;
    writer.into_inner()
}

/// A column, each cell of which may be missing.
fn field(column: &Column) -> Result<Type, ParquetError> {
    let (physical, logical) = match column.kind {
        ColumnType::Text => (PhysicalType::BYTE_ARRAY, Some(LogicalType::String)),
        ColumnType::Integer => (PhysicalType::INT64, None),
        ColumnType::Real => (PhysicalType::DOUBLE, None),
        ColumnType::Bool => (PhysicalType::BOOLEAN, None),
    };
    Type::primitive_type_builder(column.name, physical).with_repetition(Repetition::OPTIONAL).with_logical_type(logical).build()
}

fn write(cells: &mut SerializedColumnWriter<'_>, column: &Column, run: &Run) -> Result<(), ParquetError> {
    let value = |record: &RunRecord| column.value(run, record);
    match column.kind {
        ColumnType::Text => put::<ByteArrayType>(cells, run, |record| value(record).as_str().map(Into::into)),
        ColumnType::Integer => put::<Int64Type>(cells, run, |record| value(record).as_i64()),
        ColumnType::Real => put::<DoubleType>(cells, run, |record| value(record).as_f64()),
        ColumnType::Bool => put::<BoolType>(cells, run, |record| value(record).as_bool()),
    }
}

/// Writes the cells that are there, and which they are.
fn put<T: DataType>(
    cells: &mut SerializedColumnWriter<'_>,
    run: &Run,
    cell: impl Fn(&RunRecord) -> Option<T::T>,
) -> Result<(), ParquetError> {
    let all: Vec<Option<T::T>> = run.records.iter().map(cell).collect();
    let is_there: Vec<i16> = all.iter().map(|cell| i16::from(cell.is_some())).collect();
    let known: Vec<T::T> = all.into_iter().flatten().collect();
    cells.typed::<T>().write_batch(&known, Some(&is_there), None).map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::RowAccessor;

    use super::*;
    use crate::samples;

    #[test]
    fn cells_have_types_and_what_is_not_known_is_null() {
        let run = samples::run(vec![samples::ok("a", 1, 10), samples::oom("b", 3, 20)]);
        let bytes = file(&run).expect("a file");
        assert_eq!(bytes, file(&run).expect("a file"), "the same bytes twice");
        let mut written = tempfile::tempfile().expect("a file");
        written.write_all(&bytes).expect("written");
        let reader = SerializedFileReader::new(written).expect("Parquet");
        let place = |name: &str| columns().iter().position(|column| column.name == name).expect(name);
        let rows: Vec<_> = reader.get_row_iter(None).expect("rows").map(|row| row.expect("a row")).collect();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].get_string(place("case")).expect("a text"), "a");
        assert_eq!(rows[0].get_long(place("peak_device_bytes")).expect("a whole number"), 10 << 30);
        assert_eq!(rows[1].get_string(place("outcome")).expect("a text"), "oom");
        assert!(rows[1].get_long(place("peak_device_bytes")).is_err(), "null");
        assert!((rows[0].get_double(place("wall_secs")).expect("a number") - 0.5).abs() < 1e-12);
        assert!(rows[0].get_bool(place("vae_tiling")).expect("a switch"));
    }
}

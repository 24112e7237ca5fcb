//! `lowmem schema`: what commands print with `--json`, as JSON schemas. `docs/schemas` is made from them.

use engine_protocol::{Inventory, ModelSpec, Quality, RunRecord};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};

use super::on::VerdictJson;
use super::{
    advise, autotune, calibrate, cards, compare, doctor, fill_tables, flags, generate, gpus, history, max, plan, snapshot, sweep, validate,
};
use crate::data;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::json;
use crate::monitor::Sample;
use crate::run_json::RunJson;

/// A command, and what it prints.
type Entry = (&'static str, fn() -> Schema);

/// All commands that print JSON.
const COMMANDS: [Entry; 28] = [
    ("advise", of::<advise::AdviseJson>),
    ("autotune", of::<autotune::AutotuneJson>),
    ("calibrate", of::<calibrate::CalibrateJson>),
    ("cards", of::<Vec<cards::CardJson>>),
    ("compare", of::<compare::CompareJson>),
    ("doctor", of::<Vec<doctor::CheckJson>>),
    ("export", reports::export_schema),
    ("fill-tables", of::<fill_tables::FilledJson>),
    ("flags", of::<Vec<flags::FlagJson>>),
    ("flags KEY", of::<flags::FlagJson>),
    ("generate", of::<RunRecord>),
    ("generate --log", of::<generate::LogLine>),
    ("gpus", of::<gpus::GpusJson>),
    ("history", of::<Vec<history::EntryJson>>),
    ("max", of::<max::MaxJson>),
    ("merge", of::<RunJson>),
    ("models", of::<Vec<ModelSpec>>),
    ("models inspect", of::<Inventory>),
    ("monitor", of::<Sample>),
    ("on", of::<VerdictJson<'_>>),
    ("plan", of::<plan::PlanJson>),
    ("profile", of::<RunRecord>),
    ("quality", of::<Vec<Quality>>),
    ("report", of::<RunJson>),
    ("snapshot", of::<Vec<snapshot::PeakJson>>),
    ("sweep", of::<RunJson>),
    ("sweep --dry-run", of::<sweep::DryRunJson>),
    ("validate", of::<Vec<validate::RowJson>>),
];

/// The schema of what is printed: what is not known is there too, as null.
fn of<T: JsonSchema>() -> Schema {
    SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>()
}

/// Prints the schema of one command, or all commands that have one.
pub(crate) fn run(of: Option<&str>) -> Result<ExitCode, Error> {
    let Some(asked) = of else {
        COMMANDS.iter().for_each(|(name, _)| say!("{name}"));
        return Ok(ExitCode::Done);
    };
    let Some((_, schema)) = COMMANDS.iter().find(|(name, _)| *name == asked) else {
        let near = data::nearest(COMMANDS.iter().map(|(name, _)| *name), asked).map(|near| format!(": did you mean `{near}`?"));
        let all = " `lowmem schema` lists the commands that print JSON";
        return Err(Error::input(format!("`{}` prints no JSON{}{all}", untrusted::shown(asked), near.unwrap_or_else(|| ".".into()))));
    };
    json::print(&schema())?;
    Ok(ExitCode::Done)
}

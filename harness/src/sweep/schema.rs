//! The JSON schema of sweep definitions, which editors check a file against while it is written.
//!
//! It does not know which values a model can take, nor which flags exclude each other: `lowmem sweep` says that.

use engine_protocol::{FLAGS, Flag, FlagValue, Kind, under_flexcache};
use schemars::{Schema, json_schema};
use serde_json::{Map, Value, json};

use super::key::{GPU, PRESET};
use super::written::{CASES, EXCLUDE, PRESETS, SWEEP, ZIP};
use crate::error::Error;

/// Keys that are no flags.
const NAMED: [(&str, &str); 2] =
    [(GPU, "What cases run on: a size (24GB) or a card (rtx-4090)."), (PRESET, "A set of flags under `presets`, by its name.")];

/// The schema as a file has it.
pub(crate) fn text() -> Result<String, Error> {
    serde_json::to_string_pretty(&schema()).map_err(|error| Error::Fault(format!("the schema is no JSON: {error}")))
}

/// A definition: flags with one value each, lists under `sweep`, and `cases` with values of their own.
fn schema() -> Schema {
    let flags = keys(value);
    let named = |(key, what): (&str, &str)| (key.to_owned(), json!({ "description": what, "type": ["string", "number"] }));
    let one: Map<String, Value> = flags.clone().into_iter().chain(NAMED.map(named)).collect();
    let list = |flag: &Flag| {
        let values = json!({ "type": "array", "minItems": 1, "items": value(flag) });
        let range = json!({ "type": "string", "pattern": "^ *-?[0-9]+ *\\.\\. *-?[0-9]+ *(step *[0-9]+ *)?$" });
        let has_ranges = matches!(flag.kind, Kind::Integer | Kind::IntegerOrWord(_));
        let forms = if has_ranges { vec![values, range] } else { vec![values] };
        json!({ "description": flag.doc, "anyOf": forms })
    };
    let names = |(key, what): (&str, &str)| {
        (key.to_owned(), json!({ "description": what, "type": "array", "minItems": 1, "items": { "type": ["string", "number"] } }))
    };
    let lists: Map<String, Value> = keys(list).into_iter().chain(NAMED.map(names)).collect();
    let mut top = one.clone();
    // Several GPUs may stand outside `sweep` too.
    top.insert(GPU.into(), json!({ "anyOf": [one.get(GPU), lists.get(GPU)] }));
    for (key, what) in [(SWEEP, "Lists: every combination is a case."), (ZIP, "Lists that are walked together.")] {
        let section = json!({ "description": what, "type": "object", "properties": lists, "patternProperties": long_spellings(), "additionalProperties": false });
        top.insert(key.into(), section);
    }
    let case = json!({ "type": "object", "properties": one, "patternProperties": long_spellings(), "additionalProperties": false });
    for (key, what) in [(CASES, "Cases with values of their own."), (EXCLUDE, "Combinations that are left out.")] {
        top.insert(key.into(), json!({ "description": what, "type": "array", "items": case }));
    }
    let preset = json!({ "type": "object", "properties": flags, "patternProperties": long_spellings(), "additionalProperties": false });
    top.insert(
        PRESETS.into(),
        json!({ "description": "Sets of flags, each with a name.", "type": "object", "additionalProperties": preset }),
    );
    json_schema!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "lowmem sweep definition",
        "type": "object",
        "properties": top,
        "patternProperties": long_spellings(),
        "additionalProperties": false,
    })
}

/// Every flag, and what `of` says that it takes. Under `flexcache` may stand what the page's system has there.
fn keys(of: impl Fn(&Flag) -> Value) -> Map<String, Value> {
    let key = |flag: &Flag| {
        if flag.key != "flexcache" {
            return of(flag);
        }
        let under: Map<String, Value> = under_flexcache().map(|(name, flag)| (name.to_owned(), of(flag))).collect();
        json!({ "anyOf": [of(flag), { "type": "object", "properties": under, "additionalProperties": false }] })
    };
    FLAGS.iter().map(|flag| (flag.key.to_owned(), key(flag))).collect()
}

/// The page's spelling from its beginning, nested or with points, is taken and not checked here; nor is what has a point after `flexcache`.
fn long_spellings() -> Value {
    json!({ "^(infer|diffusion)(\\.|$)|^flexcache\\.": {} })
}

/// What a flag takes. YAML's own numbers and switches may be quoted too, as on the command line.
fn value(flag: &Flag) -> Value {
    let mut one = match &flag.kind {
        Kind::SharesOrWord(_) => json!({ "type": "string" }),
        Kind::Text | Kind::Name | Kind::Levels => json!({ "type": ["string", "number"] }),
        Kind::Switch => json!({ "enum": [true, false, "yes", "no", "on", "off"] }),
        Kind::Integer => json!({ "type": "integer" }),
        Kind::Number => json!({ "type": "number" }),
        // The page writes a switch where a word says more.
        Kind::WordOrSwitch(words) => {
            json!({ "enum": words.iter().map(|(word, _)| json!(word)).chain([json!(true), json!(false)]).collect::<Vec<_>>() })
        }
        Kind::Word(words) => json!({ "enum": words.iter().map(|(word, _)| word).collect::<Vec<_>>() }),
        Kind::IntegerOrWord(words) => {
            json!({ "anyOf": [{ "type": "integer", "minimum": 0 }, { "enum": words.iter().map(|(word, _)| word).collect::<Vec<_>>() }] })
        }
        Kind::Size(_) => json!({ "type": "string", "pattern": "^([0-9]+p|[0-9]+ *[xX*×] *[0-9]+)$" }),
    };
    if let Value::Object(fields) = &mut one {
        fields.insert("description".into(), json!(format!("{} Left out: {}.", flag.doc, flag.default)));
        if let (Some((low, high)), true) = (flag.range, matches!(flag.kind, Kind::Integer | Kind::Number)) {
            fields.insert("minimum".into(), low.tell());
            if high.is_finite() {
                fields.insert("maximum".into(), high.tell());
            }
        }
    }
    one
}

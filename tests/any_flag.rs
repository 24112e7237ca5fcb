//! Values for any flag, drawn at random from what the table of flags says that it takes.

use engine_protocol::{Config, ConfigError, Device, FLAGS, Flag, Kind, ModelSpec, Settings, parse_setting, setting_text};
use proptest::prelude::*;
use serde_json::Value;

/// `key=value` for some of the flags that `is_wanted` takes, in the order of the table. Each value is one that its flag takes; together they may be illegal.
pub fn any_settings(is_wanted: impl Fn(&Flag) -> bool) -> impl Strategy<Value = Vec<String>> {
    let one = |flag: &'static Flag| {
        prop::option::of(prop::sample::select(values(flag))).prop_map(move |value| Some(setting_text(flag.key, &value?)))
    };
    let all: Vec<_> = FLAGS.iter().filter(|flag| is_wanted(flag)).map(one).collect();
    all.prop_map(|settings| settings.into_iter().flatten().collect())
}

/// The configuration of settings as they are written on a command line.
///
/// # Errors
/// An illegal setting or combination.
pub fn read(words: &[String], device: Device, model: &ModelSpec) -> Result<Config, ConfigError> {
    let pairs = words.iter().map(|word| parse_setting(word)).collect::<Result<Vec<_>, _>>()?;
    Config::resolve_on(device, &Settings::from_pairs(pairs)?, model)
}

/// Those of the settings that are legal together with the ones before them.
pub fn legal(words: Vec<String>, device: Device, model: &ModelSpec) -> Vec<String> {
    let mut legal: Vec<String> = Vec::new();
    for word in words {
        legal.push(word);
        if read(&legal, device, model).is_err() {
            legal.pop();
        }
    }
    legal
}

/// Values that a flag takes: all of its words, and of its numbers small ones, odd ones and the ends of the range.
fn values(flag: &Flag) -> Vec<Value> {
    let words = |words: &[(&str, &str)]| words.iter().map(|(word, _)| Value::from(*word)).collect::<Vec<_>>();
    let numbers = || [0, 1, 2, 3, 4, 5, 12, 41, 81].map(Value::from).to_vec();
    let drawn = match &flag.kind {
        Kind::Text => ["a cat", "rain, and an = sign", "7", "true", "ein Hund läuft", ""].map(Value::from).to_vec(),
        Kind::Levels => ["1, 0.5", "1, 0.9375, 0.8333, 0.625"].map(Value::from).to_vec(),
        Kind::SharesOrWord(all) => [words(all), ["2:1", "3:1:2", "1:1"].map(Value::from).to_vec()].concat(),
        // A model is chosen beside these.
        Kind::Name => Vec::new(),
        Kind::Switch => vec![true.into(), false.into()],
        Kind::Word(all) | Kind::WordOrSwitch(all) => words(all),
        Kind::IntegerOrWord(all) => [numbers(), words(all)].concat(),
        Kind::Integer => [numbers(), ends(flag).map(|end| Value::from(end as i64)).collect()].concat(),
        Kind::Number => [numbers(), ends(flag).map(Value::from).collect(), vec![0.000_05.into(), 0.1.into(), 2.5.into()]].concat(),
        Kind::Size(_) => ["96x64", "48x32", "832x480", "480x832", "1280x704"].map(Value::from).to_vec(),
    };
    let taken: Vec<_> = drawn.into_iter().filter(|value| flag.read(value).is_ok()).collect();
    if taken.is_empty() { vec![Value::from("wan-tiny")] } else { taken }
}

fn ends(flag: &Flag) -> impl Iterator<Item = f64> {
    flag.range.into_iter().flat_map(|(low, high)| [low, high]).filter(|end| end.is_finite())
}

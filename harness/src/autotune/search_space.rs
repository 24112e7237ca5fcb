//! What autotune may try: memory levels, resident blocks and tile sizes, the fastest first.

use engine_protocol::ResidentBlocks;
use serde_json::{Value, json};

use crate::error::Error;
use crate::model::Models;
use crate::sweep::{Case, Definition, Rules, expand};

/// Levels, the fastest first.
const LEVELS: [i64; 4] = [0, 1, 2, 3];
/// At the level that streams: as many resident blocks as let copies hide, and none.
const RESIDENT: [ResidentBlocks; 2] = [ResidentBlocks::Auto, ResidentBlocks::Count(0)];
/// Tile sizes in latent pixels, the fastest first: a larger tile computes less overlap.
const TILES: [i64; 3] = [16, 8, 4];

/// What a candidate may do for the sake of the machine's memory, beside what is left to the machine (`load_weights`, `stream_from`): the least loss first.
const LESS_RAM: [&[(&str, &str)]; 4] = [
    &[],
    &[("weight_dtype", "fp8_e4m3")],
    &[("offload_text_encoder", "stream")],
    &[("offload_text_encoder", "stream"), ("weight_dtype", "fp8_e4m3")],
];

/// A candidate, and what may take its place where the machine's memory does not hold it.
pub(crate) type Alternatives = Vec<Case>;

/// The cases to try for what `fixed` leaves open, the fastest first, each with its alternatives.
///
/// Tile sizes stand within levels: leaving a level costs more than a smaller tile does.
pub(crate) fn candidates(
    name: &str,
    fixed: Vec<(String, Value)>,
    models: &Models,
    rules: Rules,
) -> Result<(Vec<Alternatives>, Vec<String>), Error> {
    let is_fixed = |key: &str| fixed.iter().any(|(fixed, _)| fixed == key);
    let levels: Vec<Option<i64>> = open(&LEVELS, is_fixed("low_mem_level"));
    let tiles: Vec<Option<i64>> = open(&TILES, is_fixed("vae_tile_size"));
    let is_streamed = |level: &Option<i64>| *level == LEVELS.last().copied();
    let (mut candidates, mut idle): (Vec<Alternatives>, Option<Vec<String>>) = (Vec::new(), None);
    for level in &levels {
        let resident: &[Option<ResidentBlocks>] =
            if is_streamed(level) && !is_fixed("resident_blocks") { &RESIDENT.map(Some) } else { &[None] };
        for (resident, tile) in resident.iter().flat_map(|resident| tiles.iter().map(move |tile| (resident, tile))) {
            let mut alternatives = Alternatives::new();
            for less in LESS_RAM.into_iter().filter(|less| less.iter().all(|(key, _)| !is_fixed(key))) {
                let open = [
                    ("low_mem_level", level.map(Value::from)),
                    ("resident_blocks", resident.map(|resident| json!(resident))),
                    ("vae_tile_size", tile.map(Value::from)),
                ];
                let open = open.into_iter().chain(less.iter().map(|&(key, value)| (key, Some(value.into()))));
                let definition = definition(name, &fixed, open);
                let (found, warnings) = match expand(&definition, models, rules) {
                    // What is fixed may not go with it.
                    Err(_) if !less.is_empty() => continue,
                    found => found?,
                };
                if less.is_empty() {
                    // A warning counts where it holds for every candidate.
                    match &mut idle {
                        Some(idle) => idle.retain(|warning| warnings.contains(warning)),
                        None => idle = Some(warnings),
                    }
                }
                for mut case in found {
                    if *resident == Some(ResidentBlocks::Auto) {
                        case.name += "-resident_blocks_auto";
                    }
                    less.iter().for_each(|(key, value)| case.name += &format!("-{key}_{value}"));
                    if candidates.iter().flatten().chain(&alternatives).all(|known| known.config != case.config) {
                        alternatives.push(case);
                    }
                }
            }
            candidates.push(alternatives);
        }
    }
    Ok((candidates, idle.unwrap_or_default()))
}

/// One value for each key: what is `fixed`, and of what is `open` what has a value.
fn definition<'a>(name: &str, fixed: &[(String, Value)], open: impl Iterator<Item = (&'a str, Option<Value>)>) -> Definition {
    let mut definition = Definition::empty(name);
    let open = open.filter_map(|(key, value)| Some((key.to_owned(), value?)));
    fixed.iter().cloned().chain(open).for_each(|(key, value)| definition.fix(key, value));
    definition
}

fn open(values: &[i64], is_fixed: bool) -> Vec<Option<i64>> {
    if is_fixed { vec![None] } else { values.iter().copied().map(Some).collect() }
}

#[cfg(test)]
mod tests {
    use engine_protocol::Device;

    use super::*;

    fn names(fixed: &[(&str, Value)]) -> Vec<String> {
        let models = Models::load().expect("models");
        let mut all = vec![("model".to_owned(), Value::from("wan-tiny")), ("resolution".to_owned(), Value::from("96x64"))];
        all.extend(fixed.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        let rules = Rules { device: Device::Virtual, may_shorten: true };
        let (cases, warnings) = candidates("autotune", all, &models, rules).expect("candidates");
        assert_eq!(warnings, [""; 0]);
        cases.into_iter().filter_map(|alternatives| alternatives.into_iter().next()).map(|case| case.name).collect()
    }

    #[test]
    fn the_fastest_comes_first_and_level_0_has_no_tiles() {
        let all = names(&[]);
        assert_eq!(all.len(), 1 + 4 * 3);
        assert_eq!(all[..3], ["level0-sdpa-96x64", "level1-tile16-sdpa-96x64", "level1-tile8-sdpa-96x64"]);
        assert_eq!(all[7], "level3-tile16-sdpa-96x64-resident_blocks_auto");
        assert_eq!(all[12], "level3-tile4-sdpa-96x64");
    }

    #[test]
    fn what_takes_less_of_the_machines_memory_stands_behind() {
        let models = Models::load().expect("models");
        let fixed = vec![("model".to_owned(), Value::from("wan-tiny")), ("weight_dtype".to_owned(), Value::from("as_stored"))];
        let rules = Rules { device: Device::Virtual, may_shorten: true };
        let (all, _) = candidates("autotune", fixed, &models, rules).expect("candidates");
        let last: Vec<_> = all.last().expect("candidates").iter().map(|case| case.name.as_str()).collect();
        assert_eq!(last, ["level3-tile4-sdpa-96x64", "level3-tile4-sdpa-96x64-offload_text_encoder_stream"]);
    }

    #[test]
    fn what_is_fixed_is_not_searched() {
        assert_eq!(names(&[("low_mem_level", 2.into()), ("vae_tile_size", 4.into())]), ["level2-tile4-sdpa-96x64"]);
    }
}

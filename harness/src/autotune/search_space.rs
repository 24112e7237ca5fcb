//! What autotune may try: memory levels and tile sizes, the fastest first.

use serde_json::Value;

use crate::error::Error;
use crate::model::Models;
use crate::sweep::{Case, Definition, Rules, expand};

/// Levels, the fastest first.
const LEVELS: [i64; 4] = [0, 1, 2, 3];
/// Tile sizes in latent pixels, the fastest first: a larger tile computes less overlap.
const TILES: [i64; 3] = [16, 8, 4];

/// The cases to try for what `fixed` leaves open, the fastest first.
///
/// Tile sizes stand within levels: leaving a level costs more than a smaller tile does.
pub(crate) fn candidates(
    name: &str,
    fixed: Vec<(String, Value)>,
    models: &Models,
    rules: Rules,
) -> Result<(Vec<Case>, Vec<String>), Error> {
    let is_fixed = |key: &str| fixed.iter().any(|(fixed, _)| fixed == key);
    let levels: Vec<Option<i64>> = open(&LEVELS, is_fixed("low_mem_level"));
    let tiles: Vec<Option<i64>> = open(&TILES, is_fixed("vae_tile_size"));
    let (mut cases, mut idle): (Vec<Case>, Option<Vec<String>>) = (Vec::new(), None);
    for level in &levels {
        for tile in &tiles {
            let mut definition = Definition::empty(name);
            let open = [("low_mem_level", level), ("vae_tile_size", tile)]
                .into_iter()
                .filter_map(|(key, value)| Some((key.to_owned(), (*value)?.into())));
            fixed.iter().cloned().chain(open).for_each(|(key, value)| definition.fix(key, value));
            let (found, warnings) = expand(&definition, models, rules)?;
            // A warning counts where it holds for every candidate.
            match &mut idle {
                Some(idle) => idle.retain(|warning| warnings.contains(warning)),
                None => idle = Some(warnings),
            }
            for case in found {
                if cases.iter().all(|known| known.config != case.config) {
                    cases.push(case);
                }
            }
        }
    }
    Ok((cases, idle.unwrap_or_default()))
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
        cases.into_iter().map(|case| case.name).collect()
    }

    #[test]
    fn the_fastest_comes_first_and_level_0_has_no_tiles() {
        let all = names(&[]);
        assert_eq!(all.len(), 1 + 3 * 3);
        assert_eq!(all[..3], ["level0-sdpa-96x64", "level1-tile16-sdpa-96x64", "level1-tile8-sdpa-96x64"]);
        assert_eq!(all[9], "level3-tile4-sdpa-96x64");
    }

    #[test]
    fn what_is_fixed_is_not_searched() {
        assert_eq!(names(&[("low_mem_level", 3.into()), ("vae_tile_size", 4.into())]), ["level3-tile4-sdpa-96x64"]);
    }
}

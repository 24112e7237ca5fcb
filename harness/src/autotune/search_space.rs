//! What autotune may try: ways to place the models, the fastest first, and for each how finely denoise and decode may be cut, the least cut first.

use engine_protocol::{Config, Split};
use serde_json::{Value, json};

use crate::error::Error;
use crate::model::Models;
use crate::splits::Way;
use crate::sweep::{Case, Definition, Expanded, Rules, expand};

/// Keys and their values.
pub(super) type Settings = &'static [(&'static str, &'static str)];

/// Where the models live, about the fastest first: which is fastest is seen when they run.
const PLACEMENTS: [Settings; 14] = [
    &[("low_mem_level", "0")],
    &[("low_mem_level", "0"), ("load_weights", "as_used")],
    &[("low_mem_level", "1")],
    &[("low_mem_level", "1"), ("load_weights", "as_used")],
    &[("low_mem_level", "2")],
    &[("low_mem_level", "2"), ("load_weights", "as_used")],
    &[("low_mem_level", "2"), ("offload_text_encoder", "stream")],
    &[("low_mem_level", "3"), AUTO],
    &[("low_mem_level", "3"), AUTO, ("offload_text_encoder", "stream")],
    &[("low_mem_level", "3"), AUTO, ONE_PASS],
    &[("low_mem_level", "3")],
    &[("low_mem_level", "3"), ONE_PASS],
    &[("low_mem_level", "3"), ("offload_text_encoder", "stream")],
    &[("low_mem_level", "3"), ("prefetch_blocks", "0")],
];

/// As many blocks stay on the GPU as is good for time.
const AUTO: (&str, &str) = ("resident_blocks", "auto");

/// Streamed weights are copied once a step, and not once for each prediction: faster where copies are what takes long.
const ONE_PASS: (&str, &str) = ("guidance_batch", "true");

/// Weights in 8 bits: half as much to hold and to copy, and another video.
const LOSSY: Settings = &[("weight_dtype", "fp8_e4m3")];

/// How finely denoise is cut, in heads of self-attention. Each takes less than the one before, and a little longer.
pub(super) const DENOISE: [Settings; 6] = [
    &[],
    &[("head_chunk", "8")],
    &[("head_chunk", "4")],
    &[("head_chunk", "2")],
    &[("head_chunk", "1")],
    &[("head_chunk", "1"), ("sequence_chunk", "1024"), ("allocator", "expandable_segments")],
];

/// The finest of these that is tried where something coarser fits: finer ones save little more, and take long.
pub(super) const USUAL: usize = 2;

/// How finely decode is cut, where it is in tiles, from the whole frame on: a smaller tile takes less. How long it takes goes by what tiles share, which is not less for
/// every larger one: they are tried in that order, see [`predicted`](super::predicted::predicted).
const DECODE: [Settings; 9] = [
    &[("vae_tile_size", "512")],
    &[("vae_tile_size", "96")],
    &[("vae_tile_size", "64")],
    &[("vae_tile_size", "32")],
    &[("vae_tile_size", "24")],
    &[("vae_tile_size", "16")],
    &[("vae_tile_size", "8")],
    &[("vae_tile_size", "4")],
    &[("vae_tile_size", "4"), ("vae_temporal_chunk", "1")],
];

/// The last of them whose tiles are so large that how long they take goes by what they compute: 16 latent pixels a side.
pub(super) const SMALLEST_LARGE_TILE: usize = 5;

/// One way to cut a placement.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rung {
    /// How finely denoise is cut, 0 not at all.
    pub(crate) denoise: usize,
    /// How finely decode is cut, 0 least.
    pub(crate) decode: usize,
    /// What would run.
    pub(crate) case: Case,
}

/// A placement and a split, cut in all ways, the least cut first.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ladder {
    /// Which placement: those that differ in their split alone have the same.
    pub(crate) place: usize,
    /// The ways to cut it.
    pub(crate) rungs: Vec<Rung>,
}

/// All ladders for what `fixed` leaves open, with each of these `ways` to split it, and warnings that hold for every case of them. Weights in fewer bits are among them where that is allowed.
pub(crate) fn ladders(
    name: &str,
    fixed: &[(String, Value)],
    models: &Models,
    rules: Rules,
    allow_lossy: bool,
    ways: &[Way],
) -> Result<(Vec<Ladder>, Vec<String>), Error> {
    let is_fixed = |key: &str| fixed.iter().any(|(fixed, _)| fixed == key);
    let is_open = |settings: &Settings| settings.iter().all(|(key, _)| !is_fixed(key));
    let mut space = Space { name, fixed, models, rules, seen: Vec::new(), idle: None, refused: None };
    let (mut ladders, mut number) = (Vec::new(), 0);
    // What is fixed of a placement leaves the others of it open.
    let placements = PLACEMENTS.map(|settings| settings.iter().copied().filter(|(key, _)| !is_fixed(key)).collect::<Vec<_>>());
    let lossy: &[bool] = if allow_lossy && is_open(&LOSSY) { &[false, true] } else { &[false] };
    for settings in &placements {
        for &lossy in lossy {
            let place: Vec<_> = settings.iter().chain(if lossy { LOSSY } else { &[] }).copied().collect();
            for &way in ways {
                let rungs = space.rungs(&place, way, is_open);
                ladders.extend((!rungs.is_empty()).then_some(Ladder { place: number, rungs }));
            }
            number += 1;
        }
    }
    match space.refused {
        Some(error) if ladders.is_empty() => Err(error),
        _ => Ok((ladders, space.idle.unwrap_or_default())),
    }
}

struct Space<'a> {
    name: &'a str,
    fixed: &'a [(String, Value)],
    models: &'a Models,
    rules: Rules,
    /// Each configuration is there once, where it first stands.
    seen: Vec<Config>,
    idle: Option<Vec<String>>,
    /// Why a combination is not legal: it matters where none is.
    refused: Option<Error>,
}

impl Space<'_> {
    fn rungs(&mut self, place: &[(&'static str, &'static str)], way: Way, is_open: impl Fn(&Settings) -> bool) -> Vec<Rung> {
        // What is fixed is not cut otherwise; then there is one way.
        let ways = |all: &[Settings]| {
            let open: Vec<(usize, Settings)> = all.iter().copied().enumerate().filter(|(_, settings)| is_open(settings)).collect();
            if open.is_empty() { vec![(0, &[] as Settings)] } else { open }
        };
        let (denoise, decode) = (ways(&DENOISE), ways(&DECODE));
        let mut rungs = Vec::new();
        // Blocks stay where there is room for them: then denoise need not be cut to make some.
        let most = if place.contains(&AUTO) { 1 } else { denoise.len() };
        for (denoise, heads) in denoise.iter().take(most) {
            for (decode, tiles) in &decode {
                let settings: Vec<_> = place.iter().chain(*heads).chain(*tiles).copied().collect();
                if let Some(case) = self.case(&settings, way) {
                    rungs.push(Rung { denoise: *denoise, decode: *decode, case });
                }
            }
        }
        rungs
    }

    /// The case of these settings; none where it is known already or not legal.
    fn case(&mut self, settings: &[(&'static str, &'static str)], way: Way) -> Option<Case> {
        let mut definition = Definition::empty(self.name);
        let open = settings.iter().map(|&(key, value)| (key.to_owned(), value_of(value)));
        self.fixed.iter().cloned().chain(open).for_each(|(key, value)| definition.fix(key, value));
        way.flags().for_each(|(key, value)| definition.fix(key.into(), value));
        let Expanded { mut cases, warnings, .. } = match expand(&definition, self.models, self.rules) {
            Ok(found) => found,
            Err(error) => {
                self.refused.get_or_insert(error);
                return None;
            }
        };
        let mut case = cases.pop()?;
        let split = case.config.split();
        if split != way.split && split != Split::ONE {
            let (ranks, wanted) = (split.ranks(), way.split.ranks());
            self.refused.get_or_insert_with(|| {
                Error::input(format!(
                    "{split}: that is for {ranks} GPUs, and the search is for {wanted}: add --gpus {ranks}, or leave it out"
                ))
            });
            return None;
        }
        if self.seen.contains(&case.config) {
            return None;
        }
        self.seen.push(case.config.clone());
        // A warning counts where it is about what was asked for, and holds for every case.
        match &mut self.idle {
            Some(idle) => idle.retain(|warning| warnings.contains(warning)),
            None => {
                let is_asked = |warning: &String| self.fixed.iter().any(|(key, _)| warning.starts_with(key.as_str()));
                self.idle = Some(warnings.into_iter().filter(is_asked).collect());
            }
        }
        let is_told = |key: &str| !["low_mem_level", "vae_tile_size"].contains(&key);
        settings.iter().filter(|(key, _)| is_told(key)).for_each(|(key, value)| case.name += &format!("-{key}_{value}"));
        way.flags()
            .for_each(|(key, value)| case.name += &format!("-{key}_{}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)));
        Some(case)
    }
}

/// A number, a switch or a word.
fn value_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| json!(text))
}

#[cfg(test)]
mod tests {
    use engine_protocol::Device;

    use super::*;

    fn found(fixed: &[(&str, Value)], allow_lossy: bool) -> Vec<Ladder> {
        let models = Models::load().expect("models");
        let mut all = vec![("model".to_owned(), Value::from("wan2.1-t2v-1.3b"))];
        all.extend(fixed.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        let rules = Rules { device: Device::Virtual, may_shorten: true };
        ladders("autotune", &all, &models, rules, allow_lossy, &[Way::ONE]).expect("ladders").0
    }

    #[test]
    fn each_configuration_is_there_once_the_least_cut_first() {
        let all = found(&[], false);
        assert!(all[0].rungs[0].case.name.starts_with("level0"), "{all:?}");
        let mut configs: Vec<_> =
            all.iter().flat_map(|ladder| &ladder.rungs).map(|rung| serde_json::to_string(&rung.case.config).expect("JSON")).collect();
        let mut names: Vec<_> = all.iter().flat_map(|ladder| &ladder.rungs).map(|rung| rung.case.name.clone()).collect();
        let count = configs.len();
        for texts in [&mut configs, &mut names] {
            texts.sort();
            texts.dedup();
            assert_eq!(texts.len(), count);
        }
        assert!(all.iter().all(|ladder| ladder.rungs.is_sorted_by_key(|rung| (rung.denoise, rung.decode))));
        assert!(
            all.iter().flat_map(|ladder| &ladder.rungs).all(|rung| rung.case.config.weight_dtype == engine_protocol::WeightDtype::AsStored)
        );
    }

    #[test]
    fn fewer_bits_are_tried_where_that_is_allowed() {
        let lossy = |allow| found(&[], allow).iter().flat_map(|ladder| &ladder.rungs).filter(|rung| rung.case.name.contains("fp8")).count();
        assert_eq!(lossy(false), 0);
        assert!(lossy(true) > 0);
    }

    #[test]
    fn what_is_fixed_is_not_searched() {
        let all = found(&[("low_mem_level", 2.into()), ("vae_tile_size", 4.into()), ("head_chunk", 0.into())], false);
        let configs: Vec<_> = all.iter().flat_map(|ladder| &ladder.rungs).map(|rung| &rung.case.config).collect();
        assert!(configs.iter().all(|config| config.low_mem_level == 2 && config.vae_tile_size == Some(4) && config.head_chunk.is_none()));
        assert!(!configs.is_empty());
    }
}

//! `--gpus N`: how a video is split over so many GPUs, as far as flags leave that open. Of all legal ways that fit, the one whose sampler steps are shortest by the plan.

use std::cmp::Ordering;

use engine_protocol::{Config, PlanReport, Request, Settings, Split};
use serde_json::Value;

use crate::error::Error;
use crate::rank_plans::RankGpus;
use crate::sweep::Definition;

/// A split that was chosen.
#[derive(Debug, Clone, Copy)]
struct Chosen {
    split: Split,
    /// Of so many.
    ways: usize,
    /// A sampler step over that on one GPU; none where no GPU is named.
    step_share: Option<f64>,
}

/// Fixes in `definition` the split over `gpus` that is the best, and says in a sentence which one. Where there is one GPU, or one way, there is nothing to choose.
///
/// `asked` says who wants so many; `config_of` makes a configuration, `request_of` a request for the first rank's plan; `on` are the GPUs.
pub(crate) fn fix(
    definition: &mut Definition,
    gpus: u32,
    asked: &str,
    config_of: impl Fn(&Definition) -> Result<Config, Error>,
    request_of: impl Fn(&Config) -> Result<Request, Error>,
    on: &RankGpus,
) -> Result<String, Error> {
    let ways = legal(definition, gpus, asked)?;
    // Flags may say all of it: what they leave out has a rule of its own.
    if let Some(split) = config_of(definition).ok().map(|config| config.split()).filter(|split| split.ranks() == gpus) {
        return Ok(in_words(asked, Chosen { split, ways: 1, step_share: None }));
    }
    let mut known = Vec::new();
    let mut refused = None;
    for (split, definition) in ways {
        match config_of(&definition) {
            Ok(config) => known.push((split, config)),
            Err(error) => drop(refused.get_or_insert(error)),
        }
    }
    let chosen = match (&known[..], refused) {
        ([], Some(refused)) => return Err(refused),
        ([(split, _)], _) => Chosen { split: *split, ways: 1, step_share: None },
        _ => best(&known, &request_of, on)?,
    };
    give(definition, chosen.split);
    Ok(in_words(asked, chosen))
}

/// A way to split a video, in a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) split: Split,
    /// The faster GPUs have more of the sequence.
    pub(crate) by_speed: bool,
}

impl Way {
    /// No split.
    pub(crate) const ONE: Self = Self { split: Split::ONE, by_speed: false };

    /// The flags that mean it.
    pub(crate) fn flags(self) -> impl Iterator<Item = (&'static str, Value)> {
        let shares = self.by_speed.then(|| ("cp_split", "speed".into()));
        self.split.flags().map(|(key, ranks)| (key, ranks.into())).chain(shares)
    }
}

/// The ways to split a video over so many GPUs, wanted by whom, that `definition` leaves open, for a search; one GPU where none were asked for. On GPUs of several kinds the sequence is shared out
/// evenly, and by speed.
pub(crate) fn to_search(definition: &Definition, wanted: Option<(u32, String)>, on: &RankGpus) -> Result<Vec<Way>, Error> {
    let Some((gpus, asked)) = wanted else { return Ok(vec![Way::ONE]) };
    let is_open = on.named().is_some() && definition.fixed_value("cp_split").is_none();
    let ways = |split: Split| {
        let speeds = if is_open && split.cp_size() > 1 { &[false, true][..] } else { &[false] };
        speeds.iter().map(move |&by_speed| Way { split, by_speed })
    };
    Ok(legal(definition, gpus, &asked)?.into_iter().flat_map(|(split, _)| ways(split)).collect())
}

/// The ways to split a video over `gpus` that `definition` leaves open, each with the definition that fixes it.
fn legal(definition: &Definition, gpus: u32, asked: &str) -> Result<Vec<(Split, Definition)>, Error> {
    let pairs = definition.fixed().into_iter().map(|(key, value)| (key.to_owned(), value.clone()));
    let settings = Settings::from_pairs(pairs).map_err(|error| definition.refuse(&error))?;
    let agreeing: Vec<Split> = Split::all_over(gpus).into_iter().filter(|split| split.agrees_with(&settings)).collect();
    if agreeing.is_empty() {
        let given = settings.pairs().filter(|(key, _)| key.starts_with("cp_") || *key == "cfg_size");
        let given: Vec<String> = given.map(|(key, value)| format!("{key}={value}")).collect();
        return Err(Error::input(format!(
            "{asked}: {} does not make {gpus} ranks, which are cfg_size times cp_size. Leave it out, or ask for as many GPUs",
            given.join(" ")
        )));
    }
    let fixed = |split: Split| {
        let mut definition = definition.clone();
        give(&mut definition, split);
        (split, definition)
    };
    Ok(agreeing.into_iter().map(fixed).collect())
}

fn give(definition: &mut Definition, split: Split) {
    split.flags().for_each(|(key, ranks)| definition.fix(key.into(), ranks.into()));
}

/// The best of several: what fits before what does not; then without a ring, whose sums the plan leaves out; then the shortest step, or where no GPU is named what sends least.
fn best(known: &[(Split, Config)], request_of: impl Fn(&Config) -> Result<Request, Error>, on: &RankGpus) -> Result<Chosen, Error> {
    let requests = known.iter().map(|(_, config)| request_of(config)).collect::<Result<Vec<_>, Error>>()?;
    let plans = on.plans(&requests)?;
    let judged = known.iter().zip(&plans).map(|((split, config), plans)| {
        let (step_share, is_over) = (plans.step_share(*split), !plans.fit(config, on));
        (
            is_over,
            split.cp_ring > 1,
            step_share.unwrap_or_else(|| sent(plans.first())),
            Chosen { split: *split, ways: known.len(), step_share },
        )
    });
    let better = |a: &(bool, bool, f64, Chosen), b: &(bool, bool, f64, Chosen)| match (a.0, a.1).cmp(&(b.0, b.1)) {
        Ordering::Equal => a.2.total_cmp(&b.2),
        other => other,
    };
    judged.min_by(better).map(|best| best.3).ok_or_else(|| Error::Fault("no split has a plan".into()))
}

fn sent(plan: &PlanReport) -> f64 {
    plan.ranks.as_ref().map_or(0.0, |ranks| ranks.sent_bytes as f64)
}

fn in_words(asked: &str, chosen: Chosen) -> String {
    let Chosen { split, ways, step_share } = chosen;
    let how = match step_share {
        _ if ways == 1 => ".".into(),
        Some(share) => {
            format!(", of {ways} ways the fastest by its plan: a sampler step takes {share:.2} of the time on one GPU (modelled).")
        }
        None => format!(", of {ways} ways the one that sends least from GPU to GPU."),
    };
    format!("{asked}: {split}{how}")
}

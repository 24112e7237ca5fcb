//! `cp_split=speed`: how much of a token sequence each GPU gets, by the plan's model of how fast it is.

use engine_protocol::{Config, CpSplit, FlagValue, Request, RunRecord, told};

use crate::error::Error;
use crate::rank_plans::{RankGpus, RankPlans};

/// Units of a sequence where no heads are exchanged; else they are heads.
const UNITS: u32 = 100;

/// `config` with shares in the place of `cp_split=speed`, in proportion to how fast each GPU would go through the whole by itself (modelled). GPUs of one kind get even parts, and so do those that
/// nobody described. `request_of` makes the request for the first rank's plan.
pub(crate) fn settled(config: Config, on: &RankGpus, request_of: impl Fn(&Config) -> Result<Request, Error>) -> Result<Config, Error> {
    let settled = all_settled(vec![config], on, |config| request_of(config))?.pop();
    settled.ok_or_else(|| Error::Fault("a configuration is lost".into()))
}

/// The same of many configurations, which are planned at once.
pub(crate) fn all_settled(
    mut configs: Vec<Config>,
    on: &RankGpus,
    request_of: impl Fn(&Config) -> Result<Request, Error>,
) -> Result<Vec<Config>, Error> {
    let mut by_speed: Vec<&mut Config> = configs.iter_mut().filter(|config| config.cp_split == Some(CpSplit::Speed)).collect();
    by_speed.iter_mut().for_each(|config| config.cp_split = None);
    if on.named().is_some() && !by_speed.is_empty() {
        let requests = by_speed.iter().map(|config| request_of(config)).collect::<Result<Vec<_>, Error>>()?;
        for ((config, request), plans) in by_speed.iter_mut().zip(&requests).zip(on.plans(&requests)?) {
            config.cp_split = by_plans(config, request.model.transformer.num_attention_heads as u32, &plans);
        }
    }
    Ok(configs)
}

/// The shares of `config`, whose parts are even, by how fast each GPU would go through all of it; nothing where even ones are as good.
fn by_plans(even: &Config, heads: u32, plans: &RankPlans) -> Option<CpSplit> {
    let each = plans.0.iter().map(|plan| Some(plan.ranks.as_ref()?.pass_secs?.alone)).collect::<Option<Vec<f64>>>()?;
    let split = even.split();
    // Cond and uncond are shared out alike: of the two GPUs at a place the slower one counts.
    let parts = split.cp_size() as usize;
    let alone: Vec<f64> = (0..parts).map(|place| each.iter().skip(place).step_by(parts).copied().fold(0.0, f64::max)).collect();
    let units = if split.cp_ulysses > 1 && split.cp_ring == 1 { heads } else { UNITS };
    // Who exchanges heads has one at least.
    let least = if split.cp_ulysses > 1 { units.div_ceil(heads) } else { 1 };
    let shares = in_proportion(&alone.iter().map(|secs| 1.0 / secs).collect::<Vec<_>>(), units, least);
    let is_even = shares.windows(2).all(|pair| pair[0] == pair[1]);
    (!is_even).then_some(CpSplit::Shares(shares))
}

/// What `cp_split=speed` came to, where that was asked for.
pub(crate) fn in_words(asked: &Config, settled: &Config) -> Option<String> {
    let was_asked = asked.cp_split == Some(CpSplit::Speed);
    was_asked.then(|| match &settled.cp_split {
        Some(shares) => format!("cp_split=speed: {} of the sequence, in the order of ranks (modelled).", told(&shares.tell())),
        None => "cp_split=speed: even parts, since no GPU is known to be faster than another.".into(),
    })
}

/// A record of a case that ran with settled shares, as that of the case that was asked for.
pub(crate) fn as_asked(record: RunRecord, asked: &Config) -> RunRecord {
    if record.config == *asked {
        return record;
    }
    let settled_config = Some(record.config_run().clone());
    RunRecord { config: asked.clone(), settled_config, ..record }
}

/// So many units in proportion to `speeds`, none less than `least`: each next one goes where most is missing.
fn in_proportion(speeds: &[f64], units: u32, least: u32) -> Vec<u32> {
    let all: f64 = speeds.iter().sum();
    let mut shares = vec![least; speeds.len()];
    for _ in least * speeds.len() as u32..units {
        let missing = |rank: &usize| speeds[*rank] / all * f64::from(units) - f64::from(shares[*rank]);
        // Of equals the first.
        let most = (0..speeds.len()).rev().max_by(|a, b| missing(a).total_cmp(&missing(b)));
        shares[most.unwrap_or_default()] += 1;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_whole_and_in_proportion() {
        assert_eq!(in_proportion(&[2.0, 1.0], 40, 1), [27, 13]);
        assert_eq!(in_proportion(&[1.0, 1.0], 40, 1), [20, 20]);
        assert_eq!(in_proportion(&[1.0, 1.0, 1.0], 100, 3), [34, 33, 33]);
        assert_eq!(in_proportion(&[100.0, 1.0], 12, 1), [11, 1]);
    }
}

//! Running what may fit: of each placement the way that is cut least, and where that runs out of memory after all, the next.

use std::collections::HashMap;

use engine_protocol::{Outcome, RunRecord, Stage};
use reports::{LOSS, SAME_TIME};

use super::predicted::{Predicted, smallest};
use super::search_space::{DENOISE, Rung, USUAL};
use crate::error::Error;
use crate::sweep::Case;

/// How much more than the least is decoded at most, to be hardly slower: decode is one or two percent of a video's time.
const HARDLY_MORE: f64 = 2.0;

/// A search over ladders.
#[derive(Debug)]
pub(crate) struct Search {
    ladders: Vec<Vec<Predicted>>,
    /// What is left where none of them fits: of what takes least, the finest cuts.
    last: Vec<Rung>,
}

impl Search {
    /// A search over what may fit, and for what takes least.
    pub(crate) fn new(predicted: &[Vec<Predicted>]) -> Self {
        let may_fit = |predicted: &&Predicted| predicted.may_fit();
        let is_usual = |predicted: &&Predicted| predicted.rung.denoise <= USUAL;
        let rungs = |ladder: &Vec<Predicted>| ladder.iter().filter(is_usual).filter(may_fit).cloned().collect();
        let mut ladders: Vec<Vec<Predicted>> = predicted.iter().map(rungs).collect();
        let least = smallest(predicted.iter().flatten().filter(is_usual).filter(may_fit));
        ladders.extend(least.map(|least| vec![least.clone()]));
        ladders.retain(|ladder| !ladder.is_empty());
        // Of each finer cut what takes least.
        let finest =
            (USUAL + 1..).map(|cut| predicted.iter().flatten().filter(move |predicted| predicted.rung.denoise == cut).filter(may_fit));
        let last = finest.take(DENOISE.len() - USUAL - 1).filter_map(|cut| Some(smallest(cut)?.rung.clone())).collect();
        Self { ladders, last }
    }

    /// The same without the finest cuts.
    pub(crate) fn without_finest(self) -> Self {
        Self { last: Vec::new(), ..self }
    }

    /// Whether nothing may fit.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.ladders.is_empty() && self.last.is_empty()
    }

    /// The cases that run unless one of them runs out of memory.
    pub(crate) fn first(&self) -> Vec<&Case> {
        self.next(&[])
    }

    /// What [`Self::first_that_fits`] runs first.
    pub(crate) fn first_to_run(&self) -> Option<&Case> {
        let case = *self.untried(&[]).first()?;
        Some(self.in_small_tiles(case, &HashMap::new()))
    }

    /// Runs one case after the other, in order of speed, until one fits. Of ways to decode it takes one that takes less and is hardly slower. None where none fits, and
    /// where `run` was interrupted.
    pub(crate) fn first_that_fits(
        &self,
        mut run: impl FnMut(&Case) -> Result<Option<RunRecord>, Error>,
    ) -> Result<Option<RunRecord>, Error> {
        let mut records = Vec::new();
        while let Some(case) = self.untried(&records).first() {
            let Some(record) = run(self.in_small_tiles(case, &by_name(&records)))? else { return Ok(None) };
            let fits = record.outcome == Outcome::Ok;
            if fits {
                return Ok(Some(record));
            }
            records.push(record);
        }
        Ok(None)
    }

    /// Of all that differ from `case` in how they decode, and decode hardly more twice, what takes least of the GPU; of equals what decodes least. Where no stage takes
    /// more than decode does with larger tiles, that is less; where another does, it is the same, and there is no reason to cut.
    fn in_small_tiles<'a>(&'a self, case: &'a Case, known: &HashMap<&str, &RunRecord>) -> &'a Case {
        let is_it = |predicted: &&Predicted| predicted.rung.case.name == case.name;
        let Some((ladder, first)) = self.ladders.iter().find_map(|ladder| Some((ladder, ladder.iter().find(is_it)?))) else { return case };
        let positions = |predicted: &Predicted| predicted.positions.unwrap_or(u64::MAX);
        let limit = (positions(first) as f64 * HARDLY_MORE) as u64;
        let is_open = |other: &&Predicted| {
            other.rung.denoise == first.rung.denoise
                && other.rung.decode >= first.rung.decode
                && other.need.is_some()
                && positions(other) <= limit
                && !known.contains_key(other.rung.case.name.as_str())
        };
        let best = ladder.iter().filter(is_open).min_by_key(|other| (other.need.map(|need| need.gpu_bytes), positions(other)));
        best.map_or(case, |best| &best.rung.case)
    }

    /// The next cases to run; none when each ladder has one that fits, or none left, and what takes less and is hardly slower has run too.
    pub(crate) fn next(&self, records: &[RunRecord]) -> Vec<&Case> {
        let untried = self.untried(records);
        if !untried.is_empty() {
            return untried;
        }
        unique([SAME_TIME, LOSS].into_iter().filter_map(|loss| self.as_fast_with_less(records, loss)))
    }

    /// Cases of ladders of which none fits so far.
    fn untried(&self, records: &[RunRecord]) -> Vec<&Case> {
        let known = by_name(records);
        let cases = unique(self.ladders.iter().filter_map(|ladder| next(ladder, &known)).map(|predicted| &predicted.rung.case));
        let has_answer = records.iter().any(|record| record.outcome != Outcome::Oom);
        if cases.is_empty() && !has_answer {
            return unique(self.last.iter().map(|rung| &rung.case).filter(|case| !known.contains_key(case.name.as_str())).take(1));
        }
        cases
    }

    /// Of all that decode in other tiles than what ran, what takes least of the GPU and is at most so much slower than the fastest, by what its tiles share. None
    /// where that has run, and where times are not known.
    fn as_fast_with_less(&self, records: &[RunRecord], loss: f64) -> Option<&Case> {
        let known = by_name(records);
        let fastest = *reports::ranked(records.iter(), true).first()?;
        let limit = fastest.total_secs()?.expected * (1.0 + loss);
        let candidates = self.ladders.iter().flat_map(|ladder| {
            let ran = ladder.iter().filter_map(|predicted| Some((predicted, *known.get(predicted.rung.case.name.as_str())?)));
            let ran: Vec<_> = ran.filter(|(_, record)| record.outcome == Outcome::Ok).collect();
            ladder.iter().filter(move |other| {
                ran.iter().any(|(predicted, record)| secs_of(other, predicted, record).is_some_and(|secs| secs <= limit))
            })
        });
        candidates
            .filter(|predicted| predicted.need.is_some())
            .min_by_key(|predicted| predicted.need.map(|need| need.gpu_bytes))
            .map(|predicted| &predicted.rung.case)
            .filter(|case| !known.contains_key(case.name.as_str()))
    }
}

fn by_name(records: &[RunRecord]) -> HashMap<&str, &RunRecord> {
    records.iter().map(|record| (record.case.as_str(), record)).collect()
}

/// How long `other` will take, which differs from what ran in its tiles alone: decode goes by the positions that it computes.
fn secs_of(other: &Predicted, ran: &Predicted, record: &RunRecord) -> Option<f64> {
    let (positions, theirs) = (ran.positions?, other.positions?);
    let decode = record.stage_secs(Stage::Decode)?.expected;
    (other.rung.denoise == ran.rung.denoise).then_some(record.total_secs()?.expected + decode * (theirs as f64 / positions as f64 - 1.0))
}

fn next<'a>(ladder: &'a [Predicted], known: &HashMap<&str, &RunRecord>) -> Option<&'a Predicted> {
    // How finely both must be cut at least, from what ran out before.
    let (mut denoise, mut decode) = (0, 0);
    for predicted in ladder {
        let rung = &predicted.rung;
        if rung.denoise < denoise || rung.decode < decode {
            continue;
        }
        let Some(record) = known.get(rung.case.name.as_str()) else { return Some(predicted) };
        match (record.outcome, record.failed_stage) {
            (Outcome::Oom, Some(Stage::Decode)) => decode = rung.decode + 1,
            (Outcome::Oom, _) => denoise = rung.denoise + 1,
            // It fits, or it failed in a way that no cut mends.
            _ => return None,
        }
    }
    None
}

/// Each case once.
fn unique<'a>(all: impl Iterator<Item = &'a Case>) -> Vec<&'a Case> {
    let mut cases: Vec<&Case> = Vec::new();
    for case in all {
        if cases.iter().all(|known| known.name != case.name) {
            cases.push(case);
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use engine_protocol::{Config, Settings};
    use proptest::prelude::*;

    use super::super::predicted::{Fork, Need};
    use super::*;
    use crate::bare_record::bare_record;
    use crate::model::Models;

    fn ladder() -> Vec<Predicted> {
        let models = Models::load().expect("models");
        let config = Config::resolve(&Settings::default(), models.get("wan-tiny").expect("a model")).expect("legal");
        let rung = |(denoise, decode)| Predicted {
            rung: Rung { denoise, decode, case: Case { name: format!("{denoise}{decode}"), config: config.clone(), gpu: None } },
            need: None,
            positions: None,
            fork: Fork::default(),
        };
        (0..3).flat_map(|denoise| (0..2).map(move |decode| (denoise, decode))).map(rung).collect()
    }

    /// What is run after each ending, as names.
    fn walk(endings: &[(Outcome, Option<Stage>)]) -> Vec<String> {
        let search = Search { ladders: vec![ladder()], last: Vec::new() };
        let (mut records, mut names) = (Vec::new(), Vec::new());
        let mut endings = endings.iter();
        while let Some(case) = search.next(&records).first() {
            names.push(case.name.clone());
            let Some(&(outcome, failed_stage)) = endings.next() else { break };
            records.push(RunRecord { outcome, failed_stage, ..bare_record(&case.name, &case.config) });
        }
        names
    }

    #[test]
    fn what_runs_out_is_cut_finer_where_it_ran_out() {
        let oom = |stage| (Outcome::Oom, Some(stage));
        assert_eq!(walk(&[(Outcome::Ok, None)]), ["00"]);
        assert_eq!(walk(&[oom(Stage::Decode), (Outcome::Ok, None)]), ["00", "01"]);
        assert_eq!(walk(&[oom(Stage::Denoise), (Outcome::Ok, None)]), ["00", "10"]);
        assert_eq!(walk(&[oom(Stage::Denoise), oom(Stage::Decode), oom(Stage::Denoise), (Outcome::Ok, None)]), ["00", "10", "11", "21"]);
        assert_eq!(walk(&[oom(Stage::Denoise); 3]), ["00", "10", "20"], "and then there is nothing finer");
        assert_eq!(walk(&[(Outcome::Crashed, Some(Stage::Denoise))]), ["00"]);
    }

    /// Ladders of four placements, each cut in six ways, with random needs.
    fn ladders_with_needs() -> impl Strategy<Value = Vec<Vec<Predicted>>> {
        let need = (1..80_u64, 1..64_u64, any::<bool>(), any::<bool>());
        let need = need.prop_map(|(gpu, ram, is_over_gpu, is_over_ram)| Need {
            gpu_bytes: gpu << 30,
            ram_bytes: ram << 30,
            is_over_gpu,
            is_over_ram,
        });
        prop::collection::vec(need, 24).prop_map(|needs| {
            let mut needs = needs.into_iter();
            let named = |place: usize, predicted: Predicted, need| {
                let name = format!("{place}-{}", predicted.rung.case.name);
                let case = Case { name, ..predicted.rung.case };
                Predicted { rung: Rung { case, ..predicted.rung }, need: Some(need), ..predicted }
            };
            (0..4)
                .map(|place| ladder().into_iter().zip(needs.by_ref()).map(|(predicted, need)| named(place, predicted, need)).collect())
                .collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// Whatever becomes of them, all cases that run are predicted to keep the budget, and one runs wherever one is.
        #[test]
        fn nothing_runs_that_is_over_budget(ladders in ladders_with_needs(), endings in any::<u64>()) {
            let search = Search::new(&ladders);
            let all: Vec<&Predicted> = ladders.iter().flatten().filter(|predicted| predicted.rung.denoise <= USUAL).collect();
            prop_assert_eq!(search.is_hopeless(), !all.iter().any(|predicted| predicted.may_fit()));
            let mut records: Vec<RunRecord> = Vec::new();
            loop {
                let next: Vec<Case> = search.next(&records).into_iter().cloned().collect();
                if next.is_empty() {
                    break;
                }
                for case in next {
                    let predicted = ladders.iter().flatten().find(|predicted| predicted.rung.case.name == case.name).expect("a case of a ladder");
                    prop_assert!(predicted.may_fit(), "{} needs {:?}", case.name, predicted.need);
                    prop_assert!(records.iter().all(|record| record.case != case.name), "{} runs twice", case.name);
                    let fits = endings >> (records.len() % 64) & 1 == 1;
                    let (outcome, failed_stage) = if fits { (Outcome::Ok, None) } else { (Outcome::Oom, Some(Stage::Denoise)) };
                    records.push(RunRecord { outcome, failed_stage, ..bare_record(&case.name, &case.config) });
                }
            }
            prop_assert_eq!(records.is_empty(), search.is_hopeless());
        }
    }
}

//! Running what may fit: of each placement the way that is cut least, and where that runs out of memory after all, the next.

use std::collections::HashMap;

use engine_protocol::{Outcome, RunRecord, Stage};

use super::predicted::{Budget, Predicted, smallest};
use super::search_space::{DENOISE, Rung, USUAL};
use crate::error::Error;
use crate::sweep::Case;

/// A search over ladders.
#[derive(Debug)]
pub(crate) struct Search {
    ladders: Vec<Vec<Rung>>,
    /// What is left where none of them fits: of what takes least, the finest cuts.
    last: Vec<Rung>,
}

impl Search {
    /// A search over what may fit the budget, and for what takes least.
    pub(crate) fn new(predicted: &[Vec<Predicted>], budget: &Budget) -> Self {
        let may_fit = |predicted: &&Predicted| budget.may_hold(predicted);
        let is_usual = |predicted: &&Predicted| predicted.rung.denoise <= USUAL;
        let rungs =
            |ladder: &Vec<Predicted>| ladder.iter().filter(is_usual).filter(may_fit).map(|predicted| predicted.rung.clone()).collect();
        let mut ladders: Vec<Vec<Rung>> = predicted.iter().map(rungs).collect();
        let least = smallest(predicted.iter().flatten().filter(is_usual).filter(may_fit), budget);
        ladders.extend(least.map(|least| vec![least.rung.clone()]));
        ladders.retain(|ladder| !ladder.is_empty());
        // Of each finer cut what takes least.
        let finest =
            (USUAL + 1..).map(|cut| predicted.iter().flatten().filter(move |predicted| predicted.rung.denoise == cut).filter(may_fit));
        let last = finest.take(DENOISE.len() - USUAL - 1).filter_map(|cut| Some(smallest(cut, budget)?.rung.clone())).collect();
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

    /// Runs one case after the other, in order of speed, until one fits. None where none does, and where `run` was interrupted.
    pub(crate) fn first_that_fits(
        &self,
        mut run: impl FnMut(&Case) -> Result<Option<RunRecord>, Error>,
    ) -> Result<Option<RunRecord>, Error> {
        let mut records = Vec::new();
        while let Some(case) = self.next(&records).first() {
            match run(case)? {
                Some(record) if record.outcome == Outcome::Ok => return Ok(Some(record)),
                Some(record) => records.push(record),
                None => break,
            }
        }
        Ok(None)
    }

    /// The next cases to run; none when each ladder has one that fits, or none left.
    pub(crate) fn next(&self, records: &[RunRecord]) -> Vec<&Case> {
        let known: HashMap<&str, &RunRecord> = records.iter().map(|record| (record.case.as_str(), record)).collect();
        let cases = unique(self.ladders.iter().filter_map(|ladder| next(ladder, &known)));
        let has_answer = records.iter().any(|record| record.outcome != Outcome::Oom);
        if cases.is_empty() && !has_answer {
            return unique(self.last.iter().filter(|rung| !known.contains_key(rung.case.name.as_str())).take(1));
        }
        cases
    }
}

fn next<'a>(ladder: &'a [Rung], known: &HashMap<&str, &RunRecord>) -> Option<&'a Rung> {
    // How finely both must be cut at least, from what ran out before.
    let (mut denoise, mut decode) = (0, 0);
    for rung in ladder.iter() {
        if rung.denoise < denoise || rung.decode < decode {
            continue;
        }
        let Some(record) = known.get(rung.case.name.as_str()) else { return Some(rung) };
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
fn unique<'a>(rungs: impl Iterator<Item = &'a Rung>) -> Vec<&'a Case> {
    let mut cases: Vec<&Case> = Vec::new();
    for rung in rungs {
        if cases.iter().all(|case| case.name != rung.case.name) {
            cases.push(&rung.case);
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use engine_protocol::{Config, Settings};

    use super::*;
    use crate::bare_record::bare_record;
    use crate::model::Models;

    fn ladder() -> Vec<Rung> {
        let models = Models::load().expect("models");
        let config = Config::resolve(&Settings::default(), models.get("wan-tiny").expect("a model")).expect("legal");
        let rung = |(denoise, decode)| Rung {
            denoise,
            decode,
            case: Case { name: format!("{denoise}{decode}"), config: config.clone(), gpu: None },
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
}

//! Candidates under a budget of the machine's memory: one that it does not hold gives way to others that take less of it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use engine_protocol::{PlanReport, StreamFrom};

use super::search_space::Alternatives;
use crate::error::Error;
use crate::model::Models;
use crate::sweep::{Case, OF_DECODE, text_without};
use crate::testbed::Testbed;
use crate::worker;

/// What a budget of the machine's memory leaves of candidates.
#[derive(Debug, Default)]
pub(crate) struct UnderRam {
    /// Those that it holds by their plans, in order.
    pub(crate) cases: Vec<Case>,
    /// Where there is none, the one that takes least, and how much.
    pub(crate) nearest: Option<(String, u64)>,
}

/// Of each candidate's alternatives, which stand in order of their loss, the first that the budget of `testbed` holds; and where that one reads its weights from
/// their files each time, the next ones too, which may be faster. Without a budget, the first of each.
pub(crate) fn under_ram(candidates: Vec<Alternatives>, testbed: &Testbed, models: &Models) -> Result<UnderRam, Error> {
    let Some(held) = testbed.ram.limit_bytes() else {
        return Ok(UnderRam { cases: candidates.into_iter().filter_map(|cases| cases.into_iter().next()).collect(), nearest: None });
    };
    let (mut plans, mut found) = (BTreeMap::new(), UnderRam::default());
    for alternatives in candidates {
        for case in alternatives {
            // What only decoding looks at moves no weights.
            let report = match plans.entry(text_without(&case.config, &OF_DECODE)?) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => place.insert(plan(&case, testbed, models)?),
            };
            let needed = report.host().peak_bytes.unwrap_or(0);
            if needed > held {
                if found.nearest.as_ref().is_none_or(|(_, least)| needed < *least) {
                    found.nearest = Some((case.name, needed));
                }
                continue;
            }
            found.cases.push(case);
            if report.config.stream_from != Some(StreamFrom::File) {
                break;
            }
        }
    }
    Ok(found)
}

fn plan(case: &Case, testbed: &Testbed, models: &Models) -> Result<PlanReport, Error> {
    worker::plan(&testbed.request(&case.name, models.get(&case.config.model)?, &case.config, None))
}

//! The smallest GPU that a program really runs on: it is run on those that are not known to be too small.

use std::ops::Range;
use std::thread;

use engine_protocol::GpuProfile;

use super::cards::Judge;
use crate::error::Error;
use crate::gpu_profile::GpuProfiles;

/// What running it told.
#[derive(Debug, Default)]
pub(super) struct Found<'a> {
    /// The smallest that it ran on; none where it ran on none of them.
    pub(super) smallest: Option<&'a GpuProfile>,
    /// On which it was run, and whether to its end, from the smallest.
    pub(super) ran: Vec<(&'a GpuProfile, bool)>,
}

/// How many run at once: each takes the machine's memory too.
const AT_ONCE: usize = 2;

/// Runs it with `runs_on` on some of the GPUs that are not known to be too small. A GPU with more memory is taken to do where one with less does.
pub(super) fn find<'a>(
    judge: &Judge<'a>,
    profiles: &'a GpuProfiles,
    runs_on: impl Fn(&GpuProfile) -> Result<bool, Error> + Sync,
) -> Result<Found<'a>, Error> {
    let sorted = judge.sorted(profiles);
    // The smallest of those that one run told to be large enough is run too, and none beyond it.
    let enough = sorted.fits.iter().map(|card| card.memory_bytes.value).min().unwrap_or(u64::MAX);
    let mut cards: Vec<_> = sorted.fits.into_iter().chain(sorted.unknown).filter(|card| card.memory_bytes.value <= enough).collect();
    cards.sort_by_key(|card| card.memory_bytes.value);
    let mut ran = Vec::new();
    let first = first_that_does(cards.len(), |indices| {
        let answers = thread::scope(|scope| {
            let started: Vec<_> = indices
                .iter()
                .map(|&index| {
                    scope.spawn({
                        let (runs_on, card) = (&runs_on, cards[index]);
                        move || runs_on(card)
                    })
                })
                .collect();
            started
                .into_iter()
                .map(|run| run.join().unwrap_or_else(|_| Err(Error::Fault("a run was lost".to_owned()))))
                .collect::<Result<Vec<_>, _>>()
        })?;
        ran.extend(indices.iter().zip(&answers).map(|(&index, &does)| (cards[index], does)));
        Ok(answers)
    })?;
    ran.sort_by_key(|(card, _)| card.memory_bytes.value);
    Ok(Found { smallest: first.map(|index| cards[index]), ran })
}

/// The first of `count` that does, where all that come after one that does do as well. `ask` tells it of several at once.
fn first_that_does(count: usize, mut ask: impl FnMut(&[usize]) -> Result<Vec<bool>, Error>) -> Result<Option<usize>, Error> {
    // What comes before does not, what comes from the end on does.
    let mut open = 0..count;
    while !open.is_empty() {
        let asked = between(&open);
        let answers = ask(&asked)?;
        let does = |&(_, &answer): &(&usize, &bool)| answer;
        if let Some((&index, _)) = asked.iter().zip(&answers).find(does) {
            open.end = index;
        }
        let last = asked.iter().zip(&answers).rfind(|&(&index, &answer)| !answer && index < open.end);
        if let Some((&index, _)) = last {
            open.start = index + 1;
        }
    }
    Ok((open.end < count).then_some(open.end))
}

/// Some that lie evenly between the ends.
fn between(open: &Range<usize>) -> Vec<usize> {
    let mut some: Vec<_> = (1..=AT_ONCE).map(|part| open.start + open.len() * part / (AT_ONCE + 1)).collect();
    some.dedup();
    some
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_does_is_found_with_few_questions() {
        for count in 0..40 {
            for first in 0..=count {
                let mut rounds = 0;
                let found = first_that_does(count, |asked| {
                    rounds += 1;
                    Ok(asked.iter().map(|&index| index >= first).collect())
                });
                assert_eq!(found.expect("no error"), (first < count).then_some(first), "{first} of {count}");
                assert!(rounds <= 5, "{rounds} rounds for {first} of {count}");
            }
        }
    }

    #[test]
    fn what_goes_wrong_is_told() {
        assert!(first_that_does(3, |_| Err(Error::input("no"))).is_err());
    }
}

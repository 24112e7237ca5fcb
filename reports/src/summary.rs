//! A run summed up, once: verdicts, the case to use, and what all exporters say of them in the same words.
//!
//! It formats no table and no file: those are made from it.

use std::collections::{BTreeMap, HashSet};

use engine_protocol::RunRecord;

use crate::run::Run;
use crate::sentences;
use crate::verdict::{Verdict, overall, verdicts};

/// What a run says.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary<'a> {
    /// The run.
    pub run: &'a Run,
    /// What its figures are and where they come from.
    pub provenance: String,
    /// By what cases are ranked.
    pub ranking: &'static str,
    /// One for each GPU, model and resolution, in the order in which they first appear.
    pub verdicts: Vec<Verdict<'a>>,
    /// The case to use for the whole run: the best one of the largest video that fits, which smaller videos can use too. None while cases have not run: one of
    /// them may be better; and none of several GPUs, of which each has its own.
    pub chosen: Option<&'a RunRecord>,
    /// The best case of each verdict, by name.
    recommended: HashSet<&'a str>,
    /// What stands over the sentences.
    pub title: &'static str,
    /// One sentence a verdict, and one for the whole run; of a run that lacks cases, first that there is no answer yet.
    pub sentences: Vec<String>,
    /// Calls that the virtual GPU does not support, with how often each was made over the whole run.
    pub unsupported_calls: Vec<(String, u64)>,
}

impl<'a> Summary<'a> {
    /// Sums up a run.
    pub fn of(run: &'a Run) -> Self {
        let verdicts = verdicts(run);
        let is_whole = run.missing() == 0;
        let is_of_one_gpu = run.manifest.gpus.is_empty();
        let chosen = overall(&verdicts).filter(|_| is_whole && is_of_one_gpu);
        let no_answer = (!is_whole).then(|| sentences::no_answer_yet(run));
        let of_all = chosen.filter(|_| verdicts.len() > 1).map(|chosen| sentences::for_all(run, chosen));
        Self {
            run,
            provenance: sentences::provenance(run),
            ranking: sentences::ranking(run),
            title: if is_whole { "Recommended" } else { "So far" },
            sentences: no_answer
                .into_iter()
                .chain(verdicts.iter().map(|verdict| sentences::sentence(run, verdict)))
                .chain(of_all)
                .collect(),
            recommended: verdicts.iter().filter(|_| is_whole).filter_map(|verdict| Some(verdict.best?.case.as_str())).collect(),
            verdicts,
            chosen,
            unsupported_calls: unsupported_calls(run),
        }
    }

    /// Whether it is the best case of its model and resolution.
    pub fn is_recommended(&self, record: &RunRecord) -> bool {
        self.recommended.contains(record.case.as_str())
    }

    /// The cases that verdicts are about, or all where they are few: `results.csv` has the others.
    pub(crate) fn told_cases(&self) -> Vec<&'a RunRecord> {
        const FEW: usize = 8;
        let few = self.run.records.len() <= FEW;
        let told: HashSet<&str> =
            self.verdicts.iter().filter_map(|verdict| Some(verdict.best.or(verdict.short_of_ram)?.case.as_str())).collect();
        self.run.records.iter().filter(|record| few || told.contains(record.case.as_str())).collect()
    }

    /// The model and resolution with the most pixels: the first of equals.
    pub(crate) fn largest_video(&self) -> Option<&Verdict<'a>> {
        self.verdicts.iter().reduce(|best, next| if next.pixels() > best.pixels() { next } else { best })
    }
}

fn unsupported_calls(run: &Run) -> Vec<(String, u64)> {
    let mut calls = BTreeMap::<&str, u64>::new();
    for (name, count) in run.records.iter().flat_map(|record| &record.unsupported_calls) {
        *calls.entry(name).or_default() += count;
    }
    calls.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn nothing_fits_is_said_with_what_is_missing() {
        let run = samples::run(vec![samples::oom("level3", 3, 20)]);
        let summary = Summary::of(&run);
        assert_eq!(
            summary.sentences,
            [
                "wan-tiny at 96x64, 9 frames: nothing fits. Nearest: level3, which ran out of memory in denoise and needs at least 31.00 of 24.00 GiB: \
              at least 7.00 GiB are missing."
            ]
        );
        assert_eq!(summary.chosen, None);
    }

    #[test]
    fn a_run_that_lacks_cases_has_no_answer_yet() {
        for record in [samples::oom("level3", 3, 20), samples::ok("level2", 2, 10)] {
            let mut run = samples::run(vec![record]);
            run.manifest.cases.extend(["a".to_owned(), "b".to_owned()]);
            let summary = Summary::of(&run);
            assert_eq!(summary.sentences[0], "No answer yet: 2 of 3 not run.");
            assert_eq!((summary.title, summary.chosen), ("So far", None));
            let all = [crate::recommended::yaml(&summary), crate::markdown::tables(&summary), crate::html::page(&summary).expect("a page")];
            for text in all {
                assert!(text.contains("No answer yet: 2 of 3 not run."), "{text}");
                // The glossary says what the words mean.
                let said = text.split("What the words mean").next().unwrap_or_default();
                assert!(!said.to_lowercase().contains("nothing fits") && !said.contains("Recommended"), "{text}");
            }
        }
    }

    #[test]
    fn several_gpus_have_an_answer_each() {
        let run = samples::on_two_gpus();
        let summary = Summary::of(&run);
        assert_eq!(summary.chosen, None, "none is for all of them");
        let sentences = &summary.sentences;
        assert!(sentences[0].starts_with("wan-tiny at 96x64, 9 frames on 24GB: level 0. Fits: 20.00 of 24.00 GiB"), "{sentences:?}");
        assert!(sentences[1].starts_with("wan-tiny at 96x64, 9 frames on 12GB: level 3. Fits: 5.00 of 12.00 GiB"), "{sentences:?}");
        assert_eq!(sentences.len(), 2);
        assert!(summary.is_recommended(&run.records[0]) && summary.is_recommended(&run.records[2]));
        assert!(summary.provenance.starts_with("Virtual GPUs rtx-4090 (NVIDIA GeForce RTX 4090), rtx-3060 ("), "{}", summary.provenance);
        let recommended = crate::recommended::yaml(&summary);
        assert!(recommended.ends_with("# Several GPUs: each has its own answer above.\n{}\n"), "{recommended}");
        let titles: Vec<_> = crate::table_columns(&run).iter().map(|column| column.title).take(2).collect();
        assert_eq!(titles, ["GPU", "level"]);
        let runs = run.clone().of_each_gpu();
        assert_eq!(runs.iter().map(|run| run.records.len()).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(Summary::of(&runs[1]).chosen.map(|record| record.case.as_str()), Some("12GB-level3"));
        assert_eq!(runs[1].manifest.capacity_bytes, Some(12 << 30));
    }

    #[test]
    fn several_videos_have_a_sentence_each_and_one_for_all() {
        let mut larger = samples::ok("larger", 2, 12);
        larger.config.frames *= 2;
        let run = samples::run(vec![samples::ok("level1", 1, 10), larger]);
        let summary = Summary::of(&run);
        assert_eq!(summary.chosen.map(|record| record.case.as_str()), Some("larger"));
        assert!(
            summary.sentences[0].contains("level 1") && summary.sentences[0].ends_with(" Fits: 10.00 of 24.00 GiB (virtual)."),
            "{summary:?}"
        );
        assert!(summary.sentences[2].starts_with("For all of them: level 2"), "{summary:?}");
        assert_eq!(summary.unsupported_calls, [("cudaThing".to_owned(), 4)]);
    }
}

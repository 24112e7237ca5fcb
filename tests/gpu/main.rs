//! What `make test-gpu` runs: a list of checks with a time budget, on the GPU at hand; without one, what has a meaning there on the virtual GPU and the CPU.

mod agreement;
mod caps;
mod cases;
mod check;
mod folder;
mod hand;
mod page;
mod page_locked;
mod rates;

use std::time::Duration;

use check::{Checks, Verdict};
use folder::Found;
use hand::Hand;
use lowmem_tests::measured::{self, MEASURED};
use lowmem_tests::root;

/// No check begins later than so long after the first one: with the longest, all of them take a quarter of an hour at most.
const BUDGET: Duration = Duration::from_secs(12 * 60);

/// Writes the folder of a real GPU to where they are; that of a virtual one is written and read, and no measurement.
fn written(hand: &Hand, checks: &Checks, found: &Found) {
    let Some(name) = found.name() else {
        println!("No case ran, so that nothing is written.");
        return;
    };
    let place = tempfile::tempdir().expect("a folder");
    let path = if hand.is_real() { root().join(MEASURED).join(name) } else { place.path().join(name) };
    folder::write(&path, checks, found);
    let section = page::section(&measured::folder(&path));
    assert!(section.contains("### Memory") && section.contains("### The same at every level"), "{section}");
    if hand.is_real() {
        println!("Written: {}. `make generated` puts it into docs/measured.md.", path.display());
    }
}

#[test]
fn every_check_passes() {
    if page_locked::is_meant() {
        return page_locked::lock_and_let_go();
    }
    let hand = Hand::new();
    println!("On {}.", hand.title());
    let mut checks = Checks::new(BUDGET);
    let mut found = Found::default();
    agreement::levels(&hand, &mut checks, &mut found);
    agreement::two_ranks(&hand, &mut checks, &mut found);
    agreement::parity(&hand, &mut checks, &mut found);
    agreement::fixtures(&hand, &mut checks);
    page_locked::given_back(&hand, &mut checks);
    caps::all(&hand, &mut checks);
    rates::calibrate(&hand, &mut checks, &mut found);
    cases::all(&hand, &mut checks, &mut found);
    println!("\n{}", found.table());
    println!("{}", checks.summary());
    written(&hand, &checks, &found);

    let failed: Vec<_> = checks.iter().filter(|check| matches!(check.verdict, Verdict::Failed(_))).collect();
    assert!(failed.is_empty(), "{} checks failed", failed.len());
    if !hand.is_real() {
        // Nothing is passed over without being named: what has to run in a GPU's own arithmetic, and what does not fit on the virtual card of 8 GB.
        assert_eq!(found.cases.len(), 2, "cases that ran");
        let skipped: Vec<_> =
            checks.iter().filter(|check| matches!(check.verdict, Verdict::Skipped(_))).map(|check| check.name.as_str()).collect();
        assert_eq!(skipped, [agreement::FIXTURES, agreement::FIXTURES_IN_FP8, "case wan2.1-t2v-14b-832x480-level0"]);
    }
}

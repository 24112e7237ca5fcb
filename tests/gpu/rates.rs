//! `lowmem calibrate`: what the GPU reaches.

use crate::check::{Checks, Verdict};
use crate::folder::Found;
use crate::hand::Hand;

/// In a settings folder of its own, so that the predictions that cases are held against are those of our profile.
pub(crate) fn calibrate(hand: &Hand, checks: &mut Checks, found: &mut Found) {
    checks.check("calibrate", || {
        let own = Hand::new();
        let said = own.lowmem(&[&["calibrate"], &hand.whole()[..]].concat());
        if said.stderr.contains("No profile has that name") {
            return Verdict::Skipped(said.stderr.trim().to_owned());
        }
        if let Some(fault) = said.fault() {
            return Verdict::Failed(fault);
        }
        let last = said.stdout.trim().lines().last().unwrap_or_default().to_owned();
        found.calibration = Some(said.stdout);
        let profiles = std::fs::read_dir(own.settings().join("lowmem/gpus"));
        let kept = profiles.ok().and_then(|mut entries| entries.next()?.ok()).map(|entry| entry.path());
        match (hand.is_real(), kept) {
            (true, Some(path)) => {
                found.profile = std::fs::read_to_string(path).ok();
                found.calibrated = Some(own);
                Verdict::Passed(last)
            }
            (true, None) => Verdict::Failed("no profile was kept".into()),
            (false, Some(_)) => Verdict::Failed("the virtual GPU's rates were kept".into()),
            (false, None) => Verdict::Passed(last),
        }
    });
}

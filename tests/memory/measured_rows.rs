//! What real GPUs measured (`reports/measured`) beside what a virtual one of the same kind says now: the same configurations, run again.
//!
//! Allocated and reserved peaks are the same, byte for byte. Device memory is never said to be less than it was, and times are as near as `docs/times.md` says. Both are
//! kept in each folder's `virtual.jsonl`, which `docs/measured.md` has beside what was measured: `make peaks` writes it anew.

use engine_protocol::{RunRecord, gib};
use lowmem_tests::measured::{Said, Timed, VIRTUAL, compare, folders, said_of, told};

use super::peak_table::is_renewing;

#[test]
fn peaks_are_those_that_were_measured() {
    let mut faults = Vec::new();
    for folder in folders() {
        let mut all = Vec::new();
        for (sweep, records) in &folder.sweeps {
            // Of a GPU without a profile there is no virtual one.
            if records.iter().any(|record| record.gpu.is_none()) {
                continue;
            }
            for (measured, says) in records.iter().zip(said_of(records)) {
                let said = Said::new(sweep, &measured.case, &says);
                let name = format!("{} {sweep} {}", folder.name, measured.case);
                faults.extend(device(&name, measured, &said));
                faults.extend(times(&name, measured, &said));
                faults.extend(compare(measured, &said).1);
                all.push(said);
            }
        }
        let (path, found) = (folder.path.join(VIRTUAL), told(&all));
        if is_renewing() {
            std::fs::write(&path, found).expect("the table is written");
        } else if std::fs::read_to_string(&path).ok().as_ref() != Some(&found) {
            faults.push(format!(
                "{}: the virtual GPU says something else now; if that is meant, `make peaks` writes it anew",
                path.display()
            ));
        }
    }
    assert!(faults.is_empty(), "the virtual GPU counts otherwise than the real one:\n{}", faults.join("\n"));
}

/// So much more of device memory may be said than was measured.
const MOST_BESIDE_GIB: f64 = 0.15;

/// Prints the peak of device memory, measured and virtual, and how much the virtual one has more. Gives what is wrong with that.
fn device(name: &str, measured: &RunRecord, said: &Said) -> Option<String> {
    let measured = gib(measured.peak_device_bytes().expect("a case that came to its end"));
    let says = gib(said.peak_device_bytes);
    let line = format!("device {measured:6.3} GiB measured, {says:6.3} said, {:+.3}  {name}", says - measured);
    println!("{line}");
    (!(0.0..=MOST_BESIDE_GIB).contains(&(says - measured))).then_some(line)
}

/// By how much a modelled time may be off. Of encoding nothing is held: what was measured copied weights in another way, and of a moment that goes into what happens once
/// little is known.
fn most_off(timed: Timed) -> Option<f64> {
    match timed {
        Timed::Step => Some(0.05),
        Timed::Total => Some(0.07),
        Timed::Decode => Some(0.2),
        Timed::Encode => None,
    }
}

/// Prints times, measured and modelled, and how much longer the modelled ones are; `!` where the measured one is outside the interval. Gives what is wrong with them.
fn times(name: &str, measured: &RunRecord, said: &Said) -> Vec<String> {
    let mut faults = Vec::new();
    let told = Timed::ALL.map(|timed| {
        let measured = timed.of(measured).expect("measured").expected;
        let Some(says) = said.secs(timed) else { return format!("{} {measured:.2} s", timed.name()) };
        let is_inside = (says.low..=says.high).contains(&measured);
        let off = says.expected / measured - 1.0;
        let mark = if is_inside { "" } else { " !" };
        let line = format!(
            "{} {measured:.2} s, {:.2} ({:.2} to {:.2}) {:+.1}%{mark}",
            timed.name(),
            says.expected,
            says.low,
            says.high,
            off * 100.0
        );
        if most_off(timed).is_some_and(|most| off.abs() > most || !is_inside) {
            faults.push(format!("{name}: {line}"));
        }
        line
    });
    println!("times  {name}  {}", told.join("; "));
    faults
}

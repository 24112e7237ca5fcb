//! How memory goes within a stage: in the records of a run, and as the page draws it.

use std::collections::BTreeMap;

use engine_protocol::{RunRecord, Stage};

use crate::browser::Browser;
use crate::command::{Place, lowmem, stdout};

const SWEEP: [&str; 8] = ["sweep", "smoke", "--gpu", "24GB", "--device", "virtual", "attn_type=sdpa", "--out"];

fn records(place: &Place, run: &str) -> Vec<RunRecord> {
    lowmem().current_dir(place.path("")).args(SWEEP).arg(run).assert().success();
    let mut records = reports::load_records(&place.path(run)).expect("records").records;
    records.sort_by(|one, other| one.case.cmp(&other.case));
    records
}

#[test]
fn courses_have_each_stages_peak_and_are_the_same_twice() {
    let place = Place::new();
    let runs = ["one", "two"].map(|run| records(&place, run));
    assert_eq!(runs[0].len(), 4);
    for (record, again) in runs[0].iter().zip(&runs[1]) {
        for (stage, again) in record.stages.iter().zip(&again.stages) {
            let told = format!("{} of {}", stage.stage.name(), record.case);
            assert_eq!(stage.courses, again.courses, "{told}");
            let memory = stage.memory.expect("a GPU's memory");
            let peak = stage.courses.iter().map(engine_protocol::MemoryCourse::peak_allocated_bytes).max();
            // Where nothing is allocated, nothing is told.
            assert!(peak.is_none_or(|peak| peak == memory.peak_allocated_bytes), "{told}: {peak:?} of {memory:?}");
            let reserved = stage.courses.iter().flat_map(|course| &course.reserved_bytes).max();
            assert!(reserved.is_none_or(|reserved| *reserved == memory.peak_reserved_bytes), "{told}: {reserved:?} of {memory:?}");
            assert!(stage.courses.iter().all(|course| course.at.len() <= 64 && !course.largest.is_empty()), "{told}");
        }
        let denoise = record.stage(Stage::Denoise).expect("it ran");
        let mut steps: Vec<u32> = denoise.courses.iter().flat_map(|course| course.steps.clone()).collect();
        steps.sort_unstable();
        assert_eq!(steps, [0, 1], "each step of {}", record.case);
        let decode = record.stage(Stage::Decode).expect("it ran");
        let made = decode.courses[0].largest.iter().find(|block| !block.shape.is_empty()).expect("a tensor that is told of");
        assert!(made.group == "decoder" && made.stage == "decode" && !made.operation.is_empty(), "{made:?}");
    }
}

#[test]
fn what_the_timeline_draws_is_exported() {
    let place = Place::new();
    let records = records(&place, "run");
    let exported = stdout(&lowmem().current_dir(place.path("")).args(["export", "run", "--format", "timeline"]).assert().success());
    let mut reader = csv::Reader::from_reader(exported.as_bytes());
    let rows: Vec<BTreeMap<String, String>> = reader.deserialize().collect::<Result<_, _>>().expect("rows");
    for record in &records {
        let of_case: Vec<_> = rows.iter().filter(|row| row["case"] == record.case).collect();
        let courses = || record.stages.iter().flat_map(|stage| &stage.courses);
        let reserved: Vec<String> = courses().flat_map(|course| &course.reserved_bytes).map(u64::to_string).collect();
        assert_eq!(of_case.iter().map(|row| row["reserved_bytes"].clone()).collect::<Vec<_>>(), reserved, "{}", record.case);
        let highest = of_case.iter().map(|row| row["allocated_bytes"].parse::<u64>().expect("bytes")).max();
        assert_eq!(highest, record.peak_allocated_bytes(), "{}", record.case);
        let told = of_case.iter().filter(|row| row["largest"].contains("VAE, decoder")).count();
        assert!(told > 0, "{}: {exported}", record.case);
    }
}

#[test]
#[cfg_attr(without_browser, ignore = "LOWMEM_WITHOUT_BROWSER=1")]
fn the_timeline_is_looked_at_closely_and_says_what_is_there() {
    let (place, browser) = (Place::new(), Browser::start());
    let records = records(&place, "run");
    browser.open(&place.path("run/report.html"), 1280, "light");
    let layers = "document.querySelectorAll('#bands [clip-path] path').length";
    assert!(browser.value(layers).as_u64().is_some_and(|layers| layers > 8));
    // Each figure that it draws is a record's.
    let drawn = browser.value("JSON.parse(lowmem.byId('data').textContent).cases.map((c) => [c.name, c.bands.map((band) => band.course)])");
    for case in drawn.as_array().expect("cases") {
        let record = records.iter().find(|record| record.case == case[0]).expect("its record");
        let courses = case[1].as_array().expect("bands").iter().filter(|course| !course.is_null());
        let moments: Vec<_> = courses.map(|course| course["reserved"].clone()).collect();
        let told: Vec<_> =
            record.stages.iter().flat_map(|stage| &stage.courses).map(|course| serde_json::json!(course.reserved_bytes)).collect();
        assert!(!moments.is_empty() && moments.iter().all(|moment| told.contains(moment)), "{}", record.case);
    }

    let key = |key: &str| browser.value(&format!("lowmem.byId('bands').onkeydown({{ key: '{key}', preventDefault() {{}} }})"));
    let view = || browser.value("lowmem.state.view.join(' ')").as_str().expect("two shares").to_owned();
    let whole = browser.text("document.querySelector('#bands [clip-path]').innerHTML");
    (0..4).for_each(|_| drop(key("ArrowLeft")));
    let hint = browser.text("lowmem.byId('hint').textContent");
    assert!(hint.contains("at its peak: ") && hint.contains("GiB allocated, "), "{hint}");
    key("+");
    assert_ne!(view(), "0 1");
    assert_ne!(browser.text("document.querySelector('#bands [clip-path]').innerHTML"), whole);
    key("0");
    assert_eq!(browser.text("document.querySelector('#bands [clip-path]').innerHTML"), whole);

    // By hand: a drag, the wheel with Ctrl, the buttons.
    let hand = "const box = lowmem.byId('bands').getBoundingClientRect();
        const at = (type, share) => lowmem.byId('bands').dispatchEvent(new PointerEvent(type, { clientX: box.left + box.width * share, clientY: box.top + 90 }));
        lowmem.byId('bands').setPointerCapture = () => {};";
    browser.value(&format!("{{ {hand} at('pointerdown', 0.3); at('pointermove', 0.4); at('pointerup', 0.5); }}"));
    let dragged = view();
    let shares: Vec<f64> = dragged.split(' ').map(|share| share.parse().expect("a share")).collect();
    assert!(shares[0] > 0.2 && shares[1] < 0.6, "{dragged}");
    browser.value(
        "lowmem.byId('bands').dispatchEvent(new WheelEvent('wheel', { ctrlKey: true, deltaY: -100, clientX: 600, cancelable: true }))",
    );
    assert_ne!(view(), dragged);
    browser.value("lowmem.byId('zoom-whole').click()");
    assert_eq!(view(), "0 1");
    assert_eq!(browser.value("lowmem.byId('zoom-whole').disabled"), true);
    browser.value(&format!("{{ {hand} at('pointermove', 0.97); }}"));
    let hint = browser.text("lowmem.byId('hint').textContent");
    assert!(hint.starts_with("decode") && hint.contains("Largest at its peak:") && hint.contains("VAE, decoder"), "{hint}");
    assert_eq!(browser.complaints(), [""; 0]);
}

//! `lowmem fill-tables`: a document's open places from runs of a stub worker.

use std::fs;

use crate::command::{ANSWERS, Place, lowmem, stderr, stdout};

/// Lines of a page, and some that are nobody's business. Windows' ends of line.
const PAGE: &str = "# Page\r\n\r\n## Level 1: tiles\r\n\r\n**VRAM**: Memory reduction expected  \r\n**Speed**: Performance testing in progress\r\n\r\n## Memory Comparison\r\n\r\n\
                    | Level | VRAM (tiny) | Speed |\r\n|--|:-:|--|\r\n| 0 | To be tested | 1.0x |\r\n| 2 | To be tested |To be tested|\r\n\r\n```\r\nVRAM: To be tested\r\n```\r\n\r\n\
                    ### By VRAM Size\r\n\r\n| VRAM | Recommended Level | Max Resolution |\r\n|---|---|---|\r\n| 24GB | Level 0 | To be tested |\r\n| 7GB | Level 3 | To be tested |\r\n\r\n\
                    ### Low Memory + Context Parallelism\r\n\r\n**VRAM**: Performance testing in progress";

fn swept() -> Place {
    let place = Place::new();
    place
        .lowmem_with(ANSWERS)
        .args(["sweep", "smoke", "attn_type=sdpa", "--gpu", "24GB", "--device", "virtual", "--out", "run"])
        .assert()
        .success();
    place.file("page.md", PAGE);
    place
}

#[test]
fn open_places_are_filled_and_nothing_else_is_touched() {
    let place = swept();
    let fill = || stdout(&lowmem().current_dir(place.path("")).args(["fill-tables", "page.md", "--from", "run"]).assert().success());
    let said = fill();
    let filled = fs::read_to_string(place.path("page.md")).expect("the page");
    for expected in [
        "**VRAM**: <!-- lowmem: Memory reduction expected -->21.00 GiB[^lowmem-",
        "| 0 | <!-- lowmem: To be tested -->does not fit, needs at least 51.00 of 23.65 GiB[^lowmem-",
        "| 2 | <!-- lowmem: To be tested -->11.00 GiB[^lowmem-",
        "```\r\nVRAM: To be tested\r\n```",
        "| 24GB | Level 0 | <!-- lowmem: To be tested -->none at level 0; at level 1 at least 96x64[^lowmem-",
        "> Note: 24 GB (23.65 GiB) at level 0 does not hold wan-tiny in bf16: already 96x64 needs at least 51.00 GiB. At level 1 96x64 fits.\r\n",
        "| 7GB | Level 3 | To be tested |",
        "counted on a virtual rtx-4090 (NVIDIA GeForce RTX 4090), not measured.",
        "**VRAM**: Performance testing in progress",
    ] {
        assert!(filled.contains(expected), "{expected}\n{filled}");
    }
    assert!(!filled.replace("\r\n", "").contains('\n'), "ends of line stay");
    for open in ["7 GB, largest resolution:\n    lowmem sweep hardware --gpu 7GB model=wan-tiny", "cp_size=2\n", "speed:\n"] {
        assert!(said.contains(open), "{said}");
    }
    fill();
    assert_eq!(fs::read_to_string(place.path("page.md")).expect("the page"), filled, "filled anew to the same bytes");
}

#[test]
fn a_page_that_is_not_what_its_runs_give_is_an_exit_code() {
    let place = swept();
    let check = || lowmem().current_dir(place.path("")).args(["fill-tables", "page.md", "--check", "--from", "run"]).assert();
    let said = stdout(&check().code(5));
    assert!(said.contains("\n-| 2 | To be tested |To be tested|\\r\n") && said.contains("\n+| 2 | <!-- lowmem"), "{said}");
    assert_eq!(fs::read_to_string(place.path("page.md")).expect("the page"), PAGE, "a check changes nothing");
    lowmem().current_dir(place.path("")).args(["fill-tables", "page.md", "--from", "run"]).assert().success();
    check().success();
    let filled = fs::read_to_string(place.path("page.md")).expect("the page");
    place.file("page.md", &filled.replace("21.00 GiB", "20.00 GiB"));
    check().code(5);
}

#[test]
fn what_is_no_run_or_no_document_is_said() {
    let place = swept();
    for (document, run, said) in [("page.md", "none", "none is not a run directory"), ("none.md", "run", "none.md: no such file")] {
        let assert = lowmem().current_dir(place.path("")).args(["fill-tables", document, "--from", run]).assert().code(2);
        assert!(stderr(&assert).contains(said), "{}", stderr(&assert));
    }
}

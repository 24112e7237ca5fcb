//! `lowmem` as a program of `lowmem on`: what runs or measures something is refused, for a result would be of neither virtual GPU.

use crate::command::{executable, lowmem, stderr, stdout};

#[test]
fn a_command_that_needs_a_gpu_of_its_own_is_refused() {
    let own = executable("lowmem").display().to_string();
    for inner in
        [&["on", "rtx-4060", "--", "true"][..], &["sweep"], &["generate", "--prompt", "a cat"], &["autotune"], &["plan"], &["calibrate"]]
    {
        let assert = lowmem().args(["on", "rtx-4090", "--", &own]).args(inner).assert().code(2);
        let refusal = format!("lowmem: `lowmem {}` cannot run in a program of `lowmem on rtx-4090`: ", inner[0]);
        assert!(stderr(&assert).contains(&refusal), "{}", stderr(&assert));
    }
    let assert = lowmem().args(["on", "rtx-4090", "--", &own, "flags"]).assert().success();
    assert!(stdout(&assert).contains("low_mem_level"), "what needs none is not");
}

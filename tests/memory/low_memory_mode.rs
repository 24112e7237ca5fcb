//! docs/low-memory-mode.md is what `lowmem fill-tables` makes of it from runs on the virtual GPU. `make low-memory-mode` fills it anew.

use std::path::Path;

use lowmem_tests::{lowmem, root};

use super::sweep::Swept;

/// A size of each row of the page.
const SIZES: &str = "80GB,40GB,24GB,16GB,8GB";
const PAGE: &str = "docs/low-memory-mode.md";

#[test]
fn the_page_is_what_the_runs_give() {
    let settings = tempfile::tempdir().expect("a folder");
    keep_rates(settings.path());
    let environment = [("XDG_CONFIG_HOME", settings.path().to_owned())];
    let definition = std::fs::read_to_string(root().join("sweeps/hardware.yaml")).expect("the definition");
    // The largest size takes longer than all others, since its many tiles are decoded one by one.
    let shorter = definition.replace(", 2560x1440", "");
    assert_ne!(shorter, definition);
    let run = Swept::new(&shorter, SIZES, "virtual", &environment);
    let caches = std::fs::read_to_string(root().join("sweeps/flexcache.yaml")).expect("the definition");
    let caches = Swept::new(&caches, "80GB", "virtual", &environment);
    let sage = std::fs::read_to_string(root().join("sweeps/sage.yaml")).expect("the definition");
    let sage = Swept::new(&sage, "80GB", "virtual", &environment);
    let ranks = std::fs::read_to_string(root().join("sweeps/several-gpus.yaml")).expect("the definition");
    // The page is about two, which each have all weights.
    let (whole, _) = ranks.split_once("  shard_weights").expect("they have them in parts too");
    let two = whole.replace("cp_size: [1, 2, 4]", "cp_size: [1, 2]");
    assert_ne!(two, whole);
    let ranks = Swept::new(&two, "80GB", "virtual", &environment);
    let is_renewing = std::env::var_os("LOWMEM_RENEW_LOW_MEMORY_MODE").is_some();
    let mut lowmem = lowmem();
    lowmem.current_dir(root()).args(["fill-tables", PAGE]).args((!is_renewing).then_some("--check")).arg("--from").args([
        run.path(""),
        caches.path(""),
        sage.path(""),
        ranks.path(""),
    ]);
    let output = lowmem.output().expect("lowmem starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{PAGE} is not what its runs give; if that is meant, `make low-memory-mode` fills it anew\n{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(said.lines().filter(|line| line.starts_with("  line ")).count(), 0, "a place stays open: {said}");
}

/// Rates of a processor that are the same on every machine: the text encoder's time hangs on them.
fn keep_rates(settings: &Path) {
    let processors = std::fs::read_to_string("/proc/cpuinfo").expect("the processors");
    let name = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':')).map_or("", |(_, name)| name.trim());
    let rates = format!(
        "processor: {name:?}\nthreads: 1\nrates:\n- dtype: bf16\n  operations_per_sec: [4e11, 5e11, 6e11]\n  weight_bytes_per_sec: [1e10, 1.2e10, 1.4e10]\n"
    );
    std::fs::create_dir(settings.join("lowmem")).expect("a folder");
    std::fs::write(settings.join("lowmem/host.yaml"), rates).expect("written");
}

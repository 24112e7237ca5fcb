//! docs/low-memory-mode.md is what `lowmem fill-tables` makes of it from runs on the virtual GPU. `make low-memory-mode` fills it anew.

use std::path::Path;

use lowmem_tests::{lowmem, root};

use super::sweep::Swept;

/// A size of each row of the page.
const SIZES: &str = "80GB,40GB,24GB,16GB,8GB";
const ALL_LEVELS: &str = "low_mem_level: [0, 1, 2, 3]";
const PAGE: &str = "docs/low-memory-mode.md";

#[test]
fn the_page_is_what_the_runs_give() {
    let settings = tempfile::tempdir().expect("a folder");
    keep_rates(settings.path());
    let environment = [("XDG_CONFIG_HOME", settings.path().to_owned())];
    let swept = |name: &str, gpu: &str, fewer: &[(&str, &str)]| Swept::new(&definition(name, fewer), gpu, "virtual", &environment);
    // The largest size takes longer than all others, since its many tiles are decoded one by one.
    let levels = swept("hardware", SIZES, &[(", 2560x1440", "")]);
    // What is combined stands on the page at level 3, beside level 0.
    let level = (ALL_LEVELS, "low_mem_level: [0, 3]");
    let caches = "flexcache: [none, teacache, magcache, firstblock, taylorseer, blockdance, meancache]";
    let caches = swept("flexcache", "80GB", &[level, (caches, "flexcache: [teacache]")]);
    let sage = swept(
        "sage",
        "80GB",
        &[level, ("attn_type: [sdpa, sage, sparge]", "attn_type: [sage]"), ("preset: [all, heads]", "preset: [all]")],
    );
    let two = ("cp_size: [1, 2, 4]", "cp_size: [2]");
    let ranks = swept("several-gpus", "80GB", &[two, ("shard_weights: [false, true]", "shard_weights: [false]")]);
    let is_renewing = std::env::var_os("LOWMEM_RENEW_LOW_MEMORY_MODE").is_some();
    let mut lowmem = lowmem();
    lowmem.current_dir(root()).args(["fill-tables", PAGE]).args((!is_renewing).then_some("--check")).arg("--from").args([
        levels.path(""),
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

/// The definition in `sweeps/` of that name, with some of its words replaced by those of fewer cases.
fn definition(name: &str, fewer: &[(&str, &str)]) -> String {
    let path = root().join(format!("sweeps/{name}.yaml"));
    let whole = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    fewer.iter().fold(whole, |text, (all, some)| {
        assert!(text.contains(all), "{name} has no `{all}`");
        text.replace(all, some)
    })
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

//! Flags as people meet them, and any configuration told and read again.

use engine_protocol::{Config, Device, FLAGS, Settings, setting_text};
use lowmem_tests::any_flag::{any_settings, legal, read};
use lowmem_tests::{model, root};
use proptest::prelude::*;

use super::command::lowmem;

fn said(arguments: &[&str]) -> String {
    String::from_utf8(lowmem().args(arguments).assert().code(2).get_output().stderr.clone()).expect("text")
}

#[test]
fn every_flag_is_listed_in_80_columns_and_explained_by_itself() {
    let list = String::from_utf8(lowmem().arg("flags").assert().success().get_output().stdout.clone()).expect("text");
    assert!(list.lines().all(|line| line.chars().count() <= 80), "{list}");
    for flag in FLAGS.iter() {
        assert!(list.contains(&format!(" {}\n", flag.key)) || list.contains(&format!(" {} ", flag.key)), "{}", flag.key);
        let one = lowmem().args(["flags", &flag.page_spelling()]).assert().success();
        let one = String::from_utf8_lossy(&one.get_output().stdout).into_owned();
        assert!(one.trim_start().starts_with(flag.key), "{one}");
    }
    assert!(said(&["flags", "low_mem_levle"]).contains("did you mean `low_mem_level`?"));
}

#[test]
fn a_flag_written_as_an_option_is_told_how_it_is_written() {
    let expected = "lowmem: --low-mem-level is no option: write low_mem_level=3\n";
    assert_eq!(said(&["plan", "--low-mem-level=3"]), expected);
    assert_eq!(said(&["sweep", "smoke", "--low-mem-level", "3"]), expected);
    assert!(said(&["plan", "--bogus"]).contains("unexpected argument"));
}

#[test]
fn several_values_are_for_a_sweep() {
    assert!(
        said(&["plan", "low_mem_level=2,3"])
            .contains("low_mem_level takes one value here: several values, with commas, are for lowmem sweep")
    );
}

/// A schema that refused what we ship, or took what we refuse, would be of no use in an editor.
#[test]
fn the_schema_takes_our_definitions_and_refuses_mistakes() {
    let text = std::fs::read_to_string(root().join("sweeps/schema.json")).expect("the schema");
    let schema = jsonschema::validator_for(&serde_json::from_str(&text).expect("JSON")).expect("a schema");
    let is_valid = |yaml: &str| schema.is_valid(&serde_yaml::from_str(yaml).expect("YAML"));
    for entry in std::fs::read_dir(root().join("sweeps")).expect("the folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|ending| ending == "yaml") {
            assert!(is_valid(&std::fs::read_to_string(&path).expect("text")), "{}", path.display());
        }
    }
    assert!(is_valid("model: wan-tiny\ninfer:\n  diffusion:\n    low_mem_level: 2\nsweep:\n  resolution: [480p, 480*832]\n"));
    assert!(is_valid("gpu: 24GB\npresets:\n  small: {head_chunk: 10}\nsweep:\n  preset: [small]\nexclude:\n  - gpu: 8GB\n"));
    assert!(is_valid("flexcache:\n  strategy: teacache\n  teacache_thresh: 0.3\n"));
    assert!(is_valid("flexcache.strategy: pab\nsweep:\n  flexcache: {skip_self_range: [2, 3]}\n"));
    for wrong in [
        "flexcache: {tau_max: 2}",
        "flexcache: {strategy: cubic}",
        "sweep:\n  flexcache: {skip_self_range: 2}",
        "presets:\n  small: {gpu: 24GB}",
        "presets: [small]",
        "sweep:\n  gpu: 24GB",
        "low_mem_level: 4",
        "vae_tile_siez: 4",
        "attn_type: xformers",
        "sweep:\n  low_mem_level: 3",
        "low_mem_level: [0, 1]",
        "cases:\n  - x: 1",
    ] {
        assert!(!is_valid(wrong), "{wrong}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// All of its settings, and the fewest, give a configuration again, as they are written on a command line and in JSON.
    #[test]
    fn any_configuration_told_as_settings_is_read_as_the_same(
        name in prop::sample::select(vec!["wan-tiny", "wan2.1-t2v-14b", "wan2.2-t2v-a14b", "wan2.2-ti2v-5b"]),
        on_cpu: bool,
        words in any_settings(|_| true),
    ) {
        let (model, device) = (model(name), if on_cpu { Device::Cpu } else { Device::Virtual });
        let read = |words: &[String]| read(words, device, &model);
        let legal = legal(words, device, &model);
        let config = read(&legal).expect("legal");
        for told in [config.settings(), config.fewest_settings(device, &model)] {
            let words: Vec<_> = told.iter().map(|(flag, value)| setting_text(flag.key, value)).collect();
            prop_assert_eq!(&read(&words).expect("what is told is legal"), &config, "{:?}", words);
            let pairs = told.iter().map(|(flag, value)| (flag.key.to_owned(), value.clone()));
            let settings = Settings::from_pairs(pairs).expect("settings");
            let json = serde_json::to_string(&settings).expect("JSON");
            prop_assert_eq!(serde_json::from_str::<Settings>(&json).expect("settings"), settings);
        }
        let json = serde_json::to_string(&config).expect("JSON");
        prop_assert_eq!(serde_json::from_str::<Config>(&json).expect("a configuration"), config);
    }
}

//! `lowmem calibrate`: on the virtual GPU, which gives back what its profile says, whatever profile was begun with.

use std::fs;

use crate::command::{Place, lowmem, stderr, stdout};

#[test]
fn the_virtual_gpu_gives_back_its_profile() {
    for (gpu, cudnn) in [("rtx-3060", false), ("h100", true)] {
        let said = stdout(&lowmem().args(["calibrate", "--gpu", gpu, "--device", "virtual"]).assert().success());
        for part in [
            "matrix product, of the peak",
            "attention, of the peak",
            "convolution, of the peak",
            "pointwise, of the memory's bandwidth",
            "reduction, of the memory's bandwidth",
            "copy of weights beside arithmetic",
            "small kernels in a row",
            "CUDA context",
            "The virtual GPU gives back its profile",
        ] {
            assert!(said.contains(part), "`{part}` is missing in: {said}");
        }
        assert_eq!(said.contains("attention by cuDNN"), cudnn, "{said}");
    }
}

/// A place for a user's own profiles, all made from the H100's.
struct Profiles(Place);

impl Profiles {
    fn new() -> Self {
        let profiles = Self(Place::new());
        fs::create_dir_all(profiles.0.path("lowmem/gpus")).expect("a folder");
        profiles
    }

    /// Writes one: the H100's, or `text`, with changes.
    fn add(&self, name: &str, text: &str, changes: &[(&str, &str)]) {
        let mut text = text.to_owned();
        for (from, to) in changes {
            assert!(text.contains(from), "no `{from}` in: {text}");
            text = text.replacen(from, to, 1);
        }
        fs::write(self.0.path(&format!("lowmem/gpus/{name}.yaml")), text).expect("written");
    }

    fn run(&self, words: &[&str]) -> String {
        stdout(&lowmem().env("XDG_CONFIG_HOME", self.0.path("")).args(words).assert().success())
    }

    /// What a virtual GPU of that profile takes for a video, in seconds.
    fn total_secs(&self, name: &str) -> f64 {
        let said = self.run(&[
            "profile",
            "model=wan2.1-t2v-14b",
            "low_mem_level=2",
            "resolution=480p",
            "offload_text_encoder=stream",
            "--gpu",
            name,
            "--device",
            "virtual",
            "--json",
        ]);
        let record: engine_protocol::RunRecord = serde_json::from_str(&said).expect("a record");
        record.total_secs().expect("timed").expected
    }
}

#[test]
fn predictions_are_nearer_after_calibrating_a_gpu_at_its_power_limit() {
    let ours = fs::read_to_string(lowmem_tests::root().join("sweeps/gpus/h100.yaml")).expect("a profile");
    let profiles = Profiles::new();
    // The GPU: for three seconds of load it is a fifth faster.
    let limit = "power_limit: { burst: { value: 1.2, source: test }, settles_secs: { value: 3.0, source: test } }\nefficiency:";
    profiles.add("limited", &ours, &[("name: h100", "name: limited"), ("efficiency:", limit)]);
    // What is known of it is what it reaches for milliseconds, with a wrong convolution.
    let burst = [
        ("name: h100", "name: guessed"),
        ("gemm: { low: 0.69, expected: 0.75,", "gemm: { low: 0.8, expected: 0.9,"),
        ("cudnn_attention: { low: 0.5, expected: 0.537,", "cudnn_attention: { low: 0.6, expected: 0.68,"),
        ("convolution: { low: 0.45, expected: 0.55,", "convolution: { low: 0.6, expected: 0.8,"),
    ];
    profiles.add("guessed", &ours, &burst);
    let out = profiles.0.path("calibrated.yaml");
    let out = out.to_str().expect("a name");
    let said = profiles.run(&["calibrate", "--gpu", "limited", "--device", "virtual", "--start-from", "guessed", "--out", out]);
    assert!(said.contains("then the card is at its power limit"), "{said}");
    let calibrated = fs::read_to_string(out).expect("a profile");
    profiles.add("calibrated", &calibrated, &[("name: limited", "name: calibrated")]);

    let [truth, guess, found] = ["limited", "guessed", "calibrated"].map(|name| profiles.total_secs(name));
    let off = |secs: f64| (secs / truth - 1.0).abs();
    assert!(off(guess) > 0.1, "{guess} for {truth}");
    assert!(off(found) < 0.01, "{found} for {truth}");
}

#[test]
fn a_users_own_profile_takes_the_place_of_ours() {
    let profiles = Profiles::new();
    let ours = fs::read_to_string(lowmem_tests::root().join("sweeps/gpus/rtx-4090.yaml")).expect("a profile");
    profiles.add("rtx-4090", &ours, &[("gemm: { low: 0.8, expected: 0.9,", "gemm: { low: 0.25, expected: 0.5,")]);
    profiles.add("mine", &ours, &[("name: rtx-4090", "name: mine")]);
    let [half, whole] = ["rtx-4090", "mine"].map(|name| profiles.total_secs(name));
    assert!(half > 1.2 * whole, "{half} and {whole}");
    assert!(profiles.run(&["gpus"]).contains(" mine "));
    assert!(profiles.run(&["plan", "--gpu", "mine", "model=wan2.1-t2v-14b", "low_mem_level=3"]).contains("GPU=mine is mine"));
}

#[test]
fn the_cpu_is_not_calibrated() {
    let said = stderr(&lowmem().args(["calibrate", "--device", "cpu"]).assert().code(2));
    assert!(said.contains("--device cpu: it is GPUs that are calibrated"), "{said}");
}

//! `lowmem calibrate`: on the virtual GPU, which gives back what its profile says.

use crate::command::{Place, lowmem, stderr, stdout};

#[test]
fn the_virtual_gpu_gives_back_its_profiles_rates() {
    for gpu in ["rtx-3060", "h100"] {
        let said = stdout(&lowmem().args(["calibrate", "--gpu", gpu, "--device", "virtual"]).assert().success());
        for part in [
            "copy from pinned memory",
            "matrix product",
            "attention (flash)",
            "convolution",
            "pointwise",
            "reduction",
            "gives back the profile's rates",
        ] {
            assert!(said.contains(part), "`{part}` is missing in: {said}");
        }
    }
}

#[test]
fn a_users_own_profile_takes_the_place_of_ours() {
    let place = Place::new();
    let ours = std::fs::read_to_string(lowmem_tests::root().join("sweeps/gpus/rtx-4090.yaml")).expect("a profile");
    let own = |gemm: &str, name: &str| ours.replace("gemm: { low: 0.8, expected: 0.9,", gemm).replace("name: rtx-4090", name);
    std::fs::create_dir_all(place.path("lowmem/gpus")).expect("a folder");
    std::fs::write(place.path("lowmem/gpus/rtx-4090.yaml"), own("gemm: { low: 0.25, expected: 0.5,", "name: rtx-4090")).expect("written");
    std::fs::write(place.path("lowmem/gpus/mine.yaml"), own("gemm: { low: 0.8, expected: 0.9,", "name: mine")).expect("written");
    let run = |words: &[&str]| stdout(&lowmem().env("XDG_CONFIG_HOME", place.path("")).args(words).assert().success());
    let said = run(&["calibrate", "--gpu", "rtx-4090", "--device", "virtual"]);
    // Half of 165.2 TFLOP/s, less the kernel's own microsecond.
    assert!(said.contains("82.6 TFLOP/s") && said.contains("50% (25 to 96)") && said.contains("gives back"), "{said}");
    assert!(run(&["gpus"]).contains(" mine "));
    assert!(run(&["plan", "--gpu", "mine", "model=wan2.1-t2v-14b", "low_mem_level=3"]).contains("GPU=mine is mine"));
}

#[test]
fn the_cpu_is_not_calibrated() {
    let said = stderr(&lowmem().args(["calibrate", "--device", "cpu"]).assert().code(2));
    assert!(said.contains("--device cpu: it is GPUs that are calibrated"), "{said}");
}

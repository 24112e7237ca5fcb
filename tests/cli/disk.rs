//! The rate of the disk that weights are read from: said, measured once, or assumed, and which it is.

use lowmem_tests::{copy_folder, root};

use crate::command::{lowmem, stderr, stdout};

/// The text encoder computes on the GPU, so that the processor need not be measured.
const LEVEL: [&str; 5] = ["low_mem_level=3", "offload_text_encoder=stream", "stream_from=file", "steps_measured=1", "prompt=x"];

#[test]
fn what_is_no_rate_is_refused() {
    let common = ["plan", "--model", "wan2.1-t2v-14b", "--gpu", "rtx-4090", "low_mem_level=3", "--disk"];
    for text in ["fast", "0", "-3", "3TB/s"] {
        let said = stderr(&lowmem().args(common).arg(text).assert().code(2));
        assert!(said.contains("is no rate of a disk: write 3GB/s"), "{text}: {said}");
    }
    lowmem().args(common).arg("500MB/s").assert().success();
    let said = stderr(&lowmem().args(["calibrate", "--gpu", "rtx-4090", "--device", "virtual", "--disk", "3"]).assert().code(2));
    assert!(said.contains("--disk: nothing is read from files"), "{said}");
}

#[test]
fn an_assumed_rate_is_said_to_be_one() {
    let plan = ["plan", "--model", "wan2.1-t2v-14b", "--gpu", "rtx-4090", "low_mem_level=3", "resident_blocks=auto", "resolution=480p"];
    let said = |more: &[&str]| stderr(&lowmem().args(plan).args(more).assert().success());
    let assumed = "the disk's rate is assumed, 3.0 GB/s (1.5 to 7.0). Say yours with --disk 3GB/s.";
    assert!(said(&["stream_from=file"]).contains(assumed));
    assert!(!said(&["stream_from=memory"]).contains("disk"));
    assert!(!said(&["stream_from=file", "--disk", "2GB/s"]).contains("assumed"));
    // And it goes into the answer.
    let blocks = |rate: &str| {
        let said = stdout(&lowmem().args(plan).args(["stream_from=file", "--disk", rate]).assert().success());
        let (_, rest) = said.split_once("resident_blocks=auto: ").unwrap_or_else(|| panic!("{said}"));
        rest.split(' ').next().and_then(|count| count.parse::<u32>().ok()).expect("a number")
    };
    assert!(blocks("1GB/s") > blocks("20GB/s"), "{} and {}", blocks("1GB/s"), blocks("20GB/s"));
}

#[test]
fn a_checkpoints_disk_is_measured_once() {
    let (folder, home) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    copy_folder(&root().join("tests/fixtures/checkpoint/diffusers"), folder.path());
    let generate = |more: &[&str]| {
        let mut command = lowmem();
        command.env("XDG_CONFIG_HOME", home.path()).args(["generate", "--gpu", "rtx-3060", "--device", "virtual", "--checkpoint"]);
        stderr(&command.arg(folder.path()).args(LEVEL).args(more).assert().success())
    };
    let kept = || std::fs::read_to_string(home.path().join("lowmem/host.yaml")).unwrap_or_default();
    // The fixture's own files are too small to say anything.
    let said = generate(&[]);
    assert!(said.contains("the disk could not be measured") && said.contains("64 MiB") && said.contains("is assumed"), "{said}");
    assert!(!kept().contains("disks:"), "{}", kept());
    std::fs::write(folder.path().join("transformer/large.bin"), vec![7; 70 << 20]).expect("written");
    assert!(!generate(&["--disk", "3"]).contains("Measuring this machine's disk"), "what is said is not measured");
    let said = generate(&[]);
    assert!(said.contains("Measuring this machine's disk") && said.contains("It gives ") && !said.contains("assumed"), "{said}");
    assert!(kept().contains("disks:") && kept().contains("source: measured"), "{}", kept());
    let said = generate(&[]);
    assert!(!said.contains("Measuring this machine's disk") && !said.contains("assumed"), "{said}");
}

//! Peaks on the virtual GPU: what the levels promise, through the command that people use.

use std::collections::HashMap;

use super::sweep::Swept;

/// A row of results.csv: column to text.
type Row = HashMap<String, String>;

/// Runs a sweep of `definition` and gives its rows. What is on standard output and error does not matter here.
fn sweep(definition: &str, gpu: &str) -> Vec<Row> {
    let swept = Swept::new(definition, gpu, "virtual", &[]);
    let mut reader = csv::Reader::from_path(swept.path("results.csv")).expect("results.csv");
    reader.deserialize().map(|row| row.expect("a row")).collect()
}

fn bytes(row: &Row, column: &str) -> u64 {
    row[column].parse().unwrap_or_else(|_| panic!("{column} is `{}` in {}", row[column], row["case"]))
}

const GIB: u64 = 1 << 30;

#[test]
fn a_higher_level_never_holds_more() {
    let rows =
        sweep("model: wan2.1-t2v-14b\nframes: 81\nsweep:\n  resolution: [832x480, 1280x720]\n  low_mem_level: [0, 1, 2, 3]\n", "a100-80gb");
    assert_eq!(rows.len(), 8);
    for resolution in ["832", "1280"] {
        let mut levels: Vec<&Row> = rows.iter().filter(|row| row["width"] == resolution).collect();
        levels.sort_by_key(|row| row["low_mem_level"].clone());
        let peaks: Vec<u64> = levels.iter().map(|row| bytes(row, "peak_reserved_bytes")).collect();
        assert!(peaks.is_sorted_by(|a, b| a >= b), "{resolution}: {peaks:?}");
        for row in &levels {
            assert_eq!(row["outcome"], "ok");
            assert!(bytes(row, "peak_allocated_bytes") <= bytes(row, "peak_reserved_bytes"));
            assert!(bytes(row, "peak_reserved_bytes") < bytes(row, "peak_device_bytes"));
        }
        let first = levels[0];
        if resolution == "832" {
            assert!(bytes(first, "peak_allocated_bytes") <= 45 * GIB, "level 0 at 832x480");
        } else {
            assert!(bytes(levels[3], "peak_reserved_bytes") <= 14 * GIB, "level 3 at 1280x720");
        }
    }
}

#[test]
fn the_same_case_twice_gives_the_same_bytes() {
    let definition = "model: wan2.1-t2v-1.3b\nresolution: 832x480\nsweep:\n  low_mem_level: [1, 3]\n";
    let (first, second) = (sweep(definition, "rtx-4090"), sweep(definition, "rtx-4090"));
    assert_eq!(first.len(), 2);
    for (one, other) in first.iter().zip(&second) {
        for (column, value) in one {
            if column != "began" && column != "wall_secs" && !column.ends_with("_secs") {
                assert_eq!(Some(value), other.get(column), "{column} of {}", one["case"]);
            }
        }
    }
}

/// Whole frames, whose remembered ones are several times what one is computed in, and tiles, where they are little.
#[test]
fn frames_that_wait_on_the_host_are_not_on_the_gpu() {
    let rows = sweep(
        "model: wan2.1-t2v-1.3b\nresolution: 832x480\nframes: 17\nsteps_measured: 1\nsweep:\n  low_mem_level: [0, 3]\n  activation_offload: [false, true]\n  vae_temporal_chunk: [2]\n",
        "rtx-4090",
    );
    let of = |level: &str, offload: &str, column: &str| {
        let row = rows.iter().find(|row| row["low_mem_level"] == level && row["activation_offload"] == offload).expect("a row");
        bytes(row, column)
    };
    for level in ["0", "3"] {
        let [before, after] = ["false", "true"].map(|offload| of(level, offload, "decode_peak_allocated_bytes"));
        let pinned = of(level, "true", "host_pinned_peak_bytes") - of(level, "false", "host_pinned_peak_bytes");
        // Page-locked memory is rounded up to powers of two, and the buffer in which a convolution reads stays.
        assert!(before > after && before - after <= pinned && before - after >= pinned / 2, "level {level}: {before}, {after}, {pinned}");
        for column in ["h2d_bytes", "d2h_bytes"] {
            assert!(of(level, "true", column) >= of(level, "false", column) + pinned / 2, "level {level}: {column}");
        }
    }
    let [before, after] = ["false", "true"].map(|offload| of("0", offload, "decode_peak_allocated_bytes"));
    assert!(before - after > GIB, "whole frames: {before} bytes, and {after} with those that wait on the host");
}

#[test]
fn what_does_not_fit_is_a_row_with_its_stage() {
    let rows = sweep("model: wan2.1-t2v-14b\nresolution: 1280x720\nsweep:\n  low_mem_level: [0, 3]\n", "24GB");
    let outcome: Vec<(&str, &str)> = rows.iter().map(|row| (row["low_mem_level"].as_str(), row["outcome"].as_str())).collect();
    assert_eq!(outcome, [("0", "oom"), ("3", "ok")]);
    assert_eq!(rows[0]["failed_stage"], "load");
    assert!(rows[0]["error"].contains("out of memory"), "{}", rows[0]["error"]);
    assert_eq!(rows[0]["peak_reserved_bytes"], "", "the peak of a run that did not end is not known");
    assert!(bytes(&rows[0], "reserved_bytes") <= 24 * GIB);
    assert!(bytes(&rows[0], "needed_bytes") > 23 * GIB);
}

#[test]
fn streaming_copies_each_block_once_a_pass() {
    let rows = sweep("model: wan2.1-t2v-1.3b\nresolution: 832x480\nlow_mem_level: 3\nsweep:\n  steps_measured: [1, 2, 3]\n", "rtx-4090");
    let copied: Vec<u64> = rows.iter().map(|row| bytes(row, "h2d_bytes")).collect();
    assert_eq!(copied[1] - copied[0], copied[2] - copied[1], "each step copies the same: {copied:?}");
    // Two passes a step over the transformer's 1,419.0 million parameters in bf16; then norms and time embedding in fp32, and the latents.
    let weights = 2 * 2 * 1_419_000_000_u64;
    let step = copied[1] - copied[0];
    assert!(step > weights && step < weights + weights / 100, "{step} bytes a step, {weights} of weights");
}

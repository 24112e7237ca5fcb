//! Streamed blocks never read a buffer that is being overwritten, nor one that is not filled yet: from the virtual GPU's trace of operations.
//!
//! On the virtual GPU all work is over at once, so a missing wait would be seen by nobody there, and on a card by chance. The trace says what was
//! asked for, and that must be enough for the order.

use std::collections::BTreeMap;

use engine::transformer::{BLOCKS, Transformer};
use rstest::rstest;

use super::happens_before::{Findings, Operation, check, parse};
use super::sweep::Swept;

/// The stream that libtorch computes on.
const COMPUTE: u64 = 0;

/// Groups that are streamed in a pass of wan2.1-t2v-1.3b: its 30 blocks in three parts each, and what stands before and after them.
fn groups() -> usize {
    Transformer::groups(&lowmem_tests::model("wan2.1-t2v-1.3b").transformer).len()
}

/// 2 steps of 2 passes.
const PASSES: usize = 4;

/// The operations of a case at level 3.
fn trace(settings: &str) -> Vec<Operation> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("trace");
    let definition = format!("model: wan2.1-t2v-1.3b\nresolution: 832x480\nframes: 9\nlow_mem_level: 3\nsteps_measured: 2\n{settings}\n");
    Swept::new(&definition, "rtx-4090", "virtual", &[("LOWMEM_VIRTUAL_GPU_TRACE", path.clone())]);
    let operations = parse(&std::fs::read_to_string(&path).expect("the trace"));
    assert!(
        operations.iter().all(|operation| operation.thread == operations[0].thread),
        "the order between threads of the host is not in the trace"
    );
    operations
}

/// The stream on which blocks are copied: the one with the most copies, of those that compute nothing.
fn copy_stream(operations: &[Operation]) -> u64 {
    let mut copies = BTreeMap::<u64, usize>::new();
    for operation in operations.iter().filter(|operation| operation.op == "copy_to_device" && operation.stream != COMPUTE) {
        *copies.entry(operation.stream).or_default() += 1;
    }
    *copies.iter().max_by_key(|(_, count)| **count).expect("blocks are copied on a stream of their own").0
}

/// What is found where the waits of one stream are left out.
fn without_waits_of(stream: u64, operations: &[Operation]) -> Findings {
    let is_left = |operation: &&Operation| operation.op != "wait_event" || operation.stream != stream;
    check(&operations.iter().filter(is_left).cloned().collect::<Vec<_>>())
}

#[rstest]
fn no_buffer_is_read_before_its_copy_or_overwritten_while_it_is_read(#[values(0, 1, 2)] prefetch: usize) {
    let operations = trace(&format!("prefetch_blocks: {prefetch}"));
    let findings = check(&operations);
    assert!(findings.faults.is_empty(), "{} faults, first: {}", findings.faults.len(), findings.faults[0]);

    // Each copy was held against the products that read it; the last ones are ahead of a pass that does not come.
    let copies = groups() * PASSES + prefetch;
    assert!(findings.copies_read.len() >= copies - prefetch, "{} of {copies} copies have a reader", findings.copies_read.len());
    // And against the products before it, once each buffer has been read.
    let buffers = prefetch + 1;
    assert!(findings.copies_over_read.len() >= copies - buffers, "{} of {copies} copies follow a reader", findings.copies_over_read.len());
}

/// The check above can fail, and then says where.
#[rstest]
fn a_wait_that_is_left_out_is_found(#[values(0, 1, 2)] prefetch: usize) {
    let operations = trace(&format!("prefetch_blocks: {prefetch}"));
    let copying = copy_stream(&operations);

    // The first group of each buffer overwrites nothing.
    let overwriting = without_waits_of(copying, &operations).faults;
    assert!(overwriting.len() >= groups() * PASSES - prefetch - 1, "{} faults", overwriting.len());
    let is_it = |fault: &String| {
        fault.starts_with("copy_to_device of line ") && fault.contains(", which product of line ") && fault.contains("reads:")
    };
    assert!(overwriting.iter().any(is_it), "{overwriting:?}");

    let reading = without_waits_of(COMPUTE, &operations).faults;
    assert!(reading.len() >= groups() * PASSES, "{} faults", reading.len());
    let is_it = |fault: &String| {
        fault.starts_with("product of line ") && fault.contains(", which copy_to_device of line ") && fault.contains("writes:")
    };
    assert!(reading.iter().any(is_it), "{reading:?}");
}

#[test]
fn blocks_that_stay_need_no_copy() {
    let operations = trace("resident_blocks: 30");
    let findings = check(&operations);
    assert!(findings.faults.is_empty(), "{:?}", findings.faults);
    // The two ends alone are streamed.
    let groups = Transformer::groups(&lowmem_tests::model("wan2.1-t2v-1.3b").transformer);
    let ends = groups.iter().filter(|group| group.name.of != BLOCKS).count();
    assert!((ends..=(ends + 1) * PASSES).contains(&findings.copies_read.len()), "{:?}", findings.copies_read);
}

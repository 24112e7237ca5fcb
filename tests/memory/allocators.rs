//! libtorch's three ways to get memory from the driver, on the virtual GPU.

use engine_protocol::{Allocator, Outcome, RunRecord};

use super::sweep::{sweep, sweep_on};

#[test]
fn segments_that_grow_reserve_what_is_allocated() {
    let definition = "model: wan2.1-t2v-1.3b\nresolution: 480p\nsteps_measured: 1\nvae_tiling: false\n\
                      sweep:\n  allocator: [native, expandable_segments, cuda_malloc_async]\n";
    let records = sweep(definition);
    let of = |allocator: Allocator| records.iter().find(|record| record.config.allocator == allocator).expect("a case");
    let slack = |record: &RunRecord| {
        assert_eq!(record.outcome, Outcome::Ok, "{:?}", record.error);
        let [allocated, reserved] = [record.peak_allocated_bytes(), record.peak_reserved_bytes()].map(|bytes| bytes.expect("it ran"));
        (reserved - allocated) as f64 / allocated as f64
    };
    let [native, growing, pool] = [Allocator::Native, Allocator::ExpandableSegments, Allocator::CudaMallocAsync].map(|a| slack(of(a)));
    assert!(growing < 0.01 && growing < native, "{growing} of what is allocated, and {native} with segments of fixed size");
    assert!(pool < 0.01, "{pool} of what is allocated");
    // Where libtorch tells of no block, a peak is not taken apart, and that is said by an empty column.
    assert_eq!(of(Allocator::Native).peak_parts().map(|parts| parts.slack_bytes > 0), Some(true));
    assert_eq!(of(Allocator::CudaMallocAsync).peak_parts(), None);
}

/// Each says in words of its own that memory ran out. With the driver's pool those are others than libtorch's own.
#[test]
fn what_does_not_fit_is_out_of_memory_with_each() {
    let definition = "model: wan2.1-t2v-1.3b\nresolution: 480p\nsteps_measured: 1\nsweep:\n  allocator: [native, expandable_segments, cuda_malloc_async]\n";
    for record in sweep_on("rtx-3060", definition) {
        assert_eq!(record.outcome, Outcome::Oom, "{}: {:?}", record.case, record.error);
        assert!(record.requested_bytes > Some(0), "{}: {:?}", record.case, record.error);
    }
}

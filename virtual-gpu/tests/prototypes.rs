//! The exported functions against NVIDIA's own headers: how many parameters each has, and of which class each of them and the result is.
//!
//! The headers are met as what bindgen made of them: cudarc's `sys` modules for CUDA 13.0 and nvml-wrapper-sys, both of which these tests depend on anyway. What is exported
//! is read from the sources, and must be what the shared object has.

mod class;
mod ours;
mod reference;

use std::collections::BTreeSet;

use class::Class;
use ours::{Exported, Parameters};

use crate::library::{build_folder, root};
use crate::wheel::symbols;

/// Functions that neither has, and why.
const WITHOUT_REFERENCE: [(&str, &[&str]); 7] = [
    (
        "what a C++ compiler calls for `<<<...>>>` and for binaries in a program is in no header that bindgen reads",
        &[
            "__cudaGetKernel",
            "__cudaInitModule",
            "__cudaLaunchKernel",
            "__cudaPopCallConfiguration",
            "__cudaPushCallConfiguration",
            "__cudaRegisterFatBinary",
            "__cudaRegisterFatBinaryEnd",
            "__cudaRegisterFunction",
            "__cudaRegisterVar",
            "__cudaUnregisterFatBinary",
        ],
    ),
    ("cuda_profiler_api.h is a header of its own", &["cudaProfilerStart"]),
    (
        "the header of CUDA 13 means the second version by these names, and has the first no longer",
        &["cuDeviceGetUuid", "cuEventElapsedTime"],
    ),
    (
        "the header of CUDA 12 has these by these names, the one of CUDA 13 does not",
        &[
            "cuMemAdvise",
            "cuMemPrefetchAsync",
            "cuStreamGetCaptureInfo_v2",
            "cudaGetDeviceProperties_v2",
            "cudaMemAdvise_v2",
            "cudaMemPrefetchAsync_v2",
            "cudaStreamGetCaptureInfo_v2",
            "cudaStreamGetCaptureInfo_v3",
        ],
    ),
    ("cufftXt.h is a header of its own", &["cufftXtExec", "cufftXtMakePlanMany"]),
    ("NVSHMEM has no bindings", &["nvshmem_free", "nvshmem_malloc", "nvshmem_ptr", "nvshmemid_init_status", "nvshmemx_mc_ptr"]),
    (
        "ours: `docs/virtual-gpu.md` has their parameters",
        &[
            "lowmem_virtual_gpu_begin",
            "lowmem_virtual_gpu_decided",
            "lowmem_virtual_gpu_elapsed",
            "lowmem_virtual_gpu_end",
            "lowmem_virtual_gpu_given_out",
            "lowmem_virtual_gpu_host_work",
            "lowmem_virtual_gpu_waited_for_ranks",
            "lowmem_virtual_gpu_now",
            "lowmem_virtual_gpu_stalled",
        ],
    ),
];

/// Functions that CUDA 12 and 13 have with other parameters under the same name, of which one stands where the other one has something of another size.
const OF_TWO_VERSIONS: [&str; 1] = ["cudaMemPrefetchAsync"];

/// What differs, if anything.
fn difference(ours: &Exported, theirs: &[Class]) -> Option<String> {
    let fits = |(index, (own, their)): (usize, (&Class, &Class))| {
        (!own.is_passed_as(*their)).then(|| format!("parameter {}: {own:?} here, {their:?} there", index + 1))
    };
    match &ours.parameters {
        Parameters::All(own) if own.len() != theirs.len() => Some(format!("{} parameters here, {} there", own.len(), theirs.len())),
        Parameters::First(own) if own.len() > theirs.len() => Some(format!("{} parameters here, {} there", own.len(), theirs.len())),
        Parameters::All(own) | Parameters::First(own) => own.iter().zip(theirs).enumerate().find_map(fits),
    }
}

#[test]
fn exported_functions_have_the_prototypes_of_nvidias_headers() {
    let exported = ours::exported();
    let reference = reference::prototypes(|name| exported.contains_key(name));
    let mut wrong = Vec::new();
    let mut without = BTreeSet::new();
    for (name, ours) in &exported {
        let Some(theirs) = reference.get(name) else {
            without.insert(name.as_str());
            continue;
        };
        if let Some(difference) = difference(ours, &theirs.parameters).filter(|_| !OF_TWO_VERSIONS.contains(&name.as_str())) {
            wrong.push(format!("{name}: {difference}"));
        }
        if !ours.result.is_passed_as(theirs.result) {
            wrong.push(format!("{name}: gives {:?} here, {:?} there", ours.result, theirs.result));
        }
    }
    assert!(wrong.is_empty(), "{} of {} prototypes differ:\n{}", wrong.len(), exported.len(), wrong.join("\n"));
    let expected: BTreeSet<&str> = WITHOUT_REFERENCE.iter().flat_map(|(_, names)| names.iter().copied()).collect();
    assert_eq!(without, expected, "functions without a reference");
}

#[test]
fn no_exported_function_is_overlooked() {
    let text = std::fs::read_to_string(root().join("virtual-gpu/unsupported.txt")).expect("a committed file");
    let unsupported = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_whitespace().nth(1));
    let read: BTreeSet<String> = ours::exported().into_keys().chain(unsupported.map(str::to_owned)).collect();
    let linked = symbols(&build_folder().join("libvirtual_gpu.so")).defined;
    assert_eq!(
        read.symmetric_difference(&linked).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "in the sources or in the shared object alone"
    );
}

//! Programs in Rust on the virtual GPU: cudarc's driver, run-time compiler and NCCL, and nvml-wrapper.

use cudarc::driver::{CudaContext, DriverError, LaunchConfig, PushKernelArg, sys};
use cudarc::nccl::{Comm, Id, ReduceOp, group_end, group_start, result::NcclError};

use crate::library::{build_folder, in_own_process, passed, with_memory};

const MIB: usize = 1 << 20;

/// Runs where both find our libraries.
fn with_our_libraries(test: &str, devices: &str, body: fn()) {
    let profile = with_memory(100 << 20, 10 << 20);
    let folder = build_folder().join("virtual-gpu");
    let environment = [
        ("LOWMEM_VIRTUAL_GPU", profile.as_str()),
        ("LOWMEM_VIRTUAL_GPU_COUNT", devices),
        ("LOWMEM_VIRTUAL_GPU_STRICT", "1"),
        ("LD_LIBRARY_PATH", folder.to_str().expect("a plain path")),
    ];
    let said = passed(&in_own_process(test, &environment, body));
    assert!(!said.contains("not supported"), "{said}");
}

#[test]
fn a_program_allocates_copies_compiles_and_launches() {
    with_our_libraries("cudarc::a_program_allocates_copies_compiles_and_launches", "1", || {
        let context = CudaContext::new(0).expect("a device");
        assert_eq!(context.compute_capability(), Ok((8, 9)));
        let stream = context.new_stream().expect("a stream");
        let sent = stream.clone_htod(&[1.0_f32, 2.0, 3.0]).expect("a copy");
        let mut received = stream.alloc_zeros::<f32>(3).expect("zeros");
        assert_eq!(stream.clone_dtoh(&received), Ok(vec![0.0; 3]));
        stream.memcpy_dtod(&sent, &mut received).expect("a copy");
        assert_eq!(stream.clone_dtoh(&received), Ok(vec![1.0, 2.0, 3.0]));

        let program = "extern \"C\" __global__ void twice(float *values) { values[threadIdx.x] *= 2; }";
        let module = context.load_module(cudarc::nvrtc::compile_ptx(program).expect("compiled")).expect("loaded");
        let twice = module.load_function("twice").expect("found");
        let begin = stream.record_event(None).expect("an event");
        let mut launch = stream.launch_builder(&twice);
        launch.arg(&mut received);
        // SAFETY: the kernel's only parameter is the buffer, and nothing is executed.
        unsafe { launch.launch(LaunchConfig::for_num_elems(3)) }.expect("launched");
        let end = stream.record_event(None).expect("an event");
        stream.synchronize().expect("over");
        assert!(begin.is_complete() && end.is_complete());

        // The 10 MiB of the context, and one page of 2 MiB: what else the pool had taken it gave back when its stream was waited for.
        let used = |free_and_total: (usize, usize)| (free_and_total.1 - free_and_total.0) / MIB;
        assert_eq!(context.mem_get_info().map(used), Ok(12));
        // SAFETY: the memory is not read.
        let too_large = unsafe { stream.alloc::<u8>(100 * MIB) };
        assert_eq!(too_large.err(), Some(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)));
    });
}

#[test]
fn communicators_of_one_process_and_of_several() {
    with_our_libraries("cudarc::communicators_of_one_process_and_of_several", "2", || {
        let stream = |ordinal: usize| CudaContext::new(ordinal).expect("a device").default_stream();
        let all = Comm::from_devices(vec![stream(0), stream(1)]).expect("two ranks");
        assert_eq!(all.iter().map(|one| (one.rank(), one.world_size())).collect::<Vec<_>>(), [(0, 2), (1, 2)]);
        group_start().expect("a group");
        for one in &all {
            let from = one.stream().alloc_zeros::<f32>(4).expect("memory");
            let mut to = one.stream().alloc_zeros::<f32>(4).expect("memory");
            one.all_reduce(&from, &mut to, &ReduceOp::Sum).expect("accepted");
        }
        group_end().expect("a group");
        // The other three ranks are nobody's here, and are not waited for.
        let id = Id::new().expect("an id");
        let third = Comm::from_rank(stream(1), 2, 4, id).expect("a rank");
        assert_eq!((third.rank(), third.world_size()), (2, 4));
        assert!(
            matches!(Comm::from_rank(stream(0), 4, 4, id), Err(NcclError(code)) if code == cudarc::nccl::sys::ncclResult_t::ncclInvalidArgument)
        );
    });
}

#[test]
fn the_management_library_is_found() {
    with_our_libraries("cudarc::the_management_library_is_found", "2", || {
        let nvml = nvml_wrapper::Nvml::init().expect("found");
        let device = nvml.device_by_index(1).expect("two devices");
        assert_eq!(nvml.device_count().expect("a number"), 2);
        assert_eq!(device.memory_info().expect("known").total, 100 << 20);
    });
}

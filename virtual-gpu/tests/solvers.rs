//! Libraries whose results nobody sees: transforms, factorisations and the run-time compiler say what a caller needs to go on.

use std::ffi::CStr;
use std::ffi::c_char;

use crate::library::{HOST_TO_DEVICE, in_own_process, open, passed, rtx_4090};

#[test]
fn a_transform_asks_for_one_copy_of_itself() {
    let profile = rtx_4090().to_string();
    let output = in_own_process("solvers::a_transform_asks_for_one_copy_of_itself", &[("LOWMEM_VIRTUAL_GPU", &profile)], || {
        /// `CUDA_C_32F` and `CUDA_R_64F`.
        const COMPLEX: i32 = 4;
        const DOUBLE: i32 = 1;
        const INVALID_PLAN: i32 = 1;
        const INVALID_VALUE: i32 = 4;
        let cufft = open("libcufft.so.12");
        let (mut plan, mut bytes) = (0, 9);
        assert_eq!(call!(cufft, cufftCreate(*mut i32), &mut plan), 0);
        assert_eq!(call!(cufft, cufftSetAutoAllocation(i32, i32), plan, 0), 0);
        let make = |sides: [i64; 2], count: i64, kind: i32, bytes: &mut usize| {
            call!(
                cufft,
                cufftXtMakePlanMany(i32, i32, *const i64, u64, i64, i64, i32, u64, i64, i64, i32, i64, *mut usize, i32),
                plan,
                2,
                sides.as_ptr(),
                0,
                1,
                1,
                kind,
                0,
                1,
                1,
                kind,
                count,
                bytes,
                kind
            )
        };
        assert_eq!((make([64, 32], 3, COMPLEX, &mut bytes), bytes), (0, 64 * 32 * 3 * 8));
        assert_eq!((make([64, 32], 1, DOUBLE, &mut bytes), bytes), (0, 64 * 32 * 16));
        assert_eq!(make([64, 0], 1, COMPLEX, &mut bytes), INVALID_VALUE);
        assert_eq!(make([i64::MAX, 32], 1, COMPLEX, &mut bytes), INVALID_VALUE);
        assert_eq!(call!(cufft, cufftXtExec(i32, u64, u64, i32), plan, 0, 0, -1), 0);
        assert_eq!(call!(cufft, cufftDestroy(i32), plan), 0);
        assert_eq!(call!(cufft, cufftXtExec(i32, u64, u64, i32), plan, 0, 0, -1), INVALID_PLAN);
    });
    passed(&output);
}

#[test]
fn a_factorisation_says_that_all_went_well() {
    let profile = rtx_4090().to_string();
    let output = in_own_process("solvers::a_factorisation_says_that_all_went_well", &[("LOWMEM_VIRTUAL_GPU", &profile)], || {
        let (cudart, cusolver, cublas) = (open("libcudart.so.13"), open("libcusolver.so.12"), open("libcublas.so.13"));
        let (mut handle, mut blas, mut infos, mut elements, mut bytes, mut host_bytes) = (0, 0, 0, 0, 0, 9);
        assert_eq!(call!(cusolver, cusolverDnCreate(*mut u64), &mut handle), 0);
        assert_eq!(call!(cublas, cublasCreate_v2(*mut u64), &mut blas), 0);
        let asked = call!(cusolver, cusolverDnSgetrf_bufferSize(u64, i32, i32, u64, i32, *mut i32), handle, 30, 20, 0, 30, &mut elements);
        assert_eq!((asked, elements), (0, 600));
        let asked = call!(
            cusolver,
            cusolverDnXpotrf_bufferSize(u64, u64, i32, i64, i32, u64, i64, i32, *mut usize, *mut usize),
            handle,
            0,
            0,
            1 << 20,
            1,
            0,
            1 << 20,
            1,
            &mut bytes,
            &mut host_bytes
        );
        assert_eq!((asked, bytes, host_bytes), (0, 8 << 40, 0));
        // What stood there before is overwritten, for as many matrices as there are.
        assert_eq!(call!(cudart, cudaMalloc(*mut u64, usize), &mut infos, 1024), 0);
        let now = |infos: u64| {
            let mut numbers = [9_i32; 3];
            assert_eq!(call!(cudart, cudaMemcpy(u64, u64, usize, i32), numbers.as_mut_ptr() as u64, infos, 12, 2), 0);
            numbers
        };
        let spoil = || {
            let numbers = [7_i32; 3];
            assert_eq!(call!(cudart, cudaMemcpy(u64, u64, usize, i32), infos, numbers.as_ptr() as u64, 12, HOST_TO_DEVICE), 0);
        };
        spoil();
        assert_eq!(call!(cusolver, cusolverDnSgetrf(u64, i32, i32, u64, i32, u64, u64, u64), handle, 8, 8, 0, 8, 0, 0, infos), 0);
        assert_eq!(now(infos), [0, 7, 7]);
        spoil();
        assert_eq!(call!(cusolver, cusolverDnSpotrfBatched(u64, i32, i32, u64, i32, u64, i32), handle, 0, 8, 0, 8, infos, 2), 0);
        assert_eq!(now(infos), [0, 0, 7]);
        spoil();
        assert_eq!(call!(cublas, cublasSgetrfBatched(u64, i32, u64, i32, u64, u64, i32), blas, 8, 0, 8, 0, infos, 3), 0);
        assert_eq!(now(infos), [0, 0, 0]);
        assert_eq!(call!(cusolver, cusolverDnDestroy(u64), handle), 0);
        assert_eq!(call!(cusolver, cusolverDnSgetrf(u64, i32, i32, u64, i32, u64, u64, u64), handle, 8, 8, 0, 8, 0, 0, infos), 1);
    });
    passed(&output);
}

#[test]
fn the_compiler_takes_every_program() {
    let profile = rtx_4090().to_string();
    let output = in_own_process("solvers::the_compiler_takes_every_program", &[("LOWMEM_VIRTUAL_GPU", &profile)], || {
        let (nvrtc, cuda) = (open("libnvrtc.so.13"), open("libcuda.so.1"));
        let (mut program, mut name, mut bytes, mut module, mut kernel) = (0, std::ptr::null::<c_char>(), 0, 0, 0);
        let source = c"template <class T> __global__ void k(T *x) {}".as_ptr();
        assert_eq!(call!(nvrtc, nvrtcCreateProgram(*mut u64, *const c_char, u64, i32, u64, u64), &mut program, source, 0, 0, 0, 0), 0);
        assert_eq!(call!(nvrtc, nvrtcAddNameExpression(u64, *const c_char), program, c"k<int>".as_ptr()), 0);
        assert_eq!(call!(nvrtc, nvrtcCompileProgram(u64, i32, u64), program, 0, 0), 0);
        assert_eq!((call!(nvrtc, nvrtcGetCUBINSize(u64, *mut usize), program, &mut bytes), bytes), (0, 1));
        let lowered = |expression: &CStr, name: &mut *const c_char| {
            call!(nvrtc, nvrtcGetLoweredName(u64, *const c_char, *mut *const c_char), program, expression.as_ptr(), name)
        };
        assert_eq!(lowered(c"other", &mut name), 10);
        assert_eq!(lowered(c"k<int>", &mut name), 0);
        assert_eq!(call!(cuda, cuInit(u32), 0), 0);
        assert_eq!(call!(cuda, cuModuleLoadData(*mut u64, u64), &mut module, 0), 0);
        assert_eq!(call!(cuda, cuModuleGetFunction(*mut u64, u64, *const c_char), &mut kernel, module, name), 0);
        assert_eq!(call!(nvrtc, nvrtcDestroyProgram(*mut u64), &mut program), 0);
        assert_eq!((program, call!(nvrtc, nvrtcCompileProgram(u64, i32, u64), 0x100, 0, 0)), (0, 4));
    });
    passed(&output);
}

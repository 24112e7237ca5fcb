//! Communicators: what is refused, what counts as work, and what a rank receives although no other rank is met.

use std::ffi::c_void;

use crate::library::{DEVICE_TO_HOST, HOST_TO_DEVICE, Library, in_own_process, open, passed, start_in_own_process, with_memory};

const INVALID_ARGUMENT: i32 = 4;
const INVALID_USAGE: i32 = 5;
/// `ncclInt8` and `ncclFloat32`; `ncclSum`.
const INT8: i32 = 0;
const FLOAT32: i32 = 7;
const SUM: i32 = 0;

/// `ncclUniqueId`, which goes by value.
#[repr(C)]
#[derive(Clone, Copy, PartialEq)]
struct UniqueId([u8; 128]);

fn unique_id(nccl: &Library) -> UniqueId {
    let mut id = UniqueId([0; 128]);
    assert_eq!(call!(nccl, ncclGetUniqueId(*mut UniqueId), &mut id), 0);
    id
}

fn join(nccl: &Library, id: UniqueId, rank: i32, size: i32) -> (i32, u64) {
    let mut communicator = 0;
    let code = call!(nccl, ncclCommInitRank(*mut u64, i32, UniqueId, i32), &mut communicator, size, id, rank);
    (code, communicator)
}

fn all_reduce(nccl: &Library, buffer: u64, count: usize, kind: i32, operation: i32, communicator: u64, stream: u64) -> i32 {
    let all_reduce = (buffer, buffer, count, kind, operation, communicator, stream);
    let (from, to, count, kind, operation, communicator, stream) = all_reduce;
    call!(nccl, ncclAllReduce(u64, u64, usize, i32, i32, u64, u64), from, to, count, kind, operation, communicator, stream)
}

fn rank_and_size(nccl: &Library, communicator: u64) -> (i32, i32) {
    let (mut rank, mut size) = (9, 9);
    assert_eq!(call!(*nccl, ncclCommUserRank(u64, *mut i32), communicator, &mut rank), 0);
    assert_eq!(call!(*nccl, ncclCommCount(u64, *mut i32), communicator, &mut size), 0);
    (rank, size)
}

fn split(nccl: &Library, communicator: u64, color: i32, key: i32) -> u64 {
    let mut part = 9;
    assert_eq!(call!(*nccl, ncclCommSplit(u64, i32, i32, *mut u64, u64), communicator, color, key, &mut part, 0), 0);
    part
}

/// Runs on so many devices.
fn on_devices(test: &str, count: &str, body: fn()) {
    let profile = with_memory(100 << 20, 10 << 20);
    passed(&in_own_process(test, &[("LOWMEM_VIRTUAL_GPU", &profile), ("LOWMEM_VIRTUAL_GPU_COUNT", count)], body));
}

#[test]
fn ranks_of_other_processes_are_not_waited_for() {
    on_devices("nccl::ranks_of_other_processes_are_not_waited_for", "1", || {
        let (cudart, nccl) = (open("libcudart.so.13"), open("libnccl.so.2"));
        let (mut from, mut to, mut version) = (0, 0, 0);
        assert_eq!((call!(nccl, ncclGetVersion(*mut i32), &mut version), version), (0, 22907));
        let (code, communicator) = join(&nccl, unique_id(&nccl), 2, 3);
        assert_eq!(code, 0);
        let (mut rank, mut size, mut device, mut error) = (9, 9, 9, 9);
        assert_eq!((call!(nccl, ncclCommUserRank(u64, *mut i32), communicator, &mut rank), rank), (0, 2));
        assert_eq!((call!(nccl, ncclCommCount(u64, *mut i32), communicator, &mut size), size), (0, 3));
        assert_eq!((call!(nccl, ncclCommCuDevice(u64, *mut i32), communicator, &mut device), device), (0, 0));
        assert_eq!((call!(nccl, ncclCommGetAsyncError(u64, *mut i32), communicator, &mut error), error), (0, 0));

        // Up to 64 KiB it receives what it would if each rank had sent what it sent itself.
        assert_eq!(call!(cudart, cudaMalloc(*mut u64, usize), &mut from, 1024), 0);
        assert_eq!(call!(cudart, cudaMalloc(*mut u64, usize), &mut to, 1024), 0);
        let read = |address: u64| {
            let mut values = [0_u8; 6];
            assert_eq!(call!(cudart, cudaMemcpy(*mut c_void, u64, usize, i32), values.as_mut_ptr().cast(), address, 6, DEVICE_TO_HOST), 0);
            values
        };
        let sent = [1_u8, 2, 3, 4, 5, 6];
        assert_eq!(call!(cudart, cudaMemcpy(u64, *const u8, usize, i32), from, sent.as_ptr(), 6, HOST_TO_DEVICE), 0);
        let (begin, end) = (|| call!(nccl, ncclGroupStart()), || call!(nccl, ncclGroupEnd()));
        assert_eq!((begin(), begin(), end()), (0, 0, 0));
        assert_eq!(call!(nccl, ncclAllGather(u64, u64, usize, i32, u64, u64), from, to, 2, INT8, communicator, 0), 0);
        assert_eq!(read(to), [1, 2, 1, 2, 1, 2]);
        assert_eq!(call!(nccl, ncclReduceScatter(u64, u64, usize, i32, i32, u64, u64), from, to, 2, INT8, SUM, communicator, 0), 0);
        assert_eq!(read(to), [5, 6, 1, 2, 1, 2]);
        // What only another rank could know does not arrive.
        assert_eq!(call!(nccl, ncclBroadcast(u64, u64, usize, i32, i32, u64, u64), from, to, 6, INT8, 0, communicator, 0), 0);
        assert_eq!(call!(nccl, ncclRecv(u64, usize, i32, i32, u64, u64), to, 6, INT8, 1, communicator, 0), 0);
        assert_eq!(read(to), [5, 6, 1, 2, 1, 2]);
        assert_eq!(call!(nccl, ncclBroadcast(u64, u64, usize, i32, i32, u64, u64), from, to, 6, INT8, 2, communicator, 0), 0);
        assert_eq!((read(to), end(), end()), (sent, 0, INVALID_USAGE));
    });
}

#[test]
fn what_is_wrong_is_refused() {
    on_devices("nccl::what_is_wrong_is_refused", "2", || {
        let (cudart, nccl) = (open("libcudart.so.13"), open("libnccl.so.2"));
        let id = unique_id(&nccl);
        assert!(id != unique_id(&nccl));
        assert_eq!([-1, 2].map(|rank| join(&nccl, id, rank, 2).0), [INVALID_ARGUMENT; 2]);
        let (code, first) = join(&nccl, id, 0, 2);
        assert_eq!(code, 0);
        assert_eq!(join(&nccl, id, 1, 3).0, INVALID_ARGUMENT, "another number of ranks");
        assert_eq!(join(&nccl, id, 1, 2).0, INVALID_USAGE, "the same device twice");
        assert_eq!(call!(cudart, cudaSetDevice(i32), 1), 0);
        assert_eq!(join(&nccl, id, 0, 2).0, INVALID_USAGE, "the same rank twice");
        let (code, second) = join(&nccl, id, 1, 2);
        assert_eq!(code, 0);

        let (mut buffer, mut stream) = (0, 0);
        assert_eq!(call!(cudart, cudaMalloc(*mut u64, usize), &mut buffer, 4096), 0);
        assert_eq!(call!(cudart, cudaStreamCreateWithFlags(*mut u64, u32), &mut stream, 1), 0);
        assert_eq!(all_reduce(&nccl, buffer, 1024, FLOAT32, SUM, second, stream), 0);
        assert_eq!(all_reduce(&nccl, buffer, 1024, FLOAT32, SUM, first, stream), INVALID_ARGUMENT, "a stream of another device");
        assert_eq!(all_reduce(&nccl, buffer, 1024, 12, SUM, second, stream), INVALID_ARGUMENT, "no such type");
        assert_eq!(all_reduce(&nccl, buffer, 1024, FLOAT32, 5, second, stream), INVALID_ARGUMENT, "no such reduction");
        assert_eq!(all_reduce(&nccl, buffer, 1024, FLOAT32, SUM, 7, stream), INVALID_ARGUMENT, "no such communicator");
        for partner in [-1, 2] {
            let send = call!(nccl, ncclSend(u64, usize, i32, i32, u64, u64), buffer, 8, INT8, partner, second, stream);
            assert_eq!(send, INVALID_ARGUMENT);
        }

        let mut own = 0;
        let create = call!(nccl, ncclRedOpCreatePreMulSum(*mut i32, u64, i32, i32, u64), &mut own, 0, FLOAT32, 0, second);
        assert_eq!((create, all_reduce(&nccl, buffer, 8, FLOAT32, own, second, stream)), (0, 0));
        assert_eq!(call!(nccl, ncclRedOpDestroy(i32, u64), own, second), 0);
        assert_eq!(all_reduce(&nccl, buffer, 8, FLOAT32, own, second, stream), INVALID_ARGUMENT);

        assert_eq!(call!(nccl, ncclCommFinalize(u64), second), 0);
        assert_eq!(all_reduce(&nccl, buffer, 8, FLOAT32, SUM, second, stream), INVALID_USAGE, "it was finalised");
        assert_eq!(call!(nccl, ncclCommDestroy(u64), second), 0);
        assert_eq!(call!(nccl, ncclCommDestroy(u64), second), INVALID_ARGUMENT);
        assert_eq!((call!(nccl, ncclCommAbort(u64), first), call!(nccl, ncclCommAbort(u64), first)), (0, INVALID_ARGUMENT));
    });
}

#[test]
fn one_process_has_all_ranks_and_parts_of_them() {
    on_devices("nccl::one_process_has_all_ranks_and_parts_of_them", "3", || {
        let (cudart, nccl) = (open("libcudart.so.13"), open("libnccl.so.2"));
        let (mut all, mut current) = ([0_u64; 3], 9);
        let init = |devices: &[i32], all: &mut [u64; 3]| {
            call!(nccl, ncclCommInitAll(*mut u64, i32, *const i32), all.as_mut_ptr(), devices.len() as i32, devices.as_ptr())
        };
        assert_eq!(init(&[0, 0], &mut all), INVALID_USAGE);
        assert_eq!(init(&[0, 3], &mut all), INVALID_ARGUMENT);
        assert_eq!(init(&[2, 0, 1], &mut all), 0);
        let place = |communicator: u64| rank_and_size(&nccl, communicator);
        assert_eq!(all.map(place), [(0, 3), (1, 3), (2, 3)]);
        assert_eq!((call!(cudart, cudaGetDevice(*mut i32), &mut current), current), (0, 0));

        // By colour, ordered by key; whoever is in no part gets none.
        let keys = [(4, 7), (4, -7), (-1, 0)];
        let parts: Vec<u64> = all.iter().zip(keys).map(|(&whole, (color, key))| split(&nccl, whole, color, key)).collect();
        assert_eq!((place(parts[0]), place(parts[1]), parts[2]), ((1, 2), (0, 2), 0));
        // A part of a part; what was split may be destroyed before anyone asks.
        let inner = [split(&nccl, parts[0], 0, 0), split(&nccl, parts[1], 1, 0)];
        for part in &parts[..2] {
            assert_eq!(call!(nccl, ncclCommDestroy(u64), *part), 0);
        }
        assert_eq!(inner.map(place), [(0, 1); 2]);
        // Of a second split nothing is left from the first one.
        let second = all.map(|whole| split(&nccl, whole, 0, 0));
        assert_eq!(second.map(place), [(0, 3), (1, 3), (2, 3)]);
        assert_eq!(call!(nccl, ncclCommSplit(u64, i32, i32, *mut u64, u64), all[0], -2, 0, &mut 0, 0), INVALID_ARGUMENT);

        // A call on a part writes as much as the part has ranks.
        let (mut from, mut to) = (0, 0);
        assert_eq!(call!(cudart, cudaSetDevice(i32), 2), 0);
        for (address, byte) in [(&mut from, 5), (&mut to, 0)] {
            assert_eq!(call!(cudart, cudaMalloc(*mut u64, usize), address, 6), 0);
            assert_eq!(call!(cudart, cudaMemset(u64, i32, usize), *address, byte, 6), 0);
        }
        let part = split(&nccl, all[0], 0, 0);
        let others = [split(&nccl, all[1], 1, 0), split(&nccl, all[2], 0, 0)];
        let gather = |communicator: u64| call!(nccl, ncclAllGather(u64, u64, usize, i32, u64, u64), from, to, 2, INT8, communicator, 0);
        for (communicator, gathered) in [(part, [5, 5, 5, 5, 0, 0]), (all[0], [5; 6])] {
            let mut back = [9_u8; 6];
            assert_eq!(gather(communicator), 0);
            assert_eq!(call!(cudart, cudaMemcpy(*mut c_void, u64, usize, i32), back.as_mut_ptr().cast(), to, 6, DEVICE_TO_HOST), 0);
            assert_eq!(back, gathered);
        }
        assert_eq!(call!(nccl, ncclCommFinalize(u64), part), 0);
        assert_eq!(gather(part), INVALID_USAGE);
        assert_eq!(call!(nccl, ncclCommSplit(u64, i32, i32, *mut u64, u64), part, 0, 0, &mut 0, 0), INVALID_USAGE);
        for communicator in [part].into_iter().chain(others).chain(inner).chain(second) {
            assert_eq!(call!(nccl, ncclCommDestroy(u64), communicator), 0);
            assert_eq!(call!(nccl, ncclCommDestroy(u64), communicator), INVALID_ARGUMENT);
        }
        let mut rest = 0;
        let shrink = |excluded: i32, rest: &mut u64| {
            call!(nccl, ncclCommShrink(u64, *const i32, i32, *mut u64, u64, i32), all[2], &excluded, 1, rest, 0, 0)
        };
        assert_eq!((shrink(2, &mut rest), shrink(0, &mut rest)), (INVALID_ARGUMENT, 0));
        assert_eq!(place(rest), (1, 2));
    });
}

#[test]
fn processes_know_their_parts() {
    const RANK: &str = "LOWMEM_TEST_RANK";
    const RANKS: i32 = 4;
    let folder = tempfile::tempdir().expect("a folder");
    let profile = with_memory(100 << 20, 10 << 20);
    let start = |rank: i32| {
        let rank = rank.to_string();
        let folder = folder.path().to_str().expect("a plain path");
        let environment = [("LOWMEM_VIRTUAL_GPU", profile.as_str()), ("LOWMEM_VIRTUAL_GPU_REPORT", folder), (RANK, &rank)];
        start_in_own_process("nccl::processes_know_their_parts", &environment, || {
            let nccl = open("libnccl.so.2");
            let rank: i32 = std::env::var(RANK).expect("it was given").parse().expect("a number");
            let (code, whole) = join(&nccl, UniqueId([7; 128]), rank, RANKS);
            assert_eq!(code, 0);
            // Even and odd ones, the last one first.
            let part = split(&nccl, whole, rank % 2, -rank);
            assert_eq!(rank_and_size(&nccl, part), (1 - rank / 2, 2));
            // The first of each part, which are those of the whole's upper half.
            let first = split(&nccl, part, if rank < 2 { -1 } else { 5 }, 0);
            if rank < 2 {
                assert_eq!(first, 0);
            } else {
                assert_eq!(rank_and_size(&nccl, first), (0, 1));
            }
            // All but rank 1, as they were.
            let most = split(&nccl, whole, if rank == 1 { -1 } else { 0 }, 0);
            if rank != 1 {
                assert_eq!(rank_and_size(&nccl, most), (rank - rank / 2, 3), "rank {rank}");
            }
        })
    };
    for process in (0..RANKS).map(start).collect::<Vec<_>>() {
        passed(&process.wait_with_output().expect("it was started"));
    }
}

/// Processes that are given a folder to meet in begin what they exchange together, by the clock: sends and receives with those that they are with, collectives with all.
#[test]
fn processes_that_meet_begin_together() {
    const RANK: &str = "LOWMEM_TEST_RANK";
    let folder = tempfile::tempdir().expect("a folder");
    let profile = with_memory(100 << 20, 10 << 20);
    let start = |rank: i32| {
        let rank = rank.to_string();
        let folder = folder.path().to_str().expect("a plain path");
        let environment = [("LOWMEM_VIRTUAL_GPU", profile.as_str()), ("LOWMEM_VIRTUAL_GPU_RANKS", folder), (RANK, &rank)];
        start_in_own_process("nccl::processes_that_meet_begin_together", &environment, || {
            let (cudart, nccl) = (open("libcudart.so.13"), open("libnccl.so.2"));
            let rank: i32 = std::env::var(RANK).expect("it was given").parse().expect("a number");
            let (code, all) = join(&nccl, UniqueId([7; 128]), rank, 3);
            assert_eq!(code, 0);
            let mut buffer = 0;
            assert_eq!(call!(cudart, cudaMalloc(*mut u64, usize), &mut buffer, 1 << 20), 0);
            let work = |secs: f64| assert_eq!(call!(cudart, lowmem_virtual_gpu_host_work(*const [f64; 3]), &[secs; 3]), 0);
            let waited = || {
                let mut secs = [9.0; 3];
                assert_eq!(call!(cudart, lowmem_virtual_gpu_waited_for_ranks(*mut [f64; 3]), &mut secs), 0);
                secs[1]
            };
            let is_about = |secs: f64, wanted: f64| assert!((secs - wanted).abs() < 0.1, "rank {rank}: {secs} s, not {wanted}");
            // 1. All of them: the last one comes after 3 s.
            work(f64::from(rank) + 1.0);
            assert_eq!(all_reduce(&nccl, buffer, 1 << 18, FLOAT32, SUM, all, 0), 0);
            assert_eq!(call!(cudart, cudaStreamSynchronize(u64), 0), 0);
            is_about(waited(), 2.0 - f64::from(rank));
            // 2. The first gives the second something, which is a second later. The third has nothing to do with it.
            let before = waited();
            work(f64::from(rank));
            let send_or_receive = (buffer, 1_usize << 20, INT8, 1 - rank, all, 0_u64);
            let (data, count, kind, partner, communicator, stream) = send_or_receive;
            let code = match rank {
                0 => call!(nccl, ncclSend(u64, usize, i32, i32, u64, u64), data, count, kind, partner, communicator, stream),
                1 => call!(nccl, ncclRecv(u64, usize, i32, i32, u64, u64), data, count, kind, partner, communicator, stream),
                _ => 0,
            };
            assert_eq!(code, 0);
            is_about(waited() - before, if rank == 0 { 1.0 } else { 0.0 });
        })
    };
    for process in (0..3).map(start).collect::<Vec<_>>() {
        passed(&process.wait_with_output().expect("it was started"));
    }
}

#[test]
fn a_part_of_ranks_that_nobody_can_hear_of_counts_as_the_whole() {
    on_devices("nccl::a_part_of_ranks_that_nobody_can_hear_of_counts_as_the_whole", "1", || {
        let nccl = open("libnccl.so.2");
        let (code, whole) = join(&nccl, unique_id(&nccl), 2, 4);
        assert_eq!(code, 0);
        assert_eq!([1, 7].map(|key| rank_and_size(&nccl, split(&nccl, whole, 3, key))), [(1, 4), (2, 4)]);
    });
}

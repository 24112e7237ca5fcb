//! PyTorch's caching allocator on the virtual GPU, byte for byte: what its documentation and its own names promise, worked out in the comments.
//!
//! It rounds a request to 512 bytes. Up to 1 MiB is small, and cut from segments of 2 MiB; more is large, and cut from segments of 20 MiB, or from 10 MiB on of the
//! request's own size in whole 2 MiB. What is left of a block is cut off where it is at least 512 bytes of a small one, or more than 1 MiB of a large one.

use crate::command::{Place, stderr, stdout};
use crate::on::on;

/// Every program begins so.
const HEAD: &str = "
import torch
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
def block(size, device='cuda'):
    return torch.empty(size, dtype=torch.uint8, device=device)
def held():
    return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
def stat(name):
    return torch.cuda.memory_stats()[name]
def same(got, want):
    assert got == want, f'{got} and not {want}'
";

/// Runs the program, whose own assertions say what must hold, on an RTX 4090 with the allocator configured so.
fn holds(configuration: &str, arguments: &[&str], program: &str) {
    let place = Place::new();
    let arguments: Vec<&str> = ["rtx-4090"].iter().chain(arguments).copied().collect();
    let mut command = on(&place, &arguments, &format!("{HEAD}{program}\nprint('held')\n"), &[]);
    command.env_remove("PYTORCH_CUDA_ALLOC_CONF").env("PYTORCH_ALLOC_CONF", configuration);
    let assert = command.assert();
    assert!(assert.get_output().status.success(), "{}", stderr(&assert));
    assert_eq!(stdout(&assert), "held\n");
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn requests_are_rounded_and_blocks_are_split() {
    holds(
        "",
        &[],
        "
a = block(1)            # 512 of a small segment
same(held(), (512, 2 * MIB))
b = block(513)          # 1024 of the same
same(held(), (1536, 2 * MIB))
c = block(MIB)          # still small, and there is room for it
same(held(), (1536 + MIB, 2 * MIB))
d = block(MIB)          # 1 MiB less 1536 is left there: another segment
same(held(), (1536 + 2 * MIB, 4 * MIB))
e = block(MIB + 1)      # large: 1 MiB and 512 of a segment of 20 MiB
same(held(), (2048 + 3 * MIB, 24 * MIB))
f = block(10 * MIB)     # of what is left of it, 19 MiB less 512
same(held(), (2048 + 13 * MIB, 24 * MIB))
g = block(10 * MIB)     # 9 MiB less 512 are left: a segment of its own size
same(held(), (2048 + 23 * MIB, 34 * MIB))
h = block(10 * MIB + 1) # 12 MiB in whole 2 MiB
same(held(), (2560 + 33 * MIB, 46 * MIB))
same([stat(f'segment.{pool}.current') for pool in ('all', 'small_pool', 'large_pool')], [5, 2, 3])
same(stat('allocation.all.current'), 8)
same(stat('requested_bytes.all.current'), 1 + 513 + 3 * MIB + 1 + 20 * MIB + 10 * MIB + 1)
# What is left of split blocks: of two small segments, of the one of 20 MiB and of the one of 12.
same(stat('inactive_split_bytes.all.current'), (MIB - 1536) + MIB + (9 * MIB - 512) + (2 * MIB - 512))
# The 1 MiB that would be left of 10 is not cut off: all of it counts as allocated, though less was requested.
del g
i = block(9 * MIB)
same(held(), (2560 + 33 * MIB, 46 * MIB))
same(stat('requested_bytes.all.current'), 1 + 513 + 3 * MIB + 1 + 19 * MIB + 10 * MIB + 1)
",
    );
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn freed_memory_is_kept_reused_and_joined() {
    holds(
        "",
        &[],
        "
a, b, c = (block(5 * MIB) for _ in range(3))
first, third = a.data_ptr(), c.data_ptr()
same((held(), third - first), ((15 * MIB, 20 * MIB), 10 * MIB))
# Freed, it is kept; the smallest block that is large enough serves: 5 MiB in front, and not 10 at the end.
del a, c
same(held(), (5 * MIB, 20 * MIB))
d = block(5 * MIB)
same(d.data_ptr(), first)
# What lay before the end was joined with it: 10 MiB.
e = block(10 * MIB)
same((e.data_ptr(), held()), (third, (20 * MIB, 20 * MIB)))
# Only whole segments are given back.
f = block(30 * MIB)
del f, d, b
same(held(), (10 * MIB, 50 * MIB))
torch.cuda.empty_cache()
same(held(), (10 * MIB, 20 * MIB))
del e
torch.cuda.empty_cache()
same(held(), (0, 0))
# Peaks are of all that was, until they are reset.
same((torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()), (50 * MIB, 50 * MIB))
torch.cuda.reset_peak_memory_stats()
same((torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()), (0, 0))
same((stat('allocation.all.allocated'), stat('allocation.all.freed'), stat('segment.all.allocated')), (6, 6, 2))
# The driver counts whole pages.
free = torch.cuda.mem_get_info()[0]
g = block(100 * MIB + 1)
same(free - torch.cuda.mem_get_info()[0], 102 * MIB)
address = torch.cuda.caching_allocator_alloc(1000)
same(held(), (100 * MIB + 512 + 1024, 104 * MIB))
torch.cuda.caching_allocator_delete(address)
same(held(), (100 * MIB + 512, 104 * MIB))
",
    );
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn what_does_not_fit_is_tried_again_without_the_cache_and_then_an_error() {
    holds(
        "",
        &[],
        "
a = block(15 * GIB)
del a
same((stat('num_alloc_retries'), held()), (0, (0, 15 * GIB)))
# 23.65 GiB less the context and 15 are too few: the driver refuses, the cache goes back, and then there is room.
a = block(16 * GIB)
same((stat('num_alloc_retries'), stat('num_ooms'), held()), (1, 0, (16 * GIB, 16 * GIB)))
try:
    block(30 * GIB)
    raise SystemExit('30 GiB fit')
except torch.OutOfMemoryError as error:
    for part in 'Tried to allocate 30.00 GiB', 'total capacity of 23.65 GiB', '16.00 GiB is allocated by PyTorch', '0 bytes is reserved by PyTorch but unallocated':
        assert part in str(error), f'{part} is missing in: {error}'
same((stat('num_alloc_retries'), stat('num_ooms')), (2, 1))
del a
torch.cuda.empty_cache()
# A quarter of all memory: 5.91 GiB.
torch.cuda.set_per_process_memory_fraction(0.25)
b = block(5 * GIB)
try:
    block(GIB)
    raise SystemExit('a quarter holds 6 GiB')
except torch.OutOfMemoryError as error:
    assert '5.91 GiB allowed' in str(error), error
",
    );
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn a_stream_has_blocks_of_its_own() {
    let program = "
side = torch.cuda.Stream()
with torch.cuda.stream(side):
    a = block(30 * MIB)
    there = a.data_ptr()
del a
# Freed on the side stream, it is that stream's.
b = block(30 * MIB)
same((b.data_ptr() != there, held()), (True, (30 * MIB, 60 * MIB)))
with torch.cuda.stream(side):
    c = block(30 * MIB)
same((c.data_ptr(), held()), (there, (60 * MIB, 60 * MIB)))
# Used by the side stream until that has filled it, which takes longer than to ask for the next one.
with torch.cuda.stream(side):
    b.fill_(0)
b.record_stream(side)
here = b.data_ptr()
del b
d = block(30 * MIB)
same((d.data_ptr() == here, stat('segment.all.current')), (at_once, 2 if at_once else 3))
torch.cuda.synchronize()
e = block(30 * MIB)
same(e.data_ptr() == here, not at_once)
";
    for (order, at_once) in [("eager", "True"), ("clock", "False"), ("lazy", "False")] {
        holds("", &["--events", order], &format!("at_once = {at_once}{program}"));
    }
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn a_snapshot_adds_up_to_the_counters() {
    holds(
        "",
        &["--gpus", "2"],
        "
torch.cuda.memory._record_memory_history(max_entries=100)
blocks = [block(size) for size in (1, 600, MIB, 3 * MIB, 12 * MIB, 40 * MIB)]
del blocks[1], blocks[2]
segments = torch.cuda.memory_snapshot()
# Small: 512, a hole of 1024 and 1 MiB; 3 MiB, freed, was cut from 20, which 12 MiB were cut from too; 40 MiB.
same(sorted(segment['total_size'] for segment in segments), [2 * MIB, 20 * MIB, 40 * MIB])
for segment in segments:
    same(sum(part['size'] for part in segment['blocks']), segment['total_size'])
    addresses = [part['address'] for part in segment['blocks']]
    same(addresses, sorted(addresses))
parts = [part for segment in segments for part in segment['blocks']]
live = [part for part in parts if part['state'] == 'active_allocated']
same((sum(part['size'] for part in live), sum(segment['total_size'] for segment in segments)), held())
same(sorted(part['requested_size'] for part in live), sorted([1, MIB, 12 * MIB, 40 * MIB]))
same(sum(segment['allocated_size'] for segment in segments), held()[0])
# 6 allocations with a segment for three of them, 2 frees.
trace = torch.cuda.memory._snapshot()['device_traces'][0]
same([sum(entry['action'] == action for entry in trace) for action in ('alloc', 'segment_alloc', 'free_completed')], [6, 3, 2])
# Another device has counters of its own.
other = block(2 * MIB, 'cuda:1')
same((torch.cuda.memory_allocated(1), torch.cuda.memory_reserved(1)), (2 * MIB, 20 * MIB))
same(held(), (53 * MIB + 512, 62 * MIB))
",
    );
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn graphs_and_pools_keep_what_is_theirs() {
    holds(
        "",
        &[],
        "
def captured(pool=None):
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        x = block(30 * MIB)
        x.fill_(0)
        del x
    return graph
first = captured()
before = held()[1]
# What the graph used is free to the allocator, and nobody else's.
a = block(30 * MIB)
same(held()[1], before + 30 * MIB)
# A graph that shares its pool takes the same block.
second = captured(first.pool())
same(held()[1], before + 30 * MIB)
third = captured()
same(held()[1], before + 60 * MIB)
# As long as one graph needs a pool it stays.
first.reset()
torch.cuda.empty_cache()
same(held()[1], before + 60 * MIB)
second.reset()
third.reset()
torch.cuda.empty_cache()
same(held()[1], 30 * MIB)
del a
torch.cuda.empty_cache()
pool = torch.cuda.MemPool()
with torch.cuda.use_mem_pool(pool):
    b = block(30 * MIB)
there = b.data_ptr()
del b
c = block(30 * MIB)
same((c.data_ptr() != there, held()), (True, (30 * MIB, 60 * MIB)))
with torch.cuda.use_mem_pool(pool):
    d = block(30 * MIB)
same((d.data_ptr(), held()), (there, (60 * MIB, 60 * MIB)))
",
    );
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn expandable_segments_grow_and_shrink_by_pages() {
    holds(
        "expandable_segments:True",
        &[],
        "
a = block(1)          # a page of 2 MiB
same(held(), (512, 2 * MIB))
b = block(3 * MIB)    # a page of 20 MiB
same(held(), (512 + 3 * MIB, 22 * MIB))
c = block(30 * MIB)   # 17 MiB are there, and one page more follows: 33 of 40 MiB
same((c.data_ptr() - b.data_ptr(), held()), (3 * MIB, (512 + 33 * MIB, 42 * MIB)))
d = block(8 * MIB)    # 7 MiB are left: one page more, 41 of 60 MiB
same((d.data_ptr() - b.data_ptr(), held()), (33 * MIB, (512 + 41 * MIB, 62 * MIB)))
# In the hole from 3 to 33 MiB no whole page lies: they begin at 0, 20 and 40 MiB.
del c
torch.cuda.empty_cache()
same(held(), (512 + 11 * MIB, 62 * MIB))
# From 3 to 60 MiB nothing is used any more: two whole pages.
del d
torch.cuda.empty_cache()
same(held(), (512 + 3 * MIB, 22 * MIB))
del a, b
torch.cuda.empty_cache()
same(held(), (0, 0))
",
    );
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn the_allocators_settings_hold() {
    // From 32 MiB on a block is not split, and serves no request below that.
    holds(
        "max_split_size_mb:32",
        &[],
        "
a = block(40 * MIB)
del a
b = block(30 * MIB)
same(held(), (30 * MIB, 70 * MIB))
c = block(38 * MIB)   # all of the 40
same(held(), (70 * MIB, 70 * MIB))
",
    );
    // Between 4 and 8 KiB in four steps: 5200 is 6 KiB, and not 5632 in steps of 512.
    holds("roundup_power2_divisions:4", &[], "a = block(5200)\nsame(held(), (6 * KIB, 2 * MIB))");
    // Of 10 GiB that it may have, more than half is held as 3 GiB more are asked for: what is cached goes back before the driver is asked in vain.
    holds(
        "garbage_collection_threshold:0.5",
        &[],
        "
total = torch.cuda.mem_get_info()[1]
torch.cuda.set_per_process_memory_fraction(10 * GIB / total + 1e-9)
blocks = [block(2 * GIB) for _ in range(4)]
del blocks[1:]
same(held(), (2 * GIB, 8 * GIB))
a = block(3 * GIB)
same((held(), stat('num_alloc_retries')), ((5 * GIB, 5 * GIB), 0))
",
    );
    // Page-locked memory comes in powers of two.
    holds(
        "",
        &[],
        "
block(1)
a = torch.empty(3000, dtype=torch.uint8, pin_memory=True)
b = torch.empty(5 * MIB, dtype=torch.uint8, pin_memory=True)
host = torch.cuda.host_memory_stats()
same((host['allocated_bytes.current'], host['allocations.current']), (4096 + 8 * MIB, 2))
",
    );
    // The driver's pool: what is allocated in steps of 512 bytes, what it holds in steps of 32 MiB; trimmed, in pages.
    holds(
        "backend:cudaMallocAsync",
        &[],
        "
a, b = block(1), block(40 * MIB)
same(held(), (512 + 40 * MIB, 64 * MIB))
del b
same(held(), (512, 64 * MIB))
torch.cuda.synchronize()
torch.cuda.empty_cache()
same(held(), (512, 2 * MIB))
# One block takes another's place. When the first stops to count is not known before the host has waited.
b = block(84 * MIB)
torch.cuda.synchronize()
before = held()[0]
b = block(84 * MIB)
torch.cuda.synchronize()
same(held()[0], before)
",
    );
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn cublas_has_the_workspace_that_was_asked_for() {
    let program = "
import torch
torch.backends.cuda.preferred_blas_library('cublas')
a = torch.randn(7, 7, device='cuda')
before = torch.cuda.memory_stats()['active_bytes.all.allocated']
a @ a
print(torch.cuda.memory_stats()['active_bytes.all.allocated'] - before - 512)
";
    // In KiB: how large, and how many of these. What PyTorch takes by itself depends on the generation.
    for (card, asked, bytes) in
        [("rtx-4090", "", (4096 * 2 + 16 * 8) << 10), ("h100", "", (4096 * 8) << 10), ("rtx-4090", ":128:8:64:16:32:32", 3072 << 10)]
    {
        let place = Place::new();
        let mut command = on(&place, &[card], program, &[]);
        let assert = command.env("CUBLAS_WORKSPACE_CONFIG", asked).assert().success();
        assert_eq!(stdout(&assert).trim(), format!("{bytes}"), "{card} {asked}");
    }
}

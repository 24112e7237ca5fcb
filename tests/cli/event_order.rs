//! `lowmem on --events`: memory that two streams use is held as long as the clock says, and the two other orders bound that from both sides.

use crate::command::{Place, stderr, stdout};
use crate::on::on;

/// Eight times, a block of 256 MiB is copied to the host on another stream and let go of, and the host waits for a copy of half that size in the other direction.
/// What is reserved in the end is all the blocks that were held at once.
const RECORDS_STREAMS: &str = "
import torch
MIB = 1 << 20
def pinned(mib):
    return torch.empty(mib * MIB, dtype=torch.uint8, pin_memory=True)
def on_device(mib):
    return torch.empty(mib * MIB, dtype=torch.uint8, device='cuda')
there, back, inputs = pinned(256), pinned(128), on_device(128)
side = torch.cuda.Stream()
for _ in range(8):
    block = on_device(256)
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        there.copy_(block, non_blocking=True)
    block.record_stream(side)
    del block
    inputs.copy_(back, non_blocking=True)
    torch.cuda.current_stream().synchronize()
print((torch.cuda.memory_reserved() >> 20) - 128)
";

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn a_block_that_another_stream_uses_is_held_until_the_clock_says_that_it_is_done() {
    let place = Place::new();
    // At once: one block serves each time. Never waited for: each time another. By the clock two blocks are asked for in the time in which one is copied. So
    // before the eighth 7 of the host's 14 half copies' time has gone by, 3 of 7 blocks are copied, and 4 are held beside the new one.
    for (order, blocks) in [("eager", 1), ("clock", 5), ("lazy", 8)] {
        let mut command = on(&place, &["rtx-4090", "--events", order], RECORDS_STREAMS, &[]);
        let assert = command.assert().success();
        assert_eq!(stdout(&assert), format!("{}\n", blocks * 256), "{order}: {}", stderr(&assert));
    }
    // The clock is the default, and where much hangs on it both ends are said: blocks of 256 MiB and the 128 MiB beside them.
    let mut command = on(&place, &["rtx-4090"], RECORDS_STREAMS, &[]);
    let assert = command.assert().success();
    assert_eq!(stdout(&assert), format!("{}\n", 5 * 256));
    for said in [
        // Four blocks beside the one that is in use.
        "depends on how far the program is ahead of the GPU: memory that it has let go of, up to 1.00 GiB here",
        "never ahead of the GPU: 384 MiB reserved",
        "as far ahead as CUDA lets it be: 2.12 GiB reserved",
    ] {
        assert!(stderr(&assert).contains(said), "`{said}` is missing in: {}", stderr(&assert));
    }
    let mut command = on(&place, &["rtx-4090", "--events", "clock"], RECORDS_STREAMS, &[]);
    assert!(!stderr(&command.assert().success()).contains("ahead of the GPU"), "one run was asked for");
    let mut command = on(&place, &["rtx-4090", "--events", "late"], "", &[]);
    let assert = command.assert().code(2);
    assert!(stderr(&assert).contains("[possible values: clock, eager, lazy]"), "{}", stderr(&assert));
}

/// A program that streams weights as diffusers' group offloading does: each is copied from page-locked memory on a stream of its own, is waited for, used by a few kernels
/// and let go of. Multiplying takes longer than copying, so the program gets ahead, as far as a stream takes work: 1024 pieces.
const STREAMS_WEIGHTS: &str = "
import sys, torch
LAYERS, BYTES = 256, 32 << 20
waiting = [torch.empty(BYTES // 2, dtype=torch.bfloat16, pin_memory=True) for _ in range(LAYERS)]
for weights in waiting:
    weights.fill_(1)
x = torch.empty(16384, 4096, dtype=torch.bfloat16, device='cuda')
copies = torch.cuda.Stream()
for weights in waiting:
    with torch.cuda.stream(copies):
        there = weights.to('cuda', non_blocking=True)
        there.record_stream(torch.cuda.default_stream())
    copies.synchronize()
    matrix = there.view(4096, 4096)
    for _ in range(int(sys.argv[1])):
        torch.mm(x, matrix)
    del matrix, there
print(torch.cuda.max_memory_reserved() >> 20, torch.cuda.max_memory_allocated() >> 20)
";

/// How much of the 8 GiB of weights is on the device at once, in blocks of 32 MiB, by the kernels of each: a stream takes 1024, so 1024 / kernels blocks are let go of and
/// wait, and one or two more are in use. Without that bound nearly all 256 were there.
#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn a_program_gets_no_further_ahead_than_a_stream_takes_work() {
    let place = Place::new();
    for kernels in [8_u64, 32] {
        let mut command = on(&place, &["h100", "--events", "clock"], STREAMS_WEIGHTS, &[&kernels.to_string()]);
        let assert = command.assert().success();
        let said = stdout(&assert);
        let [reserved, allocated] = said.split_whitespace().map(|mib| mib.parse::<u64>().expect("MiB")).collect::<Vec<_>>()[..] else {
            panic!("two numbers: {said}")
        };
        let waiting = (reserved - allocated) / 32;
        let expected = 1024 / kernels;
        assert!(waiting.abs_diff(expected) <= 3, "{kernels} kernels a layer: {waiting} blocks wait, not {expected}: {}", stderr(&assert));
    }
}

/// A program that polls: it ends only if what it asks for is done at last, and stays so.
const POLLS: &str = "
import torch
block = torch.empty(1 << 30, dtype=torch.uint8, device='cuda')
there = torch.empty(1 << 30, dtype=torch.uint8, pin_memory=True)
there.copy_(block, non_blocking=True)
event = torch.cuda.Event()
event.record()
asked = 1
while not event.query():
    asked += 1
print(asked, event.query(), torch.cuda.current_stream().query())
";

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn a_program_that_polls_gets_on() {
    let place = Place::new();
    // The copy takes 42.6 ms. Queries take 1, 2, 4, ... microseconds: 15 of them 32.8 ms, and the next one no more than what is left. Nobody waits in `lazy`:
    // after 64 queries in vain it gives in.
    for (order, asked) in [("eager", 1), ("clock", 17), ("lazy", 65)] {
        let mut command = on(&place, &["rtx-4090", "--events", order], POLLS, &[]);
        let assert = command.assert().success();
        assert_eq!(stdout(&assert), format!("{asked} True True\n"), "{order}: {}", stderr(&assert));
    }
}

//! What PyTorch's own tests ask of streams, events and graphs, on the virtual GPU: what a card answers.

use crate::command::{Place, stderr, stdout};
use crate::on::on;

fn printed(program: &str) -> String {
    let place = Place::new();
    let assert = on(&place, &["rtx-4090", "--gpus", "2", "--strict"], &format!("import torch\n{program}"), &[]).assert().success();
    stdout(&assert)
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn memory_that_a_side_stream_used_serves_a_capture_again_once_that_has_joined() {
    let said = printed(
        "
torch._C._accelerator_setAllocatorSettings('graph_capture_record_stream_reuse:True')
s1, s2, g = torch.cuda.Stream(), torch.cuda.Stream(), torch.cuda.CUDAGraph(keep_graph=True)
seen = set()
with torch.cuda.stream(s1):
    g.capture_begin()
    out = torch.empty(1 << 20, device='cuda')
    for _ in range(6):
        t = torch.empty(1 << 28, device='cuda', dtype=torch.uint8)
        seen.add(t.data_ptr())
        s2.wait_stream(s1)
        with torch.cuda.stream(s2):
            t.fill_(1)
            t.record_stream(s2)
        del t
        s1.wait_stream(s2)
        out.fill_(1.0)
    g.capture_end()
print(len(seen) <= 2, torch.cuda.memory_reserved() < 600 << 20)",
    );
    assert_eq!(said, "True True\n");
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn a_graph_that_waits_for_an_event_of_another_one_is_not_over_before_it() {
    let said = printed(
        "
begun, ended = torch.cuda.Event(external=True), torch.cuda.Event(external=True)
x, h = torch.ones(1 << 26, device='cuda'), torch.full((4,), 7.0).pin_memory()
g1, g2 = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
with torch.cuda.graph(g1, capture_error_mode='relaxed'):
    torch.cuda._sleep(10**9)
    begun.record()
with torch.cuda.graph(g2, capture_error_mode='relaxed'):
    begun.wait()
    h.copy_(x[:4], non_blocking=True)
    ended.record()
# What is captured is not done yet: neither the copy nor the events.
print(begun.query(), h[0].item())
s1, s2 = torch.cuda.Stream(), torch.cuda.Stream()
with torch.cuda.stream(s1):
    g1.replay()
with torch.cuda.stream(s2):
    g2.replay()
print(s1.query(), ended.query(), s2.query())
ended.synchronize()
print(s1.query(), ended.query(), h[0].item() == 7.0)",
    );
    assert_eq!(said, "True 7.0\nFalse False False\nTrue True False\n");
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn a_kernel_that_sleeps_takes_its_cycles() {
    let said = printed(
        "
begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    torch.cuda._sleep(10**9)
for work in (lambda: torch.cuda._sleep(10**9)), graph.replay:
    begun.record()
    work()
    ended.record()
    over = ended.query()
    ended.synchronize()
    # At 2.52 GHz.
    print(over, round(begun.elapsed_time(ended) / 10))
s0, s1 = torch.cuda.Stream(0), torch.cuda.Stream(1)
with torch.cuda.stream(s0):
    torch.cuda._sleep(50_000_000)
print(s0.query(), s1.query())",
    );
    assert_eq!(said, "False 40\nFalse 40\nFalse True\n");
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn graphs_of_one_copy_or_fill_are_not_empty() {
    let said = printed(
        "
import warnings
x, h = torch.ones(4, device='cuda'), torch.zeros(4).pin_memory()
for work in (lambda: h.copy_(x, non_blocking=True)), (lambda: x.copy_(h, non_blocking=True)), (lambda: x.add_(1)), (lambda: x.zero_()):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
    print(len(told))",
    );
    assert_eq!(said, "0\n".repeat(4));
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn a_graph_that_is_kept_is_made_ready_again_and_captured_again() {
    let said = printed(
        "
x = torch.zeros(2000, device='cuda')
graph = torch.cuda.CUDAGraph(keep_graph=True)
for _ in range(2):
    with torch.cuda.graph(graph, capture_error_mode='relaxed'):
        x += 1
    for _ in range(2):
        graph.instantiate()
        graph.replay()
    graph.reset()
print('replayed')",
    );
    assert_eq!(said, "replayed\n");
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn a_branch_that_the_device_chooses_is_captured_on_both_sides() {
    let program = "
import torch
from torch._higher_order_ops.cudagraph_conditional_nodes import CUDAGraphCaptureControlFlowOpDispatchMode
x = torch.randn(1 << 20, device='cuda')
positive = torch.ones((), dtype=torch.bool, device='cuda')
def inner(x):
    return torch.cond(positive, torch.sin, torch.cos, (x,))
graph = torch.cuda.CUDAGraph(keep_graph=True)
with torch.cuda.graph(graph), CUDAGraphCaptureControlFlowOpDispatchMode():
    y = torch.cond(positive, inner, torch.tanh, (x,))
graph.instantiate()
graph.replay()
torch.cuda.synchronize()
print(tuple(y.shape))
";
    let assert = on(&Place::new(), &["rtx-4090", "--strict"], program, &[]).assert().success();
    assert_eq!(stdout(&assert), "(1048576,)\n");
    // Two conditions, and two more within one of them: PyTorch has one for each side.
    let said = stderr(&assert);
    assert!(said.contains("a condition of a CUDA graph: each of its graphs runs once (4)"), "{said}");
}

/// Graphs and states of a generator that each of them registers: the blocks and bytes that these hold while the graphs live, and after.
pub(crate) const STATES_OF_GENERATORS: &str = "
import gc
def held():
    return torch.tensor([torch.cuda.memory_stats().get(f'{name}.all.current', 0) for name in ('active', 'active_bytes')])
def go(graphs, states):
    before = held()
    graphs, generator = [torch.cuda.CUDAGraph() for _ in range(graphs)], torch.cuda.default_generators[0]
    states = [generator.graphsafe_get_state(), *(generator.clone_state() for _ in range(1, states))]
    for graph in graphs:
        for state in states:
            graph.register_generator_state(state)
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            graph.capture_begin()
            torch.rand(1, device='cuda')
            graph.capture_end()
        torch.cuda.current_stream().wait_stream(side)
        graph.replay()
    alive = held() - before
    del graphs, graph, states, state
    gc.collect()
    torch.cuda.empty_cache()
    return alive.tolist(), (held() - before).tolist()
torch.cuda.init()
print(go(1, 1), go(3, 2), go(10, 20))
";

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn states_of_generators_go_with_the_graphs_that_use_them() {
    // Seed and offset, 512 bytes each, of each state and, in this PyTorch, of each graph.
    assert_eq!(printed(STATES_OF_GENERATORS), "([2, 1024], [0, 0]) ([12, 6144], [0, 0]) ([400, 204800], [0, 0])\n");
}

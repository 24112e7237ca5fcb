//! What ordinary PyTorch programs ask of the CUDA libraries, on the virtual GPU: they run to their end, and nothing they call is unsupported.

use crate::command::{Place, stderr, stdout};
use crate::on::on;

/// Runs a program that works on CUDA device `d`, with every unsupported call an error. What it printed.
fn printed(program: &str) -> Option<String> {
    let place = Place::new();
    let program = format!("import torch\nfrom torch import nn\nd = torch.device('cuda')\n{program}\ntorch.cuda.synchronize()\n");
    let assert = on(&place, &["rtx-4090", "--strict"], &program, &[])?.assert().success();
    assert!(!stderr(&assert).contains("not supported"), "{}", stderr(&assert));
    Some(stdout(&assert))
}

#[test]
fn cuda_graphs_are_captured_and_replayed() {
    // A private pool holds the graph's output of 16 MiB; replaying takes no more. Waiting inside a capture is an error, as on a real GPU.
    let Some(said) = printed(
        "
x = torch.randn(1 << 20, 4, device=d)
graph, spoilt = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    y = x * 2
before = torch.cuda.memory_allocated()
graph.replay()
graph.replay()
print(torch.cuda.memory_allocated() == before, before >> 20, tuple(y.shape))
try:
    with torch.cuda.graph(spoilt):
        (x + 1).sum().item()
except RuntimeError as error:
    print('capture' in str(error))
graphed = torch.cuda.make_graphed_callables(nn.Linear(4, 4, device=d), (x[:8],))
graphed(x[:8]).sum().backward()",
    ) else {
        return;
    };
    assert_eq!(said, "True 32 (1048576, 4)\nTrue\n");
}

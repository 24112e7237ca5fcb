//! Programs over packages that are too large to be fetched for every run of the tests: PyTorch for CUDA 12, Triton. `make test-large` runs them.

use std::process::Command;

use lowmem_tests::root;
use rstest::rstest;

use crate::command::{Place, stderr, stdout};
use crate::graphs::STATES_OF_GENERATORS;
use crate::on::on;
use crate::python::path_to_torch;

/// Where the package of that list is, for `PYTHONPATH`.
fn fetched(list: &str) -> String {
    let setup = root().join("setup");
    let script = Command::new(setup.join("unpack.sh")).arg(setup.join(list).with_added_extension("txt")).output().expect("a shell");
    assert!(script.status.success(), "{}", String::from_utf8_lossy(&script.stderr));
    String::from_utf8_lossy(&script.stdout).trim().to_owned()
}

/// Training, attention, linear algebra, a graph, page-locked memory: what asks CUDA's libraries for structures whose layout changed from CUDA 12 to 13.
const MUCH: &str = "
import torch
print(torch.__version__, torch.cuda.get_device_name(0), torch.cuda.get_device_capability(0))
kept = torch.empty(1 << 30, dtype=torch.uint8, device='cuda')
layers = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 3, padding=1), torch.nn.BatchNorm2d(64), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64 * 32 * 32, 10)).cuda()
optimizer = torch.optim.AdamW(layers.parameters())
for _ in range(2):
    optimizer.zero_grad()
    with torch.autocast('cuda', torch.bfloat16):
        loss = torch.nn.functional.cross_entropy(layers(torch.randn(16, 3, 32, 32, device='cuda')), torch.zeros(16, dtype=torch.long, device='cuda'))
    loss.backward()
    optimizer.step()
query = torch.randn(2, 8, 1024, 64, device='cuda', dtype=torch.bfloat16)
print(tuple(torch.nn.functional.scaled_dot_product_attention(query, query, query).shape))
print([tuple(part.shape) for part in torch.linalg.svd(torch.randn(64, 32, device='cuda'))], torch.fft.rfft(torch.randn(256, device='cuda')).shape[0])
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    twice = query * 2
graph.replay()
page_locked = torch.ones(1 << 20).pin_memory()
print(page_locked.is_pinned(), tuple(page_locked.to('cuda', non_blocking=True).shape))
del kept
torch.cuda.empty_cache()
print(torch.cuda.max_memory_allocated() >> 30, len(torch.cuda.memory_snapshot()) > 0)
";

#[rstest]
#[case::cuda_12_8("torch-cuda12.8", "2.10.0+cu128")]
#[case::cuda_12_6("torch-cuda12.6", "2.7.1+cu126")]
#[ignore = "PyTorch for CUDA 12 is a gigabyte: make test-large"]
fn pytorch_for_cuda_12_runs(#[case] list: &str, #[case] version: &str) {
    let place = Place::new();
    let mut command = on(&place, &["rtx-4090", "--strict"], MUCH, &[]);
    let assert = command.env("PYTHONPATH", format!("{}:{}", fetched(list), path_to_torch())).assert().success();
    assert_eq!(
        stdout(&assert),
        format!(
            "{version} Virtual NVIDIA GeForce RTX 4090 (8, 9)
(2, 8, 1024, 64)
[(64, 64), (32,), (32, 32)] 129
True (1048576,)
1 True
"
        )
    );
    let said = stderr(&assert);
    assert!(said.contains("Fits on: rtx-4060") && said.contains("4 MiB page-locked"), "{said}");
}

#[test]
#[ignore = "PyTorch for CUDA 12 is a gigabyte: make test-large"]
fn graphs_share_the_states_of_generators_as_pytorchs_own_test_expects() {
    let place = Place::new();
    let mut command = on(&place, &["rtx-4090", "--strict"], &format!("import torch\n{STATES_OF_GENERATORS}"), &[]);
    let assert = command.env("PYTHONPATH", format!("{}:{}", fetched("torch-cuda12.8"), path_to_torch())).assert().success();
    assert_eq!(stdout(&assert), "([2, 1024], [0, 0]) ([4, 2048], [0, 0]) ([40, 20480], [0, 0])\n");
}

#[test]
#[ignore = "Triton is half a gigabyte: make test-large"]
fn what_is_compiled_runs() {
    let place = Place::new();
    let program = "
import torch
layers = torch.nn.Sequential(torch.nn.Linear(256, 1024), torch.nn.LayerNorm(1024), torch.nn.ReLU(), torch.nn.Linear(1024, 10)).cuda()
for mode in 'default', 'reduce-overhead':
    model = torch.compile(layers, mode=mode)
    for _ in range(3):
        layers.zero_grad()
        model(torch.randn(32, 256, device='cuda')).sum().backward()
print(tuple(layers[0].weight.grad.shape))
";
    let mut command = on(&place, &["h100", "--strict"], program, &[]);
    let caches = place.path("caches");
    command.env("PYTHONPATH", format!("{}:{}", path_to_torch(), fetched("triton")));
    command.env("TRITON_CACHE_DIR", &caches).env("TORCHINDUCTOR_CACHE_DIR", &caches);
    let assert = command.assert().success();
    assert_eq!(stdout(&assert), "(1024, 256)\n");
    assert!(!stderr(&assert).contains("not supported"), "{}", stderr(&assert));
}

#[test]
#[ignore = "Triton is half a gigabyte: make test-large"]
fn sageattention_of_pypi_runs() {
    let place = Place::new();
    let program = "
import torch
from sageattention import sageattn
query = torch.randn(1, 12, 8192, 128, device='cuda', dtype=torch.bfloat16)
print(sageattn(query, query, query, is_causal=False).shape)
";
    let mut command = on(&place, &["rtx-4090", "--strict"], program, &[]);
    command.env("PYTHONPATH", format!("{}:{}", path_to_torch(), fetched("triton"))).env("TRITON_CACHE_DIR", place.path("caches"));
    let assert = command.assert().success();
    assert_eq!(stdout(&assert), "torch.Size([1, 12, 8192, 128])\n");
    let said = stderr(&assert);
    assert!(said.contains("Fits on: rtx-4060") && said.contains("which called"), "{said}");
}

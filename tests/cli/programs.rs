//! What ordinary PyTorch programs ask of the CUDA libraries, on the virtual GPU: they run to their end, and nothing they call is unsupported.

use crate::command::{Place, stderr, stdout};
use crate::on::on;

/// Runs a program that works on CUDA device `d`, with every unsupported call an error. What it printed.
fn printed(program: &str) -> Option<String> {
    let place = Place::new();
    let program = format!("import torch\nfrom torch import nn\nd = torch.device('cuda')\n{program}\ntorch.cuda.synchronize()\n");
    let assert = on(&place, &["rtx-4090", "--gpus", "2", "--strict"], &program, &[])?.assert().success();
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

#[test]
fn a_convolutional_network_is_trained() {
    // Batch norm and dropout are cuDNN's, and in 32 bits the moments of AdamW are twice the parameters.
    let Some(said) = printed(
        "
model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)).to(d)
optimizer = torch.optim.AdamW(model.parameters())
scaler = torch.amp.GradScaler()
for layout in torch.contiguous_format, torch.channels_last:
    with torch.autocast('cuda'):
        y = model(torch.randn(8, 3, 32, 32, device=d).to(memory_format=layout))
        loss = nn.functional.cross_entropy(y, torch.zeros(8, dtype=torch.long, device=d))
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
model.eval()(torch.randn(1, 3, 32, 32, device=d))
moments = [m for state in optimizer.state.values() for m in (state['exp_avg'], state['exp_avg_sq'])]
print(sum(m.numel() for m in moments) == 2 * sum(p.numel() for p in model.parameters()))",
    ) else {
        return;
    };
    assert_eq!(said, "True\n");
}

#[test]
fn transforms_and_linear_algebra_run() {
    let Some(said) = printed(
        "
square, sides, batch = torch.randn(64, 64, device=d), torch.randn(64, 8, device=d), torch.randn(4, 64, 64, device=d)
linalg = torch.linalg
for a in square, batch, square.double(), square.to(torch.complex64):
    b = a[..., :8]
    linalg.solve(a, b), linalg.inv(a), linalg.cholesky(a), linalg.qr(a), linalg.svd(a), linalg.eigh(a), linalg.lu(a), linalg.det(a)
    linalg.slogdet(a), linalg.lstsq(a, b), linalg.pinv(a), linalg.matrix_norm(a, 2), linalg.solve_triangular(a, b, upper=True)
    linalg.svdvals(a), linalg.eigvalsh(a), torch.cholesky_solve(b, a), linalg.ldl_factor(a)
    torch.fft.fft(a), torch.fft.ifftn(a), torch.fft.fftshift(torch.fft.fft2(a))
    print(linalg.solve(a, b).shape == b.shape)
torch.fft.irfft(torch.fft.rfft(square)), torch.stft(square[0], 16, return_complex=True, window=square[0, :16])
# Kernels that PyTorch has compiled as the program runs.
torch.special.airy_ai(square), torch.special.i1e(square)
for name in 'randn', 'rand', 'randperm':
    getattr(torch, name)(64, device=d)
torch.multinomial(torch.rand(9, device=d), 3), nn.functional.dropout(square), square.bernoulli_(0.5), square.normal_()",
    ) else {
        return;
    };
    assert_eq!(said, "True\n".repeat(4));
}

#[test]
fn streams_have_priorities_and_host_memory_is_registered() {
    // PyTorch uses four of the six priorities that there are.
    let Some(said) = printed(
        "
least, greatest = torch.cuda.Stream.priority_range()
stream = torch.cuda.Stream(priority=greatest)
host = torch.zeros(1 << 20)
cudart = torch.cuda.cudart()
print(least, greatest, stream.priority, host.is_pinned(), torch.zeros(8).pin_memory().is_pinned())
print(int(cudart.cudaHostRegister(host.data_ptr(), host.nbytes, 0)), host.is_pinned())
with torch.cuda.stream(stream):
    on_device = host.to(d, non_blocking=True)
    on_device.record_stream(torch.cuda.current_stream())
torch.cuda.current_stream().wait_stream(stream)
print(int(cudart.cudaHostUnregister(host.data_ptr())), host.is_pinned())",
    ) else {
        return;
    };
    assert_eq!(said, "0 -3 -3 False True\n0 True\n0 False\n");
}

#[test]
fn a_model_is_spread_over_two_devices() {
    let Some(said) = printed(
        "
print(torch.cuda.device_count(), torch.cuda.can_device_access_peer(0, 1), torch.cuda.get_device_properties(1).pci_bus_id)
front, back = nn.Linear(4096, 16384, device='cuda:0'), nn.Linear(16384, 4096, device='cuda:1')
hidden = front(torch.zeros(8, 4096, device='cuda:0')).to('cuda:1', non_blocking=True)
back(hidden).sum().backward()
with torch.cuda.device(1):
    stream = torch.cuda.Stream()
    torch.cuda.current_stream().wait_stream(torch.cuda.current_stream(0))
    with torch.cuda.stream(stream):
        graph, y = torch.cuda.CUDAGraph(), torch.zeros(4, device='cuda:1')
        with torch.cuda.graph(graph):
            y + 1
graph.replay()
print(front.weight.grad.device, hidden.device, torch.cuda.memory_allocated(0) > 2 << 28, torch.cuda.memory_allocated(1) > 2 << 28)",
    ) else {
        return;
    };
    assert_eq!(said, "2 False 2\ncuda:0 cuda:1 True True\n");
}

#[test]
fn what_cannot_be_done_is_an_error_of_pytorchs_with_the_calls_name() {
    let place = Place::new();
    let program = "
import torch
x = torch.zeros(4, 4, device='cuda')
for attempt in x.untyped_storage()._share_cuda_, lambda: torch.nn.LSTM(4, 4, device='cuda')(x):
    try:
        attempt()
    except RuntimeError as error:
        print(str(error).splitlines()[0])
torch.backends.cudnn.enabled = False
print(torch.nn.LSTM(4, 4, device='cuda')(x)[0].shape)
";
    let Some(mut command) = on(&place, &["rtx-4090"], program, &[]) else { return };
    let assert = command.assert().success();
    let said = stdout(&assert);
    assert!(said.starts_with("CUDA error: operation not supported\ncuDNN error: CUDNN_STATUS_NOT_SUPPORTED"), "{said}");
    assert!(said.ends_with("torch.Size([4, 4])\n"), "{said}");
    let listed = "how often it was asked for: cudaIpcGetMemHandle (1), cudnn";
    assert!(stderr(&assert).contains(listed), "{}", stderr(&assert));
}

//! What ordinary PyTorch programs ask of the CUDA libraries, on the virtual GPU: they run to their end, and nothing they call is unsupported.

use crate::command::{Place, stderr, stdout};
use crate::on::on;

/// Runs a program that works on CUDA device `d`, with every unsupported call an error. What it printed.
fn printed(program: &str) -> String {
    let place = Place::new();
    let program = format!("import torch\nfrom torch import nn\nd = torch.device('cuda')\n{program}\ntorch.cuda.synchronize()\n");
    let assert = on(&place, &["rtx-4090", "--gpus", "2", "--strict"], &program, &[]).assert().success();
    assert!(!stderr(&assert).contains("not supported"), "{}", stderr(&assert));
    stdout(&assert)
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn cuda_graphs_are_captured_and_replayed() {
    // A private pool holds the graph's output of 16 MiB; replaying takes no more. Waiting inside a capture is an error, as on a real GPU.
    let said = printed(
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
    );
    assert_eq!(said, "True 32 (1048576, 4)\nTrue\n");
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn a_convolutional_network_is_trained() {
    // Batch norm and dropout are cuDNN's, and in 32 bits the moments of AdamW are twice the parameters.
    let said = printed(
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
    );
    assert_eq!(said, "True\n");
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn transforms_and_linear_algebra_run() {
    let said = printed(
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
    );
    assert_eq!(said, "True\n".repeat(4));
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn streams_have_priorities_and_host_memory_is_registered() {
    // PyTorch uses four of the six priorities that there are.
    let said = printed(
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
    );
    assert_eq!(said, "0 -3 -3 False True\n0 True\n0 False\n");
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn a_model_is_spread_over_two_devices() {
    let said = printed(
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
    );
    assert_eq!(said, "2 False 2\ncuda:0 cuda:1 True True\n");
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn what_stood_in_memory_before_is_no_result() {
    // PyTorch gives the blocks out again: for sums that nobody computes, and for whether an algorithm failed.
    let said = printed(
        "
for bytes in (512, 4096, 65536):
    given = [torch.full((bytes,), 7, dtype=torch.uint8).to(d) for _ in range(64)]
    print(given[0][0].item(), end=' ')
    del given
print(torch.randn(1000, device=d).sum().item(), torch.randn(4, 4, device=d).nonzero().shape[0], end=' ')
print(tuple(torch.linalg.svd(torch.randn(64, 64, device=d)).S.shape), tuple(torch.linalg.inv(torch.randn(64, 64, device=d)).shape))",
    );
    assert_eq!(said, "7 7 7 0.0 0 (64,) (64, 64)\n");
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn what_an_operation_finds_is_nothing_whoever_gives_out_memory() {
    // Of this allocator nobody hears what it gives out.
    let program = "
import torch
given = [torch.full((512,), 7, dtype=torch.uint8).cuda() for _ in range(64)]
del given
print(torch.randn(4, 4, device='cuda').nonzero().shape[0], tuple(torch.linalg.svd(torch.randn(64, 64, device='cuda')).S.shape))";
    let place = Place::new();
    let assert =
        on(&place, &["rtx-3060", "--strict"], program, &[]).env("PYTORCH_ALLOC_CONF", "backend:cudaMallocAsync").assert().success();
    assert_eq!(stdout(&assert), "0 (64,)\n");
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn recurrent_networks_are_trained() {
    // 100 time steps of 32 sequences, 1024 wide, in fp32: 12.5 MiB of output, and for the way back four gates and a cell state of it, which is five times as much.
    // Two states are given back, and the two that it began with are kept: half a MiB. The weights have no byte more than their own.
    let said = printed(
        "
net = nn.LSTM(512, 1024, device=d)
print(torch.cuda.memory_allocated() == 4 * (4 * 1024 * (512 + 1024) + 2 * 4 * 1024))
x = torch.randn(100, 32, 512, device=d)
before = torch.cuda.memory_allocated()
y, states = net(x)
print((torch.cuda.memory_allocated() - before) / 2**20)
for kind in nn.LSTM, nn.GRU, nn.RNN:
    for settings in {'bidirectional': True, 'num_layers': 2}, {'num_layers': 2, 'dropout': 0.2, 'batch_first': True}, {'bias': False}:
        net = kind(64, 128, **settings).to(d, torch.float16)
        net(torch.randn(7, 5, 64, device=d, dtype=torch.float16))[0].sum().backward()
        net.eval()(torch.randn(7, 5, 64, device=d, dtype=torch.float16))
projected = nn.LSTM(64, 128, proj_size=32, bidirectional=True, device=d)
packed = nn.utils.rnn.pack_padded_sequence(torch.randn(7, 3, 64, device=d), [7, 4, 2])
y, _ = projected(packed)
y.data.sum().backward()
print(tuple(y.data.shape))",
    );
    assert_eq!(said, "True\n75.5\n(13, 64)\n");
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn losses_of_label_sequences_and_sampling_by_a_grid_run() {
    let said = printed(
        "
scores = torch.randn(50, 16, 20, device=d).log_softmax(2).detach().requires_grad_()
labels, steps, counts = torch.randint(1, 20, (160,), dtype=torch.int32), torch.full((16,), 50, dtype=torch.int32), torch.full((16,), 10, dtype=torch.int32)
for given in (labels, (50,) * 16, (10,) * 16), (labels.to(d), steps.to(d), counts.to(d)), (labels.view(16, 10).long().to(d), steps, counts):
    nn.functional.ctc_loss(scores, *given).backward()
print(tuple(scores.grad.shape))
image, turn = torch.randn(2, 3, 8, 8, device=d, requires_grad=True), torch.randn(2, 2, 3, device=d, requires_grad=True)
grid = nn.functional.affine_grid(turn, (2, 3, 8, 8), align_corners=True)
nn.functional.grid_sample(image, grid, align_corners=True).sum().backward()",
    );
    assert_eq!(said, "(50, 16, 20)\n");
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn sparse_matrices_are_multiplied_added_and_solved() {
    // A diagonal of 1000 entries. Where a product has entries is a matter of values, so it has as many as are to be expected at random.
    let said = printed(
        "
import warnings
warnings.filterwarnings('ignore')
a = torch.sparse_csr_tensor(torch.arange(1001), torch.arange(1000), torch.ones(1000), size=(1000, 1000)).to(d).requires_grad_()
b = torch.randn(1000, 64, device=d, requires_grad=True)
(a @ b).sum().backward()
print(tuple(b.grad.shape), tuple((a @ b[:, 0]).shape), (a @ a)._nnz() in (999, 1000), (a.detach() + a.detach()).layout)
print(tuple(torch.triangular_solve(b.detach(), a.detach()).solution.shape))
print(tuple(torch.sparse.sampled_addmm(a.detach(), b.detach(), b.detach().T).shape))
blocks = torch.sparse_bsr_tensor(torch.tensor([0, 1, 2]), torch.tensor([0, 1]), torch.ones(2, 16, 16), size=(32, 32)).to(d)
print(tuple((blocks @ b[:32, 0]).shape))",
    );
    assert_eq!(said, "(1000, 64) (1000,) True torch.sparse_csr\n(1000, 64)\n(1000, 1000)\n(32,)\n");
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn operations_that_are_watched_in_another_way_give_the_same_and_take_as_long() {
    // The first of each pair is watched without boxing its arguments, the other one as all are (`engine/src/cuda/observer.cpp`). They read and write as much.
    let said = printed(
        "
from torch._C._nn import gelu_
x, y, z = (torch.ones(1 << 14, 1 << 13, device=d) for _ in range(3))
pairs = {
    'add': (lambda: x.add(y), lambda: x.sub(y)),
    'add_': (lambda: x.add_(y), lambda: x.sub_(y)),
    'mul': (lambda: x.mul(y), lambda: x.div(y)),
    'mul_': (lambda: x.mul_(y), lambda: x.div_(y)),
    'addcmul_': (lambda: x.addcmul_(y, z), lambda: x.addcdiv_(y, z)),
    'silu': (lambda: nn.functional.silu(x), lambda: x.tanh()),
    'silu_': (lambda: nn.functional.silu(x, inplace=True), lambda: x.tanh_()),
    'gelu': (lambda: nn.functional.gelu(x), lambda: x.tanh()),
    'gelu_': (lambda: gelu_(x), lambda: x.tanh_()),
    'copy_': (lambda: y.t().copy_(x.t()[:, :]), lambda: torch.neg(x, out=y)),
    'native_layer_norm': (lambda: torch.native_layer_norm(x, [1 << 13], None, None, 1e-6)[0], lambda: torch.softmax(x, 1)),
    '_fused_rms_norm': (lambda: torch._fused_rms_norm(x, [1 << 13], None, 1e-6)[0], lambda: torch.softmax(x, 1)),
}

def ran(operation):
    begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    operation()  # Its kernel is loaded once.
    before = torch.cuda.memory_allocated() >> 20
    begun.record()
    given = operation()
    ended.record()
    ended.synchronize()
    return begun.elapsed_time(ended), (tuple(sorted(given.shape)), given.dtype, given.data_ptr() in (x.data_ptr(), y.data_ptr()), (torch.cuda.memory_allocated() >> 20) - before)

for name, (direct, boxed) in pairs.items():
    (secs, gave), (others, other) = ran(direct), ran(boxed)
    assert gave == other, (name, gave, other)
    assert secs > 1 and abs(secs / others - 1) < 0.01, (name, secs, others)
w, b = torch.ones(1 << 13, 64, device=d, requires_grad=True), torch.ones(64, device=d, requires_grad=True)
product, image = torch.addmm(b, x, w), nn.functional.conv2d(x[:8].view(1, 16, 64, 64), torch.ones(8, 16, 3, 3, device=d))
product.sum().backward()
print(tuple(product.shape), tuple(w.grad.shape), tuple(b.grad.shape), tuple(image.shape))
try:
    x.add_(torch.ones(3, device=d))
except RuntimeError as error:
    print(error)
print((x.half() * y).dtype, (x * 2).dtype)",
    );
    assert_eq!(
        said,
        "(16384, 64) (8192, 64) (64,) (1, 8, 62, 62)\nThe size of tensor a (8192) must match the size of tensor b (3) at non-singleton dimension 1\ntorch.float32 torch.float32\n"
    );
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn what_cannot_be_done_is_an_error_of_pytorchs_with_the_calls_name() {
    let place = Place::new();
    let program = "
import torch
from torch.cuda.green_contexts import GreenContext
x = torch.zeros(128, 128, device='cuda', dtype=torch.float16)
for attempt in x.untyped_storage()._share_cuda_, lambda: GreenContext.create(num_sms=8), lambda: torch.sparse.to_sparse_semi_structured(x) @ x:
    try:
        attempt()
    except RuntimeError as error:
        print(str(error).splitlines()[0])
";
    let mut command = on(&place, &["rtx-4090"], program, &[]);
    let assert = command.assert().success();
    assert_eq!(
        stdout(&assert),
        "CUDA error: operation not supported\nCUDA driver error: operation not supported\nCUDA error: operation not supported when calling `cusparseLtInit(&handle)`\n"
    );
    let listed = "how often they came: cuDeviceGetDevResource (1), cudaIpcGetMemHandle (1), cusparseLtInit (1).";
    assert!(stderr(&assert).contains(listed), "{}", stderr(&assert));
}

//! Programs of several ranks on the virtual GPU: one process with a thread for each device, and a process for each device.

use crate::command::{Place, stderr, stdout};
use crate::on::on;

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn one_process_spreads_a_model_over_its_devices() {
    let place = Place::new();
    let program = "
import torch
from torch import nn
from torch.cuda import nccl
model = nn.DataParallel(nn.Linear(1024, 4096).cuda())
y = model(torch.randn(32, 1024, device=0))
y.sum().backward()
print(tuple(y.shape), model.module.weight.grad.device, nccl.version())
parts, whole = ([torch.zeros(n, device=i) for i in range(2)] for n in (8, 16))
nccl.all_reduce(parts), nccl.broadcast(parts), nccl.reduce(parts), nccl.all_gather(parts, whole), nccl.reduce_scatter(whole, parts)
";
    let mut command = on(&place, &["rtx-4090", "--gpus", "2", "--strict"], program, &[]);
    assert_eq!(stdout(&command.assert().success()), "(32, 4096) cuda:0 (2, 29, 7)\n");
}

/// A training step of a linear layer of 256 MiB in fp32 with AdamW, replicated and sharded. With moments, gradients and parameters it holds four times the layer
/// where it is replicated; sharded over two devices, half of that.
const TRAINS: &str = "
import gc, os, sys, torch, torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
rank = int(os.environ['LOCAL_RANK'])
torch.cuda.set_device(rank)
dist.init_process_group('nccl', device_id=torch.device('cuda', rank))
def held(wrap):
    gc.collect()
    before = torch.cuda.memory_allocated()
    model = wrap(nn.Linear(8192, 8192, bias=False, device='cuda'))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(8, 8192, device='cuda')).sum().backward()
    optimizer.step()
    return (torch.cuda.memory_allocated() - before) >> 20
# PyTorch's workspace for matrix products comes with the first one.
nn.Linear(8, 8, bias=False, device='cuda')(torch.zeros(8, 8, device='cuda')).sum().backward()
def sharded(model):
    fully_shard(model)
    return model
# The reducer keeps the gradients in buckets of its own, which the parameters' gradients are views of.
shard, replicated = held(sharded), held(lambda model: nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True))
objects = [None, None]
dist.all_gather_object(objects, 'mine')
dist.barrier()
(dist.send if rank == 0 else dist.recv)(torch.zeros(4, device='cuda'), 1 - rank)
sys.stdout.write(f'{rank} {dist.get_world_size()} {replicated} {shard} {objects}\\n')
dist.destroy_process_group()
";

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn a_process_for_each_device_trains_replicated_and_sharded() {
    let place = Place::new();
    place.file("train.py", TRAINS);
    let launcher = "from torch.distributed.run import main; main()";
    let words = ["--standalone", "--nproc-per-node", "2", "train.py"];
    let mut command = on(&place, &["rtx-4090", "--gpus", "2", "--strict"], launcher, &words);
    let assert = command.assert().success();
    let said = stdout(&assert);
    let mut said: Vec<&str> = said.lines().collect();
    said.sort_unstable();
    assert_eq!(said, ["0 2 1024 512 ['mine', 'mine']", "1 2 1024 512 ['mine', 'mine']"], "{}", stderr(&assert));
}

/// Groups of two among four: one after another, and both at once. What a group gathers is as much as it has ranks.
const SPLITS: &str = "
import os, sys, torch, torch.distributed as dist
rank = int(os.environ['LOCAL_RANK'])
torch.cuda.set_device(rank)
dist.init_process_group('nccl', device_id=torch.device('cuda', rank))
dist.all_reduce(torch.zeros(1, device='cuda'))
pairs = [dist.new_group([0, 2]), dist.new_group([1, 3])]
said = []
for group in (pairs[rank % 2], dist.split_group(split_ranks=[[0, 1], [2, 3]])):
    place = torch.tensor([9.0] * 4, device='cuda')
    dist.all_gather_into_tensor(place[:2], torch.tensor([1.0 + rank], device='cuda'), group=group)
    objects = [None, None]
    dist.all_gather_object(objects, 'mine', group=group)
    said += [dist.get_rank(group), dist.get_world_size(group), place.tolist(), objects]
sys.stdout.write(' '.join(map(str, [rank, *said])) + '\\n')
dist.barrier()
for group in pairs:
    if group is not dist.GroupMember.NON_GROUP_MEMBER:
        dist.destroy_process_group(group)
dist.destroy_process_group()
";

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn groups_of_ranks_know_their_size() {
    let place = Place::new();
    place.file("splits.py", SPLITS);
    let launcher = "from torch.distributed.run import main; main()";
    let words = ["--standalone", "--nproc-per-node", "4", "splits.py"];
    let mut command = on(&place, &["rtx-4090", "--gpus", "4", "--strict"], launcher, &words);
    let assert = command.assert().success();
    let said = stdout(&assert);
    let mut said: Vec<&str> = said.lines().collect();
    said.sort_unstable();
    let line = |rank: u8| {
        let (own, mine) = (f32::from(rank) + 1.0, "['mine', 'mine']");
        let gathered = format!("[{own:.1}, {own:.1}, 9.0, 9.0] {mine}");
        format!("{rank} {} 2 {gathered} {} 2 {gathered}", rank / 2, rank % 2)
    };
    assert_eq!(said, (0..4).map(line).collect::<Vec<_>>(), "{}", stderr(&assert));
}

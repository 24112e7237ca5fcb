"""Runs Wan's official code, untouched, with empty weights: what it asks of the GPU is what a real run asks of it.

    python wan.py --wan CHECKOUT [--wan ANOTHER] --model wan2.1-t2v-14b --task t2v --width 1280 --height 720 --frames 81 OPTIONS

OPTIONS are those of the code's own generate.py. With `--gpus 8` torchrun starts as many processes of it, a rank each, as for generate.py. With `--steps 50 --times` the last line
that it prints is the time that generating a video in so many steps takes by the virtual GPU's clock (of several the first one's), in seconds: at least, most likely, at most. Ends with
exit code 3, and the reason on standard error, where it cannot run what is asked for.
What differs from a real run, none of it on the GPU:

- No checkpoint is read. Weights are allocated where the code would have loaded them, in the type that the published files have, and never filled.
- The text encoder is not computed where it runs on the CPU: its output has the right shape.
- The tokenizer gives as many tokens as there is room for half of, whatever the prompt is: the transformer pads them.
- flash-attn, which xFuser asks for as well, is answered by torch's scaled_dot_product_attention: by its FlashAttention-2, or, for Wan2.2 on GPUs that have FlashAttention-3, with which its
  figures were published, by cuDNN's kernel at the rate of FlashAttention-3, where the GPU's profile has it.
- Four steps are run: enough for both transformers of Wan2.2's pool to have their turn, and for the solver to hold all that it ever holds. Of the time that they
  take, the median counts for each step that is not run.
- The sampler is told that its first step is the first one, and does not check whether its systems of two equations could be solved: both it would read from the GPU.
- Products in fp32 are made in TF32, as NVIDIA's containers of PyTorch have it (`TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=0` has them in fp32). Wan2.2 makes the embedding of each token's
  time by such a product, on every GPU anew, and its published times of several GPUs come about only so.
- What its package imports and text-to-video never uses (reading and writing pictures and sound) is a stand-in.
"""

import argparse
import ctypes
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import statistics
import sys
import types

STEPS = 4

# By model: the version of the code, the class that runs it, its name among the code's configurations, and the channels of its latents.
MODELS = {
    "wan2.1-t2v-1.3b": ("2.1", "WanT2V", "t2v-1.3B", 16),
    "wan2.1-t2v-14b": ("2.1", "WanT2V", "t2v-14B", 16),
    "wan2.2-t2v-a14b": ("2.2", "WanT2V", "t2v-A14B", 16),
    "wan2.2-ti2v-5b": ("2.2", "WanTI2V", "ti2v-5B", 48),
}

# A file that the version has and the other has not.
MARKS = {"2.1": "wan/text2video.py", "2.2": "wan/textimage2video.py"}


def cannot(why):
    print(why, file=sys.stderr)
    raise SystemExit(3)


class Options(argparse.ArgumentParser):
    """An option that is not known is no mistake here: it is one that cannot be run."""

    def error(self, message):
        cannot(message)


def arguments():
    parser = Options(allow_abbrev=False)
    parser.add_argument("--wan", action="append", default=[])
    parser.add_argument("--model", required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--height", type=int, required=True)
    parser.add_argument("--frames", type=int, required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--times", action="store_true")
    parser.add_argument("--gpus", type=int, default=1)
    # generate.py's own. On one GPU it offloads unless it is told not to, on several only where it is told to.
    parser.add_argument("--offload_model", type=lambda text: text.lower() in ("yes", "true", "t", "y", "1"))
    for name in "t5_cpu", "convert_model_dtype", "t5_fsdp", "dit_fsdp":
        parser.add_argument("--" + name, action="store_true")
    for name in "ulysses_size", "ring_size":
        parser.add_argument("--" + name, type=int, default=1)
    given = parser.parse_args()
    if given.offload_model is None:
        given.offload_model = given.gpus == 1
    return given


def check(given):
    """What generate.py asserts, and what there is no program for."""
    if given.model not in MODELS:
        cannot(f"there is no program for {given.model}: only for {', '.join(MODELS)}")
    if given.task != "t2v":
        cannot(f"only text to video (t2v) is run, not {given.task}")
    version = MODELS[given.model][0]
    if given.convert_model_dtype and version == "2.1":
        cannot("Wan2.1's code has no --convert_model_dtype")
    if given.ring_size > 1 and version == "2.2":
        cannot("Wan2.2's code has no --ring_size")
    parts = given.ulysses_size * given.ring_size
    if parts not in (1, given.gpus):
        cannot(f"--ulysses_size times --ring_size is {parts}, and {given.gpus} GPUs were used")
    if parts > 1 and version == "2.1" and importlib.util.find_spec("xfuser") is None:
        cannot("Wan2.1's code needs the packages xfuser and yunchang for several GPUs")
    if given.gpus == 1 and (given.t5_fsdp or given.dit_fsdp):
        cannot("--t5_fsdp and --dit_fsdp are for several GPUs")


def start_ranks(count):
    """Becomes torchrun, which starts so many processes of this program."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), "--no-python"]
    os.execv(sys.executable, [sys.executable, *torchrun, *sys.orig_argv])


def join_ranks(torch, given, version):
    """What generate.py does to join the other ranks. Gives which of them this one is, and its device."""
    rank, local_rank = (int(os.environ.get(name, 0)) for name in ("RANK", "LOCAL_RANK"))
    if given.gpus > 1:
        torch.cuda.set_device(local_rank)
        torch.distributed.init_process_group(backend="nccl", init_method="env://", rank=rank, world_size=given.gpus)
    if given.ulysses_size * given.ring_size > 1 and version == "2.1":
        take_parts_of_xfuser()
        from xfuser.core.distributed import init_distributed_environment, initialize_model_parallel

        init_distributed_environment(rank=rank, world_size=given.gpus)
        initialize_model_parallel(sequence_parallel_degree=given.gpus, ring_degree=given.ring_size, ulysses_degree=given.ulysses_size)
    return rank, local_rank


def take_parts_of_xfuser():
    """The package without what it imports for all its pipelines, of which some ask for packages that nothing else needs."""
    found = importlib.util.find_spec("xfuser")
    package = types.ModuleType("xfuser")
    package.__path__, package.__spec__ = list(found.submodule_search_locations), found
    sys.modules["xfuser"] = package


def checkout(folders, version):
    """The folder that holds that version: one that was named, or one inside it."""
    inner = [os.path.join(folder, name) for folder in folders if os.path.isdir(folder) for name in sorted(os.listdir(folder))]
    other = MARKS["2.1" if version == "2.2" else "2.2"] if version == "2.1" else None
    for folder in folders + inner:
        if os.path.isfile(os.path.join(folder, MARKS[version])) and not (other and os.path.isfile(os.path.join(folder, other))):
            return folder
    cannot(f"--wan names no checkout of Wan{version}")


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Modules that are imported and never used: whatever is taken from them is a class without anything in it."""

    NAMES = ("cv2", "dashscope", "decord", "distvae", "imageio", "librosa", "peft", "torchvision")

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.NAMES:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        def attribute(name):
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (), {})

        module.__getattr__ = attribute


def answer_for_flash_attention(torch, version):
    """The package flash_attn, as far as Wan and xFuser call it. What they only import is a stand-in."""

    from torch.nn.attention import SDPBackend, sdpa_kernel

    def backend(device):
        is_third = version == "2.2" and torch.cuda.get_device_capability(device)[0] == 9
        return SDPBackend.CUDNN_ATTENTION if is_third else SDPBackend.FLASH_ATTENTION

    def flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, **_):
        sequences = cu_seqlens_q.numel() - 1
        assert sequences == 1, "one sequence at a time"
        q, k, v = (x.unsqueeze(0).transpose(1, 2) for x in (q, k, v))
        with sdpa_kernel(backend(q.device)):
            return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).squeeze(0)

    def forward(q, k, v, dropout_p, softmax_scale, causal, **_):
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        out, logsumexp, *_ = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, dropout_p, causal, scale=softmax_scale)
        return out.transpose(1, 2), logsumexp, None, None

    answers = {
        "flash_attn": {"flash_attn_varlen_func": flash_attn_varlen_func, "__version__": "2.7.4"},
        "flash_attn.flash_attn_interface": {"_flash_attn_forward": forward},
    }
    for name, functions in answers.items():
        module = types.ModuleType(name)
        StandIns().exec_module(module)
        module.__spec__, module.__path__ = importlib.machinery.ModuleSpec(name, None, is_package=True), []
        module.__dict__.update(functions)
        sys.modules[name] = module


def take_cudnn_for_flash_attention_3():
    """Before the virtual GPU reads its profile."""
    variable = "LOWMEM_VIRTUAL_GPU"
    profile = json.loads(os.environ.get(variable, "{}"))
    rate = profile.get("efficiency", {}).get("flash_attention_3")
    if rate:
        profile["efficiency"]["cudnn_attention"] = rate
        os.environ[variable] = json.dumps(profile)


def leave_weights_empty(torch):
    """Weights are allocated and neither drawn at random, nor read, nor converted: what is never written takes no memory of the host."""
    for name in dir(torch.nn.init):
        if name.endswith("_") and not name.startswith("_"):
            setattr(torch.nn.init, name, lambda tensor, *_, **__: tensor)

    convert = torch.Tensor.to

    def to(tensor, *words, **named):
        device, dtype, _, _ = torch._C._nn._parse_to(*words, **named)
        stays = tensor.device.type == "cpu" and (device is None or device.type == "cpu")
        if stays and dtype is not None and dtype != tensor.dtype and tensor.numel() > 1 << 20:
            return torch.empty_like(tensor, dtype=dtype)
        return convert(tensor, *words, **named)

    torch.Tensor.to = to

    def load(_path, map_location="cpu", **_):
        return map_location

    def load_state_dict(module, device, *_, **__):
        if any(tensor.is_meta for tensor in module.parameters()):
            module.to_empty(device=device)

    torch.load = load
    torch.nn.Module.load_state_dict = load_state_dict


class Stopwatch:
    """The times of a run by the virtual GPU's clock, which it keeps in three worlds: the quickest, the likely and the slowest."""

    def __init__(self, torch):
        self.torch = torch
        self.clock = ctypes.CDLL(None).lowmem_virtual_gpu_now
        self.marks = [self.now()]

    def now(self):
        self.torch.cuda.synchronize()
        times = (ctypes.c_double * 3)()
        self.clock(times)
        return tuple(times)

    def mark(self):
        self.marks.append(self.now())

    def total(self, steps):
        """Of a run whose marks are its beginning, the end of each of its steps, and its end, if it had so many steps."""

        def in_world(marks):
            between = [after - before for before, after in zip(marks[1:-2], marks[2:-1])]
            return marks[-1] - marks[0] + (steps - len(between) - 1) * statistics.median(between)

        return [in_world(marks) for marks in zip(*self.marks)]


def main():
    given = arguments()
    check(given)
    version, pipeline, name, latent_channels = MODELS[given.model]
    sys.path.insert(0, checkout(given.wan, version))
    if given.gpus > 1 and "RANK" not in os.environ:
        start_ranks(given.gpus)
    sys.dont_write_bytecode = True
    if version == "2.2":
        take_cudnn_for_flash_attention_3()
    os.environ.setdefault("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "1")

    import torch
    import diffusers, transformers  # noqa: E401,F401 Before the stand-ins, which they must not find.

    answer_for_flash_attention(torch, version)
    sys.meta_path.append(StandIns())
    rank, device = join_ranks(torch, given, version)
    leave_weights_empty(torch)

    import wan
    from wan.modules import model, t5
    from wan.utils.fm_solvers_unipc import FlowUniPCMultistepScheduler

    config = wan.configs.WAN_CONFIGS[name]

    def transformer(_folder, **_):
        shape = ("dim", "ffn_dim", "freq_dim", "num_heads", "num_layers", "window_size", "qk_norm", "cross_attn_norm", "eps")
        kind = "ti2v" if version == "2.2" and pipeline == "WanTI2V" else "t2v"
        return model.WanModel(model_type=kind, in_dim=latent_channels, out_dim=latent_channels, **{key: config[key] for key in shape})

    model.WanModel.from_pretrained = transformer

    class Tokenizer:
        def __init__(self, seq_len, **_):
            self.seq_len = seq_len

        def __call__(self, texts, **_):
            shape = (len(texts), self.seq_len)
            mask = torch.zeros(shape, dtype=torch.long)
            mask[:, : self.seq_len // 2] = 1
            return torch.zeros(shape, dtype=torch.long), mask

    t5.HuggingfaceTokenizer = Tokenizer
    encode = t5.T5EncoderModel.__call__

    def encode_on_gpu(encoder, texts, device):
        if device.type == "cpu":
            return [torch.empty(encoder.text_len // 2, encoder.model.dim, dtype=encoder.dtype) for _ in texts]
        return encode(encoder, texts, device)

    t5.T5EncoderModel.__call__ = encode_on_gpu

    torch.linalg.solve = lambda *matrices: torch.linalg.solve_ex(*matrices).result
    solver = FlowUniPCMultistepScheduler
    set_timesteps = solver.set_timesteps

    def set_timesteps_and_begin(self, *words, **named):
        set_timesteps(self, *words, **named)
        self.set_begin_index(0)

    solver.set_timesteps = set_timesteps_and_begin

    options = {"convert_model_dtype": given.convert_model_dtype} if version == "2.2" else {}
    if given.gpus > 1:
        options |= {"device_id": device, "rank": rank, "t5_fsdp": given.t5_fsdp, "dit_fsdp": given.dit_fsdp}
        options["use_sp" if version == "2.2" else "use_usp"] = given.ulysses_size * given.ring_size > 1
    video = getattr(wan, pipeline)(config=config, checkpoint_dir="", t5_cpu=given.t5_cpu, **options)
    shift = getattr(config, "sample_shift", 5.0)
    guidance = getattr(config, "sample_guide_scale", 5.0)
    size = (given.width, given.height)
    stopwatch = Stopwatch(torch) if given.times else None
    if stopwatch:
        step = solver.step

        def step_and_mark(self, *words, **named):
            result = step(self, *words, **named)
            stopwatch.mark()
            return result

        solver.step = step_and_mark
    video.generate(
        "a cat",
        size=size,
        frame_num=given.frames,
        shift=shift,
        sampling_steps=STEPS,
        guide_scale=guidance,
        seed=0,
        offload_model=given.offload_model,
    )
    if stopwatch:
        stopwatch.mark()
    if stopwatch and rank == 0:
        print(json.dumps(stopwatch.total(given.steps)))


main()

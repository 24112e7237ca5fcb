"""Runs diffusers' pipelines, untouched, with empty weights: what they ask of the GPU is what a real run asks of it.

    python pipelines.py --model sdxl --width 1024 --height 1024 [--frames 1] [--offload model] [--stream] [--vae_tiling]

Ends with exit code 3, and the reason on standard error, where it cannot run what is asked for. What differs from a real run, none of it on the GPU:

- Models are built from their published shapes and no checkpoint is read. Weights are allocated on the host, in the types that `from_pretrained` would give
  them, and never filled: nor are they where a program copies them to page-locked memory.
- The tokenizers give as many tokens as there is room for, whatever the prompt is.
- Two steps are run: the second one has the peak of all that follow.
- The scheduler is told that its first step is the first one, and does not check whether its systems of equations could be solved: both it would read from the GPU.
"""

import argparse
import sys
import types

STEPS = 2
OFFLOADS = ("none", "model", "sequential", "block", "leaf")


def cannot(why):
    print(why, file=sys.stderr)
    raise SystemExit(3)


class Options(argparse.ArgumentParser):
    """An option that is not known is no mistake here: it is one that cannot be run."""

    def error(self, message):
        cannot(message)


def arguments():
    parser = Options(allow_abbrev=False)
    parser.add_argument("--model", required=True, choices=PIPELINES)
    parser.add_argument("--task", default="")
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--height", type=int, required=True)
    parser.add_argument("--frames", type=int, default=1)
    # Group offload comes in blocks of one layer, or leaf by leaf.
    parser.add_argument("--offload", choices=OFFLOADS, default="none")
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--vae_tiling", action="store_true")
    return parser.parse_args()


class Tokenizer:
    """Full of the token 0. The pipelines compare what was cut off with what was not, and these are the same."""

    def __init__(self, model_max_length):
        self.model_max_length = model_max_length

    # Textual inversion looks whether a word has tokens of its own.
    added_tokens_encoder = {}

    def tokenize(self, _text):
        return []

    def __call__(self, texts, max_length=None, **_):
        import torch

        texts = [texts] if isinstance(texts, str) else texts
        shape = (len(texts), max_length or self.model_max_length)
        return types.SimpleNamespace(input_ids=torch.zeros(shape, dtype=torch.long), attention_mask=torch.ones(shape, dtype=torch.long))


def empty(build, dtype):
    """The module that `build` makes, its weights allocated and not filled. What its class keeps in fp32 stays so, and buffers are what they are."""
    import accelerate
    import torch

    with accelerate.init_empty_weights(include_buffers=False):
        module = build()
    kept = set(getattr(module, "_keep_in_fp32_modules", None) or ())
    made = {}
    for name, parameter in list(module.named_parameters(remove_duplicate=False)):
        if parameter not in made:
            own_dtype = torch.float32 if kept & set(name.split(".")) else dtype
            made[parameter] = torch.nn.Parameter(torch.empty(parameter.shape, dtype=own_dtype), requires_grad=False)
        path, _, own_name = name.rpartition(".")
        setattr(module.get_submodule(path), own_name, made[parameter])
    return module.eval()


def clip(hidden, layers, heads, act, projection, with_projection):
    import transformers

    shape = transformers.CLIPTextConfig(
        hidden_size=hidden, intermediate_size=4 * hidden, num_hidden_layers=layers, num_attention_heads=heads, hidden_act=act, projection_dim=projection
    )
    return lambda: (transformers.CLIPTextModelWithProjection if with_projection else transformers.CLIPTextModel)(shape)


def t5(multilingual):
    import transformers

    config, model = (
        (transformers.UMT5Config, transformers.UMT5EncoderModel) if multilingual else (transformers.T5Config, transformers.T5EncoderModel)
    )
    shape = config(
        vocab_size=256384 if multilingual else 32128, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu"
    )
    return lambda: model(shape)


def wan(heads, ffn, layers):
    import diffusers
    import torch

    transformer = lambda: diffusers.WanTransformer3DModel(num_attention_heads=heads, ffn_dim=ffn, num_layers=layers)  # noqa: E731
    return diffusers.WanPipeline(
        tokenizer=Tokenizer(512),
        text_encoder=empty(t5(multilingual=True), torch.bfloat16),
        transformer=empty(transformer, torch.bfloat16),
        vae=empty(diffusers.AutoencoderKLWan, torch.float32),
        scheduler=diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0),
    )


def flux():
    import diffusers
    import torch

    half = torch.bfloat16
    vae = lambda: diffusers.AutoencoderKL(  # noqa: E731
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=16,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        sample_size=1024,
    )
    return diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=empty(vae, half),
        text_encoder=empty(clip(768, 12, 12, "quick_gelu", 768, with_projection=False), half),
        tokenizer=Tokenizer(77),
        text_encoder_2=empty(t5(multilingual=False), half),
        tokenizer_2=Tokenizer(512),
        transformer=empty(lambda: diffusers.FluxTransformer2DModel(guidance_embeds=True), half),
    )


def sdxl():
    import diffusers
    import torch

    half = torch.float16
    unet = lambda: diffusers.UNet2DConditionModel(  # noqa: E731
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    vae = lambda: diffusers.AutoencoderKL(  # noqa: E731
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        scaling_factor=0.13025,
        sample_size=1024,
        force_upcast=True,
    )
    return diffusers.StableDiffusionXLPipeline(
        vae=empty(vae, half),
        text_encoder=empty(clip(768, 12, 12, "quick_gelu", 768, with_projection=False), half),
        text_encoder_2=empty(clip(1280, 32, 20, "gelu", 1280, with_projection=True), half),
        tokenizer=Tokenizer(77),
        tokenizer_2=Tokenizer(77),
        unet=empty(unet, half),
        scheduler=diffusers.EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        add_watermarker=False,
    )


PIPELINES = {
    "wan2.1-t2v-1.3b": lambda: wan(12, 8960, 30),
    "wan2.1-t2v-14b": lambda: wan(40, 13824, 40),
    "flux.1-dev": flux,
    "sdxl": sdxl,
}


def place(pipeline, given):
    """Puts the pipeline where it shall be."""
    import torch

    if given.offload == "none":
        pipeline.to("cuda")
    elif given.offload == "model":
        pipeline.enable_model_cpu_offload()
    elif given.offload == "sequential":
        pipeline.enable_sequential_cpu_offload()
    else:
        blocks = {"num_blocks_per_group": 1} if given.offload == "block" else {}
        pipeline.enable_group_offload(
            onload_device=torch.device("cuda"), offload_type=f"{given.offload}_level", use_stream=given.stream, **blocks
        )
    if given.vae_tiling:
        pipeline.vae.enable_tiling()


def main():
    given = arguments()
    import torch

    pin = torch.Tensor.pin_memory
    torch.Tensor.pin_memory = lambda tensor, *words: (
        torch.empty_like(tensor, pin_memory=True) if tensor.numel() > 1 << 16 else pin(tensor, *words)
    )
    torch.linalg.solve = lambda *matrices: torch.linalg.solve_ex(*matrices).result
    pipeline = PIPELINES[given.model]()
    set_timesteps = pipeline.scheduler.set_timesteps

    def set_timesteps_and_begin(*words, **named):
        set_timesteps(*words, **named)
        pipeline.scheduler.set_begin_index(0)

    # The pipelines look at the signature for what it takes.
    set_timesteps_and_begin.__wrapped__ = set_timesteps
    pipeline.scheduler.set_timesteps = set_timesteps_and_begin
    place(pipeline, given)
    frames = {"num_frames": given.frames} if given.model.startswith("wan") else {}
    pipeline("a cat", width=given.width, height=given.height, num_inference_steps=STEPS, output_type="pt", **frames)


main()

//! Programs in the shape of what people reported: each runs as on a card, and what is said of it is right.

use crate::command::{Place, stderr};
use crate::on::{last_row, on};

/// A program, what `lowmem on` is given for it, and what is said of it.
struct Reported {
    program: &'static str,
    words: &'static [&'static str],
    arguments: &'static [&'static str],
    code: i32,
    said: &'static [&'static str],
}

/// Attention over the 32,760 tokens of a video of 832x480 and 81 frames, 12 heads of 128.
const ATTENTION: &str = "
import sys, torch
q = torch.randn(1, 12, 32760, 128, device='cuda', dtype=getattr(torch, sys.argv[1]))
print(tuple(torch.nn.functional.scaled_dot_product_attention(q, q, q).shape))
";

/// One large tensor is made and dropped, then many of a fifth of its size are kept until the card is full.
const FILLS_UP: &str = "
import torch
torch.zeros([50, 800, 1200, 3], device='cuda')
kept = []
while True:
    kept.append(torch.zeros([10, 800, 1200, 3], device='cuda'))
";

/// A LoRA for Wan 14B's transformer, trained as trainers do it: weights in bf16, adapters in fp32, activations computed again in the backward pass.
const LORA: &str = "
import torch
from diffusers import WanTransformer3DModel
from peft import LoraConfig
torch.set_default_dtype(torch.bfloat16)
with torch.device('cuda'):
    model = WanTransformer3DModel(num_attention_heads=40, attention_head_dim=128, ffn_dim=13824, num_layers=40)
torch.set_default_dtype(torch.float32)
model.requires_grad_(False)
model.add_adapter(LoraConfig(r=16, target_modules=['to_q', 'to_v']))
model.enable_gradient_checkpointing()
model.train()
optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad])
latents = torch.randn(1, 16, 9, 60, 104, device='cuda', dtype=torch.bfloat16)
text = torch.randn(1, 512, 4096, device='cuda', dtype=torch.bfloat16)
noise = model(hidden_states=latents, timestep=torch.tensor([500], device='cuda'), encoder_hidden_states=text, return_dict=False)[0]
torch.nn.functional.mse_loss(noise.float(), latents.float()).backward()
optimizer.step()
print('stepped')
";

const FP8: &str = "
import torch
a, b = (torch.randn(rows, 5120, device='cuda').to(torch.float8_e4m3fn) for rows in (64, 13824))
scale = torch.ones((), device='cuda')
print(tuple(torch._scaled_mm(a, b.t(), scale_a=scale, scale_b=scale, out_dtype=torch.bfloat16).shape))
";

const REPORTED: [Reported; 11] = [
    // What fails while weights are loaded has not shown what it needs: no card is said to be large enough for that, nor the next one named.
    Reported {
        program: LORA,
        words: &[],
        arguments: &["rtx-4090"],
        code: 1,
        said: &[
            "What would have come after that is not known.",
            "Fits on: none. Not known: rtx-3090, rtx-5090, a100-40gb",
            "To see all that it needs, run: lowmem on b200 -- python3.11 program.py",
            "Or run it with --beyond",
        ],
    },
    Reported {
        program: LORA,
        words: &[],
        arguments: &["rtx-4090", "--beyond"],
        code: 0,
        said: &["Fits on: a100-40gb", "Not known: none.", "optimizer state"],
    },
    // Turing has no attention in bf16 but the one that holds the whole score matrix: 12 heads of 32,760 x 32,760 in fp32.
    Reported {
        program: ATTENTION,
        words: &["bfloat16"],
        arguments: &["t4"],
        code: 1,
        said: &[
            "asked for 47.98 GiB",
            "Too small: t4, rtx-2080-ti.",
            "On compute capability 7.5 (t4) PyTorch has no other attention for bf16: in fp16 (torch.float16) the program needs far less.",
        ],
    },
    Reported {
        program: ATTENTION,
        words: &["float16"],
        arguments: &["t4"],
        code: 0,
        said: &["Fits: 0.32 of 14.56 GiB.", "Fits on: rtx-2080-ti, t4. Not known: rtx-4060", "Too small: none."],
    },
    // A card that holds no more than what is missing beside what lives may still be too small for what comes next.
    Reported {
        program: FILLS_UP,
        words: &[],
        arguments: &["rtx-4090"],
        code: 1,
        said: &[
            "program.py:6 asked for 110 MiB",
            "Fits on: none.",
            "To see all that it needs, run: lowmem on b200 -- python3.11 program.py",
        ],
    },
    // A limit of the program's own is in the way, and not the card.
    Reported {
        program: "
import torch
torch.cuda.set_per_process_memory_fraction(0.5)
kept = [torch.empty(1 << 30, dtype=torch.uint8, device='cuda') for _ in range(30)]
",
        words: &[],
        arguments: &["rtx-4090"],
        code: 1,
        said: &["program.py:4 asked for 1.00 GiB, and 12.19 GiB were free: the program limits itself."],
    },
    // A pool of its own is asked for more than the default one has left: that one holds unused memory.
    Reported {
        program: "
import torch
x = torch.empty(8 << 30, dtype=torch.uint8, device='cuda')
del x
with torch.cuda.use_mem_pool(torch.cuda.MemPool()):
    y = torch.empty(6 << 30, dtype=torch.uint8, device='cuda')
",
        words: &[],
        arguments: &["rtx-4090"],
        code: 0,
        said: &["It needs at least 8.46 GiB, and held 14.46.", "Too small: rtx-3070, rtx-3060-ti, rtx-4060."],
    },
    // A child holds memory while its parent does.
    Reported {
        program: "
import multiprocessing, torch
def hold(ready, done):
    held = torch.empty(4 << 30, dtype=torch.uint8, device='cuda')
    ready.set()
    done.wait()
if __name__ == '__main__':
    spawn = multiprocessing.get_context('spawn')
    ready, done = spawn.Event(), spawn.Event()
    child = spawn.Process(target=hold, args=(ready, done))
    child.start()
    ready.wait()
    torch.empty(7 << 30, dtype=torch.uint8, device='cuda')
    done.set()
    child.join()
",
        words: &[],
        arguments: &["rtx-4090"],
        code: 0,
        said: &["Fits: 11.92 of 23.65 GiB. This is the sum of all processes' peaks, as if they came at once."],
    },
    // A product of 8-bit matrices, with a scale each.
    Reported {
        program: FP8,
        words: &[],
        arguments: &["rtx-4090"],
        code: 0,
        said: &[
            "Fits on: rtx-4060, rtx-5070",
            "Not known: rtx-3060-ti",
            "Too small: none.",
            "in fp8. GPUs below compute capability 8.9 refuse that",
        ],
    },
    Reported {
        program: FP8,
        words: &[],
        arguments: &["rtx-3060-ti"],
        code: 1,
        said: &[
            "compute capability >= 9.0 or 8.9",
            "Whether it fits is not known, since a program that failed may not have come to its end",
        ],
    },
    // Workers that load page-locked batches, scaled gradients, a checkpoint that is written and read.
    Reported {
        program: "
import io, torch
from torch.utils.data import DataLoader, TensorDataset
if __name__ == '__main__':
    loader = DataLoader(TensorDataset(torch.randn(64, 512)), batch_size=8, num_workers=2, pin_memory=True)
    model = torch.nn.Linear(512, 512).cuda()
    optimizer, scaler = torch.optim.AdamW(model.parameters()), torch.amp.GradScaler()
    for (batch,) in loader:
        with torch.autocast('cuda', torch.float16):
            loss = model(batch.cuda(non_blocking=True)).square().mean()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    model.load_state_dict(torch.load(file, map_location='cuda'))
    print('loaded')
",
        words: &[],
        arguments: &["rtx-4090"],
        code: 0,
        said: &["Fits on: rtx-4060", "Too small: none."],
    },
];

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn what_people_reported_comes_out_right() {
    for Reported { program, words, arguments, code, said } in REPORTED {
        let place = Place::new();
        let assert = on(&place, arguments, program, words).assert();
        let report = stderr(&assert);
        assert_eq!(assert.get_output().status.code(), Some(code), "{program}: {report}");
        for part in said {
            assert!(report.contains(part), "{program}: `{part}` is missing in: {report}");
        }
    }
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn what_fills_a_card_holds_more_of_it_in_expandable_segments() {
    let place = Place::new();
    let reserved = |settings: &str| {
        let assert = on(&place, &["rtx-4090"], FILLS_UP, &[]).env("PYTORCH_ALLOC_CONF", settings).assert().code(1);
        last_row(&assert)[3].parse::<f64>().expect("GiB")
    };
    let [native, expandable] = ["", "expandable_segments:True"].map(reserved);
    assert!(expandable >= native && native > 23.0, "{native} and {expandable}");
}

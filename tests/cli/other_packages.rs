//! Packages beside PyTorch that ask CUDA for something themselves, on the virtual GPU.

use crate::command::{Place, stderr, stdout};
use crate::on::on;

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn bitsandbytes_has_linear_layers_in_4_bits_and_adam_in_8_with_paged_state() {
    let place = Place::new();
    let program = "
import torch, bitsandbytes as bnb
layer = bnb.nn.Linear4bit(4096, 11008, bias=False, compute_dtype=torch.bfloat16, quant_type='nf4').to('cuda')
print(tuple(layer(torch.randn(64, 4096, device='cuda', dtype=torch.bfloat16)).shape), layer.weight.data.numel() == 4096 * 11008 // 2)
for kind in bnb.optim.AdamW8bit, bnb.optim.PagedAdamW8bit:
    model = torch.nn.Linear(4096, 4096, device='cuda')
    optimizer = kind(model.parameters())
    model(torch.randn(8, 4096, device='cuda')).sum().backward()
    optimizer.step()
    print(kind.__name__)
";
    let assert = on(&place, &["rtx-3060", "--strict"], program, &[]).assert().success();
    assert_eq!(stdout(&assert), "(64, 11008) True\nAdamW8bit\nPagedAdamW8bit\n");
    assert!(stderr(&assert).contains("Fits: "), "{}", stderr(&assert));
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn a_text_ends_at_its_greatest_length_and_the_report_says_that_this_was_decided() {
    let place = Place::new();
    let program = "
import torch
from transformers import LlamaConfig, LlamaForCausalLM
config = LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, vocab_size=100, pad_token_id=0)
model = LlamaForCausalLM(config).cuda().eval()
prompt = torch.ones(2, 8, dtype=torch.long, device='cuda')
for options in {'do_sample': False}, {'do_sample': True}, {'num_beams': 2, 'do_sample': False}:
    print(tuple(model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=16, **options).shape)[0])
print(tuple(model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=16, do_sample=False).shape))
";
    let mut command = on(&place, &["rtx-4090"], program, &[]);
    let assert = command.env("LOWMEM_VIRTUAL_GPU_PATIENCE", "0").assert().success();
    assert_eq!(stdout(&assert), "2\n2\n2\n(2, 24)\n");
    let said = stderr(&assert);
    assert!(said.contains("transformers' generate ended a text at its greatest length (4)."), "{said}");
    assert_eq!(said.matches("a loop that waits for another value does not end").count(), 1, "said once: {said}");
}

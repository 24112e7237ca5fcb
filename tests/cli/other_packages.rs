//! Packages beside PyTorch that ask CUDA for something themselves, on the virtual GPU.

use std::collections::BTreeSet;

use lowmem_tests::root;

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

/// Bytes that a layer's weights take, for each of them, with what `quantize` of each package makes of them.
#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn torchao_and_quanto_hold_linear_layers_in_fewer_bits() {
    let place = Place::new();
    let program = "
import gc, torch
from optimum import quanto
from torchao import quantization as ao
def held(name, quantize):
    gc.collect()
    before = torch.cuda.memory_allocated()
    model = torch.nn.Sequential(torch.nn.Linear(4096, 8192, bias=False)).cuda().bfloat16()
    quantize(model)
    gc.collect()
    bytes_each = (torch.cuda.memory_allocated() - before) / (4096 * 8192)
    with torch.no_grad():
        print(name, tuple(model(torch.randn(256, 4096, device='cuda', dtype=torch.bfloat16)).shape), f'{bytes_each:.1f}')
for name in 'Int8WeightOnly', 'Int8DynamicActivationInt8Weight', 'Float8WeightOnly', 'Float8DynamicActivationFloat8Weight':
    held(name, lambda model: ao.quantize_(model, getattr(ao, name + 'Config')()))
for name, kinds in {'qint8': {'weights': quanto.qint8}, 'qint4': {'weights': quanto.qint4}, 'both': {'weights': quanto.qint8, 'activations': quanto.qint8}}.items():
    held(name, lambda model: (quanto.quantize(model, **kinds), quanto.freeze(model)))
";
    let assert = on(&place, &["rtx-4090", "--strict"], program, &[]).assert().success();
    assert_eq!(
        stdout(&assert),
        "Int8WeightOnly (256, 8192) 1.0
Int8DynamicActivationInt8Weight (256, 8192) 1.0
Float8WeightOnly (256, 8192) 1.0
Float8DynamicActivationFloat8Weight (256, 8192) 1.0
qint8 (256, 8192) 1.0
qint4 (256, 8192) 0.5
both (256, 8192) 1.0
"
    );
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn diffusers_unpacks_weights_of_gguf_files() {
    let place = Place::new();
    let program = "
import sys, gguf, torch
from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter
for tensor in gguf.GGUFReader(sys.argv[1]).tensors:
    name = tensor.tensor_type.name
    if name.startswith('Q') and tensor.data.ndim == 2:
        inputs, outputs = map(int, tensor.shape)
        layer = GGUFLinear(inputs, outputs, compute_dtype=torch.bfloat16)
        layer.weight = GGUFParameter(torch.from_numpy(tensor.data.copy()), quant_type=tensor.tensor_type)
        assert layer.cuda()(torch.randn(8, inputs, device='cuda', dtype=torch.bfloat16)).shape == (8, outputs)
        print(name)
";
    let file = root().join("tests/fixtures/blocks.gguf");
    let assert = on(&place, &["rtx-3060", "--strict"], program, &[&file.to_string_lossy()]).assert().success();
    let said = stdout(&assert);
    let kinds: BTreeSet<&str> = said.lines().collect();
    assert_eq!(Vec::from_iter(kinds), ["Q2_K", "Q3_K", "Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q5_1", "Q5_K", "Q6_K", "Q8_0"]);
}

/// As `device_map` of transformers does it: by how much each may hold.
#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn accelerate_spreads_a_model_over_two_devices() {
    let place = Place::new();
    let program = "
import torch, accelerate
from transformers import LlamaConfig, LlamaForCausalLM
config = LlamaConfig(hidden_size=1024, intermediate_size=2816, num_hidden_layers=8, num_attention_heads=8, vocab_size=8000, dtype=torch.bfloat16)
with accelerate.init_empty_weights():
    model = LlamaForCausalLM(config).bfloat16()
places = accelerate.infer_auto_device_map(model, max_memory={0: '120MiB', 1: '1GiB'}, no_split_module_classes=['LlamaDecoderLayer'])
for name, parameter in list(model.named_parameters()):
    place = next(place for key, place in places.items() if name == key or name.startswith(key + '.'))
    accelerate.utils.set_module_tensor_to_device(model, name, place, value=torch.empty(parameter.shape, dtype=torch.bfloat16))
model = accelerate.dispatch_model(model, places)
with torch.no_grad():
    print(sorted(set(places.values())), tuple(model(torch.zeros(1, 64, dtype=torch.long)).logits.shape))
";
    let assert = on(&place, &["rtx-4090", "--gpus", "2", "--strict"], program, &[]).assert().success();
    assert_eq!(stdout(&assert), "[0, 1] (1, 64, 8000)\n");
    let said = stderr(&assert);
    assert!(
        said.contains("The fullest device counts.") && said.contains("LlamaForCausalLM.model 0.12, LlamaForCausalLM.lm_head 0.02"),
        "{said}"
    );
}

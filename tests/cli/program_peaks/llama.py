"""A Llama-shaped model of 7 billion parameters from transformers, with empty weights in bf16: generates text, or is trained.

    python llama.py generate TOKENS NEW_TOKENS
    python llama.py train TOKENS [--gradient_checkpointing]
"""

import argparse

import torch
import transformers


def model():
    # The configuration's default values are Llama 7B's: 6,738,415,616 parameters.
    with torch.device("meta"):
        made = transformers.LlamaForCausalLM(transformers.LlamaConfig(dtype=torch.bfloat16)).to(torch.bfloat16)
    return made.to_empty(device="cuda")


class Enough(Exception):
    pass


class Stop(transformers.StoppingCriteria):
    """Ends by an exception: `generate` asks the GPU whether all texts are long enough, and there no answer is computed."""

    def __init__(self, length):
        self.length = length

    def __call__(self, input_ids, scores, **_):
        if input_ids.shape[1] >= self.length:
            raise Enough
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


def generate(given):
    llama = model().eval()
    prompt = torch.zeros(1, given.tokens, dtype=torch.long, device="cuda")
    try:
        llama.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=given.new_tokens,
            pad_token_id=0,
            stopping_criteria=transformers.StoppingCriteriaList([Stop(given.tokens + given.new_tokens)]),
        )
    except Enough:
        pass


def train(given):
    llama = model().train()
    if given.gradient_checkpointing:
        llama.gradient_checkpointing_enable()
    optimizer = torch.optim.AdamW(llama.parameters(), fused=True)
    text = torch.zeros(1, given.tokens, dtype=torch.long, device="cuda")
    # In the second step activations meet the moments that the first one made.
    for _ in range(2):
        llama(input_ids=text, labels=text, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def main():
    parser = argparse.ArgumentParser()
    tasks = parser.add_subparsers(required=True)
    generating = tasks.add_parser("generate")
    generating.set_defaults(run=generate)
    generating.add_argument("tokens", type=int)
    generating.add_argument("new_tokens", type=int)
    training = tasks.add_parser("train")
    training.set_defaults(run=train)
    training.add_argument("tokens", type=int)
    training.add_argument("--gradient_checkpointing", action="store_true")
    given = parser.parse_args()
    given.run(given)


main()

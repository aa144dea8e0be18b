"""A step of training in PyTorch, for `cargo bench -p train -- --peer-python python3`.

    python torch_step.py CHECKPOINT f32|bf16[-compiled] THREADS STEPS

Answers every line of its input with the tokens a second that STEPS steps took in; the first one is a warm-up.
"""

import sys
import time

import torch
from transformers import AutoModelForCausalLM

checkpoint, mode, threads, steps = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(threads)
model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="sdpa")
model.train()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
ids = torch.tensor([[(i + 256 * d) * 7919 % 4096 for i in range(257)] for d in range(8)])


def loss_of(inputs, targets):
    logits = model(inputs, use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


run = torch.compile(loss_of) if mode.endswith("compiled") else loss_of


def step():
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mode.startswith("bf16")):
        loss = run(ids[:, :-1], ids[:, 1:])
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


for _ in sys.stdin:
    start = time.perf_counter()
    for _ in range(steps):
        step()
    print(steps * 8 * 256 / (time.perf_counter() - start), flush=True)

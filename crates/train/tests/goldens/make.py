"""Records how PyTorch learns from the tiny checkpoints: the loss of every step, for `tests/main.rs`.

    pip install torch transformers safetensors
    python crates/train/tests/goldens/make.py

Everything in f32, one thread; PyTorch's Muon, which rounds to bf16 inside, is told not to. The data are a formula (`document`), the same as in the test, so that only losses are recorded.
"""

import json
import pathlib

import torch
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent
CHECKPOINTS = HERE.parents[2] / "model" / "tests" / "goldens"
STEPS, DOCUMENTS, LENGTH, RATE = 200, 4, 33, 3e-3


def document(step, number):
    """Tokens that follow each other by a rule with some noise, so that there is something to learn."""
    token, tokens = (7 * step + 13 * number) % 61, []
    for i in range(LENGTH):
        tokens.append(token)
        noise = (step * 31 + number * 17 + i * i) % 5 == 0
        token = (token * 5 + 3 + (i if noise else 0)) % 61
    return tokens


def adamw(matrices, others):
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return [torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.95), eps=1e-8)]


def muon(hidden, tables, others):
    torch.bfloat16 = torch.float32
    rule = torch.optim.Muon(hidden, lr=RATE, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    return [rule, *adamw(tables, others)]


def curve(family, method):
    model = AutoModelForCausalLM.from_pretrained(CHECKPOINTS / family, dtype=torch.float32, attn_implementation="eager")
    # Token 0 is a token like others here; as padding it would get no gradient from the embedding.
    model.get_input_embeddings().padding_idx = None
    model.train()
    hidden = [p for name, p in model.named_parameters() if p.dim() > 1 and ".layers." in name]
    tables = [p for name, p in model.named_parameters() if p.dim() > 1 and ".layers." not in name]
    others = [p for p in model.parameters() if p.dim() == 1]
    optimizers = muon(hidden, tables, others) if method == "muon" else adamw(hidden + tables, others)
    losses = []
    for step in range(STEPS):
        ids = torch.tensor([document(step, number) for number in range(DOCUMENTS)])
        logits = model(ids[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(float(f"{loss.item():.7g}"))
    return losses


torch.set_num_threads(1)
families = ("llama", "gemma3", "qwen2")
curves = {method: {family: curve(family, method) for family in families} for method in ("adamw", "muon")}
(HERE / "curves.json").write_text(json.dumps(curves) + "\n")

"""Writes rope.txt: frequencies and factors of every scaling, as transformers computes them.

Needs torch and transformers (made with 5.23): python rope.py > rope.txt
"""

from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

BASE, DIM, MAX = 10000.0, 32, 8192
CASES = {
    "linear": dict(factor=4.0),
    "dynamic": dict(factor=2.0),
    "llama3": dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=1024),
    "yarn": dict(factor=4.0, original_max_position_embeddings=2048),
    "yarn-set": dict(factor=8.0, original_max_position_embeddings=1024, beta_fast=16.0, beta_slow=2.0, attention_factor=1.5),
    "longrope": dict(
        factor=4.0,
        original_max_position_embeddings=2048,
        short_factor=[1.0] * (DIM // 2),
        long_factor=[1.0 + 0.25 * i for i in range(DIM // 2)],
    ),
}

print("# name, factor on cosines and sines, frequencies; base 10000, 32 of 32 numbers rotate, context 8192")
for name, parameters in CASES.items():
    kind = name.split("-")[0]
    config = LlamaConfig(
        hidden_size=DIM * 2,
        num_attention_heads=2,
        head_dim=DIM,
        max_position_embeddings=4096 if kind == "dynamic" else MAX,
        rope_parameters=dict(rope_type=kind, rope_theta=BASE, **parameters),
    )
    frequencies, factor = ROPE_INIT_FUNCTIONS[kind](config, "cpu", seq_len=MAX)
    print(name, repr(factor), *[repr(float(f)) for f in frequencies.numpy().astype("float64")])

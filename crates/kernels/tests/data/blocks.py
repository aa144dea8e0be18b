"""Writes blocks.bin: random blocks of every type and what the `gguf` package makes of them.

    pip install gguf && python blocks.py

Per type: GGUF's number of the type, the bytes' and the numbers' lengths (u32 each), the bytes, the numbers (f32).
"""

import pathlib
import struct

import gguf
import numpy as np

TYPES = "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q4_K Q5_K Q6_K".split()
# Where the f16 scales of a block are: random bytes there could be NaN, which equals nothing.
SCALES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}

rng = np.random.default_rng(1)
with open(pathlib.Path(__file__).parent / "blocks.bin", "wb") as out:
    for name in TYPES:
        kind = gguf.GGMLQuantizationType[name]
        length, size = gguf.GGML_QUANT_SIZES[kind]
        count = max(1, 64 // length)
        if name in SCALES:
            blocks = rng.integers(0, 256, (count, size), dtype=np.uint8)
            for at in SCALES[name]:
                blocks[:, at : at + 2] = rng.normal(0, 0.1, (count, 1)).astype(np.float16).view(np.uint8)
        else:
            numbers = rng.normal(0, 1, (count, 1)).astype(np.float32)
            blocks = gguf.quantize(numbers, kind).view(np.uint8).reshape(count, size)
        numbers = gguf.dequantize(blocks, kind).astype(np.float32).reshape(-1)
        out.write(struct.pack("<3I", int(kind), blocks.size, numbers.size))
        out.write(blocks.tobytes() + numbers.tobytes())

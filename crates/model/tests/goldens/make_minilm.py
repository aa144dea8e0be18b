"""Records sentence embeddings of all-MiniLM-L6-v2 (`transformers`, f32, mean of all tokens, length 1) into minilm.json.

    python make_minilm.py MODELS/minilm
"""

import json
import sys
from pathlib import Path

import torch
import transformers

SENTENCES = [
    "A man is eating food.",
    "Somebody has his lunch.",
    "The girl is carrying a baby.",
    "",
    "Hash tables map keys to values; lookups take constant time on average, whatever their size.",
    "Le chat dort sur le canapé. 你好，世界!",
    " ".join(f"Sentence number {i} of a longer text about nothing in particular." for i in range(20)),
]

tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
model = transformers.AutoModel.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
recorded = []
for sentence in SENTENCES:
    ids = tokenizer(sentence, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        mean = model(ids).last_hidden_state[0].mean(dim=0)
    embedding = (mean / mean.norm()).tolist()
    recorded.append({"tokens": ids[0].tolist(), "embedding": [float(f"{x:.6g}") for x in embedding]})
text = json.dumps(recorded, separators=(",", ":"))
(Path(__file__).parent / "minilm.json").write_text(text + "\n")

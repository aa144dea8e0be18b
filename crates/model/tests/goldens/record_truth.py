"""Records exact logits of real models, and how far llama.cpp is from them: truth.<name>.json.

    python record_truth.py llama MODELS SCRATCH     # llama-cpp-python 0.3.36, the build of record_llama_cpp.py
    python record_truth.py exact MODELS SCRATCH     # torch, transformers 5.23, gguf 0.19

Two runs, since one Python rarely has both; the first leaves its logits in SCRATCH (150 MB), the second needs llama_cpp.<name>.json
too. Exact means f32 arithmetic by `transformers` on the weights that the GGUF file holds, dequantised. The prompts are the first 20
long paragraphs of the excerpt; no engine's output chose them. Of each, four positions: the ids and exact logits of the 64
likeliest tokens. An error is the rms of what an engine adds to those logits, less its mean, which a softmax ignores; recorded are
llama.cpp's over all positions, and the median position's. Then the exact perplexity of the windows in llama_cpp.<name>.json.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
PROMPTS, LONG, TOP = 20, 300, 64
FILES = {
    "smollm2": "SmolLM2-135M-Instruct.Q4_1.gguf",
    "gemma3": "gemma-3-270m-Q4_K_M.gguf",
    "qwen2": "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
}


def paragraphs():
    text = (HERE.parent / "data" / "wikitext-2-excerpt.txt").read_text()
    return [line.strip() for line in text.splitlines() if len(line.strip()) >= LONG][:PROMPTS]


def rows(tokens):
    last = len(tokens) - 1
    return [last // 4, last // 2, 3 * last // 4, last]


def run_llama(name, models, scratch):
    import llama_cpp

    llm = llama_cpp.Llama(
        str(models / FILES[name]), n_ctx=512, n_batch=512, n_threads=1, n_threads_batch=1, logits_all=True, verbose=False)
    found = {}
    for i, text in enumerate(paragraphs()):
        tokens = llm.tokenize(text.encode(), add_bos=name == "gemma3", special=False)
        llm.reset()
        llm.eval(tokens)
        found |= {f"tokens{i}": np.array(tokens), f"logits{i}": llm.scores[rows(tokens)].astype(np.float32)}
    np.savez(scratch / f"{name}.npz", **found)


def exact_logits(model, tokens, rows):
    import torch

    with torch.no_grad():
        return model(torch.tensor([tokens]), logits_to_keep=torch.tensor(rows), use_cache=False).logits[0].numpy()


def perplexity(model, windows):
    """Of the second halves, as record_llama_cpp.py takes it."""
    losses = []
    for window in windows:
        scored = range(len(window) // 2, len(window) - 1)
        for row, logits in zip(scored, exact_logits(model, window, list(scored))):
            logits = logits.astype(np.float64)
            losses.append(logits.max() + np.log(np.exp(logits - logits.max()).sum()) - logits[window[row + 1]])
    return math.exp(np.mean(losses))


def run_exact(name, models, scratch):
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(models, gguf_file=FILES[name], dtype=torch.float32).eval()
    found = np.load(scratch / f"{name}.npz")
    prompts, squares = [], []
    for i in range(PROMPTS):
        tokens = found[f"tokens{i}"].tolist()
        exact = exact_logits(model, tokens, rows(tokens))
        ids = np.argsort(-exact, axis=1)[:, :TOP]
        exact = np.take_along_axis(exact, ids, axis=1)
        squares += (np.take_along_axis(found[f"logits{i}"], ids, axis=1) - exact).var(axis=1).tolist()
        logits = [[round(x, 4) for x in row] for row in exact.tolist()]
        prompts.append({"tokens": tokens, "rows": rows(tokens), "ids": ids.tolist(), "logits": logits})
    windows = json.loads((HERE / f"llama_cpp.{name}.json").read_text())["perplexity"]["windows"]
    write(name, prompts, np.array(squares), perplexity(model, windows))


def write(name, prompts, squares, perplexity):
    llama = {"rms": round(math.sqrt(squares.mean()), 4), "median": round(math.sqrt(np.median(squares)), 4)}
    result = {"file": FILES[name], "llama_cpp": llama, "perplexity": round(perplexity, 5), "prompts": prompts}
    print(name, "llama.cpp's error", llama, "exact perplexity", result["perplexity"], flush=True)
    (HERE / f"truth.{name}.json").write_text(json.dumps(result, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    run = {"llama": run_llama, "exact": run_exact}[sys.argv[1]]
    for name in FILES:
        run(name, Path(sys.argv[2]), Path(sys.argv[3]))

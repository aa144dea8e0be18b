"""Records what llama.cpp computes with real models.

    python record_llama_cpp.py MODELS [NAME..]      # llama-cpp-python 0.3.36 built with native flags; MODELS holds the .gguf files

For each model: 20 prompts as token ids, 64 greedy tokens each and the gap between the two largest logits at every step; and
the perplexity of fixed windows of 512 tokens (second half scored, the first token replaced by bos where the model wants one).
Token ids are recorded so that reading this back needs no tokenizer.
"""

import json
import sys
from pathlib import Path

import llama_cpp
import numpy as np

HERE = Path(__file__).parent
DEFAULTS = llama_cpp.llama_cpp.llama_model_default_params


def plain_weights():
    """Weights as the file has them: ggml's AMX buffers are mis-compiled by some versions of gcc."""
    parameters = DEFAULTS()
    parameters.use_extra_bufts = False
    return parameters


llama_cpp.llama_cpp.llama_model_default_params = plain_weights
STEPS, WINDOW, WINDOWS = 64, 512, 8
FILES = {
    "smollm2": "SmolLM2-135M-Instruct.Q4_1.gguf",
    "gemma3": "gemma-3-270m-Q4_K_M.gguf",
    "qwen2": "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
}
PLAIN = [
    "The capital of France is",
    "Once upon a time, in a small village by the sea,",
    "Water boils at a temperature of",
    "The three laws of motion were formulated by",
    "def fibonacci(n):\n",
    "Photosynthesis is the process by which",
    "In 1969, the first humans landed on",
    "To make a good cup of tea, you should",
    "List of planets in the solar system:\n1. Mercury\n2. Venus\n3.",
    "The quick brown fox jumps over the lazy dog. The quick brown fox",
    "import numpy as np\n\ndef softmax(x):\n    ",
    "SELECT name, age FROM users WHERE",
]
CHAT = [
    "What is the capital of Italy?",
    "Write a haiku about autumn.",
    "Explain what a hash table is in two sentences.",
    "Give me three tips for learning to swim.",
    "Translate 'good morning' into French, German and Spanish.",
    "What is 17 times 6?",
    "用一句话介绍北京。",
    "Why is the sky blue?",
]
TURN = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


def prompts(name, llm):
    asked = [TURN.format(c) if name != "gemma3" else f"Question: {c}\nAnswer:" for c in CHAT]
    for text in PLAIN + asked:
        yield text, llm.tokenize(text.encode(), add_bos=name == "gemma3", special=True)


def last_logits(llm):
    return np.array(llama_cpp.llama_get_logits_ith(llm.ctx, -1)[: llm.n_vocab()], dtype=np.float32)


def greedy(llm, ids):
    llm.reset()
    llm.eval(ids)
    tokens, gaps = [], []
    for _ in range(STEPS):
        logits = last_logits(llm)
        best, second = np.sort(logits)[-1:-3:-1]
        tokens.append(int(np.argmax(logits)))
        gaps.append(round(float(best - second), 3))
        llm.eval(tokens[-1:])
    return tokens, gaps


def perplexity(name, llm, text):
    ids = llm.tokenize(text.encode(), add_bos=False, special=False)
    windows = [ids[i * WINDOW:(i + 1) * WINDOW] for i in range(WINDOWS)]
    assert len(windows[-1]) == WINDOW, "the text is too short"
    total = 0.0
    for window in windows:
        if name == "gemma3":
            window[0] = llm.token_bos()
        llm.reset()
        llm.eval(window)
        logits = llm.scores[WINDOW // 2:WINDOW - 1].astype(np.float64)
        top = logits.max(axis=1, keepdims=True)
        log_sum = top[:, 0] + np.log(np.exp(logits - top).sum(axis=1))
        total += (log_sum - logits[np.arange(len(logits)), window[WINDOW // 2 + 1:]]).sum()
    scored = WINDOWS * (WINDOW // 2 - 1)
    return {"windows": windows, "value": round(float(np.exp(total / scored)), 5)}


def record(name, path, text):
    llm = llama_cpp.Llama(str(path), n_ctx=1024, n_batch=512, n_threads=1, n_threads_batch=1, verbose=False)
    recorded = []
    for prompt, ids in prompts(name, llm):
        tokens, gaps = greedy(llm, ids)
        print(name, repr(prompt), repr(llm.detokenize(tokens).decode(errors="replace")), min(gaps), flush=True)
        recorded.append({"prompt": ids, "greedy": tokens, "gaps": gaps})
    llm.close()
    llm = llama_cpp.Llama(
        str(path), n_ctx=WINDOW, n_batch=512, n_threads=1, n_threads_batch=1, logits_all=True, verbose=False)
    result = {"file": path.name, "prompts": recorded, "perplexity": perplexity(name, llm, text)}
    print(name, "perplexity", result["perplexity"]["value"])
    (HERE / f"llama_cpp.{name}.json").write_text(json.dumps(result, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    excerpt = (HERE.parent / "data" / "wikitext-2-excerpt.txt").read_text()
    for name in sys.argv[2:] or FILES:
        record(name, Path(sys.argv[1]) / FILES[name], excerpt)

"""Records what llama.cpp computes with real models.

    python record_llama_cpp.py MODELS [NAME..]      # llama-cpp-python 0.3.36; MODELS holds the .gguf files
    python record_llama_cpp.py --greedy MODELS      # on a machine without AMX, after the above on one with it

Recorded with a build by clang 16 with native flags on a machine with AMX, the build that speed is compared with: gcc 12 compiles
its AMX kernels wrongly. Builds differ from each other by up to 0.2 % in perplexity (docs/results/engine.md). Nor are llama.cpp's
greedy tokens its own on another instruction set: without AMX it leaves three of its twenty recordings of SmolLM2 (two without flash attention). So the same prompts are
recorded there once more (clang 19, AVX-512, settings as in `tessera bench compare`), and a test compares with the recording of
its kind of machine.

For each model: 20 prompts as token ids, 64 greedy tokens each and the gap between the two largest logits at every step. Two
engines that round activations to int8 are about 0.12 (rms, SmolLM2) apart in every logit, and each of them as far from f32
arithmetic; so of a larger pool those prompts are kept whose smallest gap is largest, as llama.cpp alone sees it. They are
easier than ordinary prompts, and replaced a first set on which the goal was missed (docs/results/engine.md). Then the
perplexity of fixed windows of 512 tokens (second half scored, the first token replaced by bos where the model wants one).
Token ids are recorded so that reading this back needs no tokenizer.
"""

import json
import sys
from pathlib import Path

import llama_cpp
import numpy as np

HERE = Path(__file__).parent
STEPS, WINDOW, WINDOWS, KEPT = 64, 512, 8, 20
FILES = {
    "smollm2": "SmolLM2-135M-Instruct.Q4_1.gguf",
    "gemma3": "gemma-3-270m-Q4_K_M.gguf",
    "qwen2": "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
}
PLAIN = [
    "The capital of France is",
    "def fibonacci(n):\n",
    "List of planets in the solar system:\n1. Mercury\n2. Venus\n3.",
    "The quick brown fox jumps over the lazy dog. The quick brown fox",
]
COUNTED = [
    "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,",
    "2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22,",
    "Line 1\nLine 2\nLine 3\nLine 4\nLine 5\n",
    "a b c d e f g h i j k l m n o p q r s t u v w x y z a b c d e f g h i j k l m n o p q r s t u v w x y z a b",
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday Monday Tuesday Wednesday Thursday Friday Saturday Sunday Monday",
    "January, February, March, April, May, June, July, August, September, October, November, December, January, February,",
    "item_0 = 0\nitem_1 = 1\nitem_2 = 2\nitem_3 = 3\n",
    "<li>1</li>\n<li>2</li>\n<li>3</li>\n<li>4</li>\n",
]
# Four of them in a row, said three times: what follows is decided, and longer than what is asked for.
REPEATED = [
    "The old lighthouse stood on a cliff above the harbour. Every evening its keeper climbed the stairs, lit the lamp and wrote down the names of the ships that passed. ",
    "def area(width, height):\n    if width < 0 or height < 0:\n        raise ValueError('negative')\n    return width * height\n\n",
    "Le petit chat dort sur le canapé pendant que la pluie tombe sur les toits de la ville. ",
    "北京是中国的首都，有许多名胜古迹，每年都有很多游客来参观。",
    '{"name": "Ada", "born": 1815, "field": "mathematics", "city": "London"}\n',
    "SELECT name, age FROM users WHERE age > 30 AND city = 'Paris' ORDER BY name LIMIT 10;\n",
    "To bake bread, mix flour, water, yeast and salt; knead the dough; let it rise; bake it for forty minutes. ",
    "Die Katze sitzt auf dem Dach und schaut den Vögeln zu, die über den Garten fliegen. ",
    "Energy is neither created nor destroyed; it only changes its form from one kind to another. ",
    "for i in range(10):\n    print(i, i * i, i * i * i)\n",
    "Ships carried tea, silk, pepper and porcelain from the east to the ports of the west. ",
    "x = 3\ny = x + 4\nz = y * 2\nassert z == 14\n",
    "| name | price | stock |\n|---|---|---|\n| apple | 3 | 10 |\n| pear | 4 | 12 |\n\n",
    "The committee will meet on Thursday at nine; members are asked to send their reports beforehand. ",
    "El río nace en las montañas y llega al mar después de cruzar tres valles. ",
    "fn main() {\n    let total: u32 = (1..=10).sum();\n    println!(\"{total}\");\n}\n\n",
]
CHAT = [
    "What is the capital of Italy?",
    "Translate 'good morning' into French, German and Spanish.",
    "What is 17 times 6?",
    "用一句话介绍北京。",
]
TURN = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


def prompts(name, llm):
    asked = [TURN.format(c) if name != "gemma3" else f"Question: {c}\nAnswer:" for c in CHAT]
    around = REPEATED + REPEATED
    repeated = [3 * "".join(around[i:i + 4]) for i in range(len(REPEATED))]
    for text in repeated + COUNTED + PLAIN + asked:
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
    recorded.sort(key=lambda prompt: -min(prompt["gaps"]))
    del recorded[KEPT:]
    llm.close()
    llm = llama_cpp.Llama(
        str(path), n_ctx=WINDOW, n_batch=512, n_threads=1, n_threads_batch=1, logits_all=True, verbose=False)
    result = {"file": path.name, "prompts": recorded, "perplexity": perplexity(name, llm, text)}
    print(name, "perplexity", result["perplexity"]["value"])
    (HERE / f"llama_cpp.{name}.json").write_text(json.dumps(result, separators=(",", ":")) + "\n")


def record_greedy(name, path):
    """The tokens of the prompts that are recorded already, on this machine."""
    known = json.loads((HERE / f"llama_cpp.{name}.json").read_text())["prompts"]
    llm = llama_cpp.Llama(str(path), n_ctx=1024, n_batch=512, n_threads=2, n_threads_batch=2, flash_attn=True, verbose=False)
    found = []
    for prompt in known:
        tokens, gaps = greedy(llm, prompt["prompt"])
        parts = next((step for step in range(STEPS) if tokens[step] != prompt["greedy"][step]), None)
        print(name, len(found), "the same" if parts is None else f"parts at {parts}, gap there {prompt['gaps'][parts]}", flush=True)
        found.append({"prompt": prompt["prompt"], "greedy": tokens, "gaps": gaps})
    (HERE / f"llama_cpp.{name}.without_amx.json").write_text(json.dumps(found, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    if sys.argv[1] == "--greedy":
        for name, file in FILES.items():
            record_greedy(name, Path(sys.argv[2]) / file)
        sys.exit()
    excerpt = (HERE.parent / "data" / "wikitext-2-excerpt.txt").read_text()
    for name in sys.argv[2:] or FILES:
        record(name, Path(sys.argv[1]) / FILES[name], excerpt)

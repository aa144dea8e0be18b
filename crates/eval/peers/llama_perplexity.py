"""llama.cpp's perplexity of a text, as `tessera eval perplexity --window N` defines it: the recorded values of the tests.

    python3 llama_perplexity.py --model FILE.gguf --text FILE --window 512

Windows side by side, the second half of each scored, the model's own first token (if it has one) in place of each window's first.
"""

import argparse
import json
import math
import os

import numpy as np
import llama_cpp as L

parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
parser.add_argument("--text", required=True)
parser.add_argument("--window", type=int, default=512)
parser.add_argument("--threads", type=int, default=os.cpu_count())
args = parser.parse_args()

model = L.Llama(args.model, n_ctx=args.window, n_batch=args.window, n_ubatch=args.window, n_threads=args.threads,
                n_threads_batch=args.threads, logits_all=True, flash_attn=True, verbose=False)
tokens = model.tokenize(open(args.text, "rb").read(), add_bos=False, special=False)
bos = L.llama_vocab_bos(L.llama_model_get_vocab(model._model.model)) if model._model.add_bos_token() else None
first = args.window // 2 + 1
nats, count = 0.0, 0
for start in range(0, len(tokens) - args.window + 1, args.window):
    window = tokens[start : start + args.window]
    if bos is not None:
        window[0] = bos
    model.reset()
    model.eval(window)
    logits = model.scores[first - 1 : args.window - 1]
    top = logits.max(axis=1)
    total = top + np.log(np.exp(logits - top[:, None]).sum(axis=1, dtype=np.float64))
    nats += float((total - logits[np.arange(len(logits)), window[first:]]).sum())
    count += len(logits)
print(json.dumps({"perplexity": math.exp(nats / count), "tokens": count, "of": len(tokens)}))

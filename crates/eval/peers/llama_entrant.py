"""llama.cpp as an entrant of `tessera bench compare`, through llama-cpp-python's low-level interface.

Speaks the lines of `crates/eval/src/bench/entrant.rs`: one ready line, then an outcome for every job. Settings are llama.cpp's
best on a CPU: flash attention, weights mapped, batches of up to 512 rows, all threads. Greedy choice is numpy's argmax over the
logits in place: faster than llama.cpp's own sampler chain, so the peer loses nothing to Python.
"""

import argparse
import ctypes
import json
import os
import sys
import time


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--context", type=int, default=4352)
    parser.add_argument("--streams", type=int, default=16)
    return parser.parse_args()


args = parse()
# Everything but our lines goes to standard error, whatever the library prints.
lines = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import numpy as np
import llama_cpp as L


@L.llama_log_callback
def quiet(level, text, data):
    if level >= 4:
        sys.stderr.write(text.decode(errors="replace"))


L.llama_log_set(quiet, ctypes.c_void_p())
L.llama_backend_init()
started = time.perf_counter()

settings = L.llama_model_default_params()
settings.n_gpu_layers = 0
model = L.llama_model_load_from_file(args.model.encode(), settings)
if not model:
    sys.exit(f"llama.cpp cannot load {args.model}")

settings = L.llama_context_default_params()
settings.n_ctx = args.context
settings.n_batch = 512
settings.n_ubatch = 512
settings.n_seq_max = args.streams
settings.n_threads = args.threads
settings.n_threads_batch = args.threads
settings.flash_attn_type = L.LLAMA_FLASH_ATTN_TYPE_ENABLED
# One pool of cells for all streams: any one of them may fill it.
settings.kv_unified = True
context = L.llama_init_from_model(model, settings)
if not context:
    sys.exit("llama.cpp cannot make a context")

loaded = time.perf_counter() - started
n_vocab = L.llama_vocab_n_tokens(L.llama_model_get_vocab(model))
memory = L.llama_get_memory(context)
batch = L.llama_batch_init(512, 0, args.streams)


def put(row, token, position, sequence, scored):
    batch.token[row] = token
    batch.pos[row] = position
    batch.n_seq_id[row] = 1
    batch.seq_id[row][0] = sequence
    batch.logits[row] = scored


def decode(rows):
    """Runs rows of (token, position, sequence, scored) and returns the best next token of every scored one."""
    batch.n_tokens = len(rows)
    for i, row in enumerate(rows):
        put(i, *row)
    if L.llama_decode(context, batch) != 0:
        sys.exit("llama_decode failed")
    return [best(i) for i, row in enumerate(rows) if row[3]]


def best(row):
    logits = L.llama_get_logits_ith(context, row)
    return int(np.argmax(np.ctypeslib.as_array(logits, shape=(n_vocab,))))


def work(prompts, new_tokens):
    L.llama_memory_clear(memory, False)
    start = time.perf_counter()
    rows = [(t, p, s, p == len(prompt) - 1) for s, prompt in enumerate(prompts) for p, t in enumerate(prompt)]
    last = []
    for i in range(0, len(rows), 512):
        last += decode(rows[i : i + 512])
    first = time.perf_counter() - start
    for step in range(new_tokens - 1):
        last = decode([(t, len(prompts[s]) + step, s, True) for s, t in enumerate(last)])
    total = time.perf_counter() - start
    return {"first_seconds": first, "total_seconds": total, "tokens": len(prompts) * new_tokens}


def send(value):
    lines.write(json.dumps(value) + "\n")
    lines.flush()


features = L.llama_print_system_info().decode().replace("CPU : ", "").replace(" = 1", "").replace(" |", "").strip()
send({
    "name": f"llama.cpp (llama-cpp-python {L.__version__})",
    "settings": f"{args.threads} threads, flash attention, batch 512, f16 cache of {args.context} tokens, {features}",
    "load_seconds": loaded,
})
for line in sys.stdin:
    job = json.loads(line)
    send(work(job["prompts"], job["new_tokens"]))

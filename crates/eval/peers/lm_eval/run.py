"""lm-eval against a served model: the same questions and definitions as `tessera eval choice`, by somebody else's program.

    python3 run.py --url http://127.0.0.1:8080/v1 --model FILE.gguf --datasets DIR --task piqa [--limit N]

Nothing is fetched: the questions are the JSON lines that `cargo xtask test` provides, laid out for lm-eval's own task of that name
(prompt, choices, metrics are the task's; only the data's place is ours), and the tokenizer, which lm-eval needs to know where a
context ends, is made from the GGUF file that is served. Prints one line of JSON.
"""

import argparse
import json
import os
import pathlib
import tempfile
import urllib.request

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import gguf
import lm_eval
from lm_eval.tasks import TaskManager
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

FILES = {"piqa": "PIQA/validation.jsonl", "boolq": "BoolQ/dev.jsonl", "openbookqa": "OpenBookQA/test.jsonl"}

# lm-eval's own tasks (piqa, super_glue/boolq, openbookqa), word by word but for where the data are.
TASK = {
    "piqa": {
        "doc_to_text": "Question: {{goal}}\nAnswer:",
        "doc_to_target": "label",
        "doc_to_choice": "{{[sol1, sol2]}}",
    },
    "boolq": {
        "doc_to_text": "{{passage}}\nQuestion: {{question}}?\nAnswer:",
        "doc_to_target": "label",
        "doc_to_choice": ["no", "yes"],
    },
    "openbookqa": {
        "doc_to_text": "question_stem",
        "doc_to_target": "{{choices.label.index(answerKey.lstrip())}}",
        "doc_to_choice": "{{choices.text}}",
    },
}


def options(text):
    """The texts behind `A. `, `B. ` and so on at line starts."""
    found, rest = [], "\n" + text
    for letter in "ABCDEFGH":
        head, mark, tail = rest.partition(f"\n{letter}. ")
        if not mark:
            break
        if found or letter != "A":
            found.append(head)
        rest = tail
    return [option.rstrip() for option in found + [rest]]


def document(task, line):
    if task == "boolq":
        return {"passage": line["passage"], "question": line["question"], "label": int(line["answer"].lower() == "true")}
    choices, letter = options(line["options"]), line["answer"][0]
    if task == "piqa":
        return {"goal": line["question"], "sol1": choices[0], "sol2": choices[1], "label": "AB".index(letter)}
    labels = list("ABCDEFGH"[: len(choices)])
    return {"question_stem": line["question"].rstrip(), "choices": {"text": choices, "label": labels}, "answerKey": letter}


def write_task(task, datasets, directory):
    lines = (pathlib.Path(datasets) / FILES[task]).read_text().splitlines()
    data = directory / "data.jsonl"
    data.write_text("".join(json.dumps(document(task, json.loads(line))) + "\n" for line in lines if line.strip()))
    settings = {
        "task": f"local_{task}",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "metric_list": [{"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in ("acc", "acc_norm")],
        "metadata": {"version": 1.0},
        **TASK[task],
    }
    # JSON is YAML.
    (directory / "task.yaml").write_text(json.dumps(settings))


def write_tokenizer(file, directory):
    """A byte-level BPE tokenizer of a GGUF file as transformers reads it."""
    fields = gguf.GGUFReader(file).fields
    get = lambda name: fields[f"tokenizer.ggml.{name}"].contents()
    if get("model") != "gpt2":
        raise SystemExit("only byte-level BPE vocabularies are made into tokenizers here: take SmolLM2 or Qwen")
    tokens, types = get("tokens"), get("token_type")
    merges = [tuple(merge.split(" ", 1)) for merge in get("merges")]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    digits = [pre_tokenizers.Digits(individual_digits=True)] if get("pre") == "smollm" else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(digits + [byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t, kind in zip(tokens, types) if kind == 3])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=tokens[get("eos_token_id")], add_bos_token=False)
    fast.save_pretrained(directory)


def served(url):
    """The name of the model that answers."""
    with urllib.request.urlopen(f"{url}/models") as answer:
        return json.load(answer)["data"][0]["id"]


def main():
    parser = argparse.ArgumentParser()
    for name in ("url", "model", "datasets", "task"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--limit", type=int)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        write_task(args.task, args.datasets, scratch)
        write_tokenizer(args.model, scratch / "tokenizer")
        found = lm_eval.simple_evaluate(
            model="local-completions",
            model_args={
                "base_url": f"{args.url}/completions", "model": served(args.url), "tokenizer": str(scratch / "tokenizer"),
                "tokenizer_backend": "huggingface", "tokenized_requests": True, "num_concurrent": 8, "max_retries": 1, "max_length": 8192,
            },
            tasks=[f"local_{args.task}"],
            task_manager=TaskManager(include_path=str(scratch), include_defaults=False),
            limit=args.limit,
            bootstrap_iters=0,
        )
    result = found["results"][f"local_{args.task}"]
    n = found["n-samples"][f"local_{args.task}"]["effective"]
    print(json.dumps({"task": args.task, "n": n, "acc": result["acc,none"], "acc_norm": result["acc_norm,none"]}))


main()

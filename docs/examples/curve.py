#!/usr/bin/env python3
"""How well a domain is learned from how many samples, and what is forgotten for it, in one command.

    python3 docs/examples/curve.py medical.jsonl --apart category --general text.txt
    python3 docs/examples/curve.py credit.jsonl --test credit-test.jsonl --general text.txt

For every size two adapters are made: `kept` as `tessera train lora` makes them, held to what the model was, and `plain` by plain fine-tuning
(`--budget 0`). Both are asked the test questions and read general text that nobody learned. Each smaller sample is part of the larger ones; rows of
`--more` come behind all of the first file's. What is done stays in --folder, so the same command goes on where it was stopped; at the end stand a table and curve.svg.
"""
import argparse
import json
import os
import pathlib
import random
import subprocess

TESTED = 300
BLUE, RED, GREY = "#2563eb", "#dc2626", "#6b7280"


def read(file):
    return [json.loads(line) for line in open(file)]


def apart(rows, field):
    """Rows to test with, and the others: no value of the field is in both."""
    groups = sorted({row[field] for row in rows})
    random.Random(7).shuffle(groups)
    test, held = [], set()
    for group in groups:
        if len(test) >= TESTED:
            break
        test += [row for row in rows if row[field] == group]
        held.add(group)
    return test[:TESTED], [row for row in rows if row[field] not in held]


class Kept:
    """What was found before lies in a folder, and is not done again."""

    def __init__(self, options):
        self.options, self.folder = options, options.folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.environment = os.environ | {"XDG_DATA_HOME": str(self.folder)}

    def write(self, name, rows):
        file = self.folder / f"{name}.jsonl"
        file.write_text("".join(json.dumps(dict(messages=row["messages"])) + "\n" for row in rows))
        return file

    def tessera(self, *words):
        print("$ tessera " + " ".join(map(str, words)), flush=True)
        command = [self.options.tessera, *words, "--json"]
        return json.loads(subprocess.run(command, env=self.environment, stdout=subprocess.PIPE, check=True).stdout)

    def once(self, name, work):
        file = self.folder / f"{name}.json"
        if not file.exists():
            file.write_text(json.dumps(work()))
        return json.loads(file.read_text())


class Curve(Kept):
    def __init__(self, options):
        super().__init__(options)
        rows, more = read(options.data), read(options.more) if options.more else []
        test, learned = (read(options.test), rows) if options.test else apart(rows, options.apart)
        if options.apart:
            random.Random(8).shuffle(learned)
            # Groups of which the first file's rows are tested, or only left out.
            tested = {row[options.apart] for row in rows} - {row[options.apart] for row in learned}
            more = [row for row in more if row[options.apart] not in tested]
        learned += more
        self.learned, self.test = learned, self.write("test", test)

    def measured(self, model):
        answers, = self.tessera("eval", "answers", "--model", model, "--data", self.test, "--max-tokens", str(self.options.max_tokens))
        perplexity = self.tessera("eval", "perplexity", "--model", model, "--text", self.options.general)
        return dict(right=answers["right"], perplexity=perplexity["perplexity"]["value"])

    def point(self, size, way):
        def work():
            data, name = self.write(f"learned-{size}", self.learned[:size]), f"{self.options.data.stem}-{size}-{way}"
            plain = ["--budget", "0"] if way == "plain" else []
            made = self.tessera("train", "lora", "--model", self.options.model, "--data", data, "--name", name, *plain)
            return dict(seconds=made["seconds"], alpha=made["alpha"]) | self.measured(f"{self.options.model}:{name}")

        return self.once(f"{size}-{way}", work)

    def run(self):
        base = self.once("base", lambda: self.measured(self.options.model))
        ways = {way: {size: self.point(size, way) for size in self.options.sizes} for way in self.options.ways}
        print(f"\n| rows | way | right of {base['right']['n']} | perplexity of general text | seconds |\n|---|---|---|---|---|")
        print(f"| 0 | the base | {percent(base['right'])} | {base['perplexity']:.2f} | |")
        for size in self.options.sizes:
            for way, points in ways.items():
                point = points[size]
                forgotten = 100 * (point["perplexity"] / base["perplexity"] - 1)
                print(f"| {size:,} | {way} | {percent(point['right'])} | {point['perplexity']:.2f} ({forgotten:+.1f} %) | {point['seconds']:.0f} |")
        (self.folder / "curve.svg").write_text(drawn(base, ways, self.options.sizes))


def percent(share):
    return f"{100 * share['value']:.1f} % ({100 * share['low']:.1f} to {100 * share['high']:.1f})"


def drawn(base, ways, sizes):
    """Accuracy with intervals above, forgetting below, over the number of rows."""
    def across(size):
        return 80 + 410 * sizes.index(size) / max(len(sizes) - 1, 1)

    def text(x, y, words, colour=GREY, anchor="middle"):
        return f'<text x="{x:.0f}" y="{y:.0f}" fill="{colour}" text-anchor="{anchor}">{words}</text>'

    def line(x, y, to_x, to_y, colour, width=2):
        return f'<path d="M{x:.1f} {y:.1f}L{to_x:.1f} {to_y:.1f}" stroke="{colour}" stroke-width="{width}"/>'

    forgotten = {way: {size: 100 * (point["perplexity"] / base["perplexity"] - 1) for size, point in points.items()} for way, points in ways.items()}
    least, most = (end(0, *(x for points in forgotten.values() for x in points.values())) for end in (min, max))
    accuracy = lambda share: 230 - 200 * share
    forgetting = lambda percent: 400 - 120 * (percent - least) / ((most - least) or 1)
    parts = [text(70, 20, "answered rightly", anchor="start"), text(70, 265, "perplexity of general text beside the base's", anchor="start")]
    parts += [line(60, accuracy(share), 520, accuracy(share), GREY, 0.3) + text(40, accuracy(share) + 4, f"{100 * share:.0f} %") for share in (0, 0.25, 0.5, 0.75, 1)]
    parts += [line(60, forgetting(at), 520, forgetting(at), GREY, 0.3) + text(35, forgetting(at) + 4, f"{at:+.1f} %") for at in sorted({least, 0, most}) if at == 0 or abs(at) > (most - least) / 10]
    parts += [text(across(size), 425, f"{size:,} rows") for size in sizes]
    for way, colour in zip(ways, (BLUE, RED)):
        points = ways[way]
        for size, point in points.items():
            x, right = across(size) + (4 if colour == RED else 0), point["right"]
            parts.append(line(x, accuracy(right["low"]), x, accuracy(right["high"]), colour, 1))
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for y in (accuracy(right["value"]), forgetting(forgotten[way][size]))]
        for one, other in zip(sizes, sizes[1:]):
            parts.append(line(across(one), accuracy(points[one]["right"]["value"]), across(other), accuracy(points[other]["right"]["value"]), colour))
            parts.append(line(across(one), forgetting(forgotten[way][one]), across(other), forgetting(forgotten[way][other]), colour))
        parts.append(text(470 if colour == BLUE else 520, 20, way, colour, "end"))
    style = 'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 540 440" font-family="sans-serif" font-size="12" style="background:#fff"'
    return f"<svg {style}>" + "\n".join(parts) + "</svg>\n"


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("data", type=pathlib.Path, help="what is learned, as for `tessera train lora`")
    options.add_argument("--more", type=pathlib.Path, metavar="FILE", help="further rows to learn")
    test = options.add_mutually_exclusive_group(required=True)
    test.add_argument("--test", type=pathlib.Path, help="what to test with")
    test.add_argument("--apart", metavar="FIELD", help=f"test with {TESTED} rows whose values of this field nobody learns")
    options.add_argument("--general", type=pathlib.Path, required=True, metavar="TEXT", help="general text, read to see what is forgotten")
    options.add_argument("--sizes", type=lambda text: [int(size) for size in text.split(",")], default=[100, 300, 1000])
    options.add_argument("--ways", type=lambda text: text.split(","), default=["kept", "plain"])
    options.add_argument("--model", default="smollm2")
    options.add_argument("--max-tokens", type=int, default=96)
    options.add_argument("--tessera", default="tessera", help="the program")
    options.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("curve"))
    Curve(options.parse_args()).run()


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""The learning loop on credit applications, from traffic to a student that takes most of it over, in one command.

    python3 docs/examples/loop.py                  # the large model runs in a second tessera
    python3 docs/examples/loop.py --llama          # and in llama-cpp-python's server: pip install 'llama-cpp-python[server]'

A gateway serves `assistant`, behind which stands a large model. Clerks send invented applications (credit.py) and correct what it reads
wrongly; `tessera loop run credit` makes a data set of that, an adapter on a small model, and a cascade of both; a canary lets
it in while requests go on. Then a bad student is planted, to see it being taken back. Everything stays in --folder. Linux only: processor time is
read from /proc.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import credit

SYSTEM = "You read credit applications. Answer with one JSON object and nothing else: income per month, debt (0 if they owe nothing), amount, months."
SHOTS = 2
AT_ONCE = 4
# Seconds between rounds of applications while something else works on the same machine.
PAUSE = 10


def free_port():
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


class Story:
    def __init__(self, options):
        self.options, self.folder = options, options.folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.settings = self.folder / "tessera.toml"
        self.environment = self.home("home") | {"TESSERA_CONFIG": str(self.settings)}
        self.children, self.url, self.sent = [], "", 0
        self.shots = [message for shot in range(SHOTS) for message in self.example(random.Random(f"shot {shot}"))]

    def home(self, name):
        """What a program keeps stays in a folder of its own."""
        return os.environ | {f"XDG_{kind}_HOME": str(self.folder / name / kind.lower()) for kind in ("DATA", "CONFIG")}

    def example(self, source):
        text, facts = credit.plain(source)
        return [dict(role="user", content=text), dict(role="assistant", content=json.dumps(facts))]

    def start(self, name, words, path, environment):
        log = open(self.folder / f"{name}.log", "w")
        child = subprocess.Popen(words, env=environment, stdout=log, stderr=log, cwd=self.folder)
        self.children.append(child)
        port = words[words.index(next(w for w in words if w in ("--listen", "--port"))) + 1].rpartition(":")[2]
        for _ in range(600):
            if child.poll() is not None:
                sys.exit(f"{name} ended: {self.folder / f'{name}.log'} says why")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).read()
                return f"http://127.0.0.1:{port}"
            except OSError:
                time.sleep(0.5)
        sys.exit(f"{name} does not answer")

    def stop(self):
        for child in reversed(self.children):
            child.send_signal(signal.SIGINT)
        for child in self.children:
            child.wait(60)

    def large(self):
        """The large model's servers, as upstreams of one route."""
        upstreams, targets = [], []
        servers = [("second", [self.options.tessera, "serve", "--model", self.options.large, "--listen", f"127.0.0.1:{free_port()}"], "/v1/models")]
        if self.options.llama:
            port = str(free_port())
            # As it comes, it breaks an answer off when the next request arrives.
            words = [sys.executable, "-m", "llama_cpp.server", "--model", self.options.large, "--port", port, "--n_ctx", "4096", "--interrupt_requests", "false"]
            servers.insert(0, ("llama", words, "/v1/models"))
        for name, words, path in servers:
            url = self.start(name, words, path, self.home(name))
            model = json.load(urllib.request.urlopen(f"{url}{path}"))["data"][0]["id"]
            older = "true" if name == "llama" else "false"
            upstreams.append(f'[[upstreams]]\nname = "{name}"\nurl = "{url}/v1"\nolder_limit = {older}\nmodels = {{ large-{name} = {json.dumps(model)} }}\n')
            targets.append(f"large-{name}")
        return "\n".join(upstreams) + f'\n[[routes]]\nmodel = "large"\ntargets = {json.dumps(targets)}\n'

    def serve(self):
        settings = f"""# The loop's example. What `tessera loop` changes here, it changes as a person would.
[models]
chat = [{json.dumps(self.options.small)}]

{self.large()}
[prices.large]
input = "0.15"
output = "0.60"

[[rollouts]]
model = "assistant"                 # what clerks ask
versions = {{ large = 100 }}
steps = [50, 100]
hold = "5s"
hold_requests = 100
tolerated_failures = 0.1
tolerated_wait = "2s"
tolerated_quality = 0.1

[[loops]]
name = "credit"
rollout = "assistant"
teacher = "large"
base = {json.dumps(self.options.small)}
least = {self.options.chats // 2}
risk = 0.1
kept = 0.9
"""
        self.settings.write_text(settings)
        self.url = self.start("gateway", [self.options.tessera, "serve", "--listen", f"127.0.0.1:{free_port()}"], "/v1/models", self.environment)

    def post(self, path, body):
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), {"content-type": "application/json"})
        return json.load(urllib.request.urlopen(request, timeout=600))

    def ask(self, number):
        """One application. The clerk rates what was read, and corrects it where it is wrong."""
        (question, wanted) = self.example(random.Random(f"application {number}"))
        messages = [dict(role="system", content=SYSTEM), *self.shots, question]
        body = dict(model="assistant", messages=messages, max_tokens=100, temperature=0, user=f"client {number}", metadata=dict(train="yes"))
        answer = self.post("/v1/chat/completions", body)
        said, wanted = answer["choices"][0]["message"]["content"], json.loads(wanted["content"])
        try:
            right = json.loads(said) == wanted
        except ValueError:
            right = False
        feedback = dict(request_id=answer["id"], rating=right)
        self.post("/v1/feedback", feedback if right else feedback | dict(correction=json.dumps(wanted)))
        return right

    def traffic(self, n, what):
        first, self.sent = self.sent, self.sent + n
        began, worked = time.monotonic(), self.processor_time()
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as clerks:
            right = sum(clerks.map(self.ask, range(first, first + n)))
        each = (self.processor_time() - worked) / n
        print(f"{what}: {n} applications in {time.monotonic() - began:.0f} s, {right} read rightly, {each:.2f} s of processor time each", flush=True)

    def processor_time(self):
        """Seconds that all servers have computed so far, for whatever: the gateway with the small model, and those of the large one. `tessera loop show` counts models'
        steps alone, request by request, and of servers that tell: llama-cpp-python's does not."""
        stats = [pathlib.Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split() for child in self.children]
        return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")

    def during(self, work):
        """Requests go on while something else happens; what that raises is raised here."""
        # Not waited for where traffic fails: it may wait for what only traffic brings.
        future, rounds = concurrent.futures.ThreadPoolExecutor(1).submit(work), 0
        while not future.done():
            self.traffic(40, f"meanwhile {(rounds := rounds + 1)}")
            concurrent.futures.wait([future], PAUSE)
        return future.result()

    def tessera(self, *words):
        print("$ tessera " + " ".join(words), flush=True)
        run = subprocess.run([self.options.tessera, *words], env=self.environment, cwd=self.folder, stdout=subprocess.PIPE, text=True)
        print(run.stdout, flush=True)
        if run.returncode:
            sys.exit("that failed")
        return run.stdout

    def plant(self):
        """A student that never learned the task, and a cascade that takes whatever it says."""
        text = self.settings.read_text()
        name = json.load(urllib.request.urlopen(f"{self.url}/v1/models"))["data"]
        student = next(model["id"] for model in name if model["owned_by"] == "tessera" and ":" not in model["id"])
        at = text.index('model = "assistant"')
        cascade = f'\n[[cascades]]\nmodel = "bad"\nstudent = "{student}"\nteacher = "large"\nthreshold = 0.0\n'
        self.settings.write_text(text[:at] + 'canary = "bad"\n' + text[at:] + cascade)

    def taken_back(self):
        while True:
            rollout = json.load(urllib.request.urlopen(f"{self.url}/v1/rollouts"))["rollouts"][0]
            canary = rollout.get("canary") or {}
            if canary.get("model") == "bad" and canary["course"] not in ("running", "paused"):
                return canary
            time.sleep(1)


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--tessera", default="tessera", help="the program")
    options.add_argument("--large", required=True, metavar="GGUF", help="the large model's file")
    options.add_argument("--small", default="smollm2", help="the model that learns")
    options.add_argument("--llama", action="store_true", help="serve the large model with llama-cpp-python, too")
    options.add_argument("--chats", type=int, default=200, help="applications before the loop")
    options.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("loop-example"))
    story = Story(options.parse_args())
    try:
        story.serve()
        story.traffic(story.options.chats, "the large model alone")
        story.during(lambda: story.tessera("loop", "run", "credit", "--url", story.url))
        story.traffic(100, "behind the loop")
        story.tessera("loop", "show", "credit")
        story.plant()
        began = time.monotonic()
        back = story.during(story.taken_back)
        print(f"a bad student: {back['course'].replace('_', ' ')} after {time.monotonic() - began:.0f} s: {back['why']}")
    finally:
        story.stop()


if __name__ == "__main__":
    main()

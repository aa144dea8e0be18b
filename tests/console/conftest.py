"""The console in a real browser: Debian's Chromium, headless, driven over chromedriver.

`cargo xtask test` builds the server, names it in TESSERA_BIN and the models in TESSERA_TEST_MODELS. Pictures go to
TESSERA_SCREENSHOTS; the ones in the documentation are made by setting it to docs/images. Tests marked `slow` want a larger model,
which reads Chinese; only `cargo xtask test --slow` runs them.
"""

import contextlib
import io
import json
import os
import pathlib
import shutil
import socket
import subprocess
import time
import urllib.request

import axe_playwright_python
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
CHINESE = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"
WORKER = "tinycoder.gguf"
# The server has an upstream that answers (itself, under another name), one that is down, and two workers, one of them down.
SETTINGS = """\
[[upstreams]]
name = "north"
url = "{url}/v1"
models = {{ smollm2-north = "SmolLM2-135M-Instruct.Q4_1" }}

[[upstreams]]
name = "south"
url = "http://ada:sesame@127.0.0.1:{closed}/v1"
models = {{ south-large = "large" }}
retries = 0
breaker_failures = 1
breaker_pause = "60s"

[[workers]]
url = "{worker}"
secret = "{secret}"

[[workers]]
url = "http://127.0.0.1:{closed}"
secret = "{secret}"
"""
# A gateway with two versions of a model, both the server's.
ROLLOUT = """\
[[upstreams]]
name = "north"
url = "{url}/v1"
models = {{ old = "SmolLM2-135M-Instruct.Q4_1", new = "SmolLM2-135M-Instruct.Q4_1" }}

[[rollouts]]
model = "assistant"
versions = {{ old = 100 }}
canary = "new"
steps = [50, 100]
hold = "1h"

[[loops]]
name = "credit"
rollout = "assistant"
teacher = "old"
base = "smollm2"
"""
# What `tessera loop` left behind.
MEASURED = dict(measured={who: dict(accuracy=dict(value=right, low=right - 0.1, high=right + 0.05, n=40))
                          for who, right in dict(student=0.9, teacher=0.925, cascade=0.95).items()})
LAPS = [
    dict(number=1, began=1795735074218196, steps=dict(data=dict(train=133, held=27)),
         end=dict(outcome="stopped", why="there are 133 rows to learn from, and 200 must be (least)"), report=None),
    dict(number=2, began=1795739000000000, end=dict(outcome="promoted"),
         report=dict(since=dict(requests=920, by_student=445, others=0, seconds=578.3,
                                student_tokens=[107479, 16460], teacher_tokens=[113753, 17686])),
         steps=dict(data=dict(train=133, held=27), learn={}, distil={}, evaluate=MEASURED, offer={}, canary={})),
    dict(number=3, began=1795739999000000, end=None, report=None,
         steps=dict(data=dict(train=320, held=80), learn=dict(adapter="smollm2:credit-3"), distil=None, evaluate=MEASURED)),
]
SECRET = "a secret that both sides of a worker know"
AXE = pathlib.Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text()
DESKTOP, PHONE = (1280, 800), (390, 844)
# A busy machine is slow, and nothing here is a measurement.
PATIENCE = 120


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: wants a larger model")


def needed(name):
    value = os.environ.get(name)
    if not value:
        pytest.exit(f"{name} is not set: run `cargo xtask test`", returncode=2)
    return pathlib.Path(value)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(what, seconds=PATIENCE):
    """Waits until `what()` is true, and returns it."""
    end = time.monotonic() + seconds
    while True:
        try:
            found = what()
        except Exception as error:  # an element that is not there yet, a page that is being replaced
            found, last = None, error
        else:
            last = None
        if found:
            return found
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds} s in vain") from last
        time.sleep(0.05)


@contextlib.contextmanager
def serving(home, url, *options):
    """`tessera serve` at this address, with a directory for what it keeps."""
    command = [needed("TESSERA_BIN"), "serve", "--listen", url.removeprefix("http://"), *options]
    # Ledger and keys go where a user's would, so they get a home of their own.
    places = {"XDG_DATA_HOME": str(home / "data"), "XDG_CONFIG_HOME": str(home / "config")}
    with open(home / "log", "w") as log:
        process = subprocess.Popen(command, cwd=home, env=os.environ | places, stdout=log, stderr=log)
        try:
            until(lambda: urllib.request.urlopen(url + "/healthz/ready").status == 200)
            yield
            process.terminate()
            assert process.wait(60) == 0, (home / "log").read_text()
        finally:
            process.kill()


def local():
    """An address of this machine that was free a moment ago."""
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """The server's directory, with its settings."""
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="session")
def server(home, tmp_path_factory):
    """A server with a model, and a worker of it beside it."""
    url, worker, models = local(), local(), needed("TESSERA_TEST_MODELS")
    (home / "secret").write_text(SECRET)
    (home / "tessera.toml").write_text(SETTINGS.format(url=url, worker=worker, closed=free_port(), secret=SECRET))
    text = ["--only", "text", "--worker-secret-file", home / "secret", "--model", models / WORKER]
    with serving(tmp_path_factory.mktemp("worker"), worker, *text):
        with serving(home, url, "--model", models / MODEL, "--embed-model", models / "minilm"):
            yield url


@pytest.fixture(scope="session")
def gateway(server, tmp_path_factory):
    """A gateway with a canary, and laps of a loop."""
    home, url = tmp_path_factory.mktemp("gateway"), local()
    (home / "tessera.toml").write_text(ROLLOUT.format(url=server))
    for lap in LAPS:
        folder = home / f"data/tessera/loops/credit/{lap['number']:04}"
        folder.mkdir(parents=True)
        (folder / "lap.json").write_text(json.dumps(lap))
    with serving(home, url, "--only", "gateway"):
        yield url


@pytest.fixture(scope="session")
def chinese_server(tmp_path_factory):
    """A server with a model that reads Chinese."""
    url = local()
    with serving(tmp_path_factory.mktemp("chinese"), url, "--model", needed("TESSERA_TEST_MODELS") / CHINESE):
        yield url


class Browser:
    """One window. Every page it shows must keep the content policy and throw nothing."""

    def __init__(self, driver, url):
        self.driver, self.url = driver, url
        self.look()

    def look(self, lang="en", dark=False, size=DESKTOP):
        """Language, theme and size, as a browser that opens the console for the first time has them."""
        self.driver.delete_all_cookies()
        agent = self.driver.execute_script("return navigator.userAgent")
        accept = {"userAgent": agent, "acceptLanguage": {"en": "en-US,en", "zh": "zh-CN,zh"}[lang]}
        width, height = size
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == PHONE}
        self.driver.execute_cdp_cmd("Emulation.setUserAgentOverride", accept)
        self.shade(dark)
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)

    def shade(self, dark):
        """Light or dark, as the system has it."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})

    def open(self, path):
        self.driver.get(self.url + path)

    def one(self, css):
        return until(lambda: self.driver.find_element(By.CSS_SELECTOR, css))

    def all(self, css):
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def text(self, css):
        return self.one(css).text

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def fill(self, css, text):
        field = self.one(css)
        field.clear()
        field.send_keys(text)
        return field

    def complaints(self):
        """What the browser logged since the last call; refused requests are what some tests want."""
        entries = self.driver.get_log("browser")
        return [e["message"] for e in entries if "the server responded with a status of 4" not in e["message"]]

    def violations(self):
        """Serious findings of axe on the page as it stands."""
        if not self.run("return 'axe' in window"):
            self.run(AXE)
        script = "const done = arguments[0]; axe.run().then(found => done(found.violations), e => done([{id: String(e), nodes: []}]))"
        found = self.driver.execute_async_script(script)
        grave = [v for v in found if v.get("impact") in (None, "serious", "critical")]
        return [(v["id"], [n["html"][:160] for n in v["nodes"]][:4]) for v in grave]

    def shot(self, name):
        """A picture of the page."""
        directory = pathlib.Path(os.environ.get("TESSERA_SCREENSHOTS") or "target/console")
        directory.mkdir(parents=True, exist_ok=True)
        picture = Image.open(io.BytesIO(self.driver.get_screenshot_as_png())).convert("RGB")
        if "TESSERA_SCREENSHOTS" in os.environ:
            picture = reduced(picture)
        picture.save(directory / f"{name}.png", optimize=True)


def reduced(picture):
    """The picture in its 256 commonest colours, small enough to keep. Bright ones mean something here and come first."""
    counts = {color: n for n, color in picture.getcolors(picture.width * picture.height)}
    weight = lambda color: counts[color] * (8 if max(color) - min(color) > 60 else 1)
    palette = sorted(counts, key=weight, reverse=True)[:256]
    distance = lambda a, b: (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 + (a[2] - b[2]) ** 2
    nearest = {color: min(range(len(palette)), key=lambda i: distance(color, palette[i])) for color in counts}
    small = Image.new("P", picture.size)
    small.putpalette([part for color in palette for part in color])
    small.putdata([nearest[color] for color in picture.get_flattened_data()])
    return small


@pytest.fixture(scope="session")
def driver():
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or pytest.exit("chromium is missing: apt-get install chromium", 2)
    flags = "--headless=new --no-sandbox --disable-dev-shm-usage --hide-scrollbars --no-proxy-server --window-size=1280,800"
    for flag in flags.split():
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.set_script_timeout(PATIENCE)
    yield driver
    driver.quit()


@pytest.fixture
def browser(driver, server):
    browser = Browser(driver, server)
    yield browser
    assert browser.complaints() == []


@pytest.fixture
def gateway_browser(driver, gateway):
    browser = Browser(driver, gateway)
    yield browser
    assert browser.complaints() == []


@pytest.fixture
def chinese_browser(driver, chinese_server):
    browser = Browser(driver, chinese_server)
    browser.look("zh")
    yield browser
    assert browser.complaints() == []

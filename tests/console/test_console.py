"""What a person does with the console. Keys are made last: the first one closes the open door."""

import contextlib
import json
import os
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from conftest import DESKTOP, PHONE, until

LOAN = "I earn 20,000 a month, owe 5,000 on my card, and ask for a loan of 100,000"
LOAN_ZH = "我每月收入2万元，信用卡欠款5000元，想申请10万元贷款"
PAGES = ["/", "/console/decide", "/console/traffic", "/console/audit", "/console/models", "/console/rollouts", "/console/keys", "/console/settings"]
LOOKS = [("en", False), ("en", True), ("zh", False), ("zh", True)]


def chat(browser, prompt, tokens=48):
    browser.open("/")
    browser.run("document.querySelector('[name=max_tokens]').value = arguments[0]", tokens)
    browser.run("document.querySelector('[name=seed]').value = 7")
    browser.fill("#prompt", prompt + Keys.ENTER)
    until(lambda: browser.all(".pace dd") and browser.one("#send").is_enabled())


def decide(browser, text):
    browser.open("/console/decide?decision=credit-approval")
    browser.fill("#text", text)
    browser.one("#decide-now").click()
    until(lambda: browser.all("#outcome .verdict") and browser.one("#outcome").is_displayed())


def test_a_chat_streams_and_shows_its_pace(browser):
    chat(browser, "Name three uses of a mosaic.")
    assert len(browser.text(".model .text")) > 20
    tokens = len(browser.all(".model .mosaic .tile"))
    assert tokens > 5, "a tile for every token"
    numbers = [float(number.text.split()[0]) for number in browser.all(".pace dd")]
    first_token, speed, counted = numbers
    assert first_token > 0 and speed > 0 and tokens <= counted <= 48
    browser.one("#clear").click()
    assert browser.all(".messages li") == []


# Presses Stop once three tiles lie there.
STOP = """
const stop = () => document.querySelectorAll(".mosaic .tile").length > 2 && document.getElementById("stop").click();
new MutationObserver(stop).observe(document.getElementById("messages"), { subtree: true, childList: true });
"""


def test_an_answer_can_be_stopped(browser):
    browser.open("/")
    browser.run("document.querySelector('[name=max_tokens]').value = 2000")
    browser.run("document.querySelector('[name=seed]').value = 7")
    # The model is quicker than a test that looks on from outside.
    browser.run(STOP)
    browser.fill("#prompt", "Write a long story about a stone cutter, with ten chapters." + Keys.ENTER)
    until(lambda: browser.all(".model .pace dd"))
    until(lambda: browser.one("#send").is_enabled())
    assert "stopped" in browser.text(".model")


def test_a_refusal_is_told_in_the_servers_words(browser):
    browser.open("/")
    browser.run("document.querySelector('[name=max_tokens]').value = 0")
    browser.fill("#prompt", "Hello" + Keys.ENTER)
    assert "max_tokens" in browser.text(".model .failure")


def test_a_decision_is_followed_live_then_its_record_is_read_and_verified(browser):
    story = follow(browser, LOAN, ["20,000 a month", "5,000", "100,000"])
    assert "3133.64" in story and "credit-approval" in story, story
    prove(browser)
    assert "hashes to the root" in browser.text("#proof")


@pytest.mark.slow
def test_a_decision_is_followed_in_chinese_by_a_model_that_reads_it(chinese_browser):
    browser = chinese_browser
    story = follow(browser, LOAN_ZH, ["2万元", "5000元", "10万元"])
    assert "3133.64" in story and "收入足以承担" in story, story
    prove(browser)
    assert "到根的哈希数" in browser.text("#proof")


# Which nodes light up, and when.
WATCH = """
window.lit = [];
const see = (changes) => changes.map((change) => change.target).forEach((node) => {
  if (node.classList.contains("lit") && node.dataset.node) window.lit.push([node.dataset.node, performance.now()]);
});
new MutationObserver(see).observe(document.querySelector(".graph"), { subtree: true, attributeFilter: ["class"] });
"""


def follow(browser, text, quotes):
    """Has the text decided, watches the steps, opens the record and returns its story."""
    browser.open("/console/decide?decision=credit-approval")
    browser.run(WATCH)
    browser.fill("#text", text)
    browser.one("#decide-now").click()
    until(lambda: browser.all("#outcome .verdict") and browser.one("#outcome").is_displayed())
    lit = browser.run("return window.lit")
    names, moments = [name for name, _ in lit], [at for _, at in lit]
    assert len(names) >= 5 and "decision" in names and len(set(names)) == len(names), lit
    assert all(after - before > 100 for before, after in zip(moments, moments[1:])), f"one after the other: {lit}"
    marked = [mark.text for mark in browser.all("#read mark")]
    assert len(marked) == 3 and all(quote in mark for quote, mark in zip(quotes, marked)), marked
    assert len(browser.all("#steps li")) >= len(names)
    assert browser.text("#outcome .why li"), "the outcome says why"
    verdict = browser.text("#outcome .verdict")
    browser.one("#outcome a").click()
    until(lambda: "/console/audit/" in browser.driver.current_url)
    story = browser.text(".story")
    assert text in story and verdict.lower() in story.lower(), story
    return story


def prove(browser):
    """A record is under a signed checkpoint some milliseconds after it was written."""

    def proven():
        # On a phone the driver would scroll it to where the way to the other pages lies.
        browser.run("document.querySelector('.record button.primary').scrollIntoView({ block: 'center' })")
        browser.one(".record button.primary").click()
        time.sleep(0.5)
        return browser.all("#proof .verdict.good")

    until(proven)
    assert len(browser.all("#proof .path .gold")) == 2, "both entries, up to the root"


def test_what_a_text_does_not_say_is_asked_for(browser):
    decide(browser, "I earn 20,000 a month and ask for a loan of 100,000.")
    assert browser.all(".node.lit") == [] and browser.violations() == []
    browser.fill("#missing input", "5000")
    browser.one("#missing button").click()
    until(lambda: browser.all(".node.lit") and browser.one("#outcome").is_displayed())
    assert "Existing debt" in browser.text("#facts")


def test_records_are_found_and_the_log_is_verified(browser):
    chat(browser, "Say something.")
    browser.open("/console/audit")
    rows = until(lambda: browser.all(".records tbody tr"))
    assert len(browser.all(".laid .tile")) == len(rows)
    browser.one("select[name=kind] option[value=chat]").click()
    until(lambda: "kind=chat" in browser.driver.current_url)
    until(lambda: {"Chat"} == {cell.text.split()[0] for cell in browser.all(".records td:nth-of-type(1)")})
    browser.one(".heading button").click()
    assert "whole" in browser.text("#verified .verdict.good")
    numbers = {e.find_element(By.TAG_NAME, "dt").text: e.find_element(By.TAG_NAME, "dd").text for e in browser.all(".numbers > div")}
    assert int(numbers["entries"]) >= 2 * len(rows) - 2, numbers


def test_charts_show_the_metrics(browser):
    chat(browser, "Say something.")
    browser.open("/console/traffic")
    until(lambda: len(browser.all(".chart canvas")) == 7)
    told = json.loads(first_event(browser.url + "/console/traffic/events"))
    assert sum(told["ok"]) > 0 and sum(told["generated"]) > 0 and max(told["kv"]) > 0, told
    assert any(value is not None for value in told["first_token.p50"])
    until(lambda: browser.text(".legend li[data-key=kv] output").endswith("B"))


def first_event(url):
    with urllib.request.urlopen(url) as stream:
        for line in stream:
            if line.startswith(b"data: "):
                return line[len(b"data: ") :]
    raise AssertionError("no event")


def test_models_show_what_they_can_do(browser):
    browser.open("/console/models")
    assert "SmolLM2" in browser.text(".models tbody tr")
    assert len(browser.all(".models tbody tr:first-child .able .lapis")) >= 6
    first = browser.one("#models")
    until(lambda: browser.one("#models") != first)


def test_those_elsewhere_are_shown_with_what_is_wrong_with_them(browser):
    assert asks(browser.url, None, "south-large") >= 500, "nobody listens there"
    browser.open("/console/models")
    peers = until(lambda: {row.find_element(By.TAG_NAME, "code").text: row.text for row in browser.all(".peers tbody tr")})
    north, south, worker, lost = peers.values()
    assert "smollm2-north" in north and "closed" in north and "not ready" not in north, north
    assert "south-large" in south and "asked again in" in south, south
    assert "tinycoder" in worker and "not ready" not in worker, worker
    assert "cannot be reached" in lost, lost
    assert "sesame" not in browser.driver.page_source, "an address keeps its password"
    assert asks(browser.url, None, "smollm2-north") == 200


def test_a_canary_is_watched_and_moved(gateway_browser):
    browser = gateway_browser
    for _ in range(4):
        assert asks(browser.url, None, "assistant") == 200
    browser.open("/console/rollouts")
    until(lambda: "goes on by itself" in browser.text(".canary") and "50 %" in browser.text(".canary"))
    asked = lambda: sum(int(row.find_elements(By.CSS_SELECTOR, "td")[2].text) for row in browser.all(".rollouts tbody tr"))
    assert until(asked) >= 4
    assert browser.text(".standing").split("\n") == ["new", "not known yet"]
    browser.one("button[value=pause]").click()
    until(lambda: "is paused" in browser.text(".canary") and not browser.all("button[value=pause]"))
    browser.one("button[value=resume]").click()
    until(lambda: "goes on by itself" in browser.text(".canary"))
    moves = json.load(urllib.request.urlopen(browser.url + "/v1/rollouts"))["rollouts"][0]["canary"]
    assert moves["course"] == "running" and moves["by"] == "anybody" and moves["moves"] == 2, moves


def test_laps_of_a_loop_are_shown(gateway_browser):
    browser = gateway_browser
    browser.open("/console/rollouts")
    third, second, first = until(lambda: [row.text for row in browser.all(".laps tbody tr")])
    assert "under way" in third and "evaluated" in third and "92.5 %" in third and "82.5 – 97.5" in third, third
    assert "promoted" in second and "48.4 %" in second, second
    assert "stopped" in first and "200 must be" in first, first
    assert len(browser.all(".laps tbody tr:first-child .path .lapis")) == 4


def test_a_refused_change_of_the_settings_is_shown_with_its_line(browser, home):
    file = home / "tessera.toml"
    good = file.read_text()
    file.write_text(good + "\n[limits]\nrequests_per_minute = \"many\"\n")
    line = f"line {len(good.splitlines()) + 3}:"
    browser.open("/console/settings")
    until(lambda: browser.driver.refresh() or browser.all(".mistakes li"))
    assert line in browser.text(".mistakes li") and "refused" in browser.text(".force")
    assert browser.violations() == []
    file.write_text(good)
    until(lambda: browser.driver.refresh() or not browser.all(".mistakes"))
    assert "applied" in browser.text(".force")


def test_language_and_theme_can_be_switched(browser):
    browser.open("/console/traffic")
    ground = "return getComputedStyle(document.body).backgroundColor"
    light = browser.run(ground)
    browser.one("button[value=dark]").click()
    until(lambda: browser.run(ground) != light)
    browser.one("button[value=zh]").click()
    until(lambda: browser.text("h1") == "流量")
    assert browser.run("return document.documentElement.lang") == "zh-CN"
    assert browser.driver.current_url.endswith("/console/traffic"), "one stays on the page"
    browser.open("/")
    assert browser.text("h1") == "试验场" and browser.run(ground) != light


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("lang,dark", LOOKS)
def test_axe_finds_nothing_serious(browser, path, lang, dark):
    browser.look(lang, dark)
    browser.open(path)
    browser.one("h1")
    assert browser.violations() == []


@pytest.mark.parametrize("path", PAGES)
def test_a_phone_is_wide_enough(browser, path):
    browser.look(size=PHONE)
    browser.open(path)
    browser.one("h1")
    assert_narrow(browser)
    assert len([link for link in browser.all(".side nav a") if link.is_displayed()]) == 7
    assert browser.violations() == []


def assert_narrow(browser):
    assert browser.run("return document.documentElement.scrollWidth") <= PHONE[0]


def test_a_decision_and_its_record_fit_a_phone(browser):
    browser.look(size=PHONE)
    decide(browser, LOAN)
    browser.run("document.querySelectorAll('details').forEach((details) => (details.open = true))")
    assert_narrow(browser)
    browser.driver.get(browser.one("#outcome a").get_attribute("href"))
    prove(browser)
    browser.run("document.querySelectorAll('details').forEach((details) => (details.open = true))")
    assert_narrow(browser)
    assert browser.violations() == []


def test_the_keyboard_is_enough(browser):
    browser.open("/console/models")
    body = browser.one("body")
    body.send_keys(Keys.TAB)
    skip = browser.driver.switch_to.active_element
    assert skip.text == "Skip to content" and skip.is_displayed()
    skip.send_keys(Keys.ENTER)
    assert browser.driver.switch_to.active_element.tag_name == "main"
    seen = set()
    for _ in range(30):
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
        here = browser.driver.switch_to.active_element
        seen.add(here.get_attribute("href") or here.get_attribute("value") or here.tag_name)
    assert any(str(place).endswith("/console/traffic") for place in seen) and {"zh", "dark"} <= seen, seen


def test_pictures(browser):
    """The pictures of the documentation, and axe on pages that have something to show."""
    chat(browser, "What is a mosaic? Answer in two sentences.", tokens=120)
    picture(browser, "chat-en", "light")
    decide(browser, LOAN)
    picture(browser, "decision-en", "light", "dark")
    browser.one("#outcome a").click()
    browser.one(".record")
    prove(browser)
    picture(browser, "record-en", "light")
    browser.open("/console/audit")
    browser.one(".heading button").click()
    browser.one("#verified .verdict")
    picture(browser, "audit-en", "light")
    browser.look(size=(DESKTOP[0], 980))
    browser.open("/console/models")
    picture(browser, "models-en", "light")
    browser.look()
    browser.open("/console/settings")
    picture(browser, "settings-en", "dark")
    with busy(browser.url):
        browser.open("/console/traffic")
        until(lambda: len(browser.all(".chart canvas")) == 7)
        # A picture wants charts that are full.
        time.sleep(150 if os.environ.get("TESSERA_SCREENSHOTS") else 5)
        picture(browser, "traffic-en", "light")
    browser.look(size=PHONE)
    decide(browser, LOAN)
    picture(browser, "phone-en", "light")


def test_a_picture_of_a_rollout(gateway_browser):
    browser = gateway_browser
    for _ in range(24):
        assert asks(browser.url, None, "assistant") == 200
    browser.open("/console/rollouts")
    until(lambda: browser.all(".laps tbody tr"))
    picture(browser, "rollouts-en", "light")
    browser.look("zh", size=PHONE)
    browser.open("/console/rollouts")
    until(lambda: browser.all(".laps tbody tr"))
    assert_narrow(browser)
    assert browser.violations() == []


@pytest.mark.slow
def test_pictures_in_chinese(chinese_browser):
    browser = chinese_browser
    chat(browser, "写一首关于小石子的短诗。", tokens=160)
    picture(browser, "chat-zh", "light")
    decide(browser, LOAN_ZH)
    picture(browser, "decision-zh", "light", "dark")
    browser.one("#outcome a").click()
    browser.one(".record")
    prove(browser)
    picture(browser, "record-zh", "light")
    browser.open("/console/audit")
    browser.one(".heading button").click()
    browser.one("#verified .verdict")
    picture(browser, "audit-zh")


def picture(browser, name, *kept):
    """Looks for violations by day and by dark, and keeps the pictures that the documents show."""
    for theme in ("light", "dark"):
        browser.shade(theme == "dark")
        # Colours fade into each other for a moment.
        time.sleep(0.4)
        assert browser.violations() == [], (name, theme)
        if theme in kept:
            browser.shot(f"{name}-{theme}")
    browser.shade(False)


@contextlib.contextmanager
def busy(url):
    """Some traffic to look at: a few clients at once, until the block ends."""
    model = json.load(urllib.request.urlopen(url + "/v1/models"))["data"][0]["id"]
    over = threading.Event()

    def client(number):
        asked = 0
        while not over.is_set():
            asked += 1
            words = "a mosaic is made of many small stones " * (1 + (number * 7 + asked) % 9)
            body = {"model": model, "messages": [{"role": "user", "content": words}], "max_tokens": 12 + 9 * (asked % 4)}
            request = urllib.request.Request(url + "/v1/chat/completions", json.dumps(body).encode())
            request.add_header("content-type", "application/json")
            urllib.request.urlopen(request).read()
            time.sleep(0.1 * (asked % 5))

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(client, number) for number in range(4)]
        try:
            yield
        finally:
            over.set()
    for client in clients:
        client.result()


def test_z_a_key_is_made_used_and_revoked(browser):
    browser.open("/console/keys")
    browser.fill("[name=name]", "first")
    browser.one(".make button.primary").click()
    secret = browser.one(".secret input").get_attribute("value")
    assert browser.violations() == []
    assert asks(browser.url, secret) == 200
    assert asks(browser.url, None) == 401, "the door is closed now"

    # The browser that made it is signed in; another one is asked for a key.
    browser.open("/console/keys")
    assert "first" in browser.text("#keys tbody")
    browser.fill("[name=name]", "second")
    browser.one("[name=role] option[value=user]").click()
    browser.one(".make button.primary").click()
    second = until(lambda: browser.one(".secret input").get_attribute("value"))
    assert asks(browser.url, second) == 200
    browser.open("/console/keys")
    picture(browser, "keys-en", "light")

    browser.look()
    browser.open("/console/audit?kind=chat")
    until(lambda: "/console/sign-in" in browser.driver.current_url)
    assert browser.violations() == []
    browser.fill("[name=key]", "tsk-000000000000-wrong" + Keys.ENTER)
    assert "not known" in browser.text(".failure")
    browser.fill("[name=key]", second + Keys.ENTER)
    until(lambda: "/console/audit" in browser.driver.current_url)
    assert "auditor" in browser.text("main"), "a user's key opens no audit log"
    assert browser.violations() == []
    chat(browser, "Hello!", tokens=8)
    browser.one(".who button").click()
    until(lambda: "/console/sign-in" in browser.driver.current_url)

    browser.fill("[name=key]", secret + Keys.ENTER)
    until(lambda: browser.all("#prompt"))
    browser.open("/console/keys")
    row = until(lambda: [row for row in browser.all("#keys tbody tr") if "second" in row.text][0])
    row.find_element(By.CSS_SELECTOR, "button.danger").click()
    browser.driver.switch_to.alert.accept()
    until(lambda: asks(browser.url, second) == 401)
    assert forged(browser.url, secret) == 403, "another site's page creates nothing"


def asks(url, secret, model=None):
    """The status of an answer: by this model, or of the list of them."""
    headers = {"authorization": f"Bearer {secret}"} if secret else {}
    if model is None:
        return status(urllib.request.Request(url + "/v1/models", headers=headers))
    body = {"model": model, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 4}
    headers["content-type"] = "application/json"
    return status(urllib.request.Request(url + "/v1/chat/completions", json.dumps(body).encode(), headers))


def forged(url, secret):
    headers = {"cookie": f"tessera_key={secret}", "sec-fetch-site": "cross-site"}
    body = b"name=x&tenant=x&role=admin&models=&requests=&tokens="
    return status(urllib.request.Request(url + "/console/keys", body, headers))


def status(request):
    try:
        return urllib.request.urlopen(request).status
    except urllib.error.HTTPError as error:
        return error.code

"""What a person does with the console. Keys are made last: the first one closes the open door."""

import json
import time
import urllib.error
import urllib.request

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from conftest import PHONE, until

LOAN = "I earn 20,000 a month, owe 5,000 on my card, and ask for a loan of 100,000."
LOAN_ZH = "我每月收入两万元，信用卡欠款5000元，想申请10万元贷款。"
PAGES = ["/", "/console/decide", "/console/traffic", "/console/audit", "/console/models", "/console/keys", "/console/settings"]
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


def test_an_answer_can_be_stopped(browser):
    browser.open("/")
    browser.run("document.querySelector('[name=max_tokens]').value = 2000")
    browser.fill("#prompt", "Count from one to a thousand, every number." + Keys.ENTER)
    until(lambda: len(browser.all(".model .mosaic .tile")) > 2)
    browser.one("#stop").click()
    until(lambda: browser.one("#send").is_enabled())
    assert "stopped" in browser.text(".model")


def test_a_refusal_is_told_in_the_servers_words(browser):
    browser.open("/")
    browser.run("document.querySelector('[name=max_tokens]').value = 0")
    browser.fill("#prompt", "Hello" + Keys.ENTER)
    assert "max_tokens" in browser.text(".model .failure")


def test_a_decision_is_followed_live_then_its_record_is_read_and_verified(browser):
    decide(browser, LOAN)
    lit = [node.get_attribute("data-node") for node in browser.all(".node.lit")]
    assert len(lit) >= 5 and "decision" in lit, lit
    marked = [mark.text for mark in browser.all("#read mark")]
    assert len(marked) == 3 and all(quote in LOAN for quote in marked), marked
    assert len(browser.all("#steps li")) >= len(lit)
    verdict = browser.text("#outcome .verdict")
    browser.one("#outcome a").click()
    until(lambda: "/console/audit/" in browser.driver.current_url)
    story = browser.text(".story")
    assert LOAN in story and verdict in story, story
    prove(browser)


def prove(browser):
    """A record is under a signed checkpoint some milliseconds after it was written."""

    def proven():
        browser.one(".record button.primary").click()
        time.sleep(0.5)
        return browser.all("#proof .verdict.good")

    until(proven)
    assert "hashes to the root" in browser.text("#proof")
    assert len(browser.all("#proof .path .gold")) == 2, "both entries, up to the root"


def test_what_a_text_does_not_say_is_asked_for(browser):
    decide(browser, "I earn 20,000 a month and ask for a loan of 100,000.")
    assert browser.all(".node.lit") == []
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
    assert browser.run("return document.documentElement.scrollWidth") <= PHONE[0]
    assert len([link for link in browser.all(".side nav a") if link.is_displayed()]) == 6
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


@pytest.mark.parametrize("lang,dark", [("en", False), ("zh", True)])
def test_pictures(browser, lang, dark):
    """The pictures of the documentation, and axe on pages that have something to show."""
    suffix = f"{lang}-{'dark' if dark else 'light'}"

    def picture(name):
        assert browser.violations() == [], name
        browser.shot(f"{name}-{suffix}")

    browser.look(lang, dark)
    prompt = {"en": "What is a mosaic made of?", "zh": "马赛克是用什么做成的？"}[lang]
    chat(browser, prompt, tokens=120)
    picture("chat")
    decide(browser, {"en": LOAN, "zh": LOAN_ZH}[lang])
    picture("decision")
    browser.one("#outcome a").click()
    browser.one(".record")
    prove_quietly(browser)
    picture("record")
    browser.open("/console/audit")
    browser.one(".heading button").click()
    browser.one("#verified .verdict")
    picture("audit")
    browser.open("/console/models")
    picture("models")
    browser.open("/console/settings")
    picture("settings")
    busy(browser)
    browser.open("/console/traffic")
    until(lambda: len(browser.all(".chart canvas")) == 7)
    time.sleep(2)
    picture("traffic")
    if not dark:
        browser.look(lang, dark, PHONE)
        decide(browser, {"en": LOAN, "zh": LOAN_ZH}[lang])
        picture("phone")


def prove_quietly(browser):
    until(lambda: browser.one(".record button.primary").click() or time.sleep(0.5) or browser.all("#proof .verdict.good"))


def busy(browser, seconds=20):
    """Some traffic to look at: a few clients at once."""
    from concurrent.futures import ThreadPoolExecutor

    model = json.load(urllib.request.urlopen(browser.url + "/v1/models"))["data"][0]["id"]
    end = time.monotonic() + seconds

    def client(number):
        asked = 0
        while time.monotonic() < end:
            asked += 1
            words = "a mosaic is made of many small stones " * (1 + (number * 7 + asked) % 9)
            body = {"model": model, "messages": [{"role": "user", "content": words}], "max_tokens": 12 + 9 * (asked % 4)}
            request = urllib.request.Request(browser.url + "/v1/chat/completions", json.dumps(body).encode())
            request.add_header("content-type", "application/json")
            urllib.request.urlopen(request).read()
            time.sleep(0.1 * (asked % 5))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(client, range(4)))


def test_z_a_key_is_made_used_and_revoked(browser):
    browser.open("/console/keys")
    browser.fill("[name=name]", "first")
    browser.one(".make button.primary").click()
    secret = browser.one(".secret input").get_attribute("value")
    browser.shot("keys-en-light")
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

    browser.look()
    browser.open("/console/audit?kind=chat")
    until(lambda: "/console/sign-in" in browser.driver.current_url)
    assert browser.violations() == []
    browser.shot("sign-in-en-light")
    browser.fill("[name=key]", "tsk-000000000000-wrong" + Keys.ENTER)
    assert "not known" in browser.text(".failure")
    browser.fill("[name=key]", second + Keys.ENTER)
    until(lambda: "/console/audit" in browser.driver.current_url)
    assert "auditor" in browser.text("main"), "a user's key opens no audit log"
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


def asks(url, secret):
    headers = {"authorization": f"Bearer {secret}"} if secret else {}
    return status(urllib.request.Request(url + "/v1/models", headers=headers))


def forged(url, secret):
    headers = {"cookie": f"tessera_key={secret}", "sec-fetch-site": "cross-site"}
    body = b"name=x&tenant=x&role=admin&models=&requests=&tokens="
    return status(urllib.request.Request(url + "/console/keys", body, headers))


def status(request):
    try:
        return urllib.request.urlopen(request).status
    except urllib.error.HTTPError as error:
        return error.code

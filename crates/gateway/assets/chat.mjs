// The chat page: sends the conversation to the API, writes the answer as it comes, and lays a tile for every token.

import { events, failed, failure, make, post } from "./sse.mjs";

const page = document.getElementById("chat");
if (page) start(page);

function start(page) {
  const texts = JSON.parse(page.dataset.texts);
  const find = (id) => document.getElementById(id);
  const [prompt, send, stop, list] = ["prompt", "send", "stop", "messages"].map(find);
  const history = [];
  let running = null;

  if (matchMedia("(max-width: 760px)").matches) find("parameters").open = false;
  for (const range of page.querySelectorAll("input[type=range]")) {
    range.addEventListener("input", () => (range.closest("label").querySelector("output").value = range.value));
  }
  for (const example of page.querySelectorAll(".example")) {
    example.addEventListener("click", () => ask(example.textContent));
  }
  find("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    ask(prompt.value.trim());
  });
  prompt.addEventListener("keydown", (event) => {
    // While an input method composes (Chinese, Japanese), Enter chooses a candidate.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    find("composer").requestSubmit();
  });
  stop.addEventListener("click", () => running?.abort());
  find("clear").addEventListener("click", () => {
    running?.abort();
    history.length = 0;
    list.replaceChildren();
    find("start").hidden = false;
    prompt.focus();
  });

  async function ask(text) {
    if (!text || running) return;
    running = new AbortController();
    send.disabled = true;
    stop.disabled = false;
    prompt.value = "";
    find("start").hidden = true;
    history.push({ role: "user", content: text });
    list.append(make("li", { class: "you" }, make("p", { class: "who" }, texts.you), make("div", { class: "text" }, text)));
    const answer = new Answer(texts, find("model").value);
    list.append(answer.element);
    answer.element.scrollIntoView({ block: "end" });
    await answer.fetch(request(), running.signal, list);
    if (answer.text) history.push({ role: "assistant", content: answer.text });
    else history.pop();
    running = null;
    send.disabled = false;
    stop.disabled = true;
    prompt.focus({ preventScroll: true });
  }

  function request() {
    const value = (name) => page.querySelector(`[name=${name}]`).value.trim();
    const system = value("system") ? [{ role: "system", content: value("system") }] : [];
    return {
      model: find("model").value,
      messages: [...system, ...history],
      temperature: Number(value("temperature")),
      top_p: Number(value("top_p")),
      ...(value("max_tokens") && { max_tokens: Number(value("max_tokens")) }),
      ...(value("seed") && { seed: Number(value("seed")) }),
      stream: true,
      stream_options: { include_usage: true },
    };
  }
}

/** One answer: its text, how fast it came, and its mosaic. */
class Answer {
  constructor(texts, model) {
    this.texts = texts;
    this.text = "";
    this.body = make("div", { class: "text waiting" });
    this.mosaic = new Mosaic(texts.pace);
    this.numbers = make("dl");
    this.pace = make("div", { class: "pace" }, this.numbers);
    const who = make("p", { class: "who" }, model);
    this.element = make("li", { class: "model" }, who, this.body, this.mosaic.element, this.pace);
  }

  async fetch(request, signal, list) {
    const asked = performance.now();
    let [first, last, chunks, tokens, end] = [0, asked, 0, 0, ""];
    let record = null;
    try {
      const response = await post("/v1/chat/completions", request, signal);
      record = response.headers.get("x-request-id");
      for await (const { data } of events(response)) {
        if (data === "[DONE]") break;
        const chunk = JSON.parse(data);
        if (chunk.error) throw failed(chunk.error);
        if (chunk.usage) tokens = chunk.usage.completion_tokens;
        const choice = chunk.choices[0];
        if (choice?.finish_reason === "length") end = this.texts.cut;
        const piece = choice?.delta?.content;
        if (!piece) continue;
        const now = performance.now();
        chunks += 1;
        first ||= now;
        this.mosaic.lay(now - last);
        last = now;
        this.write(piece, list);
      }
    } catch (error) {
      if (error.name === "AbortError") end = this.texts.stopped;
      else this.body.after(failure(this.texts, error));
    }
    this.body.classList.remove("waiting");
    this.finish({ asked, first, last, tokens: tokens || chunks, end, record });
  }

  write(piece, list) {
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 80;
    this.body.classList.remove("waiting");
    this.text += piece;
    this.body.textContent = this.text;
    if (atEnd) list.scrollTop = list.scrollHeight;
  }

  finish({ asked, first, last, tokens, end, record }) {
    const entry = (name, value, unit) => make("div", {}, make("dt", {}, name), make("dd", {}, value, make("small", {}, ` ${unit}`)));
    const { texts } = this;
    if (first) {
      this.numbers.append(entry(texts["first-token"], Math.round(first - asked), "ms"));
      if (tokens > 1 && last > first) {
        const speed = ((tokens - 1) * 1000) / (last - first);
        this.numbers.append(entry(texts.speed, speed.toFixed(speed < 10 ? 1 : 0), texts["speed-unit"]));
      }
      this.numbers.append(entry(texts.tokens, tokens, end));
    } else if (end) {
      this.body.after(make("p", { class: "note" }, end));
    }
    if (record) this.pace.append(make("a", { href: `/console/audit/${encodeURIComponent(record)}` }, texts.record));
  }
}

/** A row of tiles, one for each token, coloured by the time it took. */
class Mosaic {
  static limits = [
    [20, "malachite"],
    [50, "lapis"],
    [150, "gold"],
    [Infinity, "porphyry"],
  ];

  constructor(name) {
    this.element = make("div", { class: "mosaic", role: "img", "aria-label": name });
  }

  lay(milliseconds) {
    const [, stone] = Mosaic.limits.find(([limit]) => milliseconds <= limit);
    this.element.append(make("i", { class: `tile ${stone}` }));
  }
}

// The decision page: asks for a decision, lights the graph's nodes as the steps arrive, marks the facts in the text they were read
// from, asks for those that are missing, and tells the outcome.

import { events, failed, failure, make, post } from "./sse.mjs";

const STONES = ["lapis", "malachite", "gold", "aqua", "porphyry"];
// A graph is walked in less time than an eye needs: each step is shown for at least so long, with the time it took beside it.
const SHOWN_MS = matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 220;

const page = document.getElementById("decide");
if (page) start(page);

function start(page) {
  const texts = JSON.parse(page.dataset.texts);
  const decision = JSON.parse(page.dataset.decision);
  const find = (id) => document.getElementById(id);
  const [form, text, read, again, submit] = ["ask", "text", "read", "again", "decide-now"].map(find);
  const [factsBox, missingBox, outcome, steps] = ["facts", "missing", "outcome", "steps"].map(find);
  const title = (name) => decision.facts[name]?.title ?? name;
  // Words are written for sentences: a name in a table needs no colon.
  const word = (value) => (decision.words[value] ?? decision.facts[value]?.title ?? value).replace(/[:：]$/, "");
  const language = document.documentElement.lang.slice(0, 2);
  let given = {};
  let running = null;

  for (const example of page.querySelectorAll(".example")) {
    example.addEventListener("click", () => {
      edit();
      text.value = example.textContent;
      form.requestSubmit();
    });
  }
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    given = {};
    decide();
  });
  again.addEventListener("click", edit);

  /** Back to the text, to change it. */
  function edit() {
    running?.abort();
    clear();
    [text.hidden, submit.hidden, again.hidden, read.hidden] = [false, false, true, true];
    text.focus();
  }

  function clear() {
    for (const box of [factsBox, missingBox, outcome]) {
      box.hidden = true;
      box.replaceChildren();
    }
    steps.replaceChildren();
    for (const lit of page.querySelectorAll(".lit")) lit.classList.remove("lit");
    for (const result of page.querySelectorAll(".node .result")) {
      result.textContent = result.dataset.kind ?? result.textContent;
    }
  }

  async function decide() {
    running?.abort();
    running = new AbortController();
    const { signal } = running;
    clear();
    submit.disabled = true;
    page.classList.add("working");
    try {
      const request = { decision: decision.id, text: text.value, facts: given, language, stream: true };
      const response = await post("/v1/reasoning/decisions", request, signal);
      const record = response.headers.get("x-request-id");
      for await (const { name, data } of events(response)) {
        if (data === "[DONE]") break;
        const event = JSON.parse(data);
        if (event.error) throw failed(event.error);
        if (name === "step") await show(event);
        else if (name === "decision") tell(event, record);
      }
    } catch (error) {
      if (error.name !== "AbortError") {
        outcome.replaceChildren(failure(texts, error));
        outcome.hidden = false;
      }
    }
    submit.disabled = false;
    page.classList.remove("working");
  }

  /** A step: its node lights up, and a line says what it did. */
  async function show(step) {
    const node = step.node && page.querySelector(`.node[data-node="${CSS.escape(step.node.split("/")[0])}"]`);
    if (node) {
      node.classList.add("lit");
      for (const edge of page.querySelectorAll(`.edge[data-to="${CSS.escape(node.dataset.node)}"]`)) {
        const from = page.querySelector(`.node[data-node="${CSS.escape(edge.dataset.from)}"]`);
        if (from.classList.contains("lit")) edge.classList.add("lit");
      }
      const result = node.querySelector(".result");
      result.dataset.kind ??= result.textContent;
      fit(result, brief(step.result), Number(node.querySelector("rect").getAttribute("width")) - 40);
    }
    const took = step.duration_us >= 1000 ? `${Math.round(step.duration_us / 1000)} ms` : `${step.duration_us} µs`;
    const line = make("details", {},
      make("summary", {}, make("i", { class: "tile gold" }), make("span", {}, step.action), make("span", { class: "brief" }, brief(step.result)), make("small", {}, took)),
      step.rule && make("p", {}, make("small", {}, `${texts.rule} `), step.rule),
      values(texts.from, step.inputs),
      values("=", step.result));
    steps.append(make("li", {}, line));
    await new Promise((done) => setTimeout(done, node ? SHOWN_MS : 0));
  }

  function values(name, value) {
    return make("p", {}, make("small", {}, `${name} `), make("code", {}, JSON.stringify(value)));
  }

  /** The end: facts, and either questions or the decision. */
  function tell({ facts, missing, output, explanation }, record) {
    mark(facts);
    list(facts);
    if (missing.length) question(missing);
    const [first, ...rest] = output ? entries(output) : [];
    outcome.replaceChildren(
      make("p", { class: `verdict ${tone(first)}` }, first ? shown(first[1]) : texts.undecided),
      rest.length ? make("dl", { class: "pairs" }, ...rest.flatMap(([name, value]) => [make("dt", {}, word(name)), make("dd", {}, shown(value))])) : null,
      explanation && !missing.length ? make("div", { class: "why" }, make("h2", {}, texts.why), reasons(explanation)) : null,
      record ? make("a", { class: "quiet", href: `/console/audit/${encodeURIComponent(record)}` }, texts.record) : null,
    );
    outcome.hidden = false;
  }

  /** The explanation, a line for each step it tells of. */
  function reasons(explanation) {
    const lines = explanation.split(/(?<=\.)\s+|(?<=。)/).filter((line) => line.trim());
    const parted = (line) => line.match(/^([^:：,，(（]+)[:：]\s*(.*)$/s) ?? [line, "", line];
    return make("ul", {}, ...lines.map(parted).map(([, name, rest]) => make("li", {}, name ? make("b", {}, name) : null, ` ${rest}`)));
  }

  /** What the output says first stands first: the decision itself if it has that name, else the first word in it. */
  function entries(output) {
    const pairs = Object.entries(typeof output === "object" ? output : { decision: output }).filter(([, value]) => value != null);
    const main = pairs.findIndex(([name]) => name === "decision" || name === "route");
    if (main > 0) pairs.unshift(...pairs.splice(main, 1));
    return pairs;
  }

  function tone(entry) {
    const value = String(entry?.[1] ?? "");
    if (/^(approved|full|fast)/.test(value)) return "good";
    if (/^(refused|investigation|rejected|denied)/.test(value)) return "bad";
    return "open";
  }

  function shown(value) {
    if (value === true) return texts.yes;
    if (value === false) return texts.no;
    if (typeof value === "number") return value.toLocaleString(document.documentElement.lang, { maximumFractionDigits: 4 });
    if (typeof value === "string") return word(value);
    if (Array.isArray(value)) return value.map(shown).join(", ");
    if (value?.[language]) return value[language];
    return Object.entries(value ?? {}).map(([name, inner]) => `${word(name)} ${shown(inner)}`).join(", ");
  }

  function brief(value) {
    if (value === null || typeof value !== "object") return shown(value);
    if (Array.isArray(value) || value[language]) return shown(value);
    const nested = (inner) => inner !== null && typeof inner === "object" && !Array.isArray(inner) && !inner[language];
    const pairs = Object.entries(value).filter(([, inner]) => inner !== null);
    return pairs.map(([name, inner]) => (nested(inner) ? brief(inner) : `${word(name)} ${shown(inner).replace(/[.。]$/, "")}`)).join(", ");
  }

  /** The text with its quotes marked. Quotes are counted in bytes of UTF-8, strings here are not. */
  function mark(facts) {
    const bytes = new TextEncoder().encode(text.value);
    const piece = (from, to) => new TextDecoder().decode(bytes.slice(from, to));
    // "2万元" says both how much and in which currency: it is marked as the amount.
    const amount = (name) => typeof facts[name].value === "number";
    const quotes = Object.entries(facts)
      .filter(([, fact]) => fact.quote)
      .map(([name, fact]) => ({ name, ...fact.quote }))
      .sort((a, b) => a.start - b.start || b.end - a.end || amount(b.name) - amount(a.name));
    const parts = [];
    let at = 0;
    for (const quote of quotes) {
      if (quote.start < at) continue;
      parts.push(piece(at, quote.start), make("mark", { class: stone(facts, quote.name), title: title(quote.name) }, piece(quote.start, quote.end)));
      at = quote.end;
    }
    read.replaceChildren(...parts, piece(at, bytes.length));
    [text.hidden, read.hidden, again.hidden, submit.hidden] = [true, false, false, true];
    find("examples").hidden = true;
  }

  const stone = (facts, name) => STONES[Object.keys(facts).indexOf(name) % STONES.length];

  function list(facts) {
    const rows = Object.entries(facts).map(([name, fact]) =>
      make("tr", {},
        make("th", { scope: "row" }, make("i", { class: `tile ${stone(facts, name)}` }), title(name)),
        make("td", { class: "number" }, shown(fact.value)),
        make("td", { class: "note" }, fact.quote ? `“${fact.quote.text}”` : texts.given)));
    factsBox.replaceChildren(make("h2", {}, texts.facts), make("table", { class: "facts" }, make("tbody", {}, ...rows)));
    factsBox.hidden = rows.length === 0;
  }

  /** A field for every missing fact; what is entered joins what was given, and the decision is asked for again. */
  function question(missing) {
    const fields = missing.map(({ fact, question }) => make("label", { class: "field" }, make("span", {}, question), field(fact)));
    const form = make("form", {}, make("h2", {}, texts.missing), make("p", { class: "note" }, texts["missing-note"]),
      ...fields, make("button", { class: "primary", type: "submit" }, texts["go-on"]));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      for (const [name, value] of new FormData(form)) given[name] = typed(name, value);
      decide();
    });
    missingBox.replaceChildren(form);
    missingBox.hidden = false;
    form.querySelector("input, select").focus();
  }

  function field(name) {
    const schema = decision.facts[name] ?? {};
    const choices = schema.type === "boolean" ? [["true", texts.yes], ["false", texts.no]] : schema.enum?.map((value) => [value, word(value)]);
    if (choices) return make("select", { name, required: true }, ...choices.map(([value, label]) => make("option", { value }, label)));
    const type = schema.type === "number" || schema.type === "integer" ? "number" : schema.format === "date" ? "date" : "text";
    return make("input", { name, type, step: type === "number" ? "any" : null, required: true });
  }

  function typed(name, value) {
    const { type } = decision.facts[name] ?? {};
    if (type === "number" || type === "integer") return Number(value);
    return type === "boolean" ? value === "true" : value;
  }
}

/** As much of a text as there is room for. */
function fit(element, text, room) {
  element.textContent = text;
  for (let length = text.length; length > 0 && element.getComputedTextLength() > room; length -= 1) {
    element.textContent = `${text.slice(0, length).trimEnd()}…`;
  }
}

// Talking to the API: a JSON request whose answer is a stream of server-sent events.

/** Posts `body` as JSON. Throws an Error with the server's own words when the answer is no success. */
export async function post(url, body, signal) {
  const headers = { "content-type": "application/json" };
  const response = await fetch(url, { method: "POST", headers, body: JSON.stringify(body), signal });
  if (response.ok) return response;
  const text = await response.text();
  let error = { message: `${response.status} ${response.statusText}` };
  try {
    error = JSON.parse(text).error;
  } catch {
    // Not the API's own error, such as a proxy's page: the status has to do.
  }
  throw failed(error, response.status);
}

/** The API's error as one to throw; `status` is that of the response, if it had one of its own. */
export function failed({ message, type }, status) {
  return Object.assign(new Error(message), { status, type });
}

const BY_STATUS = { 401: "forbidden", 403: "forbidden", 404: "absent", 429: "busy", 502: "upstream", 503: "stopping", 504: "late" };
const BY_TYPE = {
  authentication_error: "forbidden",
  permission_error: "forbidden",
  insufficient_quota: "budget",
  rate_limit_error: "busy",
  timeout_error: "late",
};

/** What went wrong: the server's own words, and on a page in another language what kind of thing that is in front. */
export function failure(texts, { message, status, type }) {
  const kind = texts[BY_TYPE[type] ?? BY_STATUS[status] ?? "other"];
  const told = document.documentElement.lang.startsWith("en") ? [message] : [`${kind} `, make("small", { lang: "en" }, message)];
  return make("p", { class: "failure", role: "alert" }, `${texts.failed}: `, ...told);
}

/** The events of a response, as `{ name, data }`, as they arrive. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let name = "message";
  let data = [];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines.map((line) => line.replace(/\r$/, ""))) {
      if (line === "") {
        if (data.length) yield { name, data: data.join("\n") };
        name = "message";
        data = [];
      } else if (line.startsWith("data:")) {
        data.push(line.slice(5).replace(/^ /, ""));
      } else if (line.startsWith("event:")) {
        name = line.slice(6).trim();
      }
    }
  }
}

/** An element with attributes, text and children: `make("p", { class: "note" }, "text", child)`. */
export function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "rect", "path", "g", "title"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

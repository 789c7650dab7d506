// What the sidecar is asked, with the token where it wants one.

const SILENCE_MS = 10000; // a stream says something every two seconds

export class Refusal extends Error {
  constructor(status, text, outdated) {
    super(text.trim() || `status ${status}`);
    this.status = status;
    this.outdated = outdated; // the token has been changed since it was asked
  }
}

let token = sessionStorage.getItem("token");

export const hasToken = () => token !== null;

export function setToken(value) {
  token = value;
  if (value === null) sessionStorage.removeItem("token");
  else sessionStorage.setItem("token", value);
}

async function ask(path, parameters, signal) {
  const used = token;
  const query = new URLSearchParams(parameters).toString();
  const headers = token === null ? {} : { Authorization: `Bearer ${token}` };
  const answer = await fetch(query ? `${path}?${query}` : path, { headers, signal, cache: "no-store" });
  if (!answer.ok) throw new Refusal(answer.status, await answer.text(), used !== token);
  return answer;
}

export const json = async (path, parameters = {}, signal = AbortSignal.timeout(SILENCE_MS)) =>
  (await ask(path, parameters, signal)).json();

function message(block) {
  const m = { event: "message", id: "", data: "" };
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) m[line.slice(0, colon)] = line.slice(colon + 1).trimStart();
  }
  return m;
}

// The messages of an event stream.  EventSource cannot send the token.
export async function* stream(path, parameters, signal) {
  const silence = new AbortController();
  const answer = await ask(path, parameters, AbortSignal.any([signal, silence.signal]));
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", timer;
  for (;;) {
    timer = setTimeout(() => silence.abort(), SILENCE_MS);
    const { value, done } = await reader.read().finally(() => clearTimeout(timer));
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const m = message(block);
      if (m.data !== "") yield m;
    }
  }
}

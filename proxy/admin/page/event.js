// One event, opened: its line as it stands in the trail, its place, its proof.

import { Refusal, json } from "./ask.js";
import { breakable, by, count, facts, say, visible } from "./dom.js";

const dialog = by("event");
let status; // of the sidecar, the last one
let shown = null; // { line, event }, as in events.js
const exact = new Map(); // element's id -> what is copied: the bytes, not how they are shown

function put(id, text, copied = text) {
  by(id).textContent = visible(text);
  by(id).hidden = false;
  exact.set(id, copied);
}

const pretty = (event) => JSON.stringify(event, null, 2);

function initiator({ initiator: i }) {
  if (!i) return "";
  const who = i.id || i.name || "";
  return i.claimed ? `${who} (claimed: ${i.claimed.id ?? ""})` : who;
}

export const columns = (e) => ({
  time: e.eventTime ?? e.trail.at, action: e.action, outcome: e.kind === "intent" ? "pending" : e.outcome,
  code: e.reason?.reasonCode, severity: e.severity, initiator: initiator(e), correlation: e.correlationId ?? "",
  number: e.trail.seq,
});

export function openEvent(row) {
  const e = row.event, c = columns(e);
  shown = row;
  by("event-title").replaceChildren(breakable(`${c.action} ${c.outcome}${c.code ? ` (${c.code})` : ""}`));
  facts(by("event-facts"), [
    ["Message", e.message], ["Time", c.time], ["Initiator", c.initiator],
    ["From", e.initiator?.host?.address], ["Agent", e.initiator?.host?.agent],
    ["Correlation ID", c.correlation],
    ["Position", `line ${count(c.number)} of log ${e.trail.log}, boot ${e.trail.boot}`],
  ].filter(([, value]) => value).map(([name, value]) => [name, visible(value)]));
  put("event-json", pretty(e), row.line);
  by("event-proof").hidden = true;
  dialog.querySelector("[data-copy=event-proof]").hidden = true;
  say(by("event-proof-state"), "");
  say(by("copied"), "");
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  by("event-title").focus();
}

async function prove() {
  const row = shown, number = row.event.trail.seq;
  say(by("event-proof-state"), "Asking");
  try {
    const { signing } = await status();
    if (number > signing.covered) {
      say(by("event-proof-state"), signing.on ? notYet(signing.covered) : signing.detail);
      return;
    }
    const answer = await json("/proof", { seq: number });
    if (row !== shown) return;
    row.line = answer.line;
    exact.set("event-json", answer.line);
    put("event-proof", answer.proof);
    dialog.querySelector("[data-copy=event-proof]").hidden = false;
    say(by("event-proof-state"), `Check it elsewhere: keytrail verify --proof event-${number}.tlog-proof --line event-${number}.json --key KEY`);
  } catch (error) {
    if (row === shown) say(by("event-proof-state"), why(error));
  }
}

function why(error) {
  if (!(error instanceof Refusal)) return "The sidecar gave no answer.";
  if (error.status !== 409) return `No proof: ${error.message}`;
  return notYet(JSON.parse(error.message).covered);
}

const notYet = (covered) => `It is not signed yet; lines up to ${count(covered)} are.`;

async function copy(id) {
  try {
    await navigator.clipboard.writeText(exact.get(id));
    say(by("copied"), "Copied.");
  } catch { // it is there for loopback and TLS alone
    getSelection().selectAllChildren(by(id));
    say(by("copied"), "This browser lets no page of this address copy; the text is selected.");
  }
}

// step(row, n): the row n further down, or undefined.
export function startEvent(step, giveStatus, onClose) {
  status = giveStatus;
  const go = (n) => {
    const next = step(shown, n);
    if (next) openEvent(next);
  };
  by("event-newer").addEventListener("click", () => go(-1));
  by("event-older").addEventListener("click", () => go(1));
  by("event-close").addEventListener("click", () => dialog.close());
  by("event-prove").addEventListener("click", prove);
  for (const button of dialog.querySelectorAll("[data-copy]"))
    button.addEventListener("click", () => copy(button.dataset.copy));
  dialog.addEventListener("click", (e) => e.target === dialog && dialog.close());
  dialog.addEventListener("close", () => onClose(shown));
}

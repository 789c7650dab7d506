// The table of events: live, the newest above; or what is found in a time, the oldest above.

import { Refusal, json, stream } from "./ask.js";
import { badge, breakable, by, clip, count, el, say, visible } from "./dom.js";
import { columns, openEvent, startEvent } from "./event.js";

const ROWS_MAX = 500;
const RECENT = 500; // lines that are looked at before what comes
const PAGE = 100;
const WAIT_MS = [500, 1000, 2000, 5000, 10000];
// Neither history nor who looks over a shoulder gets whose call it was.
const SHARED = ["time", "action", "outcome", "severity"];
const KINDS = { success: "ok", failure: "bad", unknown: "warn", pending: "warn" };

const form = by("filters");
const body = by("rows").tBodies[0];
let rows = []; // as in the table: { line, event, tr }
let paused = null; // rows that wait, while it is paused
let running = new AbortController();
let lost = 0; // connections of the stream, in a row
let options; // { status(): the last one, refused(error): true when it was dealt with }

// ---- rows ----

function render(row) {
  const c = columns(row.event);
  const at = c.time.slice(0, 22).split("T");
  row.tr = el("tr", { tabindex: -1 },
    el("td", { class: "time" }, el("span", { class: "day" }, `${at[0]} `), at[1]),
    el("td", {}, breakable(c.action)),
    el("td", {}, badge(KINDS[c.outcome] ?? "warn", c.outcome), c.code ? ` ${c.code}` : ""),
    el("td", { class: "wide" }, c.severity === "normal" ? c.severity : badge(c.severity === "critical" ? "bad" : "warn", c.severity)),
    el("td", { class: "wide path" }, clip(visible(c.initiator), 60)),
    el("td", { class: "wide path" }, clip(visible(c.correlation), 40)),
    el("td", { class: "number wide" }, String(c.number)));
  for (const td of row.tr.cells) td.setAttribute("role", "gridcell");
  row.tr.row = row;
  return row.tr;
}

function rove(tr, focus) {
  body.querySelector("tr[tabindex='0']")?.setAttribute("tabindex", -1);
  tr?.setAttribute("tabindex", 0);
  if (focus) tr?.focus();
}

function drop(removed) {
  if (removed.some((r) => r.tr === document.activeElement)) rove(rows.at(-1).tr, true);
  for (const r of removed) r.tr.remove();
}

function add(list, above) {
  if (above) {
    rows = [...list.toReversed(), ...rows];
    body.prepend(...list.toReversed().map(render));
    drop(rows.splice(ROWS_MAX));
  } else {
    rows.push(...list);
    body.append(...list.map(render));
  }
  if (!body.contains(document.activeElement)) rove(rows[0]?.tr);
}

function clear() {
  rows = [];
  body.replaceChildren();
}

const rowOf = (event, line) => ({ event, line });

// ---- live ----

let arrived = []; // since the last frame

function flush() {
  const list = arrived.slice(-ROWS_MAX);
  arrived = [];
  if (paused) paused = [...paused, ...list].slice(-ROWS_MAX);
  else add(list, true);
  tellLive();
}

function push(row) {
  if (arrived.push(row) === 1) requestAnimationFrame(flush);
}

function tellLive() {
  if (running.signal.aborted || !running.live) return;
  say(by("events-state"), paused ? `Paused: ${count(paused.length)} new.`
    : lost > 0 ? "The stream has ended; it is begun again."
      : rows.length ? "Live." : `Live. None of the last ${count(RECENT)} lines fits; what fits appears here.`);
}

function tellRefusal(error) {
  say(by("events-state"), error instanceof Refusal ? error.message : "The sidecar gave no answer.");
}

async function listen(filters, place, signal) {
  for await (const m of stream("/events/stream", { ...filters, cursor: place.cursor }, signal)) {
    lost = 0;
    if (m.event === "gap") place.cursor = Number(JSON.parse(m.data).next);
    if (m.event !== "row") continue;
    place.cursor = Number(m.id) + 1;
    push(rowOf(JSON.parse(m.data), m.data));
  }
}

const pause = (ms, signal) => new Promise((resolve) => {
  const timer = setTimeout(resolve, ms);
  signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
});

// A stream ends by itself after some minutes: whoever reads goes on where it was.
async function follow(filters, signal) {
  const place = { cursor: Math.max(1, (await options.status()).trail.durable - RECENT + 1) };
  lost = 0;
  while (!signal.aborted) {
    tellLive();
    try {
      await listen(filters, place, signal);
    } catch (error) {
      if (signal.aborted || options.refused(error)) return;
      if (error instanceof Refusal && error.status < 500) {
        tellRefusal(error);
        return;
      }
    }
    if (signal.aborted) return;
    await pause(WAIT_MS[Math.min(lost++, WAIT_MS.length - 1)], signal);
  }
}

// ---- search ----

// Pages until there is one with rows; a page's time may end before it finds any.
async function search(filters, cursor, signal) {
  let wanted = PAGE;
  by("more").hidden = true;
  by("stop").hidden = false;
  try {
    for (let more = true; more && wanted > 0;) {
      say(by("events-state"), `Searching: at line ${count(cursor)}, ${count(rows.length)} found.`);
      const page = await json("/events", { ...filters, cursor, limit: wanted }, signal);
      add(page.events.map((e) => rowOf(e, JSON.stringify(e))), false);
      wanted -= page.events.length;
      cursor = Number(page.next);
      more = page.more;
      by("more").hidden = !more;
    }
    const end = by("more").hidden ? "" : ` There may be more from line ${count(cursor)} on.`;
    say(by("events-state"), `${count(rows.length)} found.${end}`);
  } catch (error) {
    if (signal.aborted) say(by("events-state"), `${count(rows.length)} found, then it was stopped.`);
    else if (!options.refused(error)) tellRefusal(error);
    by("more").hidden = false;
  }
  by("stop").hidden = true;
  by("more").onclick = () => search(filters, cursor, begin().signal);
}

// ---- filters ----

function begin() {
  running.abort();
  running = new AbortController();
  return running;
}

const iso = (value) => (value.length === 16 ? `${value}:00Z` : `${value}Z`);

// The parameters of a query, as the form has them.
function parameters() {
  const fields = Object.fromEntries([...new FormData(form)].map(([k, v]) => [k, v.trim()]));
  const { time, since, until, ...filters } = fields;
  for (const key of Object.keys(filters)) if (filters[key] === "") delete filters[key];
  if (time === "range") {
    if (since) filters.since = iso(since);
    if (until) filters.until = iso(until);
  } else if (Number(time) > 0) {
    filters.since = new Date(Date.now() - Number(time) * 1000).toISOString().slice(0, 19) + "Z";
  }
  return { live: time === "live", filters };
}

function setRange() {
  for (const label of form.querySelectorAll(".range")) label.hidden = form.elements.time.value !== "range";
}

function share() {
  const words = new URLSearchParams();
  for (const name of SHARED)
    if (form.elements[name].value && form.elements[name].value !== "live") words.set(name, form.elements[name].value);
  history.replaceState(null, "", `#events${words.size ? `?${words}` : ""}`);
}

export function showEvents() {
  const { live, filters } = parameters();
  const { signal } = begin();
  setRange();
  clear();
  setPaused(false);
  by("pause").hidden = !live;
  by("more").hidden = by("stop").hidden = true;
  running.live = live;
  if (live) follow(filters, signal);
  else search(filters, 1, signal);
}

export function leaveEvents() {
  running.abort();
}

// What the address says after "#events?".
export function setFilters(words) {
  const given = new URLSearchParams(words), { time } = form.elements;
  for (const field of form.querySelectorAll("input, select"))
    field.value = SHARED.includes(field.name) ? given.get(field.name) ?? "" : "";
  if (!time.value) time.value = "live";
}

function setPaused(on) {
  if (!on && paused) add(paused, true);
  paused = on ? [] : null;
  by("pause").setAttribute("aria-pressed", String(on));
  tellLive();
}

export const togglePause = () => by("pause").hidden || setPaused(paused === null);

// ---- keys ----

const neighbour = (row, n) => rows[rows.indexOf(row) + n];

function onKey(e) {
  const tr = e.target.closest("tr");
  const move = { ArrowUp: -1, ArrowDown: 1, PageUp: -10, PageDown: 10, Home: -ROWS_MAX, End: Infinity }[e.key];
  if (!tr?.row) return;
  if (move !== undefined) {
    const at = Math.max(0, Math.min(rows.length - 1, rows.indexOf(tr.row) + move));
    rove(rows[at].tr, true);
  } else if (e.key === "Enter" || e.key === " ") {
    openEvent(tr.row);
  } else {
    return;
  }
  e.preventDefault();
}

export function startEvents(given) {
  options = given;
  body.addEventListener("keydown", onKey);
  body.addEventListener("click", (e) => {
    const tr = e.target.closest("tr");
    if (!tr?.row) return;
    rove(tr);
    openEvent(tr.row);
  });
  form.addEventListener("submit", (e) => {
    e.preventDefault();
    share();
    showEvents();
  });
  form.addEventListener("change", (e) => {
    setRange();
    if (e.target.localName === "select" && form.elements.time.value !== "range") form.requestSubmit();
  });
  form.addEventListener("reset", () => setTimeout(() => form.requestSubmit()));
  by("pause").addEventListener("click", togglePause);
  by("stop").addEventListener("click", () => running.abort());
  startEvent(neighbour, options.status, (row) => row.tr.isConnected && rove(row.tr, true));
}

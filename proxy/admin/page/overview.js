// How the sidecar is, and what it did in the last minutes.

import { Chart, spark } from "./chart.js";
import { badge, breakable, by, bytes, count, date, el, facts, fill, seconds, span } from "./dom.js";

const OUTCOMES = ["success", "failure", "unknown"];
const DAY_S = 86400;

let calls, latency, history, status;

// ---- what /status tells ----

const room = (trail) => (trail.secondsToFull === undefined || trail.secondsToFull === null
  ? "not in sight" : `in ${span(trail.secondsToFull)}`);

function sinkState(s) {
  if (!s.up) return el("span", {}, badge("bad", "down"), ` ${s.lastError}`);
  return s.oldestSeconds >= 10 ? badge("warn", "behind") : badge("ok", "up");
}

function showTrail({ trail, signing, holds, degraded }) {
  facts(by("trail"), [
    ["Full", room(trail)],
    ["Room left", bytes(trail.freeBytes)],
    ["Kept", `${bytes(trail.bytes)} in ${count(trail.segments)} segment${trail.segments === 1 ? "" : "s"}`],
    ["Last number", count(trail.durable)],
    ["Signed", signing.on ? `up to ${count(signing.covered)}` : "no"],
    [signing.on ? "Key" : "Why not", signing.detail],
    ["Holds", holds === null ? "the file is damaged: nothing is removed"
      : holds.map((h) => `${h.name} (${h.first} to ${h.last})`).join(", ") || "none"],
    ["Degraded", degraded === null ? "no" : `until ${degraded.until}: ${degraded.reason}`],
    ["Log", trail.log],
  ]);
}

function showCertificates(list) {
  const now = Date.now() / 1000;
  fill(by("certificates"), list.map((c) => [
    [c.file, "path"],
    c.notAfter === null ? "without end" : date(c.notAfter),
    [c.notAfter === null ? "" : c.notAfter <= now ? badge("bad", "over")
      : c.endsSoon ? badge("warn", span(c.notAfter - now)) : span(c.notAfter - now), "number"],
  ]), "No certificate is used.");
}

function showProcess(s) {
  const pairs = [
    ["Listens on", s.listen || "nothing"],
    ["Up for", span(s.uptimeSeconds)],
    ["Workers", count(s.workers)],
    ["Connections", `${count(s.connections)} of clients, ${count(s.upstream.open)} to the service (${count(s.upstream.idle)} idle)`],
    ["Routes file", s.configPath],
    ["Its digest", s.configDigest],
  ];
  for (const c of s.checks) if (!c.ok) pairs.push([`Check: ${c.name}`, c.detail]);
  for (const p of s.sandbox?.parts ?? []) pairs.push([`Sandbox: ${p.name}`, `${p.on ? "on" : "off"}${p.detail ? `: ${p.detail}` : ""}`]);
  facts(by("process"), pairs);
}

function tile(name, value, note, kind = "") {
  return el("div", { class: `tile ${kind}` }, el("dt", {}, name), el("dd", {}, el("strong", {}, value), el("small", {}, note)));
}

const last = (values = []) => values.findLast((v) => v !== null && v !== undefined);

function showTiles(s) {
  const total = (outcome) => (history?.calls ?? []).filter((c) => !outcome || c.outcome === outcome)
    .flatMap((c) => c.values).reduce((a, v) => a + (v ?? 0), 0);
  const behind = s.sinks.filter((k) => !k.up || k.oldestSeconds >= 10);
  const full = s.trail.secondsToFull;
  const added = last(history?.added?.p99);
  const failed = total("failure") + total("unknown");
  by("tiles").replaceChildren(
    tile("Calls", history ? count(total()) : "unknown", history ? `in ${by("span").value} min, ${count(failed)} failed` : "", failed > 0 ? "warn" : ""),
    tile("keytrail adds", added === undefined ? "no calls" : seconds(added), added === undefined ? "of late" : "to 99 of 100 calls"),
    tile("Sinks", s.sinks.length === 0 ? "none" : `${s.sinks.length - behind.length} of ${s.sinks.length}`,
      s.sinks.length === 0 ? "the trail alone" : "keep up", behind.length ? "warn" : ""),
    tile("Trail full", room(s.trail), `${bytes(s.trail.freeBytes)} left`, typeof full === "number" && full < DAY_S ? "warn" : ""),
    tile("Signed", s.signing.on ? (s.signing.covered >= s.trail.durable ? "all" : `all but ${count(s.trail.durable - s.signing.covered)}`) : "no",
      `of ${count(s.trail.durable)} lines`, s.signing.on ? "" : "warn"),
    tile("In flight", count(s.requests.inFlight), `of ${count(s.connections)} connections`));
}

export function showStatus(s) {
  status = s;
  showTiles(s);
  showTrail(s);
  showCertificates(s.certificates ?? []);
  showProcess(s);
  fill(by("sinks"), s.sinks.map((k) => [
    el("span", {}, k.name, el("small", {}, ` ${k.type}`)), [sinkState(k), "free"],
    [count(k.waiting), "number"], [span(k.oldestSeconds), "number"],
    [count(k.delivered), "number wide"], [count(k.rejected), "number wide"],
  ]), "No sinks: the trail is the only record.");
}

// ---- what /history tells ----

const sum = (rows, n) => Array.from({ length: n }, (_, i) => {
  const values = rows.map((r) => r.values[i]).filter((v) => v !== null && v !== undefined);
  return values.length ? values.reduce((a, b) => a + b) : null;
});

const totalOf = (values) => values.reduce((a, v) => a + (v ?? 0), 0);

const lengthOf = (h) => Math.max(0, ...h.calls.map((c) => c.values.length), h.added?.p99?.length ?? 0);

function showCalls() {
  const n = lengthOf(history), wanted = by("calls-action").value;
  const rows = history.calls.filter((c) => wanted === "" || c.action === wanted);
  const outcomes = OUTCOMES.filter((o) => o !== "unknown" || rows.some((r) => r.outcome === o));
  const series = outcomes.map((o) => ({ name: o, kind: o, values: sum(rows.filter((r) => r.outcome === o), n) }));
  calls.show({ series, step: history.step, end: history.end, stacked: true,
    format: (v) => `${Number(v.toPrecision(2))}/s`,
    summary: `Calls${wanted ? ` of ${wanted}` : ""}: ` + series.map((s) => `${count(totalOf(s.values))} ${s.name}`).join(", ") });
}

function showLatency() {
  const lines = [["whole, 99 %", "total", "p99"], ["whole, 50 %", "total half", "p50"],
    ["keytrail, 99 %", "added", "p99"], ["keytrail, 50 %", "added half", "p50"]];
  const series = lines.map(([name, kind, p]) => ({ name, kind, values: history[kind.split(" ")[0]]?.[p] ?? [] }));
  latency.show({ series, step: history.step, end: history.end, log: true, format: seconds,
    summary: "Latest: " + series.map((s) => `${s.name} ${last(s.values) === undefined ? "unknown" : seconds(last(s.values))}`).join(", ") });
}

function showActions() {
  const n = lengthOf(history);
  const actions = [...new Set(history.calls.map((c) => c.action))].map((action) => {
    const rows = history.calls.filter((c) => c.action === action);
    const all = sum(rows, n);
    return { action, all, calls: totalOf(all),
      failed: totalOf(sum(rows.filter((r) => r.outcome !== "success"), n)) };
  }).filter((a) => a.calls > 0).sort((a, b) => b.calls - a.calls);
  fill(by("actions"), actions.map((a) => [
    el("a", { href: `#events?action=${encodeURIComponent(a.action)}` }, breakable(a.action)),
    [count(a.calls), "number"],
    [a.failed ? badge("warn", count(a.failed)) : "0", "number"],
    [spark(a.all), "wide"],
  ]), "No calls in this time.");
  return actions.map((a) => a.action);
}

function showChoices(actions) {
  const select = by("calls-action");
  const wanted = select.value;
  const names = [...new Set([...actions, wanted])].filter(Boolean).sort();
  select.replaceChildren(el("option", { value: "" }, "all"), ...names.map((a) => el("option", {}, a)));
  select.value = wanted;
}

export function showHistory(h) {
  history = h;
  if (status) showTiles(status);
  showChoices(showActions());
  showCalls();
  showLatency();
}

export const historySpan = () => by("span").value;

export function startOverview(onSpan) {
  calls = new Chart(by("calls-chart"), "Calls by outcome");
  latency = new Chart(by("latency-chart"), "Time of a call");
  by("calls-action").addEventListener("change", () => history && showCalls());
  by("span").addEventListener("change", onSpan);
}

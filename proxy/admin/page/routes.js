// The routes with how often each was taken, and the shapes of what none matches.

import { breakable, by, count, el, fill } from "./dom.js";

let table = null;

const request = (r) => `${r.method} ${r.path}${r.query ? `?${r.query}` : ""}${r.header ? ` (${r.header})` : ""}`;

const minute = (time) => time.slice(0, 16).replace("T", " ");

function showRoutes() {
  const words = by("routes-search").value.toLowerCase();
  const rows = table.routes.filter((r) => `${request(r)} ${r.action}`.toLowerCase().includes(words));
  rows.sort(by("routes-order").value === "hits" ? (a, b) => b.hits - a.hits
    : (a, b) => (a.path + a.method).localeCompare(b.path + b.method));
  fill(by("route-rows"), rows.map((r) => [
    [breakable(request(r)), "path"],
    el("a", { href: `#events?action=${encodeURIComponent(r.action)}` }, breakable(r.action)),
    [r.guarantee, "wide"], [r.severity, "wide"], [r.hits === null ? "not counted" : count(r.hits), "number"],
  ]), "No route has these words.");
}

export function showTable(t) {
  table = t;
  by("routes-since").textContent = `Hits since ${minute(t.since)} UTC.`;
  showRoutes();
  const shapes = t.shapes.toSorted((a, b) => b.count - a.count)
    .map((s) => [[breakable(s.shape), "path"], [count(s.count), "number"], [minute(s.last), "number"]]);
  if (t.otherShapes > 0) shapes.push(["any other", [count(t.otherShapes), "number"], ""]);
  fill(by("shape-rows"), shapes, "None: every request matched a route.");
  by("known-actions").replaceChildren(
    ...[...new Set(t.routes.map((r) => r.action))].sort().map((a) => el("option", { value: a })));
}

export function startRoutes() {
  by("routes-search").addEventListener("input", () => table && showRoutes());
  by("routes-order").addEventListener("change", () => table && showRoutes());
}

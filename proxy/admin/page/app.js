// The page: which view is shown, how the sidecar is, the token, the colours, the keys.

import { Refusal, hasToken, json, setToken } from "./ask.js";
import { by, say, span } from "./dom.js";
import { leaveEvents, setFilters, showEvents, startEvents, togglePause } from "./events.js";
import { historySpan, showHistory, showStatus, startOverview } from "./overview.js";
import { showTable, startRoutes } from "./routes.js";

const STALE_MS = 10000;
const VIEWS = ["overview", "events", "routes"];
const GOOD = "Every call is recorded"; // how the summary begins when it is (health.c)

let answered = Date.now();
let status = null; // the last one
let waiting = []; // resolvers of who wants the first one
let view = "";

// ---- how it is ----

function health(kind, word, text) {
  by("health").className = `health ${kind}`;
  say(by("health").firstElementChild, word);
  say(by("health").lastElementChild, text);
}

function showHealth(s) {
  if (!s.ready || s.degraded || !s.summary.startsWith(GOOD)) health("bad", "Unhealthy", s.summary);
  else if (s.summary !== `${GOOD}.`) health("warn", "Attention", s.summary);
  else health("ok", "Healthy", s.summary);
}

function onStatus(s) {
  answered = Date.now();
  status = s;
  for (const resolve of waiting.splice(0)) resolve(s);
  say(by("version"), s.version);
  say(by("you"), s.you.token === "none" ? "" : `${s.you.token}, ${s.you.role}`);
  showHealth(s);
  showStatus(s);
}

const lastStatus = async () => status ?? new Promise((resolve) => waiting.push(resolve));

function tellStale() {
  const silent = Date.now() - answered;
  if (silent >= STALE_MS && !by("token").open)
    health("bad", "No answer", `The sidecar has not answered for ${span(silent / 1000)}; what is shown is of then.`);
}

// ---- the token ----

// Whether the refusal is dealt with: nothing is asked until the token is there.
function refused(error) {
  if (!(error instanceof Refusal)) return false;
  answered = Date.now();
  if (error.status === 401) {
    if (by("token").open || error.outdated) return true;
    say(by("token-why"), hasToken() ? "The sidecar does not know this one." : "The administration of this sidecar asks for one: admin.token, or one of admin.tokens.");
    health("wait", "Locked", "A token is needed to see how the sidecar is.");
    leaveEvents();
    by("token-value").value = "";
    by("token").showModal();
    return true;
  }
  if (error.status === 403 || error.status === 429) health("bad", "Refused", error.message);
  return false;
}

function startToken() {
  by("token-form").addEventListener("submit", (e) => {
    e.preventDefault();
    setToken(by("token-value").value.trim());
    by("token").close();
    by("leave").hidden = false;
    renew();
  });
  by("token").addEventListener("cancel", (e) => e.preventDefault());
  by("leave").hidden = !hasToken();
  by("leave").addEventListener("click", () => {
    setToken(null);
    location.reload();
  });
}

// ---- what is asked again and again ----

const polls = [
  { path: "/status", every: 2000, show: onStatus },
  { path: "/history", every: 10000, view: "overview", parameters: () => ({ minutes: historySpan() }), show: showHistory },
  { path: "/routes", every: 5000, view: "routes", show: showTable },
];

const wanted = (p) => !by("token").open && (p.view === undefined || p.view === view);

async function poll(p) {
  clearTimeout(p.timer);
  const turn = p.turn = (p.turn ?? 0) + 1;
  if (wanted(p)) {
    try {
      const answer = await json(p.path, p.parameters?.());
      if (turn !== p.turn) return;
      p.show(answer);
    } catch (error) {
      refused(error);
      if (!(error instanceof Refusal || error instanceof TypeError || error.name === "TimeoutError")) throw error;
    }
  }
  if (turn === p.turn) p.timer = setTimeout(poll, p.every, p);
}

function renew() {
  for (const p of polls) poll(p);
  if (view === "events") showEvents();
}

// ---- views ----

function show() {
  const [name, words = ""] = location.hash.slice(1).split("?");
  const next = VIEWS.includes(name) ? name : "overview";
  const changed = next !== view;
  view = next;
  for (const v of VIEWS) {
    by(v).hidden = v !== view;
    const link = document.querySelector(`nav a[href="#${v}"]`);
    if (v === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `keytrail: ${view}`;
  leaveEvents();
  if (view === "events") {
    setFilters(words);
    showEvents();
  }
  if (changed) {
    scrollTo(0, 0);
    for (const p of polls) if (p.view === view) poll(p);
  }
}

// ---- colours, keys ----

function startTheme() {
  const set = (theme) => { document.documentElement.dataset.theme = theme; };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const chosen = localStorage.getItem("theme");
  set(chosen ?? (dark.matches ? "dark" : "light"));
  dark.addEventListener("change", () => localStorage.getItem("theme") ?? set(dark.matches ? "dark" : "light"));
  by("theme").addEventListener("click", () => {
    const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    localStorage.setItem("theme", next);
    set(next);
  });
}

const KEYS = {
  o: () => { location.hash = "#overview"; },
  e: () => { location.hash = "#events"; },
  r: () => { location.hash = "#routes"; },
  p: () => view === "events" && togglePause(),
  "/": () => (view === "routes" ? by("routes-search") : view === "events" ? by("filters").elements.action : null)?.focus(),
};

function onKey(e) {
  if (e.ctrlKey || e.metaKey || e.altKey || document.querySelector("dialog[open]")) return;
  if (e.target.closest("input, select, textarea")) {
    if (e.key === "Escape") e.target.blur();
    return;
  }
  if (!KEYS[e.key]) return;
  e.preventDefault();
  KEYS[e.key]();
}

// The fragment is the view's.
document.querySelector(".skip").addEventListener("click", (e) => {
  e.preventDefault();
  by("view").focus();
});
startTheme();
startToken();
startOverview(() => poll(polls[1]));
startRoutes();
startEvents({ status: lastStatus, refused });
addEventListener("hashchange", show);
addEventListener("keydown", onKey);
document.addEventListener("visibilitychange", () => document.hidden || polls.forEach(poll));
setInterval(tellStale, 1000);
show();
polls.forEach(poll);

// The dashboard as who operates a key service, and who reviews its events, uses it.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";

import { NARROW, SHOTS, WIDE, ask, begin, call, end, findings, leave, until, visit, widerThanItsWindow } from "./world.mjs";

const EVIL = `<img src=x onerror="document.title='owned'"><script>alert(1)</script>`;
const WRAP = { method: "POST", target: "/api/v2/keys/x/actions/wrap" };
const SIGNED = { audit: { sign: { file: "FOLDER/sign.key" }, checkpoint_interval: 1 } };

let plain, locked; // { port, key, token }

before(async () => {
  await begin();
  plain = await ask("start", "plain", SIGNED);
  locked = await ask("start", "locked", { admin: { token: { file: "FOLDER/token" } } });
}, { timeout: 120000 });
afterEach(leave);
after(end);

const rows = (page) => page.locator("#rows tbody tr");
const row = (page, text) => rows(page).filter({ hasText: text });
const state = (page) => page.locator("#events-state");
const health = async (page, words) => {
  const told = page.locator("#health");
  await told.filter({ hasText: words }).waitFor()
    .catch(async () => assert.match(await told.textContent(), new RegExp(words)));
};
const healthy = (page) => health(page, / recorded/);
const live = (page) => state(page).filter({ hasText: /^Live/ }).waitFor();
const cells = (page, n) => rows(page).locator(`td:nth-child(${n})`).allTextContents();
const choose = (page, name, value) => page.locator(`#filters [name=${name}]`).selectOption(value);
const write = async (page, name, value) => {
  await page.fill(`#filters [name=${name}]`, value);
  await page.press(`#filters [name=${name}]`, "Enter");
};

// ---- events ----

test("an event appears by itself, and once", async () => {
  const page = await visit(plain.port, "#events");
  await live(page);
  const event = await call("plain");
  await row(page, event.correlationId).waitFor();
  const second = await call("plain", WRAP);
  await row(page, second.correlationId).waitFor();
  // The sidecar's own events, which come when they will, have no such ID.
  const calls = (await cells(page, 6)).filter((id) => id !== "");
  assert.deepEqual(calls.slice(0, 2), [second.correlationId, event.correlationId], "the newest is not above");
  assert.equal(await row(page, event.correlationId).count(), 1);
});

test("the stream goes on where it was when the sidecar comes back", async () => {
  const { port } = await ask("start", "again", {});
  const page = await visit(port, "#events", { allowed: ["ERR_", "status of 503"] });
  await live(page);
  const first = await call("again");
  await row(page, first.correlationId).waitFor();
  await ask("restart", "again");
  const second = await call("again");
  await row(page, second.correlationId).waitFor();
  const numbers = (await cells(page, 7)).map(Number);
  assert.deepEqual(numbers, [...new Set(numbers)].sort((a, b) => b - a), "a line is missing its place");
  assert.equal(await row(page, "keytrail.stop").count(), 1);
  assert.equal(await row(page, "keytrail.start").count(), 2);
});

const FILTERS = [
  { name: "action", value: "kms.secrets.wrap", column: 2, member: (e) => e.action, call: WRAP },
  { name: "outcome", value: "failure", column: 3, member: (e) => e.outcome, call: WRAP },
  { name: "severity", value: "critical", column: 4, member: (e) => e.severity, call: { claims: { exp: 1 } } },
  { name: "initiator", value: "IBMid-of-another", column: 5, member: (e) => e.initiator?.id ?? "",
    call: { claims: { iam_id: "IBMid-of-another" } } },
];

for (const filter of FILTERS) {
  test(`${filter.name} is a filter of what comes and of what was`, async () => {
    await call("plain", filter.call);
    const other = await call("plain");
    assert.notEqual(filter.member(other), filter.value);
    const page = await visit(plain.port, "#events");
    const set = () => (["outcome", "severity"].includes(filter.name)
      ? choose(page, filter.name, filter.value) : write(page, filter.name, filter.value));
    const only = async () => {
      const shown = await until("rows that fit", async () => {
        const all = await cells(page, filter.column);
        return all.length > 0 && all;
      });
      assert.ok(shown.every((text) => text.includes(filter.value)), shown.join());
    };
    await live(page);
    await row(page, other.correlationId).waitFor();
    await set();
    await row(page, other.correlationId).waitFor({ state: "detached" });
    await only();
    await choose(page, "time", "all");
    await state(page).filter({ hasText: /found\./ }).waitFor();
    await only();
    const wanted = (await ask("lines", "plain")).map((line) => JSON.parse(line))
      .filter((e) => filter.member(e) === filter.value && e.kind !== "intent");
    assert.ok(wanted.length > 0);
    assert.equal(await rows(page).count(), Math.min(100, wanted.length));
  });
}

test("a correlation ID finds its call alone, and is not put into the address", async () => {
  const event = await call("plain");
  const page = await visit(plain.port, "#events");
  await choose(page, "time", "all");
  await choose(page, "outcome", "success");
  await write(page, "correlationId", event.correlationId);
  await state(page).filter({ hasText: "1 found." }).waitFor();
  assert.equal(await row(page, event.correlationId).count(), 1);
  assert.equal(new URL(page.url()).hash, "#events?time=all&outcome=success");
});

test("the time is a filter", async () => {
  await call("plain");
  const page = await visit(plain.port, "#events");
  await choose(page, "time", "range");
  await page.fill("#filters [name=since]", "2020-01-01T00:00:01");
  await page.fill("#filters [name=until]", "2020-01-01T00:00:02");
  await page.click("#filters [type=submit]");
  await state(page).filter({ hasText: /^0 found/ }).waitFor();
  await page.fill("#filters [name=until]", "2099-01-01T00:00:01");
  await page.click("#filters [type=submit]");
  await state(page).filter({ hasText: /^[1-9]\d* found/ }).waitFor();
  await page.click("#filters [type=reset]");
  await live(page);
});

test("a pause holds what comes, and no more than 500 rows are kept", async () => {
  const page = await visit(plain.port, "#events");
  await live(page);
  await page.click("#pause");
  const before = await rows(page).count();
  const event = await call("plain");
  await state(page).filter({ hasText: /^Paused: \d+ new/ }).waitFor();
  assert.equal(await rows(page).count(), before);
  await page.click("#pause");
  await row(page, event.correlationId).waitFor();
  await ask("list_keys", "plain", 520);
  await until("500 rows", async () => await rows(page).count() === 500);
  const last = await call("plain");
  await row(page, last.correlationId).waitFor();
  assert.equal(await rows(page).count(), 500);
});

test("more of a long answer comes when it is asked for", async () => {
  await ask("list_keys", "plain", 150);
  const page = await visit(plain.port, "#events?time=all&action=kms.secrets.list");
  await page.locator("#more:visible").waitFor();
  assert.equal(await rows(page).count(), 100);
  await page.click("#more");
  await until("the second page", async () => await rows(page).count() > 100);
});

// ---- one event ----

async function opened(event, options) {
  const page = await visit(plain.port, "#events", options);
  await row(page, event.correlationId).click();
  await page.locator("#event[open]").waitFor();
  return page;
}

test("an event opens to its line, and each is copied byte for byte", async () => {
  const event = await call("plain");
  const page = await opened(event, { permissions: ["clipboard-read", "clipboard-write"] });
  const line = (await ask("lines", "plain")).find((text) => JSON.parse(text).id === event.id);
  assert.deepEqual(JSON.parse(await page.textContent("#event-json")), JSON.parse(line));
  assert.match(await page.textContent("#event-facts"), new RegExp(`line ${event.trail.seq.toLocaleString("en")} of log ${event.trail.log}`));
  await page.click("[data-copy=event-json]");
  await page.getByText("Copied.").waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), line);
});

test("the proof that it shows convinces keytrail verify, and none else", async () => {
  const event = await call("plain");
  const page = await opened(event, { permissions: ["clipboard-read", "clipboard-write"] });
  await until("the proof", async () => {
    await page.click("#event-prove");
    await page.locator("#event-proof-state").filter({ hasNotText: /^Asking|^$/ }).waitFor();
    return page.locator("#event-proof").isVisible();
  });
  await page.click("[data-copy=event-proof]");
  await page.getByText("Copied.").waitFor();
  const proof = await page.evaluate(() => navigator.clipboard.readText());
  await page.click("[data-copy=event-json]");
  const line = await until("the line", () => page.evaluate((p) => navigator.clipboard.readText().then((t) => t !== p && t), proof));
  const [code, said] = await ask("verify", "plain", line, proof, plain.key);
  assert.equal(code, 0, said);
  const [wrong] = await ask("verify", "plain", line.replace("success", "failure"), proof, plain.key);
  assert.notEqual(wrong, 0);
});

test("without a signature it says that there is no proof", async () => {
  const event = await call("locked");
  const page = await visit(locked.port, "#events", { allowed: ["401"] });
  await page.fill("#token-value", locked.token);
  await page.press("#token-value", "Enter");
  await row(page, event.correlationId).click();
  await page.click("#event-prove");
  await page.locator("#event-proof-state", { hasText: "nothing is signed" }).waitFor();
});

// ---- health ----

test("a good one is told in a sentence", async () => {
  const { port } = await ask("start", "good", {}); // too young to foretell when the disk is full
  const page = await visit(port);
  await health(page, "Healthy Every call is recorded.");
  assert.equal(await page.locator("#health.ok").count(), 1);
});

test("a sink that is down is told, with its cause", async () => {
  const { port } = await ask("start", "sinks", { sinks: [
    { name: "siem", type: "file", path: "FOLDER/none/out.jsonl" }, { name: "good", type: "file", path: "FOLDER/out.jsonl" }] });
  const page = await visit(port);
  await health(page, /^Attention Every call is recorded; sink siem is down: .*No such file/);
  const sinks = page.locator("#sinks tbody tr");
  await sinks.filter({ hasText: "siem" }).filter({ hasText: "down" }).filter({ hasText: "No such file" }).waitFor();
  await sinks.filter({ hasText: "good" }).filter({ hasText: "up" }).waitFor();
});

test("a trail that takes nothing is told, and its mending", async () => {
  const { port } = await ask("start", "full", {});
  const page = await visit(port);
  await health(page, "Healthy");
  await ask("fail_disk", "full", "write *.jsonl ENOSPC");
  await health(page, /^Unhealthy Calls that need their record are refused: .*No space left/);
  assert.equal(await page.locator("#health.bad").count(), 1);
  await ask("fail_disk", "full");
  await healthy(page);
});

test("a certificate that ends soon is told, and when", async () => {
  const { port } = await ask("start", "ends", { listen: { tls: { certificate: "PKI/soon.pem", key: "PKI/soon.key" } } });
  const page = await visit(port);
  await health(page, /^Attention .*certificate is valid until/);
  const soon = page.locator("#certificates tbody tr", { hasText: "soon.pem" });
  await soon.locator(".badge.warn").waitFor();
});

test("a sidecar that is gone is told: what is shown is old", async () => {
  const { port } = await ask("start", "gone", {});
  const page = await visit(port, "", { allowed: ["ERR_"] });
  await health(page, "Healthy");
  await ask("stop", "gone");
  await health(page, /^No answer .*has not answered for/);
});

// ---- the token ----

test("a token is asked for, kept by the tab alone, and forgotten", async () => {
  const page = await visit(locked.port, "", { allowed: ["401"] });
  await page.locator("#token[open]").waitFor();
  assert.match(await page.textContent("#health"), /^Locked/);
  await page.keyboard.press("Escape");
  assert.equal(await page.locator("#token[open]").count(), 1, "it can be closed");
  await page.fill("#token-value", "not this one");
  await page.press("#token-value", "Enter");
  await page.getByText("does not know this one").waitFor();
  await page.fill("#token-value", locked.token);
  await page.press("#token-value", "Enter");
  await healthy(page);
  assert.match(await page.textContent("#you"), /admin\.token, viewer/);
  const kept = await page.evaluate(() => [JSON.stringify(localStorage), document.cookie, location.href].join());
  assert.ok(!kept.includes(locked.token));
  await page.reload();
  await healthy(page);
  await page.click("#leave");
  await page.locator("#token[open]").waitFor();
});

// ---- what it shows ----

test("calls of a moment ago are in the chart, the table and the tile", async () => {
  await call("plain");
  const page = await visit(plain.port);
  await page.locator("#actions", { hasText: "kms.secrets.list" }).waitFor();
  const label = await page.getAttribute("#calls-chart svg", "aria-label");
  assert.match(label, /^Calls: [\d,]+ success/);
  assert.ok(await page.locator("#calls-chart rect.success").count() > 0);
  assert.match(await page.textContent("#tiles"), /Calls[\d,]+in 60 min/);
  await page.focus("#calls-chart .plot");
  await page.keyboard.press("End");
  assert.match(await page.textContent("#calls-chart .readout"), /UTC: success [\d.]+\/s/);
  await page.click("#actions a");
  await live(page);
  assert.match(page.url(), /#events\?action=kms/);
});

test("routes have their hits, and what fits none its shape", async () => {
  await call("plain", { target: "/api/v9/nothing/7" });
  const page = await visit(plain.port, "#routes");
  await page.locator("#shape-rows tr", { hasText: "/api/{}/{}/{n}" }).waitFor();
  await page.fill("#routes-search", "kms.secrets.list");
  const hits = page.locator("#route-rows tbody tr", { hasText: "GET /api/v2/keys" }).first().locator("td").last();
  const before = Number((await hits.textContent()).replaceAll(",", ""));
  await call("plain");
  await until("one more hit", async () => Number((await hits.textContent()).replaceAll(",", "")) > before);
});

// ---- what others write ----

test("names and agents of others stay text", async () => {
  const event = await call("plain", { claims: { iam_id: EVIL, sub: EVIL }, fields: { "User-Agent": EVIL } });
  const page = await opened(event);
  assert.equal(await page.locator("main img, dialog img, main script, dialog script").count(), 0);
  assert.equal(await page.title(), "keytrail: events");
});

test("lines that no sidecar writes do no harm either", async () => {
  const hidden = "a\u202eb\u200bc\u0007d";
  const event = { action: EVIL, correlationId: hidden, eventTime: "2026-01-01T00:00:00.00+0000",
    initiator: { id: EVIL.repeat(100), host: { agent: hidden, address: "x".repeat(16384) } }, outcome: `${EVIL} ok" onclick="x`,
    severity: EVIL, message: "m".repeat(16384), trail: { seq: 7, log: "l", boot: "b" } };
  for (const viewport of [WIDE, NARROW]) {
    const page = await visit(plain.port, "", { viewport });
    await page.route("**/events?*", (route) => route.fulfill({ json: { events: [event], next: "8", more: false } }));
    await page.evaluate(() => { location.hash = "#events?time=all"; });
    await rows(page).first().click();
    await page.locator("#event[open]").waitFor();
    const text = await page.textContent("#event-facts");
    assert.ok(text.includes("a\\u202eb\\u200bc\\u0007d"), text);
    assert.equal(await page.locator("main img, dialog img, main script, dialog script").count(), 0);
    assert.equal(await widerThanItsWindow(page), false);
  }
});

test("the page runs no script but its own, and nothing becomes markup", async () => {
  const page = await visit(plain.port, "", { allowed: ["Content Security Policy", "TrustedHTML", "TrustedScript"] });
  await healthy(page);
  const tried = await page.evaluate(async () => {
    const script = document.createElement("script");
    try { script.textContent = "globalThis.ran = true"; document.head.append(script); } catch { /* trusted types */ }
    let written = true, fetched = true;
    try { document.body.innerHTML += "<b id=written></b>"; } catch { written = false; }
    try { await fetch("data:text/plain,x"); } catch { fetched = false; }
    return { ran: globalThis.ran === true, written, fetched };
  });
  assert.deepEqual(tried, { ran: false, written: false, fetched: false });
});

// ---- without a mouse ----

test("all of it is reached by keys", async () => {
  const event = await call("plain");
  const page = await visit(plain.port);
  const focused = (selector) => page.locator(`${selector}:focus`).waitFor();
  await healthy(page);
  await page.keyboard.press("Tab");
  await focused(".skip");
  await page.keyboard.press("Enter");
  await focused("#view");
  await page.keyboard.press("e");
  await live(page);
  await row(page, event.correlationId).waitFor();
  await page.keyboard.press("/");
  await focused("#filters [name=action]");
  await page.keyboard.type("kms.secrets.list");
  await page.keyboard.press("Enter");
  await until("the filter", async () => (await cells(page, 2)).every((a) => a === "kms.secrets.list") && await rows(page).count() > 1);
  await page.keyboard.press("Escape");
  await page.focus("#pause");
  await page.keyboard.press("Tab");
  await focused("#rows tbody tr:nth-child(1)");
  await page.keyboard.press("ArrowDown");
  await focused("#rows tbody tr:nth-child(2)");
  await page.keyboard.press("Enter");
  await page.locator("#event[open]").waitFor();
  await focused("#event-title");
  const number = (await cells(page, 7))[1];
  assert.match(await page.textContent("#event-json"), new RegExp(`"seq": ${number}\\b`));
  await page.keyboard.press("Escape");
  await focused("#rows tbody tr:nth-child(2)");
  await page.keyboard.press("r");
  await page.locator("#routes:visible").waitFor();
});

test("light and dark are the system's choice until another is made", async () => {
  const page = await visit(plain.port, "", { colorScheme: "dark" });
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const dark = await ground();
  await page.click("#theme");
  assert.notEqual(await ground(), dark);
  await page.reload();
  assert.notEqual(await ground(), dark);
});

// ---- how it looks ----

const VIEWS = ["overview", "events", "routes"];

for (const colorScheme of ["light", "dark"]) {
  for (const [size, viewport] of [["wide", WIDE], ["narrow", NARROW]]) {
    test(`${colorScheme} and ${size}: axe finds nothing, and nothing is cut off`, async () => {
      await call("plain", { target: "/api/v9/nothing/7" });
      const page = await visit(plain.port, "", { colorScheme, viewport, axe: true });
      await healthy(page);
      await page.locator("#actions a").first().waitFor();
      for (const view of VIEWS) {
        await page.evaluate((v) => { location.hash = v; }, view);
        await page.locator(`#${view} tbody tr`).first().waitFor();
        await page.screenshot({ path: `${SHOTS}/${view}-${colorScheme}-${size}.png`, fullPage: view === "overview" });
        assert.deepEqual(await findings(page), [], view);
        assert.equal(await widerThanItsWindow(page), false, view);
      }
      await page.evaluate(() => { location.hash = "events"; });
      await rows(page).first().click();
      await page.locator("#event[open]").waitFor();
      await page.screenshot({ path: `${SHOTS}/event-${colorScheme}-${size}.png` });
      assert.deepEqual(await findings(page), [], "an event");
    });
  }
}

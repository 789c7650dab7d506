// The browser, the sidecars that it looks at, and what must be true of every page at its end.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import path from "node:path";

const FOLDER = process.env.KEYTRAIL_BROWSER;
const installed = createRequire(`${FOLDER}/`);
const { chromium } = installed("playwright-core");
const AXE = readFileSync(installed.resolve("axe-core/axe.min.js"), "utf8");
const PATIENCE_MS = 15000;

export const SHOTS = path.join(FOLDER, "shots");
export const WIDE = { width: 1280, height: 900 };
export const NARROW = { width: 360, height: 780 };

// ---- sidecars ----

class Sidecars {
  constructor() {
    this.process = spawn(process.env.PYTHON, [new URL("sidecars", import.meta.url).pathname],
      { stdio: ["pipe", "pipe", "inherit"] });
    this.answers = createInterface({ input: this.process.stdout })[Symbol.asyncIterator]();
    this.last = Promise.resolve();
  }

  // One after the other, whatever became of the one before.
  ask(...what) {
    this.last = this.last.catch(() => {}).then(async () => {
      this.process.stdin.write(`${JSON.stringify(what)}\n`);
      const { value, done } = await this.answers.next();
      assert.ok(!done, "the sidecars' process has ended");
      const answer = JSON.parse(value);
      assert.ok(!("failed" in answer), answer.failed);
      return answer.done;
    });
    return this.last;
  }

  async end() {
    this.process.stdin.end();
    const code = await new Promise((resolve) => this.process.on("exit", resolve));
    assert.equal(code, 0, "a sidecar or its trail was not as it must be");
  }
}

// ---- pages ----

let browser, sidecars;
const open = new Set();

export const ask = (...what) => sidecars.ask(...what);

export const call = (name, { method = "GET", target = "/api/v2/keys", fields = {}, claims = {} } = {}) =>
  ask("call", name, method, target, fields, claims);

export async function begin() {
  mkdirSync(SHOTS, { recursive: true });
  sidecars = new Sidecars();
  const root = process.getuid() === 0;
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", chromiumSandbox: !root,
    args: ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
}

export async function end() {
  await browser?.close();
  await sidecars.end();
}

// A page of a sidecar's port.  What it must not do is collected in `wrong`; `allowed` are words of complaints
// of the browser that a test means to cause.
export async function visit(port, fragment = "", { allowed = [], axe = false, ...options } = {}) {
  const context = await browser.newContext({ viewport: WIDE, reducedMotion: "reduce", ...options });
  const page = await context.newPage();
  const origin = `http://127.0.0.1:${port}`;
  const wrong = [];
  const complain = (text) => allowed.some((word) => text.includes(word)) || wrong.push(text);
  page.setDefaultTimeout(PATIENCE_MS);
  page.on("console", (m) => ["error", "warning"].includes(m.type()) && complain(`console: ${m.text()}`));
  page.on("pageerror", (e) => complain(`error: ${e.stack}`));
  page.on("request", (r) => {
    if (new URL(r.url()).origin !== origin) wrong.push(`asks elsewhere: ${r.url()}`);
    if (r.url().includes("token")) wrong.push(`a token in ${r.url()}`);
  });
  page.on("dialog", (d) => wrong.push(`dialog: ${d.message()}`));
  if (axe) await page.addInitScript(AXE);
  await page.goto(`${origin}/${fragment}`);
  page.wrong = wrong;
  open.add(page);
  return page;
}

export async function leave() {
  for (const page of open) {
    open.delete(page);
    await page.context().close();
    assert.deepEqual(page.wrong, []);
  }
}

export async function until(what, condition) {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const value = await condition();
    if (value) return value;
    assert.ok(Date.now() < end, `waited in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

// What axe finds, as lines.
export async function findings(page) {
  const found = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  return found.violations.flatMap((v) => v.nodes.map((n) => `${v.id}: ${n.html.slice(0, 150)}: ${n.failureSummary}`));
}

export const widerThanItsWindow = (page) => page.evaluate(() => document.documentElement.scrollWidth > innerWidth);

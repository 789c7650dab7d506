// Elements and words.  What comes from outside becomes a text node or an attribute, never markup.

export const by = (id) => document.getElementById(id);

export function el(name, attributes = {}, ...children) {
  const e = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
  e.append(...children);
  return e;
}

// Changes the text only if it is another: a reader of the screen is not told the same again.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function facts(list, pairs) {
  list.replaceChildren(...pairs.flatMap(([name, value]) =>
    [el("dt", {}, name), el("dd", {}, value)]));
}

// Rows are cells: a text, a node, or [text or node, class of the cell].
export function fill(table, rows, empty) {
  const body = table.tBodies[0];
  if (rows.length === 0) {
    body.replaceChildren(el("tr", {}, el("td", { colspan: 9, class: "note" }, empty)));
    return;
  }
  body.replaceChildren(...rows.map((cells) => el("tr", {}, ...cells.map((cell) => {
    const [content, kind] = Array.isArray(cell) ? cell : [cell];
    return el("td", kind ? { class: kind } : {}, content);
  }))));
}

export const badge = (kind, text) => el("span", { class: `badge ${kind}` }, text);

// Marks that cannot be seen, or turn the direction of what follows, are shown by their number.
const UNSEEN = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

export const visible = (text) => String(text).replace(UNSEEN, (c) =>
  "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));

// A name that may be broken behind its dots and slashes.
export const breakable = (text) => el("span", {}, ...visible(text).split(/(?<=[./])/)
  .flatMap((part, i) => (i ? [el("wbr"), part] : [part])));

export const clip = (text, n) => (text.length > n ? text.slice(0, n - 1) + "…" : text);

export const count = (n) => Number(n).toLocaleString("en");

const scaled = (n, units, step) => {
  let i = 0;
  for (; n >= step && i < units.length - 1; i++) n /= step;
  return `${n < 10 && i > 0 ? n.toFixed(1) : Math.round(n)} ${units[i]}`;
};

export const bytes = (n) => scaled(n, ["B", "KiB", "MiB", "GiB", "TiB"], 1024);

const brief = (n) => Number(n.toPrecision(2));

export function seconds(exact) {
  const s = brief(exact);
  if (s === 0) return "0 s";
  if (s < 1e-3) return `${brief(s * 1e6)} µs`;
  return s < 1 ? `${brief(s * 1e3)} ms` : `${s} s`;
}

export function span(s) {
  if (s < 120) return `${Math.round(s)} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  return s < 172800 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86400)} days`;
}

export const clock = (unix, from = 11, to = 19) => new Date(unix * 1000).toISOString().slice(from, to);
export const date = (unix) => clock(unix, 0, 16).replace("T", " ");

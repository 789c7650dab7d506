// Charts of a time series as SVG, by hand: a library of them would be four times this page, and
// paint on a canvas that a reader of the screen cannot see.

import { clock, el } from "./dom.js";

const HEIGHT = 190, TOP = 10, BOTTOM = 22, LEFT = 58, RIGHT = 8;

function svg(name, attributes = {}, text = "") {
  const e = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
  e.textContent = text;
  return e;
}

const known = (v) => v !== null && v !== undefined;

// A round number that is not below n.
function round(n) {
  const power = 10 ** Math.floor(Math.log10(n));
  return power * [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find((m) => m * power >= n * 0.999999);
}

// Sums of so many values that a bar is at least four pixels wide; the last one is whole.
function join(values, size) {
  const out = [];
  for (let end = values.length; end > 0; end -= size) {
    const part = values.slice(Math.max(0, end - size), end).filter(known);
    out.unshift(part.length ? part.reduce((a, b) => a + b) : null);
  }
  return out;
}

// A small one of bars, without axes.
export function spark(values) {
  const bins = join(values, Math.ceil(values.length / 40));
  const most = Math.max(1, ...bins.filter(known));
  const e = svg("svg", { class: "spark", viewBox: `0 0 ${bins.length * 3} 18`, "aria-hidden": "true" });
  bins.forEach((v, i) => {
    if (v > 0) e.append(svg("rect", { x: i * 3, y: 18 - 18 * v / most, width: 2, height: 18 * v / most }));
  });
  return e;
}

/*
 * A chart in a figure.  show({ series, step, end, format, log, stacked, summary }): each of the series has
 * name, kind (a class) and values, null where nothing is known; `end` is the time after the last one.
 * Pointer and arrow keys read one time out.
 */
export class Chart {
  constructor(figure, label) {
    this.plot = el("div", { class: "plot", tabindex: 0, role: "group", "aria-label": `${label}; arrow keys read values` });
    this.legend = el("p", { class: "legend", "aria-hidden": "true" });
    this.readout = el("p", { class: "readout", "aria-live": "polite" });
    figure.append(this.plot, this.legend, this.readout);
    this.plot.addEventListener("pointermove", (e) => this.point(e.offsetX));
    this.plot.addEventListener("pointerleave", () => this.read(null));
    this.plot.addEventListener("blur", () => this.read(null));
    this.plot.addEventListener("keydown", (e) => this.key(e));
    new ResizeObserver(() => this.draw()).observe(this.plot);
  }

  show(data) {
    this.data = data;
    this.draw();
  }

  draw() {
    const { data } = this;
    const width = this.plot.clientWidth - LEFT - RIGHT;
    if (!data || width < 40) return;
    const n = data.series[0]?.values.length ?? 0;
    const size = data.stacked ? Math.max(1, Math.ceil(n / Math.floor(width / 5))) : 1;
    const per = data.stacked ? size * data.step : 1;
    this.step = size * data.step;
    this.series = data.series.map((s) => ({
      ...s, values: join(s.values, size).map((v) => (known(v) ? v / per : null)) }));
    this.width = width;
    this.n = Math.ceil(n / size);
    this.cursor = Math.min(this.cursor ?? this.n, this.n);
    const e = svg("svg", { width: width + LEFT + RIGHT, height: HEIGHT, role: "img", "aria-label": data.summary });
    this.axes(e);
    if (this.top > 0) (data.stacked ? this.bars : this.lines).call(this, e);
    e.append(this.mark = svg("line", { class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" }));
    this.plot.replaceChildren(e);
    this.legend.replaceChildren(...this.series.map((s) => el("span", { class: `key ${s.kind}` }, s.name)));
    if (this.pinned) this.read(this.cursor);
  }

  x(i) {
    return LEFT + this.width * i / Math.max(1, this.n);
  }

  y(v) {
    const part = this.data.log ? Math.log10(Math.max(v, this.low) / this.low) / Math.log10(this.top / this.low)
      : v / this.top;
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * Math.min(1, part);
  }

  axes(e) {
    const sums = this.data.stacked
      ? Array.from({ length: this.n }, (_, i) => this.series.reduce((a, s) => a + (s.values[i] ?? 0), 0))
      : this.series.flatMap((s) => s.values).filter((v) => v > 0);
    const most = sums.reduce((a, b) => Math.max(a, b), 0);
    this.top = most && (this.data.log ? 10 ** Math.ceil(Math.log10(most)) : round(most));
    this.low = this.data.log && most ? 10 ** Math.floor(Math.log10(sums.reduce((a, b) => Math.min(a, b)) * 0.999)) : 0;
    if (!most) {
      e.append(svg("text", { class: "none", x: LEFT + this.width / 2, y: HEIGHT / 2, "text-anchor": "middle" }, "nothing in this time"));
    }
    for (const tick of this.ticks()) {
      const y = this.y(tick);
      e.append(svg("line", { class: "rule", x1: LEFT, x2: LEFT + this.width, y1: y, y2: y }),
        svg("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, this.data.format(tick)));
    }
    const steps = this.width < 350 ? 2 : 4;
    for (let i = 0; i <= steps; i++) {
      e.append(svg("text", { x: LEFT + this.width * i / steps, y: HEIGHT - 5,
        "text-anchor": i === 0 ? "start" : i === steps ? "end" : "middle" },
      clock(this.data.end - (1 - i / steps) * this.n * this.step, 11, 16)));
    }
  }

  ticks() {
    if (!this.top) return [];
    if (!this.data.log) return [0, this.top / 2, this.top];
    const out = [];
    for (let t = this.low; t <= this.top * 1.001; t *= 10) out.push(t);
    return out;
  }

  bars(e) {
    const base = new Array(this.n).fill(0);
    const wide = Math.max(1, this.width / this.n - 1);
    for (const s of this.series) {
      s.values.forEach((v, i) => {
        if (!v) return;
        const y = this.y(base[i] += v);
        e.append(svg("rect", { class: s.kind, x: this.x(i), y, width: wide, height: this.y(base[i] - v) - y }));
      });
    }
  }

  lines(e) {
    for (const s of this.series) {
      let path = "", gap = true;
      s.values.forEach((v, i) => {
        if (v > 0) path += `${gap ? "M" : "L"}${this.x(i + 0.5).toFixed(1)} ${this.y(v).toFixed(1)}`;
        if (v > 0 && gap && !(s.values[i + 1] > 0)) path += "h1";
        gap = !(v > 0);
      });
      e.append(svg("path", { class: s.kind, d: path || "M0 0" }));
    }
  }

  point(x) {
    const i = Math.floor((x - LEFT) / this.width * this.n);
    this.read(i >= 0 && i < this.n ? i : null);
  }

  key(e) {
    const to = { ArrowLeft: this.cursor - 1, ArrowRight: this.cursor + 1, Home: 0, End: this.n - 1 }[e.key];
    if (to === undefined) return;
    e.preventDefault();
    this.pinned = true;
    this.read(this.cursor = Math.max(0, Math.min(this.n - 1, to)));
  }

  read(i) {
    if (!this.mark) return;
    if (i === null) this.pinned = false;
    this.mark.setAttribute("visibility", i === null ? "hidden" : "visible");
    if (i === null || i >= this.n) {
      this.readout.textContent = "";
      return;
    }
    for (const side of ["x1", "x2"]) this.mark.setAttribute(side, this.x(i + 0.5));
    this.readout.textContent = clock(this.data.end - (this.n - i) * this.step) + " UTC: "
      + this.series.map((s) => `${s.name} ${known(s.values[i]) ? this.data.format(s.values[i]) : "unknown"}`).join(", ");
  }
}

"use strict";
// charts.js - elements and small SVG charts. Text reaches the page as text nodes only, here and nowhere else.

// Characters that are not seen but change how others are shown: turned direction, zero width, control codes
const INVISIBLE = /([\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff])/u;
const codePoint = (character) => "U+" + character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");

/** The same text, its invisible characters by their names: whatever is put on the page is written so. */
const seen = (text) => (typeof text === "string" ? text.split(INVISIBLE).map((part, i) => (i % 2 ? `[${codePoint(part)}]` : part)).join("") : text);

const el = (tag, attributes, ...children) => filled(document.createElement(tag), attributes, children);
const svg = (tag, ...rest) => filled(document.createElementNS("http://www.w3.org/2000/svg", tag), rest.shift(), rest);

/** `node` with its attributes (onclick and the like are listeners, style is an object) and children; null is left out. */
function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "style") for (const [k, v] of Object.entries(value)) node.style.setProperty(k, v);
    else if (key === "fill" || key === "stroke") node.style.setProperty(key, value); // var(--colour) works only there
    else if (value !== null && value !== undefined) node.setAttribute(key, key === "value" ? value : seen(value)); // it is compared
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined).map(seen));
  return node;
}

/** A labelled box to choose from [value, text] pairs; change(value) is called with what was chosen, a string. */
function select(name, pairs, change, chosen) {
  const box = el("select", { onchange: () => change(box.value) }, pairs.map(([value, text]) => el("option", { value }, text)));
  if (chosen !== undefined) box.value = chosen;
  return el("label", {}, name, box);
}

/** A table; head: what stands in the cells of its first row, body: the other rows, as elements. */
const table = (head, body) => el("table", {}, el("thead", {}, el("tr", {}, head.map((cell) => el("th", {}, cell)))), el("tbody", {}, body));

const isNumber = (x) => typeof x === "number" && isFinite(x);
const sum = (numbers) => Object.values(numbers).reduce((a, b) => a + b, 0);
const number = (x, digits = 0) =>
  isNumber(x) ? x.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }) : "–";
const percent = (x, digits = 1) => (isNumber(x) ? number(100 * x, digits) + " %" : "–");
const signed = (x, digits = 1) => (x < 0 ? "−" : "+") + number(Math.abs(x), digits);
const tokens = (x) => number(x, x < 100 ? 1 : 0);
const colour = (i) => `var(--c${i === 0 ? 0 : 1 + ((i - 1) % 7)})`;
const dot = (fill) => el("span", { class: "dot", style: { background: fill } });

/** About n round values that cover [low, high]. */
function ticks(low, high, n = 5) {
  const raw = (high - low || 1) / n;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-6; i++) found.push(+(i * step).toPrecision(12));
  return found;
}

function short(x) {
  if (x === 0) return "0";
  if (Math.abs(x) < 1e-3) return x.toExponential(0);
  return Math.abs(x) >= 10000 ? number(x / 1000) + "k" : number(x, Math.abs(x) < 1 ? (Math.abs(x) < 0.1 ? 3 : 2) : x % 1 ? 1 : 0);
}

/** A box that draws itself again when its width changes. draw(width) gives an SVG element. */
function chart(draw) {
  const box = el("div", { class: "chart" });
  let last = 0;
  new ResizeObserver(([entry]) => {
    const width = Math.round(entry.contentRect.width);
    if (width && width !== last) box.replaceChildren(draw((last = width)));
  }).observe(box);
  return box;
}

/** Axes and grid. Returns {root, x, y}: x and y map data to pixels. */
function frame({ width, height, xs, ys, xLabel, yLabel, yTicks, yFormat = short, top = 10, name }) {
  const bottom = xLabel ? 38 : 22, left = 46, right = 14;
  const x = (v) => left + ((v - xs[0]) / (xs[1] - xs[0] || 1)) * (width - left - right);
  const y = (v) => height - bottom - ((v - ys[0]) / (ys[1] - ys[0] || 1)) * (height - bottom - top);
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": name || xLabel || "" });
  for (const v of yTicks || ticks(...ys, height < 180 ? 3 : height > 300 ? 8 : 5)) {
    root.append(svg("line", { class: "gridline", x1: left, x2: width - right, y1: y(v), y2: y(v) }),
      svg("text", { x: left - 7, y: y(v) + 4, "text-anchor": "end" }, yFormat(v)));
  }
  for (const v of ticks(...xs, Math.max(2, Math.min(7, width / 90)))) {
    root.append(svg("text", { x: x(v), y: height - bottom + 16, "text-anchor": "middle" }, short(v)));
  }
  root.append(svg("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }));
  if (xLabel) root.append(svg("text", { x: (left + width - right) / 2, y: height - 5, "text-anchor": "middle" }, xLabel));
  if (yLabel) root.append(svg("text", { x: 0, y: 4, "dominant-baseline": "hanging" }, yLabel));
  return { root, x, y };
}

const polyline = (f, points, stroke, width, opacity) => svg("polyline", { points: points.map(([a, b]) => `${f.x(a)},${f.y(b)}`).join(" "),
  fill: "none", stroke, "stroke-width": width, "stroke-opacity": opacity, "stroke-linejoin": "round" });

/** A point at (x, y) of radius r with its standard errors as bars, where there are any. */
function point(f, [x, y], [xse, yse], r, fill, title) {
  const bars = [];
  if (yse) bars.push([f.x(x), f.x(x), f.y(y - yse), f.y(y + yse)]);
  if (xse) bars.push([f.x(x - xse), f.x(x + xse), f.y(y), f.y(y)]);
  return svg("g", {}, svg("title", {}, title),
    bars.map(([x1, x2, y1, y2]) => svg("line", { x1, x2, y1, y2, stroke: fill, "stroke-opacity": 0.6, "stroke-width": 1.5 })),
    svg("circle", { cx: f.x(x), cy: f.y(y), r, fill }));
}

function padded(values, share, least) {
  const low = Math.min(...values), high = Math.max(...values);
  const pad = Math.max((high - low) * share, (least - (high - low)) / 2, 1e-12);
  return [low - pad, high + pad];
}

/** Accuracy against length. points: {x, y, xse, yse, colour, label}; paths: {points: [[x, y]], colour}; arrows: [[from, to]]. */
function tradeOff(points, paths, arrows, height, axes = true) {
  return (width) => {
    const all = points.flatMap((p) => [[p.x - (p.xse || 0), p.y - (p.yse || 0)], [p.x + (p.xse || 0), p.y + (p.yse || 0)]]);
    all.push(...paths.flatMap((path) => path.points));
    const high = Math.max(...all.map((p) => p[0])) * 1.12;
    const ys = padded(all.map((p) => p[1]), 0.16, 4).map((v) => Math.min(100.5, Math.max(0, v)));
    const f = frame({ width, height, xs: [0, high], ys, xLabel: axes ? "mean length, tokens" : null, top: axes ? 24 : 10,
      yLabel: axes ? "accuracy, %" : null, name: "accuracy against mean length" });
    for (const path of paths) {
      f.root.append(polyline(f, path.points, path.colour, 1.5, 0.55),
        ...path.points.map(([x, y, tip]) => point(f, [x, y], [], 2.5, path.colour, tip)));
    }
    for (const [from, to] of arrows) {
      const [x1, y1, x2, y2] = [f.x(from.x), f.y(from.y), f.x(to.x), f.y(to.y)];
      const d = Math.hypot(x2 - x1, y2 - y1);
      if (d < 34) continue;
      const [ux, uy] = [(x2 - x1) / d, (y2 - y1) / d], [tx, ty] = [x2 - 10 * ux, y2 - 10 * uy];
      f.root.append(svg("path", { d: `M${x1 + 9 * ux},${y1 + 9 * uy}L${tx},${ty}m${-7 * ux - 4 * uy},${-7 * uy + 4 * ux}L${tx},${ty}` +
        `l${-7 * ux + 4 * uy},${-7 * uy - 4 * ux}`, fill: "none", stroke: to.colour, "stroke-opacity": 0.6, "stroke-width": 1.5 }));
    }
    const taken = points.map((p) => ({ x: f.x(p.x) - 7, y: f.y(p.y) - 7, w: 14, h: 14 }));
    for (const p of points) {
      f.root.append(point(f, [p.x, p.y], [p.xse, p.yse], axes ? 6.5 : 5, p.colour, `${p.label}: ${number(p.y, 1)} %, ${tokens(p.x)} tokens`));
      if (axes) {
        const spot = place(p.label, f.x(p.x), f.y(p.y), width, taken);
        f.root.append(svg("text", { class: "label", x: spot.x, y: spot.y + 11, fill: p.colour }, p.label));
      }
    }
    return f.root;
  };
}

/** A free place beside (cx, cy) for a label; the least crowded one if none is free. */
function place(label, cx, cy, width, taken) {
  const w = label.length * 7, h = 14;
  const spots = [[11, -16], [11, 2], [-w - 11, -16], [-w - 11, 2], [-w / 2, -26], [-w / 2, 12], [11, -32], [11, 18], [-w - 11, 18]]
    .map(([dx, dy]) => ({ x: Math.min(Math.max(48, cx + dx), Math.max(48, width - w - 4)), y: cy + dy, w, h }));
  const crowd = (s) => taken.reduce((sum, t) => sum + Math.max(0, Math.min(s.x + s.w, t.x + t.w) - Math.max(s.x, t.x)) *
    Math.max(0, Math.min(s.y + s.h, t.y + t.h) - Math.max(s.y, t.y)), 0);
  const best = spots.reduce((a, b) => (crowd(b) < crowd(a) ? b : a));
  taken.push(best);
  return best;
}

/** Lengths of right responses upwards, of wrong ones downwards, those truncated at the limit in grey at the end. */
function histogram({ right, wrong, truncated }, binWidth, highest, lowest, height) {
  return (width) => {
    const bins = right.length, down = wrong.map((w, i) => w + truncated[i]);
    const yTicks = ticks(-lowest, highest, 4);
    const f = frame({ width, height, xs: [0, bins * binWidth], ys: [-lowest, highest], xLabel: "length, tokens", yTicks,
      yFormat: (v) => percent(Math.abs(v), highest + lowest < 0.05 ? 1 : 0), name: "lengths of right and wrong responses" });
    const n = sum(right) + sum(down);
    for (let i = 0; i < bins; i++) {
      const [x, w] = [f.x(i * binWidth) + 0.5, Math.max(1, f.x((i + 1) * binWidth) - f.x(i * binWidth) - 1)];
      const range = `${number(i * binWidth + 1)} to ${number((i + 1) * binWidth)} tokens`;
      const bar = (from, to, fill, what, count) => count && svg("rect", { x, width: w, y: f.y(to / n), fill,
        height: Math.max(0.5, f.y(from / n) - f.y(to / n)) }, svg("title", {}, `${range}: ${number(count)} ${what}`));
      f.root.append(...[bar(0, right[i], "var(--right)", "right", right[i]), bar(-wrong[i], 0, "var(--wrong)", "wrong", wrong[i]),
        bar(-down[i], -wrong[i], "var(--truncated)", "truncated", truncated[i])].filter(Boolean));
    }
    f.root.append(svg("line", { class: "axis", x1: f.x(0), x2: f.x(bins * binWidth), y1: f.y(0), y2: f.y(0) }));
    return f.root;
  };
}

/** Lines: {points: [[x, y]], colour, faint}; dots: {points: [[x, y, se]], colour, small}. */
function lines(series, dots, { xLabel, zero, height = 190, least = 0 }) {
  return (width) => {
    const all = [...series, ...dots].flatMap((s) => s.points);
    const ys = padded(all.flatMap(([, y, se]) => [y - (se || 0), y + (se || 0)]).concat(zero ? [0] : []), 0.06, least);
    if (zero) ys[0] = 0;
    const xs = [Math.min(...all.map((p) => p[0])), Math.max(...all.map((p) => p[0]))];
    const f = frame({ width, height, xs, ys, xLabel, name: xLabel });
    f.root.append(...series.map((s) => polyline(f, s.points, s.colour, s.faint ? 1 : 2, s.faint ? 0.3 : 1)),
      ...dots.flatMap((s) => s.points.map(([x, y, se]) => point(f, [x, y], [0, se], s.small ? 2.5 : 4, s.colour, `${number(x)}: ${short(y)}`))));
    return f.root;
  };
}

// report.js - the page from its data: headline, trade-off, histograms, dynamics, numbers, responses.

const data = JSON.parse(document.getElementById("data").textContent);
const results = data.results;
const colours = new Map(results.map((r, i) => [r.name, colour(i)]));
const colourOf = (name) => colours.get(name) || "var(--c7)";
const heading = (title, ...text) => [el("h2", {}, title), el("p", { class: "note" }, ...text)];
const named = (i) => [dot(colour(i)), results[i].name];
const legend = () => el("p", { class: "legend" }, results.map((_, i) => el("span", {}, named(i))));
const shown = (row) => row.split("/").pop().replace(/-/g, " ");
const isAverage = (row) => row.startsWith("average (");
const rowNames = [...new Set(results.flatMap((r) => Object.keys(r.rows)))];
const words = (i, group) => (data.histograms.find((h) => h.group === group) || data.histograms[0])?.results[i]?.words;
const totalWords = (i, group) => (words(i, group) ? sum(words(i, group)) : NaN);

// ------------------------------------------------------------------------------------------------ headline

function card(name, value, from, change, good) {
  return el("div", { class: "card" }, el("p", { class: "name" }, name),
    el("p", { class: "big" }, from === null ? null : el("span", { class: "from" }, from, " → "), value),
    el("p", { class: `change ${good === null ? "soft" : good ? "good" : "bad"}` }, change));
}

function headlineSection() {
  const row = data.headline;
  if (!row) return null;
  const box = el("div", { class: "cards" });
  const state = { from: 0, to: results.length - 1 };
  const draw = () => {
    const to = results[state.to].rows[row], from = state.from === state.to ? null : results[state.from].rows[row];
    const was = (key, format) => (from && isNumber(from[key]) ? format(from[key]) : null);
    const points = from ? 100 * (to.accuracy - from.accuracy) : NaN, share = from ? 100 * (to.mean_length / from.mean_length - 1) : NaN;
    const noise = 100 * Math.hypot(to.accuracy_se || 0, (from && from.accuracy_se) || 0);
    const error = noise ? `standard error${from ? "s together" : ""} ${number(noise, 1)}` : "";
    const cards = [
      card("accuracy (pass@1)", percent(to.accuracy), was("accuracy", percent), [from ? `${signed(points)} points` : "", error].filter(Boolean).join(", "),
        !from || (noise && Math.abs(points) < 2 * noise) ? null : points >= 0),
      card("mean length, tokens", tokens(to.mean_length), was("mean_length", tokens),
        from ? `${signed(share, 0)} %` : isNumber(to.median_length) ? `median ${tokens(to.median_length)}` : "", from ? share <= 0 : null),
    ];
    const score = from && data.aes.scores[state.to][state.from][row], c = data.aes.constants;
    if (isNumber(score)) cards.push(card("AES", signed(score, 2), null, `above 0 is a gain; constants ${c.a}, ${c.b}, ${c.c}`, score >= 0));
    const reflections = [state.from, state.to].map((i) => totalWords(i, row));
    if (isNumber(reflections[1])) {
      cards.push(card("reflection words per response", number(reflections[1], 1), from && isNumber(reflections[0]) ? number(reflections[0], 1) : null,
        "wait, alternatively, hmm, check, …", null));
    }
    if (isNumber(to.truncated)) {
      cards.push(card("truncated at the limit", percent(to.truncated), was("truncated", percent), "these count as wrong", null));
    }
    box.replaceChildren(...cards);
  };
  const choose = (key) => select(key, results.map((r, i) => [i, r.name]), (value) => { state[key] = +value; draw(); }, state[key]);
  draw();
  return el("section", { id: "result" },
    ...heading("The result", isAverage(row) ? `${row.replace("average (paper)", "Mean over GSM8K, MATH-500, OlympiadBench and AIME")
      .replace("average (plain)", "Mean over the data sets")}.` : `On ${row}.`,
      " Accuracy is pass@1 over all samples; a length counts generated tokens, the end token included."),
    results.length > 2 ? el("div", { class: "controls" }, choose("from"), choose("to")) : null, box);
}

// ------------------------------------------------------------------------------------------------ trade-off

function points(row) {
  return results.flatMap((r, i) => {
    const v = r.rows[row];
    return v && isNumber(v.accuracy) && isNumber(v.mean_length) ? [{ x: v.mean_length, y: 100 * v.accuracy, xse: v.mean_length_se,
      yse: 100 * (v.accuracy_se || 0), colour: colour(i), label: r.name, index: i }] : [];
  });
}

function paths(row) {
  return results.flatMap((r, i) => {
    const on = r.path.filter(([, rows]) => rows[row] && isNumber(rows[row].accuracy))
      .map(([step, rows]) => [rows[row].mean_length, 100 * rows[row].accuracy, `step ${step}`]);
    return on.length > 1 ? [{ points: on, colour: colour(i) }] : [];
  });
}

function tradeOffSection() {
  const row = data.headline;
  const rest = rowNames.filter((name) => name !== row && !isAverage(name) && points(name).length);
  if (!row && !rest.length) return null;
  const intro = heading("Accuracy against length", "Up and to the left is better. Bars are standard errors clustered by problem" +
    (results.some((r) => r.path.length > 1) ? "; a line passes through the evaluations of a training run." : "."));
  if (results.length === 1 && !results[0].path.length && rest.length) {
    const found = rest.concat(row || []).slice(0, 16).flatMap((name) => points(name).map((p) => ({ ...p, label: shown(name),
      colour: name === row ? "var(--c0)" : "var(--c1)" })));
    return el("section", { id: "trade-off" }, ...intro, el("div", { class: "panel" }, chart(tradeOff(found, [], [], 380))));
  }
  const arrows = (found, trails) => (trails.length || found.length > 4 ? [] : found.slice(1).map((p) => [found[0], p]));
  const plot = (name, height, axes) => {
    const found = points(name), trails = paths(name);
    return chart(tradeOff(found, trails, arrows(found, trails), height, axes));
  };
  const small = rest.map((name) => el("div", { class: "panel" }, el("h3", {}, shown(name)), plot(name, 170, false)));
  return el("section", { id: "trade-off" },
    ...intro,
    row ? el("div", { class: "panel" }, plot(row, 380, true)) : null,
    small.length ? el("div", {}, legend(), el("p", { class: "note" }, "Each data set or part of one; mean length in tokens to the right, accuracy in % upwards."),
      el("div", { class: "grid" }, small.slice(0, 12)),
      small.length <= 12 ? null : el("button", { class: "more", onclick: (e) => { e.target.previousSibling.append(...small.slice(12)); e.target.remove(); } },
        `show all ${small.length}`)) : null);
}

// ------------------------------------------------------------------------------------------------ histograms

function histogramSection() {
  if (!data.histograms.length) return null;
  const box = el("div", { class: "grid wide" });
  const draw = (h) => {
    const share = (r, i, keys) => keys.reduce((sum, key) => sum + r[key][i], 0) / r.n;
    const top = (keys) => Math.max(...h.results.filter(Boolean).flatMap((r) => r.right.map((_, i) => share(r, i, keys))), 0.005) * 1.05;
    const highest = top(["right"]), lowest = top(["wrong", "truncated"]);
    box.replaceChildren(...h.results.flatMap((r, i) => {
      if (!r) return [];
      return [el("div", { class: "panel" }, el("h3", {}, named(i)), chart(histogram(r, h.width, highest, lowest, 230)),
        el("p", { class: "legend" }, ["right", "wrong", "truncated"].map((key) => el("span", {}, dot(`var(--${key})`),
          `${key} ${percent(sum(r[key]) / r.n)}`))))];
    }));
  };
  draw(data.histograms[0]);
  const choice = select("data set", data.histograms.map((h, i) => [i, h.group]), (value) => draw(data.histograms[+value]));
  return el("section", { id: "lengths" },
    ...heading("How long right and wrong responses are", "Share of all responses by length: right ones upwards, wrong ones downwards."),
    data.histograms.length > 1 ? el("div", { class: "controls" }, choice) : null, box, reflectionPanel());
}

function reflectionPanel() {
  const found = results.map((_, i) => words(i, data.headline));
  if (!found.some(Boolean)) return null;
  const with_ = found.flatMap((w, i) => (w ? [i] : []));
  const most = Math.max(...with_.flatMap((i) => Object.values(found[i])), 1e-9);
  const rows = Object.keys(data.reflection).filter((word) => with_.some((i) => found[i][word] > 0))
    .map((word) => el("tr", {}, el("td", {}, word), with_.map((i) => el("td", {},
      el("span", { class: "meter", style: { width: `${(4.5 * found[i][word]) / most}rem`, background: colour(i) } }), " ", number(found[i][word], 2)))));
  if (!rows.length) return null;
  rows.push(el("tr", {}, el("th", {}, "all"), with_.map((i) => el("th", {}, number(totalWords(i, data.headline), 2)))));
  return el("div", { class: "scroll" }, table(["reflection words per response", ...with_.map(named)], rows));
}

// ------------------------------------------------------------------------------------------------ dynamics

function dynamicsSection() {
  const runs = data.dynamics.filter((d) => Object.values(d.training).some((p) => p.length) || d.held_out.accuracy.length);
  if (!runs.length) return null;
  const moved = runs.some((run) => run.training.kl.some(([, y]) => y));
  const panels = [
    ["accuracy", "accuracy, %", 100], ["mean_length", "mean length, tokens", 1],
    moved ? ["kl", "KL(old ‖ new), nats per token", 1] : ["grad_norm", "gradient norm before clipping", 1],
    ["mixed_groups", "groups with right and wrong, %", 100], ["truncated", "truncated at the limit, %", 100], ["objective", "objective", 1],
  ];
  const latest = (p, i) => p.slice(Math.max(0, i - 2), i + 1).map(([, y]) => y);  // a trailing mean, as plots.py has it
  const smooth = (p) => p.map(([x], i) => [x, sum(latest(p, i)) / latest(p, i).length]);
  const tint = (k) => colour(runs[k].result ?? k + 1);
  const drawn = panels.map(([key, title, scale]) => {
    const series = [], dots = [];
    runs.forEach((run, k) => {
      const p = run.training[key].map(([x, y]) => [x, scale * y]);
      const held = (run.held_out[key] || []).map(([x, y, se]) => [x, scale * y, scale * (se || 0)]);
      if (p.length > 8) series.push({ points: p, colour: tint(k), faint: true });
      if (p.length) series.push({ points: p.length > 8 ? smooth(p) : p, colour: tint(k) });
      if (held.length) dots.push({ points: held, colour: runs.length === 1 ? "var(--ink)" : tint(k) });
    });
    if (!series.length && !dots.length) return null;
    return el("div", { class: "panel" }, el("h3", {}, title),
      chart(lines(series, dots, { xLabel: "step", zero: ["mean_length", "truncated", "mixed_groups"].includes(key), least: key === "accuracy" ? 4 : 0 })));
  });
  return el("section", { id: "training" },
    ...heading("The training run", "Lines are training batches (thin: each step; thick: mean of the last three), points are held-out problems with standard errors."),
    el("p", { class: "legend" }, runs.map((run, k) => el("span", {}, dot(tint(k)), run.name, run.about ? ` (${run.about})` : ""))),
    el("div", { class: "grid" }, drawn));
}

// ------------------------------------------------------------------------------------------------ table

function tableSection() {
  const samples = Math.max(...results.flatMap((r) => Object.values(r.rows).map((v) => v.n_samples || 0)));
  const pm = (r, key, scale, digits) => number(scale * r[key], digits) + (isNumber(r[`${key}_se`]) ? ` ± ${number(scale * r[`${key}_se`], digits)}` : "");
  const both = (mean, median) => (isNumber(mean) ? tokens(mean) + (isNumber(median) ? ` (${tokens(median)})` : "") : "–");
  const columns = [
    ["problems", (r) => number(r.n_problems)],
    ["pass@1, %", (r) => (isNumber(r.accuracy) ? pm(r, "accuracy", 100, 1) : "–")],
    [`pass@${samples}, %`, (r) => (r.pass_at_k ? number(100 * r.pass_at_k[r.n_samples], 1) : "–")],
    ["majority, %", (r) => number(100 * r.majority, 1)],
    ["mean length (median)", (r) => (isNumber(r.mean_length) ? pm(r, "mean_length", 1, 0) + (isNumber(r.median_length) ? ` (${tokens(r.median_length)})` : "") : "–")],
    ["of right ones", (r) => both(r.mean_length_correct, r.median_length_correct)],
    ["of wrong ones", (r) => both(r.mean_length_wrong, r.median_length_wrong)],
    ["truncated, %", (r) => number(100 * r.truncated, 1)],
    ["no answer, %", (r) => number(100 * r.unanswered, 1)],
  ];
  if (results.some((r) => Object.values(r.rows).some((v) => isNumber(v.exceed)))) columns.push(["over the limit asked, %", (r) => number(100 * r.exceed, 1)]);
  if (results.length > 1) columns.push([`AES against ${results[0].name}`, (r, i, row) => (i && isNumber(data.aes.scores[i][0][row]) ? signed(data.aes.scores[i][0][row], 3) : "")]);
  const averages = results.every((r) => Object.keys(r.rows).filter((row) => !isAverage(row) && !row.includes("/")).length === 1)
    ? [] : rowNames.filter(isAverage);
  const body = [], parts = [];
  for (const row of [...averages, ...rowNames.filter((name) => !isAverage(name))]) {
    const part = row.includes("/");
    const lines = [el("tr", { class: part ? "part" : "set" }, el("th", { scope: "rowgroup" }, part ? shown(row) : row), columns.map(() => el("td")))];
    results.forEach((r, i) => r.rows[row] && lines.push(el("tr", { class: part ? "one of-part" : "one" }, el("td", {}, named(i)),
      columns.map(([, value]) => el("td", {}, value(r.rows[row], i, row))))));
    body.push(...lines);
    if (part) parts.push(...lines);
  }
  const toggle = el("button", { onclick: () => { parts.forEach((line) => line.classList.toggle("hidden")); } }, "show or hide parts of data sets");
  if (parts.length > 24) parts.forEach((line) => line.classList.add("hidden"));
  return el("section", { id: "numbers" }, ...heading("All numbers", "± is the standard error clustered by problem."),
    parts.length ? el("div", { class: "controls" }, toggle) : null,
    el("div", { class: "scroll" }, table(["", ...columns.map(([name]) => name)], body)),
    el("div", { class: "grid" }, passPanel(), reasonPanel()));
}

/** Rows that are whole data sets, with a value. */
const wholeSets = (r) => Object.entries(r.rows).filter(([row, v]) => !isAverage(row) && !row.includes("/") && v.n_problems).map(([, v]) => v);

function passPanel() {
  const mean = (r) => {
    const sets = wholeSets(r).filter((v) => v.pass_at_k);
    const ks = sets.length ? Object.keys(sets[0].pass_at_k).filter((k) => sets.every((v) => k in v.pass_at_k)) : [];
    return ks.map((k) => [+k, (100 * sets.reduce((sum, v) => sum + v.pass_at_k[k], 0)) / sets.length]);
  };
  const drawn = results.map((r, i) => ({ points: mean(r), colour: colour(i), small: true })).filter((s) => s.points.length > 1);
  if (!drawn.length) return null;
  return el("div", { class: "panel" }, el("h3", {}, "pass@k, %: one of k responses is right"),
    chart(lines(drawn, drawn, { xLabel: "k", height: 210, least: 4 })), legend());
}

function reasonPanel() {
  const counts = results.map((r) => {
    const found = {};
    for (const v of wholeSets(r)) for (const [reason, n] of Object.entries(v.reasons || {})) found[reason] = (found[reason] || 0) + n;
    return found;
  });
  const names = [...new Set(counts.flatMap(Object.keys))].sort((a, b) => (counts[0][b] || 0) - (counts[0][a] || 0));
  if (!names.length) return null;
  const share = (i, name) => (counts[i][name] || 0) / (sum(counts[i]) || 1);
  return el("div", { class: "panel" }, el("h3", {}, "What the grader said, % of responses"), el("div", { class: "scroll bare" },
    table(["", ...results.map((_, i) => named(i))], names.map((name) => el("tr", {}, el("td", {}, name.replace(/_/g, " ")),
      results.map((_, i) => el("td", {}, number(100 * share(i, name), 1))))))));
}

// ------------------------------------------------------------------------------------------------ the page

document.getElementById("about").append(...results.map((r, i) => el("p", { class: "model" }, el("b", {}, named(i)), el("span", {}, r.about))));
const main = document.getElementById("main");
const sections = [
  ["The result", headlineSection()], ["Accuracy against length", tradeOffSection()], ["Lengths", histogramSection()],
  ["Training", dynamicsSection()], ["All numbers", results.length ? tableSection() : null],
  ["Responses", data.responses.lists.length ? responsesSection() : null],
].filter(([, section]) => section);
main.append(...sections.map(([, section]) => section));
document.getElementById("contents").append(el("ul", {}, sections.map(([name, section]) => el("li", {}, el("a", { href: `#${section.id}` }, name)))));
document.getElementById("footer").append(el("p", {}, "AES is a · ΔL + b · ΔA where accuracy rose and a · ΔL − c · |ΔA| where it fell, with ΔL and ΔA the relative gains over the reference; ",
  Object.entries(data.aes.constants).map(([name, value]) => `${name} = ${value}`).join(", "), ". This page holds all it shows and loads nothing."));

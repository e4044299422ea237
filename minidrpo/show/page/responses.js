// responses.js - responses to read: one model's, or two models' side by side, filtered and with reflection words marked.

const PAGE_OF_RESPONSES = 12;

const reflectionPattern = (words) => new RegExp(`\\b(?:${Object.values(words).map((p) => `(?:${p})`).join("|")})\\b`, "gi");

function countReflections(text, pattern) {
  return (text.match(pattern) || []).length;
}

// Characters that are not seen but change how others are shown: turned direction, zero width, control codes
const INVISIBLE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]/u;

/** Text nodes for `text`, its invisible characters by their names. */
function visible(text) {
  const nodes = [];
  for (const part of text.split(new RegExp(`(${INVISIBLE.source})`, "u"))) {
    nodes.push(INVISIBLE.test(part) && [...part].length === 1
      ? el("span", { class: "control" }, "U+" + part.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")) : part);
  }
  return nodes.filter((node) => node !== "");
}

/** The text with every reflection word in a <mark>. */
function marked(text, pattern) {
  const box = el("pre", { tabindex: 0, dir: "auto" });
  let from = 0;
  for (const found of text.matchAll(pattern)) {
    box.append(...visible(text.slice(from, found.index)), el("mark", {}, found[0]));
    from = found.index + found[0].length;
  }
  box.append(...visible(text.slice(from)));
  return box;
}

const OUTCOMES = {
  "": "any",
  right: "right", wrong: "wrong", truncated: "truncated at the limit", none: "gave no answer",
  "wrong right": "wrong → right", "right wrong": "right → wrong", "right right": "right in both", "wrong wrong": "wrong in both",
};

function responsesSection(data, colourOf) {
  const { questions, lists, note } = data.responses;
  const pattern = reflectionPattern(data.reflection);
  const state = { left: 0, right: -1, set: "", outcome: "", change: "", order: "", search: "", shown: PAGE_OF_RESPONSES };
  const index = lists.map((list) => new Map(list.responses.map((a) => [`${a.question} ${a.sample}`, a])));
  const pairable = (i, j) => i !== j && lists[i].responses.some((a) => index[j].has(`${a.question} ${a.sample}`));
  const partner = lists.map((_, j) => j).reverse().find((j) => pairable(0, j));
  if (partner !== undefined) state.right = partner;

  const reflections = new Map();
  const longestOf = lists.map((list) => list.responses.reduce((most, a) => Math.max(most, a.length), 1));
  const words = (a) => reflections.get(a) ?? (reflections.set(a, countReflections(a.response, pattern)), reflections.get(a));
  const verdict = (a) => (a.correct ? "right" : "wrong");

  function select(key, name, options, after) {
    const box = el("select", { onchange: () => { state[key] = isNaN(+box.value) || box.value === "" ? box.value : +box.value;
      state.shown = PAGE_OF_RESPONSES; if (after) after(); update(); } });
    const fill = (pairs) => {
      box.replaceChildren(...pairs.map(([value, text]) => el("option", { value }, text)));
      if (!pairs.some(([value]) => String(value) === String(state[key]))) state[key] = pairs[0][0];
      box.value = String(state[key]);
    };
    fill(options());
    return { label: el("label", {}, name, box), refill: () => fill(options()) };
  }

  const two = () => state.right >= 0;
  const sets = [...new Set(questions.flatMap((q) => [q.source.split("/")[0], q.source]))].sort();
  const controls = {};
  const refill = () => Object.values(controls).forEach((c) => c.refill());
  controls.left = select("left", "read", () => lists.map((list, i) => [i, list.name]), refill);
  controls.right = select("right", "against", () => [[-1, "nothing"], ...lists.map((list, i) => [i, list.name])
    .filter(([i]) => pairable(state.left, i))], refill);
  if (sets.length > 1) controls.set = select("set", "data set", () => [["", "all"], ...sets.map((s) => [s, s])]);
  controls.outcome = select("outcome", "outcome", () => Object.entries(OUTCOMES).filter(([key]) => two() || !key.includes(" ")));
  controls.change = select("change", "length", () => two()
    ? [["", "any"], ["shorter", "became shorter"], ["longer", "became longer"]]
    : [["", "any"], ["shorter", "shorter than the mean"], ["longer", "longer than the mean"]]);
  controls.order = select("order", "order", () => [["", "as asked"], ["longest", "longest first"], ["shortest", "shortest first"],
    ["reflections", "most reflection words"], ...(two() ? [["saved", "most tokens saved"], ["added", "most tokens added"]] : [])]);
  const search = el("input", { type: "search", placeholder: "in question and responses", oninput: () => {
    state.search = search.value.toLowerCase(); state.shown = PAGE_OF_RESPONSES; update(); } });

  function chosen() {
    let pairs = lists[state.left].responses.map((a) => [a, two() ? index[state.right].get(`${a.question} ${a.sample}`) : null]);
    if (two()) pairs = pairs.filter(([, b]) => b);
    const mean = pairs.reduce((sum, [a]) => sum + a.length, 0) / (pairs.length || 1);
    const last = ([a, b]) => b || a;
    const fits = {
      right: (p) => last(p).correct, wrong: (p) => !last(p).correct, truncated: (p) => !last(p).finished,
      none: (p) => last(p).finished && last(p).answer === null && !last(p).correct,
    };
    return pairs.filter((p) => {
      const [a, b] = p, q = questions[a.question];
      if (state.set && q.source !== state.set && q.source.split("/")[0] !== state.set) return false;
      if (state.outcome.includes(" ") ? `${verdict(a)} ${verdict(b)}` !== state.outcome : state.outcome && !fits[state.outcome](p)) return false;
      const change = b ? b.length - a.length : a.length - mean;
      if ((state.change === "shorter" && change >= 0) || (state.change === "longer" && change <= 0)) return false;
      return !state.search || [q.prompt, a.response, b ? b.response : ""].some((t) => String(t).toLowerCase().includes(state.search));
    }).map((p, i) => ({ p, i })).sort(({ p: [a, b], i }, { p: [c, d], i: j }) => ({
      longest: () => Math.max(c.length, d ? d.length : 0) - Math.max(a.length, b ? b.length : 0),
      shortest: () => Math.min(a.length, b ? b.length : Infinity) - Math.min(c.length, d ? d.length : Infinity),
      reflections: () => words(c) + (d ? words(d) : 0) - words(a) - (b ? words(b) : 0),
      saved: () => c.length - d.length - (a.length - b.length),
      added: () => d.length - c.length - (b.length - a.length),
    }[state.order] || (() => 0))() || i - j).map(({ p }) => p);
  }

  function side(list, a, longest) {
    const name = lists[list].name, reason = a.finished ? a.reason : "truncated at the limit";
    return el("div", { class: "side" },
      el("div", { class: "meta" }, el("span", {}, dot(colourOf(name)), name), a.remark ? el("span", {}, a.remark) : null),
      el("div", { class: "meta" }, el("span", { class: `verdict ${verdict(a)}` }, a.correct ? "✓ right" : "✗ wrong"),
        a.correct ? null : el("span", {}, reason.replace(/_/g, " ")),
        a.answer === null || a.answer === undefined ? null : el("span", {}, "answer ", el("b", {}, visible(String(a.answer).slice(0, 200)))),
        el("span", {}, `${number(a.length)} tokens`),
        el("span", {}, `${words(a)} reflection word${words(a) === 1 ? "" : "s"}`)),
      el("div", { class: "bar" }, el("div", { style: { width: `${(100 * a.length) / longest}%`, background: colourOf(name) } })),
      marked(a.response, pattern));
  }

  function card([a, b]) {
    const { source, index, prompt, truth } = questions[a.question];
    const longest = b ? Math.max(a.length, b.length, 1) : longestOf[state.left];
    return el("article", { class: "pair" },
      el("div", { class: "question" },
        el("p", { dir: "auto" }, prompt === null ? "(question not kept: no problems.jsonl)" : visible(prompt)),
        el("div", { class: "meta" }, el("span", {}, `${source} #${index}, response ${a.sample + 1}`),
          truth === null ? null : el("span", {}, "truth ", el("b", {}, [truth].flat().join(" or ").slice(0, 200))),
          b ? el("span", {}, `${signed(100 * (b.length / a.length - 1), 0)} % tokens`) : null)),
      el("div", { class: "sides" }, side(state.left, a, longest), b ? side(state.right, b, longest) : null));
  }

  const count = el("p", { class: "count", "aria-live": "polite" });
  const list = el("div", { id: "response-list" });
  const more = el("button", { class: "more", onclick: () => { state.shown += PAGE_OF_RESPONSES; update(); } }, "show more");

  function update() {
    const pairs = chosen(), mean = (k) => pairs.reduce((sum, p) => sum + p[k].length, 0) / pairs.length;
    const lengths = !pairs.length ? "" : two() ? `: ${tokens(mean(0))} → ${tokens(mean(1))} tokens on average` : `: ${tokens(mean(0))} tokens on average`;
    count.replaceChildren(el("b", {}, `${number(pairs.length)} ${two() ? "pairs" : "responses"}`), lengths);
    list.replaceChildren(...pairs.slice(0, state.shown).map(card));
    more.classList.toggle("hidden", pairs.length <= state.shown);
  }

  const section = el("section", { id: "responses" },
    el("h2", {}, "Responses to read"),
    el("p", { class: "note" }, "Words of reflection are ", el("mark", {}, "marked"), ": ", Object.keys(data.reflection).join(", "), ". ",
      note ? `Embedded here: ${note}; very long ones lose their middle. Everything is in the responses*.jsonl beside this page.` : ""),
    el("div", { class: "controls" }, Object.values(controls).map((c) => c.label), el("label", {}, "search", search)),
    count, list, more);
  update();
  return section;
}

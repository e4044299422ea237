// responses.js - responses to read: one model's, or two models' side by side, filtered and with reflection words marked.

const PAGE_OF_RESPONSES = 12;

/** `text` in parts, each changed by plain(part), or by found(part) where it is what the pattern's one group matches. */
const parts = (text, pattern, plain, found) => text.split(pattern).flatMap((part, i) => (i % 2 ? found(part) : part ? plain(part) : []));

/** Text nodes for `text`, its invisible characters by their names. */
const visible = (text) => parts(text, INVISIBLE, (part) => part, (c) => el("span", { class: "control" }, codePoint(c)));

/** The text with every reflection word in a <mark>. */
const marked = (text, pattern) => el("pre", { tabindex: 0, dir: "auto" }, parts(text, pattern, visible, (word) => el("mark", {}, word)));

const OUTCOMES = {
  "": "any", right: "right", wrong: "wrong", truncated: "truncated at the limit", none: "gave no answer",
  "wrong right": "wrong → right", "right wrong": "right → wrong", "right right": "right in both", "wrong wrong": "wrong in both",
};

function responsesSection() {
  const { questions, lists, note } = data.responses;
  const pattern = new RegExp(`(\\b(?:${Object.values(data.reflection).join("|")})\\b)`, "gi");
  const state = { left: 0, right: -1, set: "", outcome: "", change: "", order: "", search: "", shown: PAGE_OF_RESPONSES };
  const keyOf = (r) => `${r.question} ${r.sample}`;
  const byKey = lists.map((list) => new Map(list.responses.map((r) => [keyOf(r), r])));
  const pairable = (i, j) => i !== j && lists[i].responses.some((r) => byKey[j].has(keyOf(r)));
  const partner = lists.map((_, j) => j).reverse().find((j) => pairable(0, j));
  if (partner !== undefined) Object.assign(state, { right: partner, order: "saved" });

  const reflections = new Map();
  const longestOf = lists.map((list) => list.responses.reduce((most, r) => Math.max(most, r.length), 1));
  const words = (r) => {
    if (!reflections.has(r)) reflections.set(r, (r.response.match(pattern) || []).length);
    return reflections.get(r);
  };
  const verdict = (r) => (r.correct ? "right" : "wrong");
  const meanLength = (responses) => sum(responses.map((r) => r.length)) / responses.length;

  function control(key, name, options, after) {
    const box = el("select", { onchange: () => { state[key] = isNaN(+box.value) || box.value === "" ? box.value : +box.value;
      state.shown = PAGE_OF_RESPONSES; if (after) after(); update(); } });
    const refill = () => {
      const pairs = options();
      box.replaceChildren(...pairs.map(([value, text]) => el("option", { value }, text)));
      if (!pairs.some(([value]) => String(value) === String(state[key]))) state[key] = pairs[0][0];
      box.value = String(state[key]);
    };
    refill();
    return { label: el("label", {}, name, box), refill };
  }

  const two = () => state.right >= 0;
  const sets = [...new Set(questions.flatMap((q) => [q.source.split("/")[0], q.source]))].sort();
  const controls = {};
  const refill = () => Object.values(controls).forEach((c) => c.refill());
  controls.left = control("left", "read", () => lists.map((list, i) => [i, list.name]), refill);
  controls.right = control("right", "against", () => [[-1, "nothing"], ...lists.map((list, i) => [i, list.name])
    .filter(([i]) => pairable(state.left, i))], refill);
  if (sets.length > 1) controls.set = control("set", "data set", () => [["", "all"], ...sets.map((s) => [s, s])]);
  controls.outcome = control("outcome", "outcome", () => Object.entries(OUTCOMES).filter(([key]) => two() || !key.includes(" ")));
  controls.change = control("change", "length", () => two()
    ? [["", "any"], ["shorter", "became shorter"], ["longer", "became longer"]]
    : [["", "any"], ["shorter", "shorter than the mean"], ["longer", "longer than the mean"]]);
  controls.order = control("order", "order", () => [["", "as asked"], ["longest", "longest first"], ["shortest", "shortest first"],
    ["reflections", "most reflection words"], ...(two() ? [["saved", "most tokens saved"], ["added", "most tokens added"]] : [])]);
  const search = el("input", { type: "search", placeholder: "in question and responses", oninput: () => {
    state.search = search.value.toLowerCase(); state.shown = PAGE_OF_RESPONSES; update(); } });

  function chosen() {
    const partner = (r) => byKey[state.right].get(keyOf(r));
    const rows = lists[state.left].responses.map((r) => (two() ? [r, partner(r)] : [r])).filter((row) => row.every(Boolean));
    const mean = meanLength(rows.map(([r]) => r));
    const fits = {
      right: (r) => r.correct, wrong: (r) => !r.correct, truncated: (r) => !r.finished,
      none: (r) => r.finished && r.answer === null && !r.correct,
    };
    const lengths = (row) => row.map((r) => r.length);
    const rank = {
      longest: (row) => -Math.max(...lengths(row)), shortest: (row) => Math.min(...lengths(row)),
      reflections: (row) => -sum(row.map(words)), saved: ([a, b]) => b.length - a.length, added: ([a, b]) => a.length - b.length,
    }[state.order] || (() => 0);
    return rows.filter((row) => {
      const [a, b] = row, q = questions[a.question], change = b ? b.length - a.length : a.length - mean;
      if (state.set && q.source !== state.set && q.source.split("/")[0] !== state.set) return false;
      if (state.outcome.includes(" ") ? row.map(verdict).join(" ") !== state.outcome : state.outcome && !fits[state.outcome](b || a)) return false;
      if ((state.change === "shorter" && change >= 0) || (state.change === "longer" && change <= 0)) return false;
      return !state.search || [q.prompt, ...row.map((r) => r.response)].some((t) => String(t).toLowerCase().includes(state.search));
    }).sort((row, other) => rank(row) - rank(other));
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
    const rows = chosen(), means = (rows[0] || []).map((_, k) => tokens(meanLength(rows.map((row) => row[k]))));
    count.replaceChildren(el("b", {}, `${number(rows.length)} ${two() ? "pairs" : "responses"}`),
      rows.length ? `: ${means.join(" → ")} tokens on average` : "");
    list.replaceChildren(...rows.slice(0, state.shown).map(card));
    more.classList.toggle("hidden", rows.length <= state.shown);
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

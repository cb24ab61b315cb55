"use strict";

// All names and file names come from the data: they enter the page as text, never as markup.
const PER_PAGE = 12;
const runs = [...document.querySelectorAll("script.run")];
const $ = (id) => document.getElementById(id);
const OUTCOMES = {
  all: ["all", () => true],
  rescued: ["rescued", (image) => image.outcome === "rescued"],
  spoiled: ["spoiled", (image) => image.outcome === "spoiled"],
  hit: ["right", (image) => image.prediction === image.label],
  miss: ["wrong", (image) => image.prediction !== image.label],
  right: ["both right", (image) => image.outcome === "right"],
  wrong: ["both wrong", (image) => image.outcome === "wrong"],
};
const VERDICTS = {
  rescued: "\u2191 Rescued: one view was wrong",
  spoiled: "\u2193 Spoiled: one view was right",
  right: "\u2713 Both right",
  wrong: "\u2717 Both wrong",
};
const state = { outcome: "all", label: "", query: "", order: "score", page: 0, sort: ["label", 1] };
let run;

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}
const name = (label) => el("bdi", {}, run.classnames[label]);
/** A path, which may break after a slash. */
const path = (text) => el("bdi", {}, ...text.split(/(?<=\/)/).flatMap((part) => [part, el("wbr")]));
const percent = (part, total = 1) => ((100 * part) / total).toFixed(1);
const signed = (number) => (number > 0 ? "+" : number < 0 ? "\u2212" : "\u00b1") + Math.abs(number).toFixed(1);
const cell = (...children) => el("td", { class: "n" }, ...children);
const link = (onclick, ...children) => el("button", { type: "button", class: "link", onclick }, ...children);

// --- the head and the tables ---

function showRun(number) {
  run = JSON.parse(runs[number].textContent);
  Object.assign(state, { outcome: "all", label: "", query: "", page: 0, sort: ["label", 1] });
  $("search").value = "";
  document.title = `${run.trainer} on ${run.dataset}, view by view`;
  for (const node of document.querySelectorAll(".method")) node.textContent = run.method;
  OUTCOMES.hit[0] = `${run.method} right`;
  OUTCOMES.miss[0] = `${run.method} wrong`;
  $("title").textContent = `${run.trainer} on ${run.dataset}`;
  const [[, ours], [, one]] = run.methods;
  const { rescued, spoiled } = run.outcomes;
  $("lead").textContent =
    `${percent(ours, run.total)} % of ${run.total} test images are right, ${percent(one, run.total)} % by one view ` +
    `with the same prompt: ${rescued} rescued, ${spoiled} spoiled.`;
  for (const [id, facts] of [["facts", run.facts], ["versions", run.versions]]) {
    const pair = ([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, path(value)));
    $(id).replaceChildren(...facts.map(pair));
  }
  showMethods(one);
  showChanges();
  showClasses();
  showMistakes();
  showFilters();
  showGallery();
}

function showMethods(one) {
  const best = Math.max(...run.methods.map(([, right]) => right));
  const row = ([title, right], i) =>
    el("tr", { class: right === best ? "best" : "" }, el("th", { scope: "row" }, title), cell(right),
      cell(percent(right, run.total)), cell(i === 1 ? "" : signed((100 * (right - one)) / run.total)));
  $("methods").tBodies[0].replaceChildren(...run.methods.map(row));
  $("methods-note").textContent = `Same prompt and same views in all rows; the selections vote by ${run.vote}.`;
}

function showChanges() {
  const count = (outcome) =>
    el("td", { class: outcome }, link(() => pick({ outcome }), el("b", {}, run.outcomes[outcome]), ` ${OUTCOMES[outcome][0]}`));
  $("changes").tBodies[0].replaceChildren(
    el("tr", {}, el("th", { scope: "row" }, "One view right"), count("right"), count("spoiled")),
    el("tr", {}, el("th", { scope: "row" }, "One view wrong"), count("rescued"), count("wrong")));
}

function showClasses() {
  const columns = {
    label: ["Class", (row) => run.classnames[row.label]],
    total: ["Images", (row) => row.total],
    one: ["One view %", (row) => row.one / row.total],
    stss: [`${run.method} %`, (row) => row.stss / row.total],
    rescued: ["Rescued", (row) => row.rescued],
    spoiled: ["Spoiled", (row) => row.spoiled],
  };
  const [key, direction] = state.sort;
  const value = columns[key][1];
  const before = (a, b) => (key === "label" ? value(a).localeCompare(value(b)) : value(a) - value(b));
  const sortBy = (column) => {
    state.sort = [column, column === key ? -direction : column === "label" ? 1 : -1];
    showClasses();
    $("classes").querySelector(`[data-key=${column}]`).focus();
  };
  const header = ([column, [title]]) => {
    const sorted = column === key && (direction > 0 ? "ascending" : "descending");
    const arrow = sorted ? (direction > 0 ? " \u2191" : " \u2193") : "";
    const button = el("button", { type: "button", class: "link", "data-key": column, onclick: () => sortBy(column) }, title + arrow);
    return el("th", { scope: "col", class: column === "label" ? "" : "n", "aria-sort": sorted }, button);
  };
  const row = (r) =>
    el("tr", {}, el("th", { scope: "row" }, link(() => pick({ label: `${r.label}` }), name(r.label))), cell(r.total),
      cell(percent(r.one, r.total)), cell(percent(r.stss, r.total)), cell(r.rescued || ""), cell(r.spoiled || ""));
  $("classes").tHead.rows[0].replaceChildren(...Object.entries(columns).map(header));
  $("classes").tBodies[0].replaceChildren(...[...run.classes].sort((a, b) => direction * before(a, b)).map(row));
  const untested = run.classnames.length - run.classes.length;
  $("classes-note").textContent = untested ? `${untested} of ${run.classnames.length} classes have no test images.` : "";
}

function showMistakes() {
  const row = (r) =>
    el("tr", {}, el("th", { scope: "row" }, link(() => pick({ label: `${r.label}`, outcome: "miss" }), name(r.label))),
      el("td", {}, name(r.prediction)), cell(r.stss), cell(r.one));
  $("mistakes").tBodies[0].replaceChildren(...run.mistakes.map(row));
}

// --- filters ---

/** Sets filters from a table and goes to the gallery. */
function pick(filters) {
  Object.assign(state, { outcome: "all", label: "", query: "", page: 0 }, filters);
  $("search").value = "";
  showFilters();
  showGallery();
  $("gallery-title").focus();
}

function showFilters() {
  const counts = new Map();
  for (const image of run.images) counts.set(image.label, (counts.get(image.label) || 0) + 1);
  if (state.label) counts.set(+state.label, counts.get(+state.label) || 0);
  const option = ([label, count]) => el("option", { value: label }, `${run.classnames[label]} (${count})`);
  $("class").replaceChildren(el("option", { value: "" }, "all"), ...[...counts].sort((a, b) => a[0] - b[0]).map(option));
  $("class").value = state.label;
  const radio = ([outcome, [title, test]]) =>
    el("label", {}, el("input", { type: "radio", name: "outcome", value: outcome, checked: outcome === state.outcome }),
      el("span", {}, `${title} `, el("small", {}, run.images.filter(test).length)));
  $("outcomes").replaceChildren($("outcomes").firstElementChild, ...Object.entries(OUTCOMES).map(radio));
  const all = run.images.length === run.total;
  $("gallery-note").textContent =
    (all ? `All ${run.total} test images. ` :
      `${run.images.length} of ${run.total} test images: rescued and spoiled ones first, then a random sample. `) +
    `Point at a view, tap it, or walk with the arrow keys; the frame shows where in the image it lies.` +
    (run.augmix ? " AugMix changed the colours of all views but the first, which is not shown." : "");
}

function changed(changes) {
  Object.assign(state, { page: 0 }, changes);
  showGallery();
}

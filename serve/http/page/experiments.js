// Experiments: the verdict, the arms side by side, and what was known of their differences at each moment.
import { chart } from "./atlas.js";
import { ask, element, find } from "./server.js";

const NONE = "No experiment is declared here. docs/experiments.md says how to declare one.";
const GREY = "var(--quiet)";
const points = value => `${(100 * value).toFixed(1)}`;
// Accuracies are shares, rewards numbers in a unit of their own.
const UNITS = {
  accuracy: { show: points, of: "points of accuracy", label: "percentage points", most: 1, cell: [1, 100, " %"] },
  reward: { show: value => `${+value.toPrecision(3)}`, of: "reward", label: "reward", most: Infinity, cell: [3] },
};

function chosenOf(experiments) {
  const asked = decodeURIComponent(location.hash.split("/")[1] ?? "");
  return experiments.find(one => one.name === asked) ?? experiments[0];
}

function offer(experiments, chosen) {
  const names = find("experiment-names");
  names.replaceChildren();
  for (const one of experiments) {
    const link = element(names, "a", one.name);
    link.href = `#experiments/${encodeURIComponent(one.name)}`;
    if (one === chosen) link.setAttribute("aria-current", "true");
  }
}

function bounds(row, one, digits, factor = 1, unit = "") {
  const cell = element(row, "td", "", "number");
  if (one.value === null) return void element(cell, "div", "no samples", "others");
  const scaled = value => value === null ? "?" : (value * factor).toFixed(digits);
  element(cell, "div", `${scaled(one.value)}${unit}`);
  element(cell, "div", `${scaled(one.low)} to ${scaled(one.high)}`, "others");
}

function showArms(report) {
  const body = find("arms");
  body.replaceChildren();
  for (const arm of report.arms) {
    const row = body.insertRow();
    const name = element(row, "th", arm.name);
    name.scope = "row";
    element(name, "div", arm.model, "others");
    element(row, "td", `${points(arm.share)} %`, "number");
    element(row, "td", arm.answers.toLocaleString(), "number");
    bounds(row, arm.metric, ...UNITS[report.metric].cell);
    bounds(row, arm.error_rate, 2, 100, " %");
    bounds(row, arm.p50_ms, 1);
    bounds(row, arm.p99_ms, 1);
    bounds(row, arm.engine_ms, 2);
    if (arm.energy === null) element(row, "td", "no source", "number others");
    else bounds(row, arm.energy.joules_per_image, 4);
    if (arm.energy !== null) element(row.lastChild, "div", `${arm.energy.method}, ${arm.energy.source}`, "others");
  }
}

function showClasses(report) {
  const head = find("class-arms"), body = find("classes");
  head.replaceChildren();
  element(head, "th", "class");
  for (const arm of report.arms) element(head, "th", arm.name, "number");
  for (const one of head.children) one.scope = "col";
  body.replaceChildren();
  for (const [title, key] of [["Brier score", "brier"], ["calibration error", "calibration_error"]]) {
    const row = element(body, "tr");
    element(row, "th", title).scope = "row";
    for (const arm of report.arms) element(row, "td", arm[key] === null ? "no samples" : arm[key].toFixed(4), "number");
  }
  const indices = [...new Set(report.classes.map(one => one.class_index))]; // most different first
  for (const index of indices.slice(0, 10)) {
    const ofClass = report.classes.filter(one => one.class_index === index);
    const row = element(body, "tr");
    element(row, "th", ofClass[0].label).scope = "row";
    for (const arm of report.arms) {
      const one = ofClass.find(entry => entry.arm === arm.name);
      if (one) bounds(row, one.accuracy, 1, 100, " %");
      else element(row, "td", "no labels", "number others");
    }
  }
}

// The band is the confidence sequence, the line the estimate; dotted lines are the difference that matters.
function showDifference(parent, report, comparison) {
  const moments = report.history.filter(one => one.arm === comparison.arm && one.difference.low !== null)
    .map(({ at, samples, difference }) => ({ at: new Date(1000 * at), samples, ...difference }));
  const title = `${comparison.arm} less ${report.arms[0].name}`;
  if (moments.length < 2) {
    element(parent, "h3", title);
    return void element(parent, "p", "No interval yet: it takes labelled samples, and an arm that is wrong in some of them.", "quiet");
  }
  const last = moments.at(-1), unit = UNITS[report.metric];
  const reach = Math.min(unit.most, Math.max(3 * report.effect, 2 * Math.abs(last.value), 2 * (last.high - last.low)));
  const note = `${unit.show(last.value)} ${unit.of}, from ${unit.show(last.low)} to ${unit.show(last.high)}, after ${comparison.samples.toLocaleString()} samples.`;
  chart(parent, title, note, {
    narrowest: 340, height: 260, marginRight: 20,
    x: { type: "time", label: "time" }, y: { label: unit.label, domain: [-reach, reach], tickFormat: unit.show, grid: true },
    marks: [
      Plot.areaY(moments, { x: "at", y1: "low", y2: "high", fill: "var(--accent)", fillOpacity: 0.25, clip: true }),
      Plot.lineY(moments, { x: "at", y: "value", stroke: "var(--accent)", strokeWidth: 2, clip: true }),
      Plot.ruleY([report.effect, -report.effect], { stroke: GREY, strokeDasharray: "2 4" }),
      Plot.ruleY([0]),
      Plot.tip(moments, Plot.pointerX({ x: "at", y: "value", clip: false, title: one =>
        `${one.at.toLocaleString()}\n${one.samples.toLocaleString()} samples\n${unit.show(one.low)} to ${unit.show(one.high)}` })),
    ],
  });
}

function list(id, texts, none) {
  find(id).replaceChildren();
  for (const text of texts.length ? texts : [none]) element(find(id), "li", text);
}

function show(report) {
  find("report-title").textContent = report.experiment;
  find("metric").textContent = report.metric;
  if (find("sentence").textContent !== report.sentence) find("sentence").textContent = report.sentence; // said aloud once
  find("facts").textContent = `${report.mode}, ${report.state}, revision ${report.revision}, stage ${report.stage}; assigned by ${report.sticky}; α = ${report.alpha}`;
  showArms(report);
  showClasses(report);
  find("differences").replaceChildren();
  for (const one of report.comparisons) showDifference(find("differences"), report, one);
  list("decisions", report.decisions.map(one => `${new Date(1000 * one.at).toLocaleString()}: ${one.action} ${one.arm} (${one.actor}: ${one.reason})`), "none yet");
  list("notes", [...report.alarms, ...report.notes], "none");
}

export async function lookAtExperiments() {
  const { experiments } = await ask("/v1/experiments");
  find("report").hidden = !experiments.length;
  find("no-experiments").textContent = experiments.length ? "" : NONE;
  if (!experiments.length) return;
  const chosen = chosenOf(experiments);
  offer(experiments, chosen);
  const report = await ask(`/v1/experiments/${encodeURIComponent(chosen.name)}/report`);
  if (chosenOf(experiments) === chosen) show(report);
}

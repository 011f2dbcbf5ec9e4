// Experiments: the verdict, a comparison of the arms, and how the estimates of their differences developed.
import { chart } from "./atlas.js";
import { ask, element, find } from "./server.js";

const NONE = "No experiment is configured. docs/experiments.md describes how to start one.";
const GREY = "var(--quiet)";
const points = value => `${(100 * value).toFixed(1)}`;
// An accuracy is a share of 1; a reward is a number in the user's own unit.
const UNITS = {
  accuracy: { show: points, of: "points of accuracy", label: "percentage points", max: 1, cell: [1, 100, " %"] },
  reward: { show: value => `${+value.toPrecision(3)}`, of: "reward", label: "reward", max: Infinity, cell: [3] },
};

function findChosen(experiments) {
  const name = decodeURIComponent(location.hash.split("/")[1] ?? "");
  return experiments.find(experiment => experiment.name === name) ?? experiments[0];
}

function showNames(experiments, chosen) {
  const names = find("experiment-names");
  names.replaceChildren();
  for (const experiment of experiments) {
    const link = element(names, "a", experiment.name);
    link.href = `#experiments/${encodeURIComponent(experiment.name)}`;
    if (experiment === chosen) link.setAttribute("aria-current", "true");
  }
}

function estimateCell(row, estimate, digits, factor = 1, unit = "") {
  const cell = element(row, "td", "", "number");
  if (estimate.value === null) return void element(cell, "div", "no samples", "others");
  const scaled = value => value === null ? "?" : (value * factor).toFixed(digits);
  element(cell, "div", `${scaled(estimate.value)}${unit}`);
  element(cell, "div", `${scaled(estimate.low)} to ${scaled(estimate.high)}`, "others");
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
    estimateCell(row, arm.metric, ...UNITS[report.metric].cell);
    estimateCell(row, arm.error_rate, 2, 100, " %");
    estimateCell(row, arm.p50_ms, 1);
    estimateCell(row, arm.p99_ms, 1);
    estimateCell(row, arm.engine_ms, 2);
    if (arm.energy === null) element(row, "td", "unknown", "number others");
    else estimateCell(row, arm.energy.joules_per_image, 4);
    if (arm.energy !== null) element(row.lastChild, "div", `${arm.energy.method}, ${arm.energy.source}`, "others");
  }
}

function showClasses(report) {
  const head = find("class-arms"), body = find("classes");
  head.replaceChildren();
  element(head, "th", "class");
  for (const arm of report.arms) element(head, "th", arm.name, "number");
  for (const cell of head.children) cell.scope = "col";
  body.replaceChildren();
  for (const [title, key] of [["Brier score", "brier"], ["calibration error", "calibration_error"]]) {
    const row = element(body, "tr");
    element(row, "th", title).scope = "row";
    for (const arm of report.arms) element(row, "td", arm[key] === null ? "no samples" : arm[key].toFixed(4), "number");
  }
  const indices = [...new Set(report.classes.map(row => row.class_index))]; // sorted by the server, largest difference first
  for (const index of indices.slice(0, 10)) {
    const ofClass = report.classes.filter(entry => entry.class_index === index);
    const row = element(body, "tr");
    element(row, "th", ofClass[0].label).scope = "row";
    for (const arm of report.arms) {
      const found = ofClass.find(entry => entry.arm === arm.name);
      if (found) estimateCell(row, found.accuracy, 1, 100, " %");
      else element(row, "td", "no labels", "number others");
    }
  }
}

// The band is the confidence sequence, the line the estimate. Dotted lines mark the smallest difference that matters.
function showDifference(parent, report, comparison) {
  const moments = report.history.filter(moment => moment.arm === comparison.arm && moment.difference.low !== null)
    .map(({ at, samples, difference }) => ({ at: new Date(1000 * at), samples, ...difference }));
  const title = `${comparison.arm} minus ${report.arms[0].name}`;
  if (moments.length < 2) {
    element(parent, "h3", title);
    return void element(parent, "p", "No interval yet: it needs labelled samples, some of which an arm classifies wrongly.", "quiet");
  }
  const last = moments.at(-1), unit = UNITS[report.metric];
  const reach = Math.min(unit.max, Math.max(3 * report.effect, 2 * Math.abs(last.value), 2 * (last.high - last.low)));
  const note = `${unit.show(last.value)} ${unit.of} (${unit.show(last.low)} to ${unit.show(last.high)}) after ${comparison.samples.toLocaleString()} samples.`;
  chart(parent, title, note, {
    minWidth: 340, height: 260, marginRight: 20,
    x: { type: "time", label: "time" }, y: { label: unit.label, domain: [-reach, reach], tickFormat: unit.show, grid: true },
    marks: [
      Plot.areaY(moments, { x: "at", y1: "low", y2: "high", fill: "var(--accent)", fillOpacity: 0.25, clip: true }),
      Plot.lineY(moments, { x: "at", y: "value", stroke: "var(--accent)", strokeWidth: 2, clip: true }),
      Plot.ruleY([report.effect, -report.effect], { stroke: GREY, strokeDasharray: "2 4" }),
      Plot.ruleY([0]),
      Plot.tip(moments, Plot.pointerX({ x: "at", y: "value", clip: false, title: moment =>
        `${moment.at.toLocaleString()}\n${moment.samples.toLocaleString()} samples\n${unit.show(moment.low)} to ${unit.show(moment.high)}` })),
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
  if (find("sentence").textContent !== report.sentence) find("sentence").textContent = report.sentence; // unchanged text must not be announced again by screen readers
  find("facts").textContent = `${report.mode}, ${report.state}, revision ${report.revision}, stage ${report.stage}; assigned by ${report.sticky}; α = ${report.alpha}`;
  showArms(report);
  showClasses(report);
  find("differences").replaceChildren();
  for (const comparison of report.comparisons) showDifference(find("differences"), report, comparison);
  list("decisions", report.decisions.map(decision => `${new Date(1000 * decision.at).toLocaleString()}: ${decision.action} ${decision.arm} (${decision.actor}: ${decision.reason})`), "none yet");
  list("notes", [...report.alarms, ...report.notes], "none");
}

export async function showExperiments() {
  const { experiments } = await ask("/v1/experiments");
  find("report").hidden = !experiments.length;
  find("no-experiments").textContent = experiments.length ? "" : NONE;
  if (!experiments.length) return;
  const chosen = findChosen(experiments);
  showNames(experiments, chosen);
  const report = await ask(`/v1/experiments/${encodeURIComponent(chosen.name)}/report`);
  if (findChosen(experiments) === chosen) show(report);
}

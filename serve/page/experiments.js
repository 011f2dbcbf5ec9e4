import { ask as request } from "./key.js";

const SVG = "http://www.w3.org/2000/svg";
const find = (id) => document.getElementById(id);
const number = (value, digits) => (value === null ? "?" : value.toFixed(digits));

function add(parent, tag, text = "", attributes = {}) {
  const element = parent.namespaceURI === SVG || tag === "svg" ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return parent.appendChild(element);
}

function bounds(row, one, digits, factor = 1, note = "") {
  const cell = add(row, "td", "", { class: "number" });
  const scaled = (value) => number(value === null ? null : value * factor, digits);
  add(cell, "div", one.value === null ? "no samples" : scaled(one.value));
  add(cell, "div", one.value === null ? "" : `${scaled(one.low)} to ${scaled(one.high)} ${note}`, { class: "others" });
}

function showArms(report) {
  const body = find("arms");
  body.replaceChildren();
  for (const arm of report.arms) {
    const row = add(body, "tr");
    const name = add(row, "td", arm.name);
    add(name, "div", arm.model, { class: "others" });
    add(row, "td", `${(100 * arm.share).toFixed(1)} %`, { class: "number" });
    add(row, "td", arm.answers.toLocaleString(), { class: "number" });
    bounds(row, arm.metric, 1, 100, "%");
    bounds(row, arm.error_rate, 2, 100, "%");
    bounds(row, arm.p50_ms, 1);
    bounds(row, arm.p99_ms, 1);
    bounds(row, arm.engine_ms, 2);
    if (arm.energy) bounds(row, arm.energy.joules_per_image, 4, 1, arm.energy.source);
    else add(row, "td", "no source", { class: "number others" });
  }
}

// The band is the confidence sequence, the line the estimate, the dashed lines no difference and the one that matters.
function showChart(report, arm) {
  const moments = report.history.filter((one) => one.arm === arm && one.difference.low !== null);
  const figure = add(find("charts"), "figure");
  add(figure, "figcaption", `${arm} less ${report.arms[0].name}, points of ${report.metric}, by samples`);
  if (moments.length < 2) return void add(figure, "p", "not enough samples yet", { class: "others" });
  const width = 640, height = 220, left = 48, bottom = 24;
  const last = moments[moments.length - 1];
  const reach = Math.min(1, Math.max(3 * report.effect, 2 * Math.abs(last.difference.value), last.difference.high - last.difference.low));
  const x = (samples) => left + ((width - left) * samples) / last.samples;
  const y = (value) => (height - bottom) * (0.5 - Math.max(-1, Math.min(1, value / reach)) / 2);
  const chart = add(figure, "svg", "", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `difference of ${arm} over time` });
  const high = moments.map((one) => `${x(one.samples)},${y(one.difference.high)}`);
  const low = moments.map((one) => `${x(one.samples)},${y(one.difference.low)}`).reverse();
  add(chart, "polygon", "", { points: [...high, ...low].join(" "), fill: "var(--accent)", opacity: 0.25 });
  add(chart, "polyline", "", { points: moments.map((one) => `${x(one.samples)},${y(one.difference.value)}`).join(" "), fill: "none", stroke: "var(--accent)", "stroke-width": 2 });
  for (const value of [0, report.effect, -report.effect]) {
    add(chart, "line", "", { x1: left, x2: width, y1: y(value), y2: y(value), stroke: "currentColor", opacity: value ? 0.3 : 0.8, "stroke-dasharray": value ? "2 4" : "6 3" });
    add(chart, "text", `${(100 * value).toFixed(1)}`, { x: left - 6, y: y(value) + 4, "text-anchor": "end", "font-size": 12, fill: "currentColor" });
  }
  add(chart, "text", last.samples.toLocaleString(), { x: width, y: height - 6, "text-anchor": "end", "font-size": 12, fill: "currentColor" });
}

function show(report) {
  find("report").hidden = false;
  find("metric").textContent = report.metric;
  find("sentence").textContent = report.sentence;
  find("facts").textContent = `${report.experiment}: ${report.mode}, ${report.state}, revision ${report.revision}, stage ${report.stage}; unit of assignment: ${report.sticky}; α = ${report.alpha}`;
  showArms(report);
  find("charts").replaceChildren();
  for (const one of report.comparisons) showChart(report, one.arm);
  find("decisions").replaceChildren();
  for (const one of report.decisions) add(find("decisions"), "li", `${new Date(1000 * one.at).toLocaleString()}: ${one.action} ${one.arm} (${one.actor}: ${one.reason})`);
  if (!report.decisions.length) add(find("decisions"), "li", "none yet");
  find("notes").replaceChildren();
  for (const one of [...report.alarms, ...report.notes]) add(find("notes"), "li", one);
}

async function ask(path) {
  const answer = await request(path);
  const document = await answer.json();
  if (!answer.ok) throw new Error(document.error);
  return document;
}

async function refresh() {
  try {
    const { experiments } = await ask("/v1/experiments");
    const names = find("names");
    names.replaceChildren();
    for (const one of experiments) add(add(names, "span", " "), "a", one.name, { href: `#${encodeURIComponent(one.name)}` });
    const chosen = decodeURIComponent(location.hash.slice(1)) || (experiments.length ? experiments[0].name : "");
    if (chosen) show(await ask(`/v1/experiments/${encodeURIComponent(chosen)}/report`));
    find("problem").textContent = chosen ? "" : "No experiment is declared here. docs/experiments.md says how.";
  } catch (error) {
    find("problem").textContent = error.message;
  }
}

addEventListener("hashchange", refresh);
refresh();
setInterval(refresh, 5000);

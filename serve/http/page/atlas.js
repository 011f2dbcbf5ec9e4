// The charts of an atlas, measured on one machine. Used by the page at "/" and by the one-file page of `convoy atlas`.
const MAX_WIDTH = 960;
const LABEL = { dx: 6, textAnchor: "start", fontSize: 11 };
const GREY = "var(--quiet)";

function element(parent, tag, text = "", kind = "") {
  const created = parent.appendChild(document.createElement(tag));
  created.textContent = text;
  if (kind) created.className = kind;
  return created;
}

// `minWidth` in pixels: in a narrower window the frame scrolls, because a smaller chart could not be read.
export function chart(parent, title, note, { minWidth = 560, ...options }) {
  element(parent, "h3", title);
  if (note) element(parent, "p", note, "quiet");
  const frame = element(parent, "div", "", "chart");
  const width = Math.max(minWidth, Math.min(MAX_WIDTH, frame.clientWidth));
  const drawn = frame.appendChild(Plot.plot({ className: "plot", width, height: 420, marginLeft: 60, marginRight: 180, marginBottom: 45, ariaLabel: title, ...options }));
  drawn.setAttribute("role", "img");
}

const short = value => d3.format(".3~s")(value).replace("G", "B");
const duration = value => value >= 1 ? `${+value.toPrecision(3)} s` : `${+(value * 1e3).toPrecision(3)} ms`;
const bytes = value => `${d3.format(".3~s")(value)}B`;
const percent = value => `${(value * 100).toFixed(1)} %`;
const log = (label, format) => ({ type: "log", label, tickFormat: format, ticks: 6, grid: true });
const ofBatch = (cells, batch) => cells.filter(cell => cell.batch === batch);

// One line per network over the batch size, labelled at its end, with the interval of each median.
function overBatch(parent, title, note, cells, y, low, high, axis) {
  const ends = [...d3.rollup(cells, group => d3.greatest(group, cell => cell.batch), cell => cell.network).values()];
  chart(parent, title, note, {
    x: { type: "log", base: 2, label: "images per batch", ticks: [...new Set(cells.map(cell => cell.batch))], tickFormat: "d" },
    y: axis,
    marks: [
      Plot.lineY(cells, { x: "batch", y, z: "network", stroke: "network", strokeWidth: 1.5 }),
      low ? Plot.ruleX(cells, { x: "batch", y1: low, y2: high, stroke: "network", strokeWidth: 4, strokeOpacity: 0.35 }) : null,
      Plot.dot(cells, { x: "batch", y, fill: "network", r: 2.5 }),
      Plot.text(ends, { x: "batch", y, text: "name", ...LABEL }),
      Plot.tip(cells, Plot.pointer({ x: "batch", y, title: cell => `${cell.name}, batch ${cell.batch}\n${duration(cell.seconds)} (${duration(cell.low)} to ${duration(cell.high)})` })),
    ],
  });
}

function accuracyCharts(parent, cells, group) {
  const known = ofBatch(cells, 1), plain = known.filter(cell => cell.plain); // other engines have the same operations and parameters
  if (known.length < 2) return;
  chart(parent, `Accuracy against operations: ${group.title}`, "The area of a circle is proportional to the number of parameters. Operations are twice the multiply-accumulates.", {
    x: { ...log("operations per image", short), inset: 40 }, y: { label: "top-1", tickFormat: percent, grid: true, inset: 45 }, r: { range: [0, 40] },
    marks: [
      Plot.dot(plain, { x: "operations", y: "top1", r: "params", fill: "network", fillOpacity: 0.45, stroke: "network" }),
      Plot.text(plain, { x: "operations", y: "top1", text: "name", fontSize: 11 }),
      Plot.tip(plain, Plot.pointer({ x: "operations", y: "top1", title: cell => `${cell.name}\n${percent(cell.top1)}, ${cell.how}\n${short(cell.params)} parameters` })),
    ],
  });
  chart(parent, `Accuracy against time: ${group.title}`, "Batch size 1. Networks on the line are Pareto-optimal: no other network is both faster and more accurate.", {
    x: log("time per image", duration), y: { label: "top-1", tickFormat: percent, grid: true, inset: 15 },
    marks: [
      Plot.line(d3.sort(known.filter(cell => cell.front), cell => cell.seconds), { x: "seconds", y: "top1", stroke: "var(--accent)", curve: "step-after" }),
      Plot.ruleY(known, { x1: "low", x2: "high", y: "top1", stroke: GREY, strokeWidth: 4, strokeOpacity: 0.4 }),
      Plot.dot(known, { x: "seconds", y: "top1", fill: cell => cell.front ? "var(--accent)" : GREY, r: 4 }),
      Plot.text(known, { x: "seconds", y: "top1", text: "name", ...LABEL }),
    ],
  });
  chart(parent, `Accuracy per parameter: ${group.title}`, "Percentage points of top-1 per million parameters.", {
    x: { label: "% per million parameters", grid: true }, y: { label: null }, marginLeft: 150, height: 60 + 24 * plain.length,
    marks: [Plot.barX(plain, { x: cell => 1e8 * cell.top1 / cell.params, y: "name", fill: "var(--accent)", sort: { y: "-x" } }), Plot.ruleX([0])],
  });
}

function operations(parent, atlas) {
  for (const { batch, r2 } of atlas.lines) {
    const cells = ofBatch(atlas.cells, batch).filter(cell => cell.dataset === "imagenet1k" && cell.plain);
    chart(parent, `Operations against time, batch ${batch}`, `A linear fit explains ${percent(r2)} of the variance. The area of a circle is proportional to the number of parameters.`, {
      x: { label: "time per image", tickFormat: duration, grid: true, zero: true }, y: { label: "operations per image", tickFormat: short, grid: true, zero: true }, r: { range: [0, 25] },
      marks: [
        Plot.linearRegressionY(cells, { x: "seconds", y: "operations", stroke: "var(--accent)" }),
        Plot.dot(cells, { x: "seconds", y: "operations", r: "params", fill: GREY, fillOpacity: 0.4, stroke: GREY }),
        Plot.text(cells, { x: "seconds", y: "operations", text: "name", ...LABEL, dx: 10 }),
      ],
    });
  }
}

function power(parent, cells) {
  const known = cells.filter(cell => cell.watts !== null);
  if (!known.length) {
    element(parent, "h3", "Power and energy against batch");
    element(parent, "p", "This machine has no power source, so energy was not measured. docs/energy.md describes how to configure one.", "quiet");
    return;
  }
  const origin = `${known[0].method}, ${known[0].source}`;
  overBatch(parent, `Power against batch (${origin})`, "Above the power at rest.", known, "watts", null, null, { label: "W above rest", grid: true, zero: true });
  overBatch(parent, `Energy per image against batch (${origin})`, "Above the power at rest.", known, "joules", null, null, log("J per image", ".3~g"));
}

function findings(parent, atlas) {
  element(parent, "h3", "Findings of Canziani, Paszke and Culurciello (2016), tested on these measurements");
  for (const finding of atlas.findings) {
    const kind = { holds: "holds", "does not hold": "fails" }[finding.verdict] ?? "";
    const box = element(parent, "div", "", `finding ${kind}`);
    element(box, "b", `${finding.claim} ${finding.verdict[0].toUpperCase()}${finding.verdict.slice(1)}.`);
    element(box, "span", finding.evidence, "quiet");
  }
}

function choice(parent, atlas) {
  element(parent, "h3", "The cheapest network that meets both targets");
  const form = element(parent, "form", "", "choice");
  const field = (text, input) => { const label = element(form, "label", text); label.append(input); return input; };
  const groups = field("data set", document.createElement("select"));
  for (const [index, group] of atlas.groups.entries()) groups.append(new Option(group.title, index));
  const input = (name, value, step) => Object.assign(document.createElement("input"), { type: "number", min: 0, step, value, name });
  const top1 = field("minimum top-1, %", input("top1", 60, 0.1)), limit = field("maximum ms per batch", input("ms", 100, 1));
  const result = element(parent, "p");
  result.id = "cheapest";
  result.setAttribute("aria-live", "polite");
  const show = () => {
    const group = atlas.groups[groups.value];
    const candidates = group === undefined ? [] : atlas.cells.filter(cell => cell.dataset === group.dataset && cell.kind === group.kind
      && cell.high * cell.batch * 1e3 <= +limit.value && cell.top1 * 100 >= +top1.value);
    const best = d3.least(candidates, cell => cell.seconds);
    result.textContent = best
      ? `${best.name} at batch size ${best.batch}: ${percent(best.top1)} top-1, ${duration(best.seconds)} per image, ${duration(best.seconds * best.batch)} per batch.`
      : "No network meets both targets. Allow more time or less accuracy.";
  };
  form.oninput = show;
  form.onsubmit = event => event.preventDefault();
  show();
}

function figures(parent, atlas) {
  const details = element(parent, "details");
  element(details, "summary", "All measurements");
  const table = element(element(details, "div", "", "scroll"), "table");
  const head = table.createTHead().insertRow();
  for (const text of ["network", "batch size", "time per image", "95 % interval", "memory", "power", "energy"]) element(head, "th", text).scope = "col";
  const body = table.createTBody();
  for (const cell of atlas.cells) {
    const row = body.insertRow();
    const texts = [cell.network, cell.batch, duration(cell.seconds), `${duration(cell.low)} to ${duration(cell.high)}`, bytes(cell.memory),
      cell.watts === null ? "unknown" : `${cell.watts.toFixed(1)} W`, cell.joules === null ? "unknown" : `${cell.joules.toPrecision(3)} J`];
    for (const text of texts) row.insertCell().textContent = text;
  }
  for (const failure of atlas.failures) element(details, "p", `${failure.network}, batch ${failure.batch}: ${failure.reason}`, "quiet");
}

export function drawAtlas(parent, atlas) {
  const machine = atlas.machine;
  parent.replaceChildren();
  element(parent, "p", `Measured on ${machine.cpu}, ${machine.threads} threads of ${machine.cores} cores, ${machine.system}, ${machine.engine}. `
    + "Medians; bars show 95 % intervals.", "quiet");
  choice(parent, atlas);
  findings(parent, atlas);
  for (const group of atlas.groups) accuracyCharts(parent, atlas.cells.filter(cell => cell.dataset === group.dataset && cell.kind === group.kind), group);
  overBatch(parent, "Time per image against batch", "", atlas.cells, "seconds", "low", "high", log("time per image", duration));
  overBatch(parent, "Memory against batch", "Memory that loading and running the network added to its process.", atlas.cells, "memory", null, null, log("memory", bytes));
  power(parent, atlas.cells);
  operations(parent, atlas);
  figures(parent, atlas);
}

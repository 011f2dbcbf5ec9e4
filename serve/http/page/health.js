// Live statistics: rates from the difference of two readings of the server's counters.
import { ask, find } from "./server.js";

const MAX_POINTS = 90;
const rates = [];
let before = null;

function tile(parent, value, name) {
  const box = parent.appendChild(document.createElement("span"));
  box.appendChild(document.createElement("b")).textContent = value;
  box.append(name);
}

const number = (value, digits = 1) => Number.isFinite(value) ? value.toFixed(digits) : "–";

function showModels(now, before, seconds) {
  const body = find("vital-models");
  body.replaceChildren();
  for (const model of now.models) {
    const previous = before.models.find(candidate => candidate.name === model.name) ?? model;
    const increase = key => model[key] - previous[key];
    const cells = [
      number(increase("images") / seconds), number(increase("refused") / seconds), number(1000 * increase("request_seconds") / increase("answered"), 2),
      model.engines ? `${number(100 * increase("busy_seconds") / seconds / model.engines, 0)} %` : "–", number(model.waiting, 0),
      model.joules === null ? "–" : number(increase("joules") / seconds),
      model.joules === null ? "–" : number(increase("joules") / increase("images"), 4),
    ];
    const row = body.insertRow();
    const name = row.appendChild(document.createElement("th"));
    name.scope = "row";
    name.textContent = model.name;
    for (const text of cells) Object.assign(row.insertCell(), { textContent: text, className: "number" });
  }
}

function showTiles(now, before, seconds) {
  const tiles = find("vitals");
  const sum = (document, key) => document.models.reduce((total, model) => total + model[key], 0);
  const images = (sum(now, "images") - sum(before, "images")) / seconds;
  const busy = (now.busy_core_seconds - before.busy_core_seconds) / seconds;
  tiles.replaceChildren();
  tile(tiles, number(images), "images per second");
  tile(tiles, number(now.in_flight, 0), "in flight");
  tile(tiles, `${number(busy)} of ${number(now.cores, 0)}`, "cores in use");
  for (const chip of now.chips) tile(tiles, `${number(chip.watts)} W`, `${chip.chip} (${chip.method}, ${chip.source})`);
  if (!now.chips.length) tile(tiles, "–", "power: no source");
  return images;
}

function showRates() {
  find("rates").replaceChildren(Plot.plot({
    className: "plot", width: find("rates").clientWidth, height: 220, marginLeft: 50, ariaLabel: "images per second over the last minutes",
    x: { type: "time", label: null }, y: { label: "images per second", grid: true, zero: true },
    marks: [Plot.ruleY([0]), Plot.areaY(rates, { x: "at", y: "images", fill: "var(--accent)", fillOpacity: 0.2 }),
      Plot.lineY(rates, { x: "at", y: "images", stroke: "var(--accent)" })],
  }));
}

export async function showHealth() {
  const now = await ask("/v1/vitals");
  if (before !== null && now.at > before.at) {
    const seconds = now.at - before.at;
    showModels(now, before, seconds);
    rates.push({ at: new Date(), images: showTiles(now, before, seconds) });
    rates.splice(0, rates.length - MAX_POINTS);
    showRates();
  }
  before = now;
}

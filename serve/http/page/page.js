// The page at "/": one section per fragment of the URL, and the playground.
import { drawAtlas } from "./atlas.js";
import { showEnsembles } from "./ensembles.js";
import { showExperiments } from "./experiments.js";
import { showHealth } from "./health.js";
import { clear, readDigit } from "./pad.js";
import { ask, element, find } from "./server.js";

const STAGES = ["receive", "decode", "queue", "run", "post"];
const ERRORS = { 413: "Choose a smaller image, or raise limits in convoy.yaml.", 400: "Is it a JPEG, PNG, WebP, GIF, BMP or TIFF image?" };
let models = [];
let rounds = 0;

const percent = share => `${(share * 100).toFixed(1)} %`;

function energy(body) {
  if (body.energy_mj === undefined || body.energy_mj === null) return "unknown";
  return `${body.energy_mj.toPrecision(3)} mJ`;
}

function fill(row, model, body) {
  const [best, ...others] = body.predictions[0].classes;
  const answer = element(row, "td");
  element(answer, "b", `${best.label} `);
  answer.append(percent(best.probability));
  element(answer, "div", "", "bar").style.width = percent(best.probability).replace(" ", "");
  element(answer, "div", others.map(other => `${other.label} ${percent(other.probability)}`).join(", "), "others");
  const times = body.timings_ms;
  const cell = element(row, "td");
  const bar = element(cell, "div", "", "stages");
  bar.setAttribute("role", "img");
  bar.setAttribute("aria-label", STAGES.map(stage => `${stage} ${times[stage].toFixed(2)} ms`).join(", "));
  bar.title = bar.getAttribute("aria-label");
  for (const stage of STAGES) element(bar, "span", "", stage).style.flexGrow = times[stage];
  element(cell, "div", STAGES.map(stage => times[stage].toFixed(2)).join(" · "), "others");
  element(row, "td", times.total.toFixed(2), "number");
  const joules = element(row, "td", energy(body), "number");
  if (body.energy_method) element(joules, "div", `${body.energy_method}, ${body.energy_source}`, "others");
}

async function askModel(model, blob, round) {
  const row = find("answers").insertRow();
  const name = element(row, "th", model.name);
  name.scope = "row";
  element(name, "div", model.dataset ?? "", "others");
  const request = { method: "POST", body: blob, headers: { "content-type": "application/octet-stream" } };
  try {
    const body = await ask(`/v1/models/${encodeURIComponent(model.name)}/classify?top_k=3&energy=true`, request);
    if (round === rounds) fill(row, model, body);
    return true;
  } catch (error) {
    const cell = element(row, "td", [error.message, ERRORS[error.status]].filter(Boolean).join(". "), "bad");
    cell.colSpan = 4;
    return false;
  }
}

function showPreview(blob) {
  const preview = find("preview");
  URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(blob);
  preview.hidden = false;
  preview.onload = () => preview.classList.toggle("small", preview.naturalWidth <= 64);
}

async function classify(blob) {
  const round = ++rounds;
  find("problem").textContent = "";
  find("answers").replaceChildren();
  find("preview").hidden = true;
  const chosen = models.filter(model => find(`model-${model.name}`).checked);
  if (!chosen.length) find("problem").textContent = "Choose at least one model.";
  for (const model of chosen) {
    // One after the other, so that the models do not slow each other down. The preview appears only after the server has
    // decoded the image within its limits: the browser would decode a decompression bomb.
    const answered = await askModel(model, blob, round);
    if (round !== rounds) return;
    if (answered && find("preview").hidden) showPreview(blob);
  }
}

function offerModels() {
  for (const model of models) {
    const label = element(find("models"), "label");
    const box = label.appendChild(document.createElement("input"));
    // Ensembles and experiments are off by default: experiments count every request as real traffic.
    Object.assign(box, { type: "checkbox", id: `model-${model.name}`, checked: !model.members && !model.arms });
    label.append(` ${model.name}`);
  }
}

// Models that do not serve as configured, with the reason.
function showProblems(problems) {
  for (const problem of problems) element(find("models"), "p", `${problem.name} is ${problem.state}: ${problem.reason}`, "bad");
}

async function offerSamples() {
  for (const sample of (await ask("/samples/index.json")).samples) {
    const button = element(find("samples"), "button");
    button.type = "button";
    button.title = `${sample.label} (${sample.source})`;
    const image = button.appendChild(document.createElement("img"));
    image.src = `/samples/${sample.file}`;
    image.alt = sample.label;
    button.onclick = async () => classify(await (await fetch(image.src)).blob());
  }
}

function takeImages() {
  const drop = find("drop"), file = find("file");
  file.onchange = () => file.files.length && classify(file.files[0]);
  drop.ondragover = event => { event.preventDefault(); drop.classList.add("over"); };
  drop.ondragleave = () => drop.classList.remove("over");
  drop.ondrop = event => {
    event.preventDefault();
    drop.classList.remove("over");
    if (event.dataTransfer.files.length) classify(event.dataTransfer.files[0]);
  };
  document.onpaste = event => event.clipboardData.files.length && classify(event.clipboardData.files[0]);
  find("wipe").onclick = clear;
  find("read").onclick = async () => {
    const digit = await readDigit();
    if (digit) classify(digit);
    else find("problem").textContent = "Draw a digit first.";
  };
}

// How each section is shown, and how often it is refreshed while it is open.
const SECTIONS = {
  playground: { show: () => {} },
  health: { show: showHealth, everyMs: 2000 },
  experiments: { show: showExperiments, everyMs: 5000 },
  ensembles: { show: showEnsembles, everyMs: 5000 },
  atlas: { show: async () => drawAtlas(find("charts"), await ask("/v1/atlas")) },
};
let opened = 0;

async function refresh(name, turn) {
  let problem = null;
  if (!document.hidden) await Promise.resolve().then(SECTIONS[name].show).catch(error => { problem = error; });
  if (turn !== opened) return;
  find("problem").textContent = problem?.message ?? "";
  if (problem?.status === 401) return; // do not prompt for the key again every few seconds
  if (SECTIONS[name].everyMs) setTimeout(() => turn === opened && refresh(name, turn), SECTIONS[name].everyMs);
}

async function open() {
  const [fragment] = location.hash.slice(1).split("/");
  const name = fragment in SECTIONS ? fragment : "playground";
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== name;
  for (const link of document.querySelectorAll("header a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  await refresh(name, ++opened);
}

addEventListener("hashchange", open);
takeImages();
await open();
try {
  const offered = await ask("/v1/models");
  models = offered.models;
  offerModels();
  showProblems(offered.problems);
  await offerSamples();
} catch (error) {
  find("problem").textContent = error.message;
}
document.documentElement.dataset.ready = "yes";

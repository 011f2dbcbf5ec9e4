// The page at "/": sections by the address' fragment, and the playground.
import { ask as request } from "./key.js";
import { readDigit, wipe } from "./pad.js";
import { watchHealth } from "./health.js";
import { drawAtlas } from "./atlas.js";

const STAGES = ["receive", "decode", "queue", "run", "post"];
const ERRORS = { 413: "Choose a smaller image, or raise limits in convoy.yaml.", 400: "Is it a JPEG, PNG, WebP, GIF, BMP or TIFF image?" };
const $ = id => document.getElementById(id);

let models = [];
let asked = 0;

async function getJson(path) {
  const response = await request(path);
  const body = await response.json();
  if (!response.ok) throw new Error(body.error);
  return body;
}

function element(parent, tag, text = "", kind = "") {
  const one = parent.appendChild(document.createElement(tag));
  one.textContent = text;
  if (kind) one.className = kind;
  return one;
}

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

async function ask(model, blob, round) {
  const row = $("answers").insertRow();
  const name = element(row, "th", model.name);
  name.scope = "row";
  element(name, "div", model.dataset ?? "", "others");
  try {
    const response = await request(`/v1/models/${encodeURIComponent(model.name)}/classify?top_k=3&energy=true`,
      { method: "POST", body: blob, headers: { "content-type": "application/octet-stream" } });
    const body = await response.json();
    if (round !== asked) return false;
    if (!response.ok) throw new Error(`${body.error}. ${ERRORS[response.status] ?? ""}`);
    fill(row, model, body);
    return true;
  } catch (error) {
    const cell = element(row, "td", error.message, "bad");
    cell.colSpan = 4;
    return false;
  }
}

function showPreview(blob) {
  const preview = $("preview");
  URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(blob);
  preview.hidden = false;
  preview.onload = () => preview.classList.toggle("small", preview.naturalWidth <= 64);
}

async function classify(blob) {
  const round = ++asked;
  $("problem").textContent = "";
  $("answers").replaceChildren();
  $("preview").hidden = true;
  const chosen = models.filter(model => $(`model-${model.name}`).checked);
  if (!chosen.length) $("problem").textContent = "Choose at least one model.";
  for (const model of chosen) {
    // One after the other, so that no model's time has another one's in it. Shown once a server has found it harmless.
    const answered = await ask(model, blob, round);
    if (round !== asked) return;
    if (answered && $("preview").hidden) showPreview(blob);
  }
}

function offerModels() {
  for (const model of models) {
    const label = element($("models"), "label");
    const box = label.appendChild(document.createElement("input"));
    Object.assign(box, { type: "checkbox", id: `model-${model.name}`, checked: true });
    label.append(` ${model.name}`);
  }
}

async function offerSamples() {
  for (const sample of (await getJson("/samples/index.json")).samples) {
    const button = element($("samples"), "button");
    button.type = "button";
    button.title = `${sample.label} (${sample.source})`;
    const image = button.appendChild(document.createElement("img"));
    image.src = `/samples/${sample.file}`;
    image.alt = sample.label;
    button.onclick = async () => classify(await (await fetch(image.src)).blob());
  }
}

function takeImages() {
  const drop = $("drop"), file = $("file");
  file.onchange = () => file.files.length && classify(file.files[0]);
  drop.ondragover = event => { event.preventDefault(); drop.classList.add("over"); };
  drop.ondragleave = () => drop.classList.remove("over");
  drop.ondrop = event => {
    event.preventDefault();
    drop.classList.remove("over");
    if (event.dataTransfer.files.length) classify(event.dataTransfer.files[0]);
  };
  drop.onkeydown = event => { if (event.key === "Enter" || event.key === " ") file.click(); };
  document.onpaste = event => event.clipboardData.files.length && classify(event.clipboardData.files[0]);
  $("wipe").onclick = wipe;
  $("read").onclick = async () => {
    const digit = await readDigit();
    if (digit) classify(digit);
    else $("problem").textContent = "Draw a digit first.";
  };
}

const SECTIONS = {
  playground: () => {},
  health: () => watchHealth(getJson),
  atlas: async () => drawAtlas($("charts"), await getJson("/v1/atlas")),
};
const opened = new Set();

async function open() {
  const wanted = location.hash.slice(1);
  const name = wanted in SECTIONS ? wanted : "playground";
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  $("problem").textContent = "";
  if (opened.has(name)) return;
  opened.add(name);
  try {
    await SECTIONS[name]();
  } catch (error) {
    opened.delete(name);
    $("problem").textContent = error.message;
  }
}

addEventListener("hashchange", open);
takeImages();
try {
  models = (await getJson("/v1/models")).models;
  offerModels();
  await offerSamples();
} catch (error) {
  $("problem").textContent = `The server does not answer: ${error.message}`;
}
await open();
document.documentElement.dataset.ready = "yes";

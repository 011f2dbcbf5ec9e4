"use strict";

const drop = document.getElementById("drop");
const file = document.getElementById("file");
const preview = document.getElementById("preview");
const answers = document.getElementById("answers");
const problem = document.getElementById("problem");
const samples = document.getElementById("samples");
let models = [];

function cell(row, text, kind) {
  const td = row.insertCell();
  td.textContent = text;
  if (kind) td.className = kind;
  return td;
}

async function ask(model, blob) {
  const row = answers.insertRow();
  cell(row, model.name);
  cell(row, model.dataset);
  try {
    const response = await fetch(`/v1/models/${encodeURIComponent(model.name)}/classify?top_k=3`,
      { method: "POST", body: blob, headers: { "content-type": "application/octet-stream" } });
    const body = await response.json();
    if (!response.ok) throw new Error(body.error);
    const [best, ...others] = body.predictions[0].classes;
    const answer = cell(row, best.label);
    const bar = answer.appendChild(document.createElement("div"));
    bar.className = "bar";
    bar.style.width = `${(best.probability * 100).toFixed(1)}%`;
    const rest = answer.appendChild(document.createElement("div"));
    rest.className = "others";
    rest.textContent = others.map(other => `${other.label} ${(other.probability * 100).toFixed(1)}%`).join(", ");
    cell(row, `${(best.probability * 100).toFixed(1)}%`, "number");
    for (const stage of ["decode", "queue", "run", "total"]) cell(row, body.timings_ms[stage].toFixed(2), "number");
  } catch (error) {
    cell(row, error.message).colSpan = 6;
  }
}

async function classify(blob) {
  problem.textContent = "";
  answers.replaceChildren();
  preview.src = URL.createObjectURL(blob);
  preview.hidden = false;
  preview.onload = () => preview.classList.toggle("small", preview.naturalWidth <= 64);
  for (const model of models) await ask(model, blob);
}

async function start() {
  const response = await fetch("/v1/models");
  models = (await response.json()).models;
  const index = await (await fetch("/samples/index.json")).json();
  for (const sample of index.samples) {
    const button = samples.appendChild(document.createElement("button"));
    button.title = `${sample.label} (${sample.source})`;
    const image = button.appendChild(document.createElement("img"));
    image.src = `/samples/${sample.file}`;
    image.alt = sample.label;
    button.onclick = async () => classify(await (await fetch(image.src)).blob());
  }
}

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
start().catch(error => { problem.textContent = `The server does not answer: ${error.message}`; });

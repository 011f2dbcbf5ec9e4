// Ensembles and cascades: their members, the cost of an image, and the outcomes so far.
import { chart } from "./atlas.js";
import { ask, element, find } from "./server.js";

const NONE = "No ensemble or cascade is configured. docs/ensembles.md describes how to add one.";
const COLUMNS = ["member", "views", "weight", "million operations", "engine ms/image"];
const OUTCOMES = ["answered", "late", "failed"];
const milliseconds = value => value === null ? "not measured yet" : value.toFixed(2);

function members(plan) {
  return plan.stages.flatMap(stage => stage.members.map(member => ({ name: plan.name, stage: stage.stage, ...member })));
}

function showCosts(parent, plans) {
  const known = plans.filter(plan => plan.stages.every(stage => stage.engine_ms_per_image !== null));
  if (!known.length) return;
  const names = known.map(plan => plan.name);
  chart(parent, "Cost per image", "Engine time of one image, with one segment per member. A cascade runs its later segments only for images that reach those stages.", {
    minWidth: 340, height: 60 + 28 * names.length, marginLeft: 150, marginRight: 60,
    x: { label: "engine ms per image", grid: true }, y: { label: null, domain: names },
    marks: [
      Plot.barX(known.flatMap(members), { x: "engine_ms_per_image", y: "name", fill: "var(--accent)", fillOpacity: 0.75, stroke: "var(--ground)",
        title: member => `${member.model}: ${milliseconds(member.engine_ms_per_image)} ms` }),
      Plot.text(known, { x: plan => plan.stages.at(-1).engine_ms_per_image, y: "name", text: plan => milliseconds(plan.stages.at(-1).engine_ms_per_image),
        textAnchor: "start", dx: 6 }),
      Plot.ruleX([0]),
    ],
  });
}

function describe(plan) {
  const deadline = plan.deadline_ms === null ? "" : ` Results that take longer than ${plan.deadline_ms} ms are left out.`;
  if (plan.kind === "cascade") return `Runs the next stage only for images on which the previous one is not confident.${deadline}`;
  const [stage] = plan.stages;
  return `Combines the results of its members by ${stage.combine.replaceAll("_", " ")}; at least ${stage.min_members} of ${stage.members.length} must answer.${deadline}`;
}

// The outcomes of the members' runs so far. The server counts a member of two stages once.
function outcomes(plan, counted) {
  const known = counted.filter(entry => entry.model === plan.name);
  const counts = known.map(entry => `${entry.member} ${OUTCOMES.map(outcome => `${(entry[outcome] ?? 0).toLocaleString()} ${outcome}`).join(", ")}`);
  return counts.length ? `So far: ${counts.join("; ")}.` : "No requests yet.";
}

function showStage(parent, plan, stage, images) {
  if (plan.kind === "cascade") {
    const counts = images.filter(entry => entry.model === plan.name);
    const first = counts.find(entry => entry.stage === plan.stages[0].stage)?.images ?? 0;
    const reached = counts.find(entry => entry.stage === stage.stage)?.images ?? 0;
    const share = first ? `reached by ${(100 * reached / first).toFixed(1)} % of ${first.toLocaleString()} images` : "no images yet";
    element(parent, "h4", `${stage.stage}: ${share}`);
  }
  const scroll = element(parent, "div", "", "scroll");
  const table = element(scroll, "table");
  const head = table.createTHead().insertRow();
  for (const text of COLUMNS) element(head, "th", text, COLUMNS.indexOf(text) > 1 ? "number" : "").scope = "col";
  const body = table.createTBody();
  for (const member of stage.members) {
    const row = body.insertRow();
    element(row, "th", member.model).scope = "row";
    element(row, "td", member.views.join(", ") || "original image");
    const figures = [member.weight, (2 * member.macs_per_image / 1e6).toFixed(1), milliseconds(member.engine_ms_per_image)];
    for (const figure of figures) element(row, "td", figure, "number");
  }
}

export async function showEnsembles() {
  const [{ compositions }, counts] = await Promise.all([ask("/v1/explain"), ask("/v1/vitals")]);
  const parent = find("compositions");
  parent.replaceChildren();
  if (!compositions.length) return void element(parent, "p", NONE);
  showCosts(parent, compositions);
  for (const plan of compositions) {
    const article = element(parent, "article");
    element(article, "h3", `${plan.name} (${plan.kind})`);
    element(article, "p", describe(plan), "quiet");
    for (const stage of plan.stages) showStage(article, plan, stage, counts.stages);
    element(article, "p", outcomes(plan, counts.members), "quiet");
  }
}

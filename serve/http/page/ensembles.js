// Ensembles and cascades: whom they ask, what an image costs, and who answered so far.
import { chart } from "./atlas.js";
import { ask, element, find } from "./server.js";

const NONE = "No ensemble or cascade is declared here. docs/ensembles.md says how to declare one.";
const COLUMNS = ["asks", "looks at", "weight", "million operations", "engine ms"];
const OUTCOMES = ["answered", "late", "failed"];
const milliseconds = value => value === null ? "not measured yet" : value.toFixed(2);

function parts(plan) {
  return plan.stages.flatMap(stage => stage.members.map(member => ({ name: plan.name, stage: stage.stage, ...member })));
}

function showCosts(parent, plans) {
  const known = plans.filter(plan => plan.stages.every(stage => stage.engine_ms_per_image !== null));
  if (!known.length) return;
  const names = known.map(plan => plan.name);
  chart(parent, "What an image costs", "Engine time of one image by itself, one part of a bar for each member; a cascade's later parts only where it asks on.", {
    narrowest: 340, height: 60 + 28 * names.length, marginLeft: 150, marginRight: 60,
    x: { label: "engine ms per image", grid: true }, y: { label: null, domain: names },
    marks: [
      Plot.barX(known.flatMap(parts), { x: "engine_ms_per_image", y: "name", fill: "var(--accent)", fillOpacity: 0.75, stroke: "var(--ground)",
        title: part => `${part.model}: ${milliseconds(part.engine_ms_per_image)} ms` }),
      Plot.text(known, { x: plan => plan.stages.at(-1).engine_ms_per_image, y: "name", text: plan => milliseconds(plan.stages.at(-1).engine_ms_per_image),
        textAnchor: "start", dx: 6 }),
      Plot.ruleX([0]),
    ],
  });
}

function describe(plan) {
  const time = plan.deadline_ms === null ? "" : ` What is not there after ${plan.deadline_ms} ms is left out.`;
  if (plan.kind === "cascade") return `Asks the next stage only where the one before is not sure.${time}`;
  const [stage] = plan.stages;
  return `Combines by ${stage.combine.replaceAll("_", " ")}; at least ${stage.min_members} of ${stage.members.length} must answer.${time}`;
}

// What became of the questions so far; a member of two stages is counted once.
function told(plan, members) {
  const known = members.filter(one => one.model === plan.name);
  const counts = known.map(one => `${one.member} ${OUTCOMES.map(outcome => `${(one[outcome] ?? 0).toLocaleString()} ${outcome}`).join(", ")}`);
  return counts.length ? `So far: ${counts.join("; ")}.` : "Nobody asked for it yet.";
}

function showStage(parent, plan, stage, images) {
  if (plan.kind === "cascade") {
    const asked = images.filter(one => one.model === plan.name);
    const first = asked.find(one => one.stage === plan.stages[0].stage)?.images ?? 0;
    const reached = asked.find(one => one.stage === stage.stage)?.images ?? 0;
    const share = first ? `reached by ${(100 * reached / first).toFixed(1)} % of ${first.toLocaleString()} images` : "no image yet";
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
    element(row, "td", member.views.join(", ") || "the image");
    const figures = [member.weight, (2 * member.macs_per_image / 1e6).toFixed(1), milliseconds(member.engine_ms_per_image)];
    for (const figure of figures) element(row, "td", figure, "number");
  }
}

export async function lookAtEnsembles() {
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
    element(article, "p", told(plan, counts.members), "quiet");
  }
}

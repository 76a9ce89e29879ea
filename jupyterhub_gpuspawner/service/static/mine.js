// My servers: buttons that act without leaving the page.
import {h, livePage, memory, morph, post, t} from "./live.js";

const said = document.getElementById("gpus-said");
const {prefix} = document.body.dataset;

// what can't be undone needs a second press; no dialog box, which some browsers no longer show
function ask(form, button) {
  const before = button.textContent;
  form.dataset.asked = "yes";
  button.textContent = form.dataset.confirm;
  setTimeout(() => {
    delete form.dataset.asked;
    button.textContent = before;
  }, 6000);
}

document.addEventListener("submit", async (event) => {
  const form = event.target.closest("form.gpus-act");
  if (!form) return;
  event.preventDefault();
  const button = form.querySelector("button");
  if (form.dataset.confirm && !form.dataset.asked) return ask(form, button);
  button.disabled = true;
  said.replaceChildren();
  try {
    await post(new URL(form.action).pathname.slice(prefix.length));
  } catch (error) {
    const note = document.createElement("p");
    note.className = "alert alert-danger";
    note.textContent = error.message || t("It did not work.");
    said.append(note);
  } finally {
    button.disabled = false;
  }
});

// -- charts ----------------------------------------------------------------------------------

const WIDTH = 120;
const HEIGHT = 32;

// a line over time; `most` is the top, such as the limit
function chart(title, said, values, most) {
  const top = Math.max(most || 0, ...values, 1e-9);
  const step = WIDTH / 59;
  const from = WIDTH - (values.length - 1) * step;
  const points = values.map((value, n) => `${(from + n * step).toFixed(1)},${(HEIGHT - 1 - (value / top) * (HEIGHT - 2)).toFixed(1)}`);
  return h(
    "figure",
    {class: "gpus-chart"},
    h("figcaption", {}, h("span", {}, title), " ", h("strong", {}, said)),
    h(
      "svg",
      {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}: ${said}`, preserveAspectRatio: "none"},
      h("line", {x1: 0, x2: WIDTH, y1: HEIGHT - 1, y2: HEIGHT - 1, class: "gpus-axis"}),
      values.length > 1 ? h("polyline", {points: points.join(" "), class: most && values.at(-1) > 0.9 * most ? "gpus-high" : "gpus-line"}) : null,
    ),
  );
}

const of = (used, limit) => (limit ? t("{used} of {limit}", {used, limit}) : used);

// GPUs are measured less often: what was seen of each is kept here
const seen = new Map();

function gpuCharts(gpu) {
  if (gpu.simulated || !gpu.seen) return [];
  const {memory: used, busy, celsius} = gpu.seen;
  const past = seen.get(gpu.id) ?? {busy: [], memory: []};
  for (const [name, value] of [["busy", busy], ["memory", used]])
    if (value !== null) past[name] = [...past[name], value].slice(-60);
  seen.set(gpu.id, past);
  const name = `GPU ${gpu.index}`;
  const heat = celsius === null ? "" : `, ${celsius} °C`;
  return [
    busy === null ? null : chart(t("{gpu} busy", {gpu: name}), `${Math.round(busy * 100)} %${heat}`, past.busy, 1),
    used === null ? null : chart(t("{gpu} memory", {gpu: name}), of(memory(used), memory(gpu.memory)), past.memory, gpu.memory),
  ];
}

function drawUse(servers) {
  for (const one of servers) {
    const place = document.getElementById(`charts-${one.id}`);
    if (!place) continue;
    const cpu = one.cpu.at(-1);
    const fresh = h(
      "div",
      {class: "gpus-charts", id: place.id, "data-keep": true},
      one.memory.length
        ? chart(t("Memory"), of(memory(one.memory.at(-1)), one.memory_limit && memory(one.memory_limit)), one.memory, one.memory_limit)
        : null,
      cpu === undefined ? null : chart(t("Processors"), of(cpu.toFixed(1), one.cpu_limit), one.cpu, one.cpu_limit),
      one.gpus.flatMap(gpuCharts),
      one.gpus.length && one.gpus.every((gpu) => gpu.simulated)
        ? h("p", {class: "note align-self-end mb-0"}, t("SIMULATED GPUs are not measured."))
        : null,
    );
    morph(place, fresh);
  }
}

const page = document.querySelector("[data-events]");
if (page) livePage(page.dataset.events, {use: drawUse});

// The spawn form on the Hub's page: what is free, and why a choice can't be had, as it changes.
import {clock, h, listen, loadWords, morph, t, tn} from "./live.js";
import {login} from "./hub.js";

const root = document.getElementById("gpus-live-form");
const {prefix, language} = root.dataset;
const cards = [...root.querySelectorAll(".gpus-profile")];
const chosen = root.querySelector(".gpus-chosen");
let state = null;
let me = null;

const settings = (element) => JSON.parse(element?.dataset.asks || "{}");

// the profile's own settings, then those of the options as they are chosen; `instead`: one of them
function asked(card, instead = null) {
  const all = {...settings(card)};
  for (const select of card.querySelectorAll("select")) {
    const option = instead && instead.parentElement === select ? instead : select.selectedOptions[0];
    Object.assign(all, settings(option));
  }
  return all;
}

const like = (text, pattern) =>
  new RegExp(
    `^${[...pattern].map((c) => (c === "*" ? ".*" : c === "?" ? "." : c.replace(/[.+^${}()|[\]\\]/g, "\\$&"))).join("")}$`,
    "i",
  ).test(text);

function suits(group, ask) {
  const least = ask.gpu_min_capability;
  const has = group.capability ?? [0, 0];
  return (
    like(group.model, ask.gpu_model || "*") &&
    group.memory >= (ask.gpu_min_memory || 0) &&
    (!least || has[0] > least[0] || (has[0] === least[0] && has[1] >= least[1])) &&
    (!ask.gpu_devices?.length || group.ids.some((id) => ask.gpu_devices.includes(id))) &&
    (!ask.node || group.node === ask.node) &&
    (!ask.pool || group.pools.includes(ask.pool))
  );
}

// when so many on one machine will probably be free
function next(groups, wanted) {
  const nodes = new Map();
  for (const group of groups) {
    const times = [...group.free.map(() => 0), ...group.next];
    nodes.set(group.node, [...(nodes.get(group.node) ?? []), ...times]);
  }
  const starts = [...nodes.values()]
    .map((times) => times.sort((a, b) => a - b)[wanted - 1])
    .filter((time) => time !== undefined);
  return starts.length ? Math.min(...starts) : 0;
}

function outlook(ask) {
  const wanted = ask.gpus || ask.gpu_devices?.length || 0;
  if (!wanted) return ["secondary", t("does not wait for a GPU")];
  const groups = state.groups.filter((group) => suits(group, ask));
  const total = groups.reduce((sum, group) => sum + group.ids.length, 0);
  const free = groups.reduce((sum, group) => sum + group.free.length, 0);
  if (!total) return ["danger", t("cannot start: no GPU of this kind here")];
  if (total < wanted) return ["danger", t("cannot start: only {total} of this kind here", {total})];
  if (me && me.limit !== null && wanted > me.limit)
    return ["danger", t("cannot start: you may hold {limit} GPUs", {limit: me.limit})];
  if (me && me.limit !== null && me.held + wanted > me.limit)
    return ["warning", t("you hold {held} of {limit} GPUs: your server would wait until you stop another", me)];
  const numbers = {free, total, n: state.waiting};
  if (!state.waiting && free >= wanted) return ["success", t("{free} of {total} free now", numbers)];
  const said = state.waiting
    ? t("{free} of {total} free now, {n} waiting", numbers)
    : t("{free} of {total} free now: your server would wait", numbers);
  const at = next(groups, wanted);
  if (!at) return ["warning", said];
  const then = t("expected at {time}", {time: clock(at)});
  return ["warning", `${said}; ${then}`];
}

function draw() {
  if (!state) return;
  for (const card of cards) {
    const [tone, text] = outlook(asked(card));
    const badge = card.querySelector(".gpus-outlook");
    if (badge) {
      badge.textContent = text;
      badge.className = badge.className.replace(/text-bg-\w+/, `text-bg-${tone}`);
    }
    for (const option of card.querySelectorAll("option[data-asks]"))
      if (Object.keys(settings(option)).some((word) => word !== "length"))
        option.textContent = `${option.dataset.label} (${outlook(asked(card, option))[1]})`;
    if (card.querySelector(".gpus-radio").checked && chosen) {
      // said before the button is pressed, and by a screen reader
      chosen.hidden = tone === "success" || tone === "secondary";
      chosen.className = `alert alert-${tone} py-2 gpus-chosen`;
      const said = chosen.hidden ? "" : text;
      if (chosen.textContent !== said) chosen.textContent = said;
    }
  }
  drawModels();
}

function drawModels() {
  const list = document.getElementById("gpus-models");
  if (!list) return;
  const models = new Map();
  for (const group of state.groups) {
    const sum = models.get(group.model) ?? {free: 0, total: 0, next: []};
    sum.free += group.free.length;
    sum.total += group.ids.length;
    sum.next.push(...group.next);
    models.set(group.model, sum);
  }
  const rows = [...models].sort().map(([model, sum]) => {
    const at = sum.free ? 0 : Math.min(...sum.next);
    return h(
      "li",
      {class: "list-group-item d-flex flex-wrap justify-content-between align-items-center"},
      h("span", {}, model || "GPU"),
      h(
        "span",
        {},
        h("strong", {}, String(sum.free)),
        " ",
        t("of {total}", {total: sum.total}),
        at && Number.isFinite(at) ? h("span", {class: "text-body-secondary"}, ", ", t("next expected at {time}", {time: clock(at)})) : null,
      ),
    );
  });
  morph(list, h("ul", {class: list.className, id: list.id}, rows));
  const waiting = document.getElementById("gpus-waiting-now");
  if (waiting) waiting.textContent = state.waiting ? tn("{n} request waits", "{n} requests wait", state.waiting) : t("nobody waits");
}

await loadWords(prefix, language);
await login(prefix);
root.addEventListener("change", draw);
listen(`${prefix}events/form`, {
  free: (data) => {
    state = data;
    draw();
  },
  me: (data) => {
    me = data;
    draw();
  },
});

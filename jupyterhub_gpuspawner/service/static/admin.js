// The admin page: draws what the stream tells, and acts by the API.
import {clock, duration, h, language, listen, morph, now, post, t, tn} from "./live.js";

const at = (id) => document.getElementById(id);
const {prefix} = document.body.dataset;
const first = JSON.parse(at("admin-data").textContent);
// what was told last
const told = {map: [], line: {total: 0, items: []}, servers: [], bookings: [], groups: []};
const acts = first.acts;

// -- drawing -----------------------------------------------------------------------------------

// element -> what it was drawn from
const drawn = new WeakMap();

// Keep one child for each item, in order, and touch only those whose item differs.
function draw(place, items, key, make, empty) {
  const keys = new Set(items.map(key));
  const known = new Map();
  for (const child of [...place.children])
    if (keys.has(child.dataset.key)) known.set(child.dataset.key, child);
    else child.remove();
  let next = place.firstElementChild;
  for (const item of items) {
    const name = key(item);
    const said = JSON.stringify(item);
    let element = known.get(name);
    if (!element) element = make(item);
    else if (drawn.get(element) !== said) morph(element, make(item, name));
    element.dataset.key = name;
    drawn.set(element, said);
    if (element === next) next = next.nextElementSibling;
    else place.insertBefore(element, next);
  }
  if (!items.length) place.replaceChildren(empty());
}
const nothing = (columns, text) => () => h("tr", {}, h("td", {colspan: columns}, text));

const badge = (kind, text) => h("span", {class: `badge ${kind === "plain" ? "border text-body" : `text-bg-${kind}`}`}, text);
const simulated = (item) => (item.simulated ? [badge("warning", "SIMULATED"), " "] : []);
const since = (value) => h("time", {"data-since": value}, duration(now() - value));
const until = (value) => h("time", {"data-until": value}, duration(value - now()));
const number = new Intl.NumberFormat(language, {maximumFractionDigits: 2});
// of what was used for seconds, too: that something was
const hours = (value) => (value > 0 && value < 0.01 ? `< ${number.format(0.01)}` : number.format(value));
const gibibytes = (bytes) => `${number.format(bytes / 2 ** 30)} GiB`;

// a button that says for whom it is to those who don't see where it stands
const button = (text, act, name, about, kind = "outline-contrast") =>
  acts
    ? h("button", {type: "button", class: `btn btn-sm btn-${kind}`, "data-act": act, "data-name": name, "data-about": about,
        "aria-label": `${text}: ${about}`}, text)
    : null;

const STATES = {
  free: () => badge("plain", t("free")),
  busy: () => badge("primary", t("in use")),
  kept: () => badge("warning", t("kept free")),
  out: () => badge("danger", t("unavailable")),
};
const HEALTH = {
  ok: () => t("healthy"),
  suspect: () => t("perhaps broken"),
  bad: () => t("broken"),
  missing: () => t("not there"),
  quarantined: () => t("hangs"),
};

function keeping(kind, name, admin, about) {
  return admin === "open"
    ? [button(t("Cordon"), `${kind}-cordoned`, name, about), button(t("Drain"), `${kind}-draining`, name, about)]
    : [button(t("Uncordon"), `${kind}-open`, name, about)];
}

function deviceItem(device, node) {
  const about = `${node.name}, GPU ${device.index}`;
  const why = [device.why, device.note].filter(Boolean).join(" ");
  const work = device.computes === null ? null : device.computes ? t("computes") : t("does not compute");
  return h("li", {class: "gpus-device", "data-state": device.state, "data-device": device.id, "data-key": device.id},
    h("div", {}, h("strong", {}, `GPU ${device.index}`), " ", STATES[device.state](), " ", ...simulated(device)),
    h("div", {title: device.id}, `${device.model}, ${gibibytes(device.memory)}`),
    h("div", {class: device.health === "ok" ? "note" : "gpus-bad"},
      HEALTH[device.health](), work && device.state === "busy" ? `, ${work}` : "",
      device.admin === "draining" ? [", ", t("being emptied")] : device.admin === "cordoned" ? [", ", t("kept free")] : ""),
    why ? h("div", {class: "note"}, why) : null,
    device.holders.map((one) => h("div", {}, h("strong", {class: "name"}, one.server), " ", t("since"), " ", since(one.since))),
    h("div", {class: "gpus-acts"}, keeping("device", device.id, device.admin, about),
      device.holders.map((one) => button(t("Evict"), "evict", one.lease, one.server, "outline-contrast gpus-hot"))));
}

const NODES = {up: () => badge("success", t("up")), silent: () => badge("warning", t("silent")), down: () => badge("danger", t("down"))};

// what can be said of a machine that does not answer, and of what is left of one that was gone
function leaving(node) {
  const left = node.devices.some((one) => one.holders.some((held) => held.server.startsWith("lost/")));
  return [
    node.state === "silent" ? button(t("Gone for good"), "lost", node.name, node.name, "outline-contrast gpus-hot") : null,
    left ? button(t("Nothing runs there"), "emptied", node.name, node.name, "outline-contrast gpus-hot") : null];
}

function nodeItem(node) {
  const free = node.devices.filter((one) => one.state === "free").length;
  return h("article", {class: "gpus-node", "data-node": node.name, "data-key": node.name},
    h("header", {},
      h("h3", {class: "name"}, node.name), NODES[node.state](),
      node.admin === "open" ? null : badge("warning", node.admin === "draining" ? t("being emptied") : t("kept free")),
      h("span", {}, t("{n} of {m} free", {n: free, m: node.devices.length})),
      h("span", {class: "note"}, t("memory {n} of {m}", {n: gibibytes(node.memory_granted), m: gibibytes(node.memory_budget)})),
      node.waiting ? h("span", {}, tn("{n} request waits for it", "{n} requests wait for it", node.waiting)) : null,
      node.why ? h("span", {class: "gpus-bad"}, node.why) : null,
      node.pulls.map((one) => h("span", {class: "note"}, t("pulls {image}: {state}", {image: one.image, state: one.state}))),
      keeping("node", node.name, node.admin, node.name), ...leaving(node)),
    h("ul", {class: "gpus-devices"}, node.devices.map((one) => deviceItem(one, node))));
}

const SHOW = {
  map(nodes) {
    draw(at("map-body"), nodes, (node) => node.name, nodeItem, () => h("p", {}, t("No machine is known.")));
    const all = nodes.flatMap((node) => node.devices);
    const counts = {free: 0, busy: 0, kept: 0, out: 0};
    for (const one of all) counts[one.state] += 1;
    put("map-sum", t("{all} GPUs: {free} free, {busy} in use, {kept} kept free, {out} unavailable", {all: all.length, ...counts}));
  },
  line(line) {
    draw(at("line-body"), line.items, (one) => one.id, lineRow, nothing(8, t("Nobody waits.")));
    const more = line.total - line.items.length;
    put("line-sum", [tn("{n} request waits.", "{n} requests wait.", line.total),
      more > 0 ? t("The first {n} are shown.", {n: line.items.length}) : ""].join(" ").trim());
  },
  servers(servers) {
    draw(at("servers-body"), servers, (one) => one.id, serverRow, nothing(8, t("No server runs.")));
  },
  bookings: calendar,
  groups(groups) {
    draw(at("groups-body"), groups, (one) => one.name, groupRow, nothing(8, t("No group is known.")));
  },
  status(status) {
    at("phase").hidden = !status.reason;
  },
};

function put(id, text) {
  if (at(id).textContent !== text) at(id).textContent = text;
}

const lineRow = (one) =>
  h("tr", {},
    h("td", {}, one.position), h("td", {class: "name"}, one.server), h("td", {}, one.gpus), h("td", {}, since(one.since)),
    h("td", {}, one.expected_at === null ? "-" : until(one.expected_at)), h("td", {}, one.why), h("td", {}, one.priority),
    h("td", {class: "text-nowrap"}, button(t("Priority"), "priority", one.id, one.server), " ",
      button(t("Cancel"), "cancel", one.id, one.server, "outline-contrast gpus-hot")));

const serverRow = (one) =>
  h("tr", {"data-server": one.server},
    h("td", {class: "name"}, one.server), h("td", {}, one.profile), h("td", {}, one.node), h("td", {}, one.indexes.join(", ") || t("none")),
    h("td", {}, one.state, one.uncertain ? [" (", t("its machine does not answer"), ")"] : ""), h("td", {}, since(one.since)),
    h("td", {}, one.stop_at !== null ? [t("stops in"), " ", until(one.stop_at)] : one.ends_at === null ? "-" : until(one.ends_at)),
    h("td", {}, button(t("Evict"), "evict", one.id, one.server, "outline-contrast gpus-hot")));

const any = (value, none) => (value === null ? none : number.format(value));

function groupRow(group) {
  const part = group.budget_hours ? Math.min(1, group.spent_hours / group.budget_hours) : 0;
  const label = t("Budget of {group}", {group: group.name});
  return h("tr", {},
    h("td", {class: "name"}, group.name), h("td", {}, group.held), h("td", {}, any(group.limit, "-")), h("td", {}, any(group.quota, "-")),
    h("td", {}, group.quota === null ? "-" : any(group.borrow, t("any number"))), h("td", {}, group.waiting), h("td", {}, group.priority),
    h("td", {}, group.budget_hours === null ? "-" : [
      h("progress", {max: 1, value: part, "aria-label": label}), " ",
      t("{n} of {m}, new in {left}", {n: number.format(group.spent_hours), m: number.format(group.budget_hours), left: duration(group.period_ends_at - now())})]));
}

// -- bookings ----------------------------------------------------------------------------------

// weeks from this one
let week = 0;
const DAYS = 7;

function weekDays() {
  const monday = new Date(now() * 1000);
  monday.setHours(0, 0, 0, 0);
  monday.setDate(monday.getDate() - ((monday.getDay() + 6) % 7) + DAYS * week);
  return Array.from({length: DAYS + 1}, (_, n) => {
    const day = new Date(monday);
    day.setDate(day.getDate() + n);
    return day;
  });
}

function calendar(bookings) {
  const days = weekDays();
  const form = new Intl.DateTimeFormat(language, {weekday: "short", day: "numeric", month: "short"});
  const today = new Date(now() * 1000).toDateString();
  const shown = days.slice(0, DAYS);
  const title = new Intl.DateTimeFormat(language, {dateStyle: "medium"});
  put("week-title", title.formatRange(shown[0], shown[DAYS - 1]));
  draw(at("week-head"), shown, (day) => `${+day}`, (day) => h("th", {scope: "col"}, form.format(day)), () => "");
  const cells = shown.map((day, n) => ({
    day: +day,
    today: day.toDateString() === today,
    bookings: bookings.filter((one) => one.starts_at * 1000 < days[n + 1] && one.ends_at * 1000 > day),
  }));
  draw(at("week-body"), cells, (cell) => `${cell.day}`,
    (cell) => h("td", {class: cell.today && "gpus-today", "data-key": `${cell.day}`}, cell.bookings.map(bookingItem)), () => "");
}

function bookingItem(one) {
  const whom = [...one.groups, ...one.users].join(", ");
  const name = one.name || one.id;
  return h("div", {class: "gpus-booking", "data-booking": one.id},
    h("strong", {class: "name"}, name), h("div", {}, tn("{n} GPU for {whom}", "{n} GPUs for {whom}", one.devices.length, {whom})),
    h("div", {class: "note"}, `${exact(one.starts_at)} – ${exact(one.ends_at)}`),
    button(t("Remove"), "unbook", one.id, name));
}
const exact = (value) => new Intl.DateTimeFormat(language, {dateStyle: "short", timeStyle: "short"}).format(new Date(value * 1000));

for (const [id, step] of [["week-before", -1], ["week-after", 1], ["week-now", 0]])
  at(id).addEventListener("click", () => {
    week = step === 0 ? 0 : week + step;
    calendar(told.bookings);
  });

// -- usage and audit -----------------------------------------------------------------------------

async function get(path) {
  // the Hub's library wants the token for what is no navigation
  const answer = await fetch(prefix + path, {headers: {"X-XSRFToken": document.body.dataset.xsrf}});
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.message);
  return said;
}

const seconds = (day, end) => {
  const date = new Date(`${day}T00:00`);
  if (end) date.setDate(date.getDate() + 1);
  return Math.round(date / 1000);
};

function usageQuery() {
  const form = new FormData(at("usage-form"));
  const query = new URLSearchParams({by: form.get("by"), period: form.get("period")});
  if (form.get("from")) query.set("from", seconds(form.get("from"), false));
  if (form.get("to")) query.set("to", seconds(form.get("to"), true));
  return query;
}

async function usage() {
  const query = usageQuery();
  at("usage-csv").href = `${prefix}api/usage.csv?${query}`;
  const {items, total} = await get(`api/usage?limit=500&${query}`);
  const who = (row) => row.who || (query.get("by") === "all" ? t("all together") : t("no group"));
  const date = new Intl.DateTimeFormat(language, {dateStyle: "medium"});
  const shown = items.map((row) => ({...row, who: who(row), from: date.format(new Date(row.starts_at * 1000))}));
  draw(at("usage-body"), shown, (row) => `${row.starts_at} ${row.who}`, (row) =>
    h("tr", {}, h("td", {}, row.from), h("td", {class: "name"}, row.who), h("td", {}, row.servers),
      ["reserved", "used", "wasted", "unknown"].map((name) => h("td", {}, hours(row[`${name}_hours`])))),
  nothing(7, t("No GPU was used.")));
  chart(shown, query.get("period") !== "all");
  if (total > items.length) put("told", t("The first {n} are shown.", {n: items.length}));
}

// bars of used, wasted and unknown hours; the table below says the same
function chart(rows, dated) {
  const bars = rows.slice(0, 15);
  const most = Math.max(...bars.map((row) => row.reserved_hours), 0.01);
  const high = 26;
  const names = {used: t("used"), wasted: t("wasted"), unknown: t("unknown")};
  const lines = bars.map((row, n) => {
    let x = 200;
    const label = dated ? `${row.from} ${row.who}` : row.who;
    const parts = Object.keys(names).map((name) => {
      const width = (row[`${name}_hours`] / most) * 480;
      x += width;
      return h("rect", {class: name, x: x - width, y: n * high + 4, width, height: high - 8});
    });
    const short = label.length > 26 ? `${label.slice(0, 25)}…` : label;
    return h("g", {}, h("text", {x: 0, y: n * high + 18}, short), parts, h("text", {x: x + 6, y: n * high + 18}, hours(row.reserved_hours)));
  });
  const legend = Object.entries(names).map(([name, text], n) =>
    h("g", {}, h("rect", {class: name, x: 200 + n * 120, y: bars.length * high + 6, width: 12, height: 12}),
      h("text", {x: 218 + n * 120, y: bars.length * high + 17}, text)));
  const box = `0 0 760 ${bars.length * high + 26}`;
  at("usage-chart").replaceChildren(...(bars.length
    ? [h("svg", {class: "gpus-chart", viewBox: box, role: "img", "aria-label": t("GPU hours as bars; the table says the same")}, lines, legend)] : []));
}

let oldest = null;
let notes = [];
async function audit(more = false) {
  // a group's leader does not see it
  if (!at("audit")) return;
  const {items, next} = await get(`api/audit?limit=50${more && oldest ? `&before=${oldest}` : ""}`);
  notes = more ? [...notes, ...items] : items;
  oldest = next;
  at("audit-more").hidden = next === null;
  draw(at("audit-body"), notes, (one) => `${one.seq}`, (one) =>
    h("tr", {}, h("td", {class: "text-nowrap"}, clock(one.time)), h("td", {class: "name"}, one.subject || one.kind), h("td", {class: "name"}, one.text)),
  nothing(3, t("Nothing was done yet.")));
}

// -- acting ------------------------------------------------------------------------------------

const field = (label, name, attributes = {}) => h("label", {}, label, h("input", {name, class: "form-control", ...attributes}));

// Ask in a dialog; the form's data, or null.
function ask(title, yes, ...fields) {
  const box = at("ask");
  put("ask-title", title);
  put("ask-yes", yes);
  at("ask-fields").replaceChildren(...fields);
  box.returnValue = "";
  box.showModal();
  return new Promise((resolve) => {
    box.addEventListener("close", () => resolve(box.returnValue === "yes" ? new FormData(at("ask-form")) : null), {once: true});
  });
}
at("ask-no").addEventListener("click", () => at("ask").close(""));
at("ask-form").addEventListener("submit", (event) => {
  event.preventDefault();
  at("ask").close("yes");
});

const note = () => field(t("Why (other admins read it)"), "note", {maxlength: 200});
const path = (...parts) => `api/${parts.map(encodeURIComponent).join("/")}`;
const keep = (kind, admin, yes) => async (name, about) => {
  const said = admin === "open" ? new FormData() : await ask(about, yes(), note());
  return said && post(path(kind, name, "admin"), {admin, note: said.get("note") ?? ""});
};
const ACTS = {
  async evict(name, about) {
    const said = await ask(t("Stop the server of {who}?", {who: about}), t("Evict"), field(t("Message to its user"), "message", {maxlength: 200}));
    return said && post(path("leases", name, "evict"), {message: said.get("message")});
  },
  async lost(name, about) {
    const said = await ask(t("Is {node} gone for good? Its servers are over for their users.", {node: about}), t("Gone for good"), note());
    return said && post(path("nodes", name, "lost"), {note: said.get("note")});
  },
  async emptied(name, about) {
    const said = await ask(t("Is it certain that nothing of {node} runs any more? Its GPUs are given out again when it is back.", {node: about}),
      t("Give its GPUs back"), note());
    return said && post(path("nodes", name, "lost"), {empty: true, note: said.get("note")});
  },
  async cancel(name, about) {
    return (await ask(t("Cancel the request of {who}?", {who: about}), t("Cancel the request"))) && post(path("queue", name, "cancel"));
  },
  async priority(name, about) {
    const value = told.line.items.find((one) => one.id === name)?.priority ?? 0;
    const number = field(t("Priority: higher is first, 0 is like the others"), "priority", {type: "number", min: -1000, max: 1000, step: 1, value, required: true});
    const said = await ask(t("Priority of {who}", {who: about}), t("Set"), number);
    return said && post(path("queue", name, "priority"), {priority: Number(said.get("priority"))});
  },
  async unbook(name, about) {
    return (await ask(t("Remove the booking {name}?", {name: about}), t("Remove"))) && post(path("bookings", name, "cancel"));
  },
  async book() {
    const devices = told.map.flatMap((node) => node.devices.map((one) => h("option", {value: one.id}, `${node.name} GPU ${one.index}: ${one.model}`)));
    const when = (name, label) => field(label, name, {type: "datetime-local", required: true});
    const said = await ask(t("Book GPUs"), t("Book"), field(t("What for (everybody may read it)"), "name", {maxlength: 200}),
      h("label", {}, t("GPUs"), h("select", {name: "devices", class: "form-control", multiple: true, required: true, size: 6}, devices)),
      field(t("Groups, with commas between"), "groups"), field(t("Users, with commas between"), "users"),
      when("from", t("From")), when("to", t("To")));
    const list = (name) => said.get(name).split(",").map((one) => one.trim()).filter(Boolean);
    const time = (name) => new Date(said.get(name)) / 1000;
    return said && post("api/bookings", {name: said.get("name"), devices: said.getAll("devices"), groups: list("groups"), users: list("users"),
      starts_at: time("from"), ends_at: time("to")});
  },
};
for (const [admin, yes] of [["open", () => ""], ["cordoned", () => t("Cordon")], ["draining", () => t("Drain")]]) {
  ACTS[`device-${admin}`] = keep("devices", admin, yes);
  ACTS[`node-${admin}`] = keep("nodes", admin, yes);
}

async function attempt(work, done = "") {
  try {
    if (await work()) put("told", done);
    at("said").hidden = true;
  } catch (error) {
    put("said", error.message || t("It did not work."));
    at("said").hidden = false;
    at("said").scrollIntoView({block: "nearest"});
  }
}

async function act(name, target, about) {
  await attempt(() => ACTS[name](target, about), t("Done: {what}", {what: about}));
  await attempt(() => audit());
}

document.addEventListener("click", (event) => {
  const found = event.target.closest("button[data-act]");
  if (found) act(found.dataset.act, found.dataset.name, found.dataset.about);
});
at("book")?.addEventListener("click", () => act("book", "", t("Book GPUs")));
at("usage-form").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(usage);
});
at("usage-form").addEventListener("change", () => attempt(usage));
at("audit-more")?.addEventListener("click", () => attempt(() => audit(true)));

const topics = {};
for (const [name, show] of Object.entries(SHOW)) {
  topics[name] = (data) => {
    told[name] = data;
    show(data);
  };
  if (name in first) topics[name](first[name]);
}
// for who measures it: all that the page came with is on the screen
requestAnimationFrame(() => setTimeout(() => performance.mark("gpus-drawn")));
listen(`${prefix}events/admin`, topics);
attempt(usage);
attempt(() => audit());

// What all pages share: texts in the page's language, elements made of text and never of markup,
// parts that are replaced as they change, and the stream that brings them.
import {login} from "./hub.js";

let catalogue = JSON.parse(document.getElementById("gpus-words")?.textContent ?? "{}");
export let language = document.documentElement.lang || "en";

// On the Hub's pages: the texts that the service has for this browser. `wanted`: the site's choice
export async function loadWords(prefix, wanted = "") {
  try {
    const answer = await fetch(`${prefix}words?language=${encodeURIComponent(wanted)}`);
    const found = await answer.json();
    catalogue = found.texts;
    language = found.language;
  } catch {
    // English it is
  }
}

const fill = (text, values) =>
  text.replace(/\{(\w+)\}/g, (slot, name) => (name in values ? String(values[name]) : slot));

// t("{n} of {m} free", {n: 1, m: 2}); the English text is the key
export function t(text, values = {}) {
  const found = catalogue[text] ?? text;
  return fill(Array.isArray(found) ? found[0] : found, values);
}

// tn("{n} request waits", "{n} requests wait", 3)
export function tn(one, many, n, values = {}) {
  const found = catalogue[one];
  const forms = Array.isArray(found) ? found : [one, many];
  return fill(n === 1 ? forms[0] : forms[forms.length - 1], {n, ...values});
}

// h("button", {type: "button", onclick: work}, "Stop"): children are text or elements
export function h(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "line", "rect", "title", "polyline", "circle", "g", "text"].includes(tag);
  const element = svg
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined)
      element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

// Make `old` like `fresh`, touching only what differs: focus, selection, and open details stay.
export function morph(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  for (const {name} of [...old.attributes])
    if (!fresh.hasAttribute(name) && !kept(old, name)) old.removeAttribute(name);
  for (const {name, value} of fresh.attributes)
    if (old.getAttribute(name) !== value && !kept(old, name)) old.setAttribute(name, value);
  const known = new Map();
  for (const child of old.children) if (child.id) known.set(child.id, child);
  let at = old.firstChild;
  for (const wanted of [...fresh.childNodes]) {
    const same = wanted.id ? known.get(wanted.id) : at && !at.id && alike(at, wanted) ? at : null;
    if (!same) {
      old.insertBefore(document.importNode(wanted, true), at);
      continue;
    }
    if (same !== at) old.insertBefore(same, at);
    else at = at.nextSibling;
    if (same.nodeType !== Node.ELEMENT_NODE) {
      if (same.data !== wanted.data) same.data = wanted.data;
    } else if (!same.hasAttribute("data-keep")) morph(same, wanted);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}
const alike = (one, other) => one.nodeType === other.nodeType && one.nodeName === other.nodeName;
// what the person at the page has changed
const kept = (element, name) => element.nodeName === "DETAILS" && name === "open";

// Replace the inside of an element by a part that the service has rendered (and escaped).
export function replace(element, html) {
  const fresh = element.cloneNode(false);
  const parsed = new DOMParser().parseFromString(`<body>${html}`, "text/html").body;
  fresh.append(...parsed.childNodes);
  morph(element, fresh);
  tick();
}

// seconds that the service's clock is ahead of the browser's
let ahead = 0;
export const now = () => Date.now() / 1000 + ahead;

export function duration(seconds) {
  const minutes = Math.max(0, Math.round(seconds / 60));
  if (seconds < 60) return t("{n} s", {n: Math.max(0, Math.round(seconds))});
  if (minutes < 60) return t("{n} min", {n: minutes});
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? t("{h} h {m} min", {h: hours, m: minutes % 60}) : t("{n} h", {n: hours});
  return t("{n} days", {n: Math.round(hours / 24)});
}

// <time data-until="POSIX seconds"> says how long until then, data-since how long since;
// data-at is the time itself in the browser's zone
function tick() {
  for (const element of document.querySelectorAll("time[data-until], time[data-since], time[data-at]")) {
    const {until, since, at} = element.dataset;
    const said =
      until !== undefined ? duration(until - now())
      : since !== undefined ? duration(now() - since)
      : clock(Number(at));
    if (element.textContent !== said) element.textContent = said;
  }
}
export function clock(at) {
  const near = Math.abs(at - now()) < 20 * 3600;
  const shape = near ? {timeStyle: "short"} : {dateStyle: "medium", timeStyle: "short"};
  return new Intl.DateTimeFormat(language, shape).format(new Date(at * 1000));
}
setInterval(tick, 1000);
tick();

// POST to our API with the page's token; throws an Error that people can read
export async function post(path, body = {}) {
  const {prefix, xsrf} = document.body.dataset;
  const answer = await fetch(prefix + path, {
    method: "POST",
    headers: {"Content-Type": "application/json", "X-XSRFToken": xsrf},
    body: JSON.stringify(body),
  });
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(said.message || t("It did not work ({status}).", {status: answer.status}));
  return said;
}

// seconds of silence after which a connection is taken for dead (the service beats every 15)
const SILENCE = 40;

// Listen to the events of a page: {topic: (data) => ...}. Connects again by itself, for ever.
// onState hears true (connected) and false.
export function listen(url, topics, onState = showState) {
  let source = null;
  let heard = Date.now();
  let delay = 1;
  let again = null;
  const alive = () => {
    heard = Date.now();
    delay = 1;
    onState(true);
  };
  const broken = () => {
    onState(false);
    // closed: it was refused, as who is not logged in at the service (any more) is
    const refused = source?.readyState === EventSource.CLOSED;
    source?.close();
    clearTimeout(again);
    again = setTimeout(async () => {
      if (refused) await login(url.slice(0, url.lastIndexOf("events/")));
      connect();
    }, delay * 1000 * (0.5 + Math.random()));
    delay = Math.min(delay * 2, 10);
  };
  function connect() {
    source?.close();
    heard = Date.now();
    source = new EventSource(url);
    source.onopen = alive;
    source.onerror = broken;
    source.addEventListener("beat", (event) => {
      alive();
      ahead = JSON.parse(event.data).now - Date.now() / 1000;
    });
    for (const [name, hear] of Object.entries(topics))
      source.addEventListener(name, (event) => {
        alive();
        hear(JSON.parse(event.data));
      });
  }
  setInterval(() => {
    if (Date.now() - heard > SILENCE * 1000) broken();
  }, 5000);
  addEventListener("pagehide", () => {
    clearTimeout(again);
    source?.close();
  });
  addEventListener("pageshow", (event) => event.persisted && connect());
  connect();
}

let late = null;
// says on the page that it is not up to date, where that lasts
function showState(connected) {
  const place = document.getElementById("gpus-live");
  if (!place) return;
  if (connected) {
    clearTimeout(late);
    late = null;
    place.hidden = true;
  } else if (!late)
    late = setTimeout(() => {
      place.textContent = t("The connection is lost. What you see may be old; it is being tried again.");
      place.hidden = false;
    }, 4000);
}

// A page whose parts are all rendered by the service: topic -> the element's id
export function livePage(url, parts = {}) {
  for (const element of document.querySelectorAll("[data-live]")) {
    let lines = [];
    parts[element.dataset.live] = (said) => {
      // all of it, or what has changed since: [first line, how many go, which come instead]
      if (typeof said === "string") lines = said.split("\n");
      else for (const [at, gone, fresh] of said.changes) lines.splice(at, gone, ...fresh);
      replace(element, lines.join("\n"));
    };
  }
  listen(url, parts);
}
// 1610612736 -> "1.5 GiB"
export function memory(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let n = bytes;
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) {
    n /= 1024;
    unit++;
  }
  return `${n >= 100 || unit === 0 ? Math.round(n) : Number(n.toFixed(1))} ${units[unit]}`;
}

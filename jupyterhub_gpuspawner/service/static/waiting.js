// The Hub's pending page: the place in the queue, and what can be done while waiting.
import {clock, h, listen, loadWords, morph, t, tn} from "./live.js";
import {cancelStart, hubCall, login} from "./hub.js";

const root = document.getElementById("gpus-waiting");
const place = {...root.dataset};
const card = root.querySelector(".gpus-waiting-card");
const change = document.getElementById("gpus-change");
const title = document.title;
let told = "";
let waits = null;
let leaving = false;

function buttons(mine) {
  const tell = "Notification" in window && Notification.permission === "default" && isSecureContext;
  return h(
    "div",
    {class: "d-flex flex-wrap gap-2 mt-3"},
    h("button", {type: "button", class: "btn btn-sm btn-outline-danger", id: "gpus-cancel"}, t("Cancel the request")),
    tell
      ? h("button", {type: "button", class: "btn btn-sm btn-outline-contrast", id: "gpus-notify"}, t("Notify me when it starts"))
      : null,
    h("a", {class: "btn btn-sm btn-outline-contrast", href: place.prefix}, t("My servers")),
  );
}

function shown(mine) {
  const ahead =
    mine.ahead === 0
      ? t("you are next")
      : tn("{n} request is ahead of yours", "{n} requests are ahead of yours", mine.ahead) +
        " (" + tn("of {n} other user", "of {n} other users", mine.ahead_users) + ", " +
        tn("for {n} GPU", "for {n} GPUs", mine.ahead_gpus) + ")";
  return h(
    "div",
    {class: "card gpus-waiting-card"},
    h(
      "div",
      {class: "card-body"},
      h("h1", {class: "fs-4", id: "gpus-position"}, t("Waiting for a GPU: position {n}", {n: mine.position})),
      h("p", {class: "mb-1", id: "gpus-why"}, mine.why),
      h(
        "ul",
        {class: "mb-2"},
        h("li", {}, ahead),
        h(
          "li",
          {id: "gpus-expected"},
          mine.expected_at
            ? [t("expected to start at {time}", {time: clock(mine.expected_at)}), " (", h("time", {"data-until": mine.expected_at}), ")"]
            : t("nobody can say yet when it starts"),
        ),
        h("li", {}, t("waits for"), " ", h("time", {"data-since": mine.since})),
      ),
      h("p", {class: "note mb-0"}, t("You may close this page: your place is kept, and the server starts when its turn comes.")),
      buttons(mine),
    ),
  );
}

function draw(data) {
  const mine = data.waiting.find((one) => one.name === place.server) ?? null;
  const running = data.servers.find((one) => one.name === place.server && one.state !== "stopping");
  if (mine) {
    root.hidden = false;
    change.hidden = false;
    morph(card, shown(mine));
    document.title = t("Position {n}", {n: mine.position}) + " · " + title;
    // what a screen reader says: only when the place changes, not when the time does
    const news = t("Waiting for a GPU: position {n}", {n: mine.position});
    if (news !== told) voice.textContent = told = news;
  } else if (waits && running) granted(running);
  else if (waits && !leaving) elsewhere();
  waits = mine ?? waits;
}

function granted(server) {
  change.hidden = true;
  const what = server.gpus.map((gpu) => `GPU ${gpu.index}`).join(", ");
  const news = t("Your server is granted: {what} on {node}", {what, node: server.node});
  morph(card, h("div", {class: "card gpus-waiting-card"}, h("div", {class: "card-body"}, h("h1", {class: "fs-4", id: "gpus-position"}, news))));
  if (news === told) return;
  voice.textContent = told = news;
  document.title = title;
  if ("Notification" in window && Notification.permission === "granted")
    new Notification(t("Your server is starting"), {body: news, tag: `gpus-${server.id}`});
  follow();
}

// The Hub's own stream leads to the server. After a restart of the Hub it is silent: look as well.
async function follow() {
  for (;;) {
    await new Promise((done) => setTimeout(done, 3000));
    const found = await state();
    if (found && (found.ready || !found.pending)) return location.reload();
  }
}

async function state() {
  const answer = await hubCall(place, "GET", `users/${encodeURIComponent(place.user)}`).catch(() => null);
  return answer?.ok ? ((await answer.json()).servers?.[place.server] ?? {}) : null;
}

// It is in the queue no more and holds nothing: cancelled in another window, or refused.
async function elsewhere() {
  const found = await state();
  if (found && !found.pending) location.reload();
}

const voice = h("div", {class: "visually-hidden", role: "status"});
root.append(voice);

function cancelButton() {
  // the Hub's own button stops the default server, whichever page it is on
  document.getElementById("stop-server-btn")?.closest("div")?.remove();
}

root.addEventListener("click", async (event) => {
  if (event.target.id === "gpus-notify") {
    await Notification.requestPermission();
    event.target.remove();
  } else if (event.target.id === "gpus-cancel") {
    event.target.disabled = true;
    leaving = true;
    await cancelStart(place).catch((error) => voice.replaceChildren(error.message));
    location.href = `${place.hub}home`;
  }
});

change.querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  const button = form.querySelector("button[type=submit]");
  button.disabled = leaving = true;
  try {
    // The place is kept for some seconds, and given to what is asked for then if that is less.
    await cancelStart(place);
    form.submit();
  } catch (error) {
    button.disabled = leaving = false;
    voice.textContent = error.message;
  }
});

await loadWords(place.prefix, place.language);
change.querySelector("summary").textContent = t("Ask for something else");
document.getElementById("gpus-change-about").textContent = t(
  "Who asks for less of the same keeps the place; who asks for more, or for other GPUs, goes to the end.",
);
change.querySelector("button[type=submit]").textContent = t("Ask for this instead");
if (window.jhdata?.user === place.user) {
  await login(place.prefix);
  cancelButton();
  listen(`${place.prefix}events/waiting`, {waiting: draw});
}

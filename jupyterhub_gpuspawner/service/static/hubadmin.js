// The Hub's own admin page: in each server's row, the GPUs that it has.
import {h, listen, loadWords, t} from "./live.js";
import {login} from "./hub.js";

const root = document.getElementById("gpus-admin");
const table = document.getElementById("react-admin-hook");
const {prefix} = root.dataset;
// "user" or "user/server" -> its lease
let leases = new Map();

function words(lease) {
  if (!lease) return "";
  const {node, profile} = lease;
  if (!lease.indexes.length) return t("{profile}: no GPU, on {node}", {profile, node});
  const gpus = `${lease.simulated ? "SIMULATED " : ""}GPU ${lease.indexes.join(", ")}`;
  return t("{profile}: {gpus} on {node}", {profile, gpus, node});
}

// The rows are the Hub's, which makes and removes them as it likes: ours is one line at the end of
// a cell, and only touched where it says something else.
function draw() {
  for (const row of table.querySelectorAll("tr.user-row")) {
    const user = row.querySelector("[data-testid^='user-name-div-']")?.textContent;
    const cell = row.querySelector("[data-testid='user-row-server']");
    if (user === undefined || !cell) continue;
    const server = cell.querySelector("p")?.textContent;
    const said = words(leases.get(server ? `${user}/${server}` : user));
    let line = cell.querySelector(".gpus-held");
    if (!line && said) cell.append((line = h("div", {class: "gpus-held note name"})));
    if (line && line.textContent !== said) line.textContent = said;
  }
}

await loadWords(prefix);
root.querySelector("a").textContent = t("GPU administration");
await login(prefix);
new MutationObserver(draw).observe(table, {childList: true, subtree: true});
listen(`${prefix}events/servers`, {
  servers: (servers) => {
    leases = new Map(servers.map((one) => [one.server, one]));
    draw();
  },
});

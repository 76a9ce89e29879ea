// My servers: buttons that act without leaving the page.
import {post, t} from "./live.js";

const said = document.getElementById("gpus-said");
const {prefix} = document.body.dataset;

document.addEventListener("submit", async (event) => {
  const form = event.target.closest("form.gpus-act");
  if (!form) return;
  event.preventDefault();
  if (form.dataset.confirm && !confirm(form.dataset.confirm)) return;
  const button = form.querySelector("button");
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

// For our parts of the Hub's own pages: the login at the service without leaving the page, and
// calls of the Hub's API.

// The service knows its own login cookie only; this gets one, by the Hub's redirects.
export async function login(prefix) {
  // a mode without CORS is one that the Hub lets pass without the token of a form
  await fetch(`${prefix}hello`, {mode: "no-cors", credentials: "same-origin"}).catch(() => {});
}

const serverPath = (user, server) =>
  `users/${encodeURIComponent(user)}/server${server ? `s/${encodeURIComponent(server)}` : ""}`;

export const hubCall = (place, method, path) =>
  fetch(`${place.hub}api/${path}`, {
    method,
    headers: {"X-XSRFToken": place.xsrf, "Content-Type": "application/json"},
  });

// Cancel a start, of a named server too, and wait until it is over.
export async function cancelStart(place) {
  const path = serverPath(place.user, place.server);
  for (let tries = 0; tries < 60; tries++) {
    const answer = await hubCall(place, "GET", `users/${encodeURIComponent(place.user)}`);
    if (answer.ok) {
      const found = (await answer.json()).servers?.[place.server];
      if (!found?.pending && !found?.ready) return;
      if (!found.pending || found.pending === "spawn") await hubCall(place, "DELETE", path);
    }
    await new Promise((done) => setTimeout(done, 500));
  }
  throw new Error("The Hub did not cancel it.");
}

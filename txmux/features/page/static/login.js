// Has the browser keep the token for this origin, host and port, as if it had been given to the browser's own dialogue.
"use strict";

const alert = document.querySelector("[role=alert]");

function refuse(text) {
  alert.textContent = text;
  alert.hidden = false;
}

// Without this program, a link has the browser ask.
const form = document.querySelector("form"), field = document.getElementById("token");
form.hidden = false;
field.focus();

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const token = field.value.trim();
  try {
    // A wrong one would have the browser ask by its dialogue.
    const answer = await fetch("healthz", { headers: { Authorization: "Bearer " + token }, credentials: "omit", cache: "no-store" });
    if (!answer.ok) throw new Error((await answer.json()).error);
  } catch (problem) {
    refuse(problem.message);
    return;
  }
  // Credentials of `open` are kept for later requests, those of `fetch` are not (https://xhr.spec.whatwg.org/#the-open()-method).
  const request = new XMLHttpRequest();
  request.open("GET", "/enter", true, "txmux", token);
  request.addEventListener("loadend", () => {
    if (!request.status) refuse("the service does not answer");
    else if (location.pathname === "/login") location.replace("/");
    else location.reload();
  });
  request.send();
});

"use strict";
// A page of another origin. An EventSource cannot send an Authorization header, so the token goes into the URL.

const AGAIN = 1000;    // milliseconds before we ask for a token again
const {hub, room} = document.body.dataset;
let lastId = "";       // a new EventSource knows nothing of the one before

async function freshToken() {
  const body = new URLSearchParams({room});
  const response = await fetch(hub + "/token", {method: "POST", credentials: "include", body});
  if (!response.ok) throw new Error((await response.json()).error);
  return (await response.json()).token;
}

async function follow() {
  try {
    open(await freshToken());
  } catch {
    later("no token: sign in at " + hub);
  }
}

function open(token) {
  const query = new URLSearchParams({zone: room, token});
  if (lastId) query.set("lastEventId", lastId);
  const source = new EventSource(`${hub}/events?${query}`);
  source.onopen = () => show("live");
  source.onerror = () => {
    // The browser comes back by itself, with the same URL. If its token has expired it is refused, and that is for
    // good: a new EventSource with a fresh token goes on where the old one stood.
    if (source.readyState === EventSource.CLOSED) later("refused: asking for a fresh token");
    else show("connecting");
  };
  source.onmessage = event => draw(JSON.parse(event.data));
  for (const type of ["message", "ssehub.open", "ssehub.cursor", "ssehub.gap"])
    source.addEventListener(type, event => lastId = event.lastEventId);
}

function later(state) {
  show(state);
  setTimeout(follow, AGAIN);
}

function draw({user, text}) {
  const line = document.createElement("li");
  line.textContent = `${user}: ${text}`;
  document.getElementById("messages").prepend(line);
}

function show(state) {
  document.getElementById("state").textContent = state;
}

follow();

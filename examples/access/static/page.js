"use strict";
// A page of the site itself: the session's cookie comes with the EventSource, so there is nothing to do.

const query = new URLSearchParams(JSON.parse(document.body.dataset.rooms).map(room => ["zone", room]));
const source = new EventSource("/events?" + query);
const state = document.getElementById("state");

source.onopen = () => state.textContent = "live";
source.onerror = () => {
  // Closed is for good: the answer was a 401 or 403, because we were signed out in another tab for instance.
  state.textContent = source.readyState === EventSource.CLOSED ? "refused: sign in again" : "connecting";
};
source.onmessage = event => {
  const {room, user, text} = JSON.parse(event.data);
  const line = document.createElement("li");
  line.textContent = `${user} in the ${room}: ${text}`;
  document.getElementById("messages").prepend(line);
};

document.getElementById("say").addEventListener("submit", event => {
  event.preventDefault();
  const body = JSON.stringify(Object.fromEntries(new FormData(event.target)));
  fetch("/say", {method: "POST", headers: {"Content-Type": "application/json"}, body});
  event.target.elements.text.value = "";
});

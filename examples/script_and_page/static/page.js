"use strict";
// The page draws only what the stream brings. Each event is the whole state of a job, so a replay changes nothing.

const notice = document.getElementById("notice");
const rows = new Map();  // by the job's id

const source = new EventSource("/events");
source.onopen = () => notice.textContent = "live";
source.onerror = () => {
  // Closed is for good: we were refused, because the application no longer knows our cookie.
  notice.textContent = source.readyState === EventSource.CLOSED ? "refused: load the page anew" : "connecting";
};
source.addEventListener("progress", event => draw(JSON.parse(event.data)));
source.addEventListener("ssehub.gap", () => {
  for (const row of rows.values())
    if (!row.querySelector("progress").hidden) row.querySelector("output").textContent = "may be lost: post it again";
});

function draw({job, text, done, of, result}) {
  const row = rows.get(job) || newRow(job);
  row.querySelector(".text").textContent = text;
  const bar = row.querySelector("progress");
  bar.max = of || 1;
  bar.value = done;
  bar.hidden = result !== null;
  row.querySelector("output").textContent = result ?? (of ? "" : "waiting");
}

function newRow(job) {
  const row = document.querySelector("template").content.firstElementChild.cloneNode(true);
  document.getElementById("jobs").prepend(row);
  rows.set(job, row);
  return row;
}

document.querySelector("form").addEventListener("submit", async event => {
  event.preventDefault();
  const body = JSON.stringify(Object.fromEntries(new FormData(event.target)));
  const response = await fetch("/jobs", {method: "POST", headers: {"Content-Type": "application/json"}, body});
  const answer = await response.json();
  notice.textContent = answer.error ?? (answer.workers ? "live" : "No worker is there. The job waits for one.");
  if (response.ok) event.target.reset();
});

"use strict";

const $ = selector => document.querySelector(selector);
let shown = -1;  // the number of votes that the page shows

function draw({votes, total}) {
  if (total < shown) return;  // of two votes at once the messages may come in another order
  shown = total;
  for (const item of document.querySelectorAll("[data-choice]")) {
    const count = votes[item.dataset.choice] ?? 0;
    item.querySelector("output").textContent = count;
    item.querySelector("meter").value = total ? count / total : 0;
  }
}

function mark(choice) {
  document.body.dataset.voted = choice;
  for (const button of document.querySelectorAll("[data-choice] button")) {
    button.disabled = true;
    button.setAttribute("aria-pressed", button.parentElement.dataset.choice === String(choice));
  }
}

async function vote(choice) {
  const response = await fetch(`vote/${choice}`, {
    method: "POST",
    headers: {"X-CSRFToken": $("[name=csrfmiddlewaretoken]").value},
  });
  const answer = await response.json();
  if (response.ok) mark(answer.voted);
  else $("#notice").textContent = answer.error;
}

function show(state) {
  $("#state").dataset.state = $("#state").textContent = state;
}

draw(JSON.parse($("#results").textContent));
if (document.body.dataset.voted) mark(document.body.dataset.voted);
for (const item of document.querySelectorAll("[data-choice]")) {
  item.querySelector("button").onclick = () => vote(item.dataset.choice);
}

// From where the page's own numbers were read: nothing falls in between.
const source = new EventSource("events?lastEventId=" + encodeURIComponent(document.body.dataset.cursor));
source.onopen = () => show("live");
source.onerror = () => show("connecting");
source.addEventListener("results", event => draw(JSON.parse(event.data)));
source.addEventListener("notice", event => { $("#notice").textContent = event.data; });
source.addEventListener("ssehub.gap", () => location.reload());

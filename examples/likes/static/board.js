"use strict";
// The likes board. What others have written is drawn as text (textContent), never as HTML.

const AGAIN = 3000;           // milliseconds before we try again what the browser has given up
const $ = id => document.getElementById(id);
const start = JSON.parse($("start").textContent);
const comments = new Map();   // id -> the newest state of the comment that we know
const mine = new Map();       // id -> whether I like it, and since which version
const rows = new Map();       // id -> its element
let lastId = start.cursor;    // where we stand in the stream

// What we know. Everything may come twice and in any order: from the page, the stream, an answer or the list. Only what
// has a higher version is news.

function isNews(known, state) {
  return !known || state.version > known.version;
}

function learn({liked, ...comment}) {
  if (isNews(comments.get(comment.id), comment)) comments.set(comment.id, comment);
  if (liked !== undefined) learnLiked({id: comment.id, liked, version: comment.version});
}

function learnLiked(state) {
  if (isNews(mine.get(state.id), state)) mine.set(state.id, state);
}

// The stream

function follow() {
  const source = new EventSource("events?lastEventId=" + encodeURIComponent(lastId));
  const on = (type, act) => source.addEventListener(type, event => {
    lastId = event.lastEventId;
    act(event);
  });
  source.onopen = () => show("live");
  source.onerror = () => {
    show("connecting");
    // The browser comes back by itself, but for an answer that is no stream: a proxy's 502 during a restart.
    if (source.readyState === EventSource.CLOSED) setTimeout(follow, AGAIN);
  };
  on("comment", event => { learn(JSON.parse(event.data)); draw(); });
  on("liked", event => { learnLiked(JSON.parse(event.data)); draw(); });
  on("ssehub.open", () => {});
  on("ssehub.cursor", () => {});
  on("ssehub.gap", refetch);  // the hub no longer has what we missed
}

async function refetch() {
  // The stream is open already: what changes from now on comes through it, and the versions sort it out.
  comments.clear();
  mine.clear();
  const answer = await ask("GET", "comments?limit=" + start.limit);
  if (!answer) return setTimeout(refetch, AGAIN);
  answer.comments.forEach(learn);
  draw();
}

function show(state) {
  $("state").dataset.state = $("state").textContent = state;
}

// Asking

async function ask(method, path, fields) {
  say("");
  try {
    const body = fields && JSON.stringify(fields);
    const response = await fetch(path, {method, body, headers: {"Content-Type": "application/json"}});
    const answer = await response.json();
    if (response.ok) return answer;
    say(answer.error);
  } catch {
    say("The board does not answer. Try again in a moment.");
  }
}

function say(text) {
  $("notice").textContent = text;
}

async function toggle(id) {
  const answer = await ask(mine.get(id)?.liked ? "DELETE" : "POST", `comments/${id}/like`);
  if (answer) learn(answer);
  draw();
}

$("add").addEventListener("submit", async event => {
  event.preventDefault();
  const {content, nickname} = event.target.elements;
  const answer = await ask("POST", "comments", {content: content.value, nickname: nickname.value});
  if (!answer) return;
  learn(answer);
  draw();
  content.value = "";
});

// Drawing

function draw() {
  const order = (a, b) => b.score - a.score || (a.id < b.id ? 1 : -1);
  const shown = [...comments.values()].sort(order).slice(0, start.limit);
  const focused = document.activeElement;
  $("comments").replaceChildren(...shown.map(rowOf));
  focused.focus({preventScroll: true});  // a button that is moved loses it
}

function rowOf(comment) {
  const row = rows.get(comment.id) || newRow(comment);
  const liked = Boolean(mine.get(comment.id)?.liked);
  const button = row.querySelector(".like");
  button.setAttribute("aria-pressed", liked);
  button.setAttribute("aria-label", `Like: ${comment.score} so far`);
  row.querySelector(".score").textContent = comment.score;
  return row;
}

function newRow(comment) {
  const row = $("row").content.firstElementChild.cloneNode(true);
  const at = new Date(comment.created_at * 1000);
  row.dataset.id = comment.id;
  row.querySelector(".nickname").textContent = comment.nickname;
  row.querySelector(".text").textContent = comment.content;
  row.querySelector("time").dateTime = at.toISOString();
  row.querySelector("time").textContent = at.toLocaleString([], {dateStyle: "medium", timeStyle: "short"});
  row.querySelector(".like").addEventListener("click", () => toggle(comment.id));
  rows.set(comment.id, row);
  return row;
}

start.comments.forEach(learn);
draw();
follow();

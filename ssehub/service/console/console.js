"use strict";
// The console of an ssehub service. Data from the network is shown as text, never as HTML.

const SHOWN = 200;            // maximum number of messages on the page
const ASK_EVERY = 1000;       // milliseconds between two requests for /stats
const TRY_AGAIN = 3000;       // milliseconds before a reconnection, until the stream sends a retry field
const SECONDS = 60;           // width of the chart

const $ = id => document.getElementById(id);
let source = null;            // AbortController of the open stream, or null
let lastId = "";              // the event id after which the next connection continues
let sessionId = "";
let rates = [];               // messages per second, oldest first
let severalProcesses = false; // whether other processes share the log
let before = null;            // the last value of the counter, and when it was read
let minute = [];              // statistics of all processes during the last minute, oldest first

// Connecting

function names(text) {
  return text.split(",").map(name => name.trim()).filter(Boolean);
}

function streamUrl() {
  const query = new URLSearchParams();
  for (const zone of names($("zone").value)) query.append("zone", zone);
  if ($("client-id").value) query.set("client_id", $("client-id").value);
  if (lastId) query.set("lastEventId", lastId);
  return "events?" + query;
}

function connect() {
  if (!names($("zone").value).length) return complain("A connection needs at least one zone.");
  disconnect();
  complain("");
  remember();
  open();
}

function open() {
  const mine = source = new AbortController();
  follow(mine.signal);
}

// The stream is read with fetch: an EventSource only delivers events of registered types, and cannot send the token,
// which is required to follow with a client id.
async function follow(signal) {
  let retry = TRY_AGAIN;
  while (!signal.aborted) {
    show("connecting");
    try {
      const response = await fetch(streamUrl(), {cache: "no-store", headers: headers(), signal});
      if (response.ok) {
        show("open");
        await read(response.body, take, milliseconds => retry = milliseconds);
      } else {
        complain((await response.json()).error);
      }
    } catch {
      // The connection broke off, a proxy answered while the server restarts, or the user has disconnected.
    }
    if (signal.aborted) return;
    show("connecting");
    await new Promise(resolve => setTimeout(resolve, retry));
  }
}

// WHATWG HTML, section 9.2.6, "Interpreting an event stream"
async function read(body, dispatch, setRetry) {
  const reader = body.getReader(), decoder = new TextDecoder();
  let rest = "", data = [], type = "", lastEventId = lastId;
  for (;;) {
    const {done, value} = await reader.read();
    if (done) return;
    // A carriage return at the end may be the first half of a line break.
    const lines = (rest + decoder.decode(value, {stream: true})).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    for (const line of lines) {
      const [, field, content] = /^([^:]*):? ?([^]*)$/.exec(line);
      if (!line) {
        if (data.length) dispatch({type: type || "message", data: data.join("\n"), lastEventId});
        data = [];
        type = "";
      } else if (field === "data") data.push(content);
      else if (field === "event") type = content;
      else if (field === "id" && !content.includes("\0")) lastEventId = content;
      else if (field === "retry" && /^[0-9]+$/.test(content)) setRetry(Math.min(Number(content), 60000));
    }
  }
}

function take(event) {
  keep(event);
  if (event.type === "ssehub.open") {
    sessionId = JSON.parse(event.data).session_id;
    ask();
  } else if (event.type === "ssehub.gap") drawGap(event);
  else if (event.type !== "ssehub.cursor") add(event.type, event.data, event.lastEventId, "");
}

function disconnect() {
  if (source) source.abort();
  source = null;
  sessionId = lastId = "";
  show("closed");
}

function show(state) {
  $("state").dataset.state = state;
  $("state").textContent = state;
}

function keep(event) {
  if (event.lastEventId) lastId = event.lastEventId;
}

// Messages

function drawGap(event) {
  const gap = JSON.parse(event.data);
  const missed = gap.missed === null ? "An unknown number of messages may be missing"
    : `${gap.missed.toLocaleString()} messages to this client are missing`;
  add("gap", `${missed} (${gap.reason}).`, event.lastEventId, "gap");
}

function add(type, data, id, kind) {
  const item = element("li", `message ${kind}`);
  item.append(
    element("time", "time", new Date().toLocaleTimeString()),
    element("span", "event", type),
    element("span", "data", data),
    element("span", "id", id),
  );
  $("messages").prepend(item);
  while ($("messages").children.length > SHOWN) $("messages").lastChild.remove();
}

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// Sending

function headers() {
  return $("token").value ? {Authorization: "Bearer " + $("token").value} : {};
}

async function send(route) {
  const fields = new URLSearchParams({data: $("text").value, ...route});
  const type = $("event-type").value.trim();
  if (type) fields.set("event", type);
  try {
    const response = await fetch("send", {method: "POST", body: fields, headers: headers()});
    const answer = await response.json();
    if (!response.ok) return complain(answer.error || response.statusText);
    complain("");
    const there = answer.queued === 1 ? "1 connection" : `${answer.queued} connections`;
    // The response counts the connections of one process, but the message goes to all processes.
    $("sent").textContent = severalProcesses
      ? `Sent; the id is ${answer.id}. It was queued for ${there} of the process that received it`
      : `Sent to ${there}; the id is ${answer.id}`;
  } catch (error) {
    complain(`The service did not answer: ${error.message}`);
  }
}

function sendToClient() {
  const client = $("to-client").value, zone = $("to-zone").value.trim();
  if (!client) return complain("The client id is empty. Enter the client to send to.");
  send(zone ? {client_id: client, zone} : {client_id: client});
}

function sendToZone() {
  const zone = $("to-zone").value.trim();
  if (!zone) return complain("The zone is empty. Enter the zone to send to.");
  send({zone, broadcast: "true"});
}

function complain(text) {
  $("error").textContent = text;
  $("error").hidden = !text;
  if (text) $("sent").textContent = "";
}

// Connections and message rate

async function ask() {
  if (document.hidden) return;
  try {
    const response = await fetch("stats", {headers: headers()});
    const answer = await response.json();
    drawConnections(answer.zones, answer.processes, answer.unlisted);
    measure(answer.stats.messages);
    judge(answer);
  } catch {
    drawConnections(null);  // the service is restarting; the next request follows anyway
    before = null;
  }
}

function drawConnections(zones, processes = [], unlisted = 0) {
  const list = document.createDocumentFragment();
  const places = new Map(processes.map(one => [one.id, `${one.host}, process ${one.pid}`]));
  for (const [zone, connections] of Object.entries(zones || {})) list.append(drawZone(zone, connections, places));
  if (unlisted) list.append(element("p", "quiet", `${unlisted.toLocaleString()} more are not listed.`));
  if (!list.children.length) list.append(element("p", "quiet", nobody(zones)));
  const old = $("connections");
  const focused = old.contains(document.activeElement) ? document.activeElement.dataset : null;
  old.replaceChildren(list);
  severalProcesses = processes.length > 1;
  $("processes").textContent = processes.map(one => `${places.get(one.id)}: ${one.connections}`).join(" · ");
  if (focused) old.querySelector(`[data-session-id="${CSS.escape(focused.sessionId)}"]`)?.focus();
}

function nobody(zones) {
  if (zones === null) return "The service does not answer.";
  return zones === undefined ? "The token is required to see the list." : "Nobody is connected.";
}

function drawZone(zone, connections, places) {
  const group = element("div", "");
  group.dataset.zone = zone;
  const list = element("ul", "");
  for (const one of connections) {
    const me = one.session_id === sessionId;
    const button = element("button", me ? "me" : "", me ? `${one.client_id} (you)` : one.client_id);
    button.type = "button";
    button.dataset.clientId = one.client_id;
    button.dataset.sessionId = one.session_id;
    const place = places.get(one.process);
    button.title = `Send to ${one.client_id}` + (place ? ` (at ${place})` : "");
    button.onclick = () => { $("to-client").value = one.client_id; $("to-zone").value = zone; $("text").focus(); };
    const item = element("li", "");
    item.append(button);
    list.append(item);
  }
  group.append(element("h3", "", `${zone} · ${connections.length}`), list);
  return group;
}

function measure(messages) {
  const now = performance.now();
  if (before && messages >= before.messages) {
    rates.push((messages - before.messages) / Math.max((now - before.at) / 1000, 0.001));
    rates = rates.slice(-SECONDS);
    drawRates();
  }
  before = {messages, at: now};
}

function drawRates() {
  const top = Math.max(1, ...rates), step = 600 / (SECONDS - 1), start = SECONDS - rates.length;
  const points = rates.map((rate, n) => `${((start + n) * step).toFixed(1)},${(78 - 74 * rate / top).toFixed(1)}`);
  $("rate-line").setAttribute("points", points.join(" "));
  $("rate-area").setAttribute("points", `${(start * step).toFixed(1)},80 ${points.join(" ")} 600,80`);
  const mean = rates.reduce((sum, rate) => sum + rate, 0) / rates.length;
  const words = value => value >= 10 ? value.toFixed(0) : value.toFixed(1);
  $("rate").textContent =
    `now ${words(rates.at(-1))}, mean ${words(mean)}, maximum ${words(Math.max(...rates))} per second`;
}

// Health of all processes that share the log, no matter which of them has answered

function judge(answer) {
  const known = (answer.processes || []).map(one => one.stats).filter(stats => stats.delays);
  const all = known.length ? known : [answer.stats];
  const sum = name => all.reduce((total, stats) => total + stats[name], 0);
  const now = {at: performance.now(), counts: all[0].delays.counts.map((_, n) =>
    all.reduce((total, stats) => total + stats.delays.counts[n], 0))};
  for (const name of ["connections", "delivered", "behind", "gaps", "stalled"]) now[name] = sum(name);
  const last = minute.at(-1);
  if (last && now.counts.some((count, n) => count < last.counts[n])) minute = [];  // a process has ended
  minute = [...minute.filter(one => now.at - one.at <= SECONDS * 1000), now];
  const since = name => now[name] - minute[0][name];
  const lags = all.map(stats => stats.log_lag);
  const lag = lags.includes(null) ? "unknown" : lags.includes(undefined) ? "–" : Math.max(...lags);
  const shown = {connections: now.connections, delivered: since("delivered"), behind: now.behind,
    gaps: since("gaps"), stalled: since("stalled"), "log-lag": lag};
  Object.assign(shown, servedStreams(all, sum));
  for (const [name, value] of Object.entries(shown)) {
    $(`n-${name}`).textContent = value.toLocaleString();
    $(`n-${name}`).className = ["gaps", "stalled"].includes(name) && value ? "bad" : "";
  }
  drawDelays(all[0].delays.bounds, now.counts.map((count, n) => count - minute[0].counts[n]));
}

function servedStreams(all, sum) {
  drawNotTaken(all);
  // A process of an older version does not count them.
  if (all.some(stats => stats.taken_over === undefined)) return {detached: "–", parked: "–", "on-threads": "–"};
  const taken = sum("taken_over"), detached = sum("detached");
  return {detached, parked: Math.max(0, taken - detached), "on-threads": Math.max(0, sum("connections") - taken)};
}

function drawNotTaken(all) {
  const counts = new Map();
  for (const stats of all) {
    for (const [reason, count] of Object.entries(stats.not_taken || {})) {
      counts.set(reason, (counts.get(reason) || 0) + count);
    }
  }
  const list = element("ul", "");
  for (const [reason, count] of [...counts].sort((a, b) => b[1] - a[1])) {
    list.append(element("li", "", `${reason}: ${count.toLocaleString()}`));
  }
  $("not-taken").hidden = !counts.size;
  $("not-taken").replaceChildren("Streams that stayed on the server's threads since the start, by reason:", list);
}

function drawDelays(bounds, counts) {
  const total = counts.reduce((sum, count) => sum + count, 0), top = Math.max(1, ...counts);
  $("delays").replaceChildren(...counts.map((count, n) => {
    const bucket = element("div", ""), bar = element("span", "");
    // Logarithmic, because the few slow writes are the interesting ones.
    bar.style.height = `${100 * Math.log1p(count) / Math.log1p(top)}%`;
    bucket.title = `${count.toLocaleString()} writes`;
    bucket.append(bar, element("small", "", n < bounds.length ? duration(bounds[n]) : "more"));
    return bucket;
  }));
  const within = share => {
    let sum = 0;
    const n = counts.findIndex(count => (sum += count) >= share * total);
    return n < bounds.length ? `within ${duration(bounds[n])}` : `after more than ${duration(bounds.at(-1))}`;
  };
  $("delay").textContent = total
    ? `From send to write: half ${within(0.5)}, 99 of 100 ${within(0.99)}, of ${total.toLocaleString()} writes.`
    : "From send to write: nothing was written in the last minute.";

  function duration(seconds) {
    return seconds < 1 ? `${seconds * 1000} ms` : `${seconds} s`;
  }
}

// Setup of the page

function remember() {
  for (const id of ["zone", "client-id", "token"]) sessionStorage.setItem(id, $(id).value);
}

function recall() {
  for (const id of ["zone", "client-id", "token"]) {
    const value = sessionStorage.getItem(id);
    if (value !== null) $(id).value = value;
  }
  const animals = ["otter", "heron", "lynx", "robin", "badger", "gecko", "marten", "puffin"];
  const pick = animals[Math.floor(Math.random() * animals.length)];
  $("client-id").value ||= `${pick}-${Math.floor(1000 + Math.random() * 9000)}`;
  remember();
}

recall();
$("connect-form").addEventListener("submit", event => { event.preventDefault(); connect(); });
$("send-form").addEventListener("submit", event => event.preventDefault());
$("disconnect").addEventListener("click", disconnect);
$("send-client").addEventListener("click", sendToClient);
$("send-zone").addEventListener("click", sendToZone);
$("send-all").addEventListener("click", () => send({broadcast: "true"}));
$("clear").addEventListener("click", () => $("messages").replaceChildren());
$("token").addEventListener("change", () => { remember(); ask(); });
document.addEventListener("visibilitychange", ask);
// Browsers may keep a page you navigated away from (back/forward cache), with its stream open.
addEventListener("pagehide", () => source && source.abort());
addEventListener("pageshow", event => event.persisted && source && open());
setInterval(ask, ASK_EVERY);
ask();

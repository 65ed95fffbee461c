"use strict";
// SharedEventSource: an EventSource that all tabs of a browser share.
//
// One tab, the leader, holds a lock and has the connection. It passes each event on to the other tabs, together with
// the id of the event before it. When the leader goes away, the next tab in line for the lock continues after the last
// event that it has seen; the other tabs skip events that they have already seen. A tab that has missed an event opens
// its own connection, which starts at the last event that the tab has seen, and closes it when it has caught up.
// Without Web Locks (which need https or localhost) or BroadcastChannel, every tab has its own connection.
{
const CONNECTING = 0, OPEN = 1, CLOSED = 2;
const KEPT = 1000;    // number of recent event ids by which a tab recognizes events that it has seen
const SETTLE = 1000;  // milliseconds for which a tab that has caught up keeps its connection: a gap hook may send more
const TRIES = 3;      // attempts to open a connection of its own before a tab continues with the shared one
const ALWAYS = ["message", "ssehub.open", "ssehub.cursor", "ssehub.gap", "ssehub.end"];

globalThis.SharedEventSource = class SharedEventSource extends EventTarget {
  constructor(url, {withCredentials = false} = {}) {
    super();
    const shared = new URL(url, document.baseURI), query = shared.searchParams;
    this.url = shared.href;
    this.withCredentials = Boolean(withCredentials);
    this.readyState = CONNECTING;
    this.lastEventId = query.get("lastEventId") || query.get("last_event_id") || "";
    for (const name of ["open", "message", "error"]) {
      this["on" + name] = null;
      super.addEventListener(name, event => this["on" + name] && this["on" + name](event));
    }
    // Each tab has its own starting point. Tabs share a connection if the rest of their URLs is equal.
    this._since = query.has("since") && !this.lastEventId;
    for (const name of ["lastEventId", "last_event_id", "since"]) if (query.has(name)) query.delete(name);
    shared.search = query;  // "/events?" is "/events"
    shared.hash = "";
    this._shared = shared.href;
    this._types = new Set(ALWAYS);  // of all tabs, because each of them may become the leader
    this._seen = new Set([this.lastEventId]);
    this._begin = this._begin.bind(this);
    this._rest = this._rest.bind(this);
    this._watch("addEventListener");
    queueMicrotask(this._begin);  // the page adds its listeners first
  }

  addEventListener(type, ...more) {
    super.addEventListener(type, ...more);
    if (!this._types.has(type)) this._post({types: [type]});
    this._learn([type]);
  }

  close() {
    this.readyState = CLOSED;
    this._watch("removeEventListener");
    this._rest();
  }

  // Start and end

  _watch(change) {
    for (const name of ["pageshow", "resume", "visibilitychange"]) globalThis[change](name, this._begin, true);
    // A page that is frozen, or kept for the back button, must neither hold the lock nor wait for it.
    for (const name of ["pagehide", "freeze"]) globalThis[change](name, this._rest, true);
  }

  _begin(event) {
    if (this.readyState === CLOSED) return;
    if (event?.type === "visibilitychange" && document.hidden) return;  // it also fires after pagehide
    if (this._life) return this._hello();
    const {signal} = this._life = new AbortController();
    const lead = () => { if (!signal.aborted) this._lead(); };
    if (!navigator.locks || !globalThis.BroadcastChannel) return lead();
    const name = `ssehub ${this.withCredentials} ${this._shared}`;
    const over = new Promise(resolve => signal.addEventListener("abort", resolve));
    this._channel = new BroadcastChannel(name);
    this._channel.onmessage = ({data}) => this._hear(data);
    this._hello();
    navigator.locks.request(name, {signal}, () => { lead(); return over; }).catch(lead);
  }

  _rest() {
    if (!this._life) return;
    this._life.abort();
    this._leave();
    if (this._channel) this._channel.close();
    this._life = this._channel = null;
    this._leads = this._joined = false;
  }

  _lead() {
    this._leads = true;
    if (this._source) this._meet(this._session);
    else this._connect();
    this._welcome();
  }

  // Messages between tabs

  _post(message) {
    if (this._channel) this._channel.postMessage(message);
  }

  _hello() {
    this._post({hello: true, types: [...this._types]});
  }

  _welcome() {
    this._post({at: this.lastEventId, state: this.readyState, session: this._session, types: [...this._types]});
  }

  _hear({hello, types, at, state, session, event}) {
    const unheard = at !== undefined && [...this._types].some(type => !types.includes(type));
    if (types) this._learn(types);
    if (this._leads) return hello && this._welcome();
    if (at !== undefined) this._join(at, session, unheard);
    if (!this._joined) return;
    if (state !== undefined && !this._source && (at === undefined || state === OPEN)) this._turn(state);
    if (event) this._follow(event);
  }

  _join(at, session, unheard) {
    const since = this._since && !this.lastEventId;
    if (!this._joined && !this.lastEventId && !since) this._reach(at);
    this._joined = true;
    this._at = at;
    this._meet(session);
    if (unheard) this._post({types: [...this._types]});
    if (unheard || since || !this._seen.has(at)) this._connect();
  }

  _follow(event) {
    const {type, data, id, prev} = event;
    this._at = id;
    if (type === "ssehub.open") this._meet(data);
    if (this._source) this._settle();
    else if (prev === this.lastEventId) this._take(event);
    else if (!this._seen.has(id)) this._connect();
    else if (id === prev) this._fire(type, data);  // an event without an id of its own is always new
  }

  // The connection of the leader, or of a tab that has missed events

  _connect() {
    if (this._source || this.readyState === CLOSED) return;  // a listener may have closed it
    const url = new URL(this.lastEventId ? this._shared : this.url);
    if (this.lastEventId) url.searchParams.set("lastEventId", this.lastEventId);
    const source = this._source = new EventSource(url, {withCredentials: this.withCredentials});
    let prev = this.lastEventId, named = false, failures = 0;
    this._relay = ({type, data, lastEventId}) => {
      if (data === undefined) return;  // an event of the connection, not of the stream
      failures = -Infinity;
      named = named || lastEventId !== "";
      const id = named ? lastEventId : prev;
      if (type === "ssehub.open") this._session = data;
      if (this._leads) this._post({event: {type, data, id, prev}});
      if (this._leads && type === "ssehub.open") this._meet(data);
      prev = id;
      this._take({type, data, id});
    };
    source.onopen = source.onerror = ({data}) => {
      if (data !== undefined) return;
      const failed = source.readyState === CLOSED || (source.readyState === CONNECTING && ++failures >= TRIES);
      if (failed && this._joined && !this._leads) return this._yield();
      if (this._leads) this._post({state: source.readyState});
      this._turn(source.readyState);
    };
    for (const type of this._types) source.addEventListener(type, this._relay);
  }

  _yield() {  // the server refuses a connection of our own: continue with the shared one
    this._leave();
    this._hello();  // the leader replies with the state of the shared connection
    if (this._seen.has(this._at)) return;
    this._reach(this._at);
    this._fire("ssehub.gap", '{"reason": "refused", "missed": null}');
  }

  _learn(types) {
    for (const type of types) {
      if (this._types.has(type)) continue;
      this._types.add(type);
      if (this._source) this._source.addEventListener(type, this._relay);
    }
  }

  _settle() {
    if (this._timer || this._leads || !this._source || this._source.readyState !== OPEN) return;
    if (this.lastEventId !== this._at) return;
    this._timer = setTimeout(() => {
      this._timer = 0;
      if (!this._leads && this.lastEventId === this._at) this._leave();
    }, SETTLE);
  }

  _leave() {
    clearTimeout(this._timer);
    this._timer = 0;
    if (this._source) this._source.close();
    this._source = this._session = null;
  }

  // Events for the page

  _take({type, data, id}) {
    this._reach(id);
    if (type !== "ssehub.open") this._fire(type, data);
    this._settle();
  }

  _reach(id) {
    this.lastEventId = id;
    this._seen.delete(id);
    this._seen.add(id);
    if (this._seen.size > KEPT) this._seen.delete(this._seen.values().next().value);
  }

  _meet(session) {  // report the session of the shared connection, but not of a temporary one of our own
    if (!session || session === this._met) return;
    this._met = session;
    this._fire("ssehub.open", session);
  }

  _fire(type, data) {
    const {origin} = new URL(this._shared);
    this.dispatchEvent(new MessageEvent(type, {data, lastEventId: this.lastEventId, origin}));
  }

  _turn(state) {
    if (state === OPEN && this.readyState === OPEN) return;
    this.readyState = state;
    this.dispatchEvent(new Event(state === OPEN ? "open" : "error"));
    if (state === CLOSED) this.close();
  }
};
Object.assign(SharedEventSource, {CONNECTING, OPEN, CLOSED});
}

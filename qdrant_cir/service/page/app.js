// The page: a state in the address, a search for it, and what the search says as it comes.

import { emptyState, readAddress, searchBody, writeAddress } from "./address.js";
import { Failure, failureOf, getJson, postJson, search, upload } from "./api.js";
import { $, announce, button, el, keepSent, on, pictureOf } from "./dom.js";
import { showFilters } from "./filters.js";
import { settleTyping, showExamples, showQuery, showUnknown, startQuery } from "./query.js";
import { focusTile, settled, showSaying, showWaiting, showWall, startWall } from "./wall.js";
import { dropWhy, openWhy } from "./why.js";
import { curlOf, exampleTexts, honestLine, movedSentence, number, otherNotes, plural, unknownWords } from "./words.js";

const DEPTH = 100;
const SLOW_MS = 1500;
const PRODUCT = /^(product|item|style|article|parent)(_?(id|key|code))?$/i;

let state = readAddress(location.search);
let info;
let facets = [];
let answer = { candidates: [] };
let running;
let countdown;

// The address and the history

const place = ({ refs, text, trail }) => JSON.stringify([refs[0], text, trail.length]);

/** Go to another state. A draft is what is still being typed: the next one replaces it in the history. */
function go(change, { draft = false, replaces = false, focus } = {}) {
  const old = state;
  const { path, draft: wasDraft } = history.state;
  state = { ...state, ...change };
  const address = writeAddress(state);
  if (address === writeAddress(old)) history.replaceState({ path, draft: draft && wasDraft }, "");
  else if (replaces || (draft && wasDraft)) history.replaceState({ path, draft }, "", address);
  else history.pushState({ path: [...path, place(old)].slice(-50), draft }, "", address);
  return render(old, { typing: draft, focus });
}

const stepBack = (at, { ref, text } = state.trail[at]) => ({ ...state, refs: ref ? [ref] : [], text, not: "", trail: state.trail.slice(0, at) });

/** Go back to a step of the trail, in the browser's history where it is there. */
function jump(at) {
  const target = stepBack(at);
  const found = history.state.path.lastIndexOf(place(target));
  if (found < 0) go(target);
  else history.go(found - history.state.path.length);
}

const undo = () => { if (history.state.path.length) history.back(); else if (state.trail.length) jump(state.trail.length - 1); };

/** A candidate becomes the reference; the query that found it joins the trail. */
function take({ id }, focus) {
  const trail = state.refs[0] || state.text ? [...state.trail, { ref: state.refs[0], text: state.text }].slice(-12) : [];
  scrollTo(0, 0);
  go({ refs: [{ id }], text: "", not: "", share: 0.5, trail }, { focus });
}

async function render(old, { typing = false, focus }) {
  settleTyping();
  showQuery(state, { typing });
  showTrail();
  document.querySelector(`[value=${state.view}]`).checked = true;
  $("per").checked = Boolean(state.per);
  document.title = `Like this, but ${state.text}`;
  if (focus) $(focus).focus();
  if (old.collection !== state.collection) await meet();
  showFilters(facets, state.filter, (filter) => go({ filter }));
  const asked = (of) => JSON.stringify(searchBody(of));
  if (asked(old) !== asked(state)) await ask();
  else if (old.view !== state.view && answer.candidates.length) drawWall(true);
}

function showTrail() {
  const here = state.trail.length;
  const steps = state.refs[0] || state.text ? [...state.trail, { ref: state.refs[0], text: state.text }] : [];
  $("trail").replaceChildren(...steps.map(({ ref, text }, at) => el("li", {}, el("a", {
    href: at === here ? location.href : writeAddress(stepBack(at)), "aria-current": at === here && "step",
    "aria-label": `${ref ? "the picture" : "the text"}${text ? ` with “${text}”` : ""}`, onclick: (event) => { event.preventDefault(); if (at < here) jump(at); },
  }, ref ? el("span.picture", {}, pictureOf(state.collection, ref, { size: 80 })) : "", text ? el("span.then", {}, `“${text}”`) : ""))));
}

// Searching

async function ask() {
  clearInterval(countdown);
  running?.abort();
  const { signal } = running = new AbortController();
  dropWhy();
  notice();
  showUnknown([], "");
  $("wall").classList.remove("doubtful");
  const body = searchBody(state, DEPTH);
  answer = { candidates: [], total: info?.count, body };
  if (!state.refs.length && !body.text) { await showStart(); return; }
  showWaiting();
  progress("waits");
  const slow = setTimeout(() => notice("This takes longer than usual. The answer is still on its way."), SLOW_MS);
  try {
    for await (const { event, data } of search(body, signal)) {
      clearTimeout(slow);
      if (event === "error") throw failureOf(data.status, data);
      await { retrieved, scored, ranked, done }[event]?.(data);
    }
    if (!answer.done) notice("The answer ended early. What came is shown.", { again: true });
    await settled();
    if (!signal.aborted) $("results").dataset.settled = body.text;
  } catch (error) {
    if (signal.aborted) return;
    const failure = error instanceof Failure ? error : new Failure("The connection broke.");
    if (answer.candidates.length) notice(`${failure.message} What came is shown.`, { again: true });
    else fail(failure);
  } finally {
    clearTimeout(slow);
    if (!signal.aborted) progress();
  }
}

function retrieved({ candidates }) {
  answer.candidates = candidates.map((each) => ({ ...each, score: null, rank: each.retrieval_rank }));
  answer.retrieved = candidates.length;
  notice();
  drawWall(false);
  showHonesty();
}

/** Scores of some candidates: these stand before the others. */
function scored({ candidates }) {
  const scores = new Map(candidates.map(({ id, score }) => [id, score]));
  const order = answer.candidates.map((each) => ({ ...each, score: scores.get(each.id) ?? each.score }))
    .sort((one, other) => (other.score ?? -1e9) - (one.score ?? -1e9) || one.retrieval_rank - other.retrieval_rank);
  answer.candidates = order.map((each, at) => ({ ...each, rank: at + 1 }));
  progress(order.filter(({ score }) => score !== null).length / order.length);
  drawWall(true);
}

function ranked({ candidates }) {
  answer.candidates = candidates;
  drawWall(true);
}

async function done(data) {
  answer.done = data;
  progress();
  showHonesty();
  const { notes, scored: count, rerank_mode: mode } = data;
  showUnknown(unknownWords(notes), state.text);
  if (!answer.candidates.length) { await nothing(); return; }
  if (data.is_match === false) {
    $("wall").classList.add("doubtful");
    notice(`No good match: the first is right with ${Math.round(data.match_probability * 100)} %. These come nearest.`, { warns: true });
  } else {
    if (mode === "budget") notice(`Time ran out: ${number(count)} of ${number(answer.retrieved)} were re-ranked.`, { again: true });
    else notice(otherNotes(notes)[0] ?? (count ? movedSentence(answer.candidates) : "The nearest pictures."));
  }
}

function drawWall(moves) {
  $("views").disabled = false;
  const field = state.per || Object.keys(answer.candidates[0]?.payload ?? {}).find((key) => PRODUCT.test(key));
  $("per-field").hidden = !field;
  $("per").value = field;
  showWall(answer.candidates, { view: state.view, collection: state.collection, moves });
}

// States

function notice(sentence = "", { warns = false, again = false } = {}) {
  $("notice").className = warns ? "warns" : "";
  if (sentence) announce(sentence);
  $("notice").replaceChildren(sentence, " ", again ? button("Search again", ask, { class: "link" }) : "");
}

function progress(share = 0) {
  $("progress").className = share === "waits" ? share : "";
  $("progress").style.scale = share === "waits" ? "" : `${share} 1`;
}

function showHonesty() {
  const isThere = answer.retrieved !== undefined;
  $("honest").textContent = isThere ? honestLine(answer) : "";
  $("curl-button").hidden = !isThere;
  $("curl").hidden ||= !isThere;
  $("curl").firstChild.textContent = curlOf(answer.body);
}

function say(headline, sentence, buttons, samples) {
  $("views").disabled = true;
  showSaying(headline, sentence, buttons, samples, state.collection);
  announce(headline);
}

async function showStart() {
  progress();
  showHonesty();
  const { body } = answer;
  const found = await getJson("samples", { collection: state.collection, limit: 10 }).catch(() => null);
  if (answer.body === body) say("Begin with a picture.", "Drop or paste one on the left, or take one of these. Then say what should be different.", [], found?.candidates);
}

/** Nothing was found: name the filters that caused it. */
async function nothing() {
  const { body } = answer;
  const fields = Object.keys(state.filter).filter((field) => state.filter[field].length);
  if (!fields.length) { say("Nothing was found.", "The collection has no picture that can be searched. Index some first."); return; }
  const without = (field) => ({ ...state.filter, [field]: [] });
  const name = (field) => `${field}: ${state.filter[field].join(", ")}`;
  const finds = await Promise.all(fields.map(async (field) => {
    const found = await postJson("search", { ...searchBody({ ...state, filter: without(field) }, 1), rerank_depth: 0 }).catch(() => null);
    return Boolean(found?.candidates.length);
  }));
  if (answer.body !== body) return;
  const isOne = finds.includes(true);
  const causes = fields.filter((_, at) => finds[at] || !isOne);
  say(`Nothing is left with ${causes.map(name).join(" or ")}.`, isOne ? "Without it there are results." : "The filters together hold every result back.",
    [...causes.map((field) => ({ label: `Lift ${name(field)}`, act: () => go({ filter: without(field) }) })), { label: "Lift all filters", act: () => go({ filter: {} }) }]);
}

function fail({ status, message, wait }) {
  const again = [{ label: "Try again", act: ask }];
  if (status === 429 || status === 503) {
    let left = Math.max(1, wait || 3);
    const tell = (show) => show("The service is busy.", `Others are searching. It is asked again in ${plural(left, "second")}.`, again);
    tell(say);
    countdown = setInterval(() => { left -= 1; if (left) tell(showSaying); else ask(); }, 1000);
  } else if (state.refs.some((ref) => ref.upload) && (status === 404 || status === 410)) {
    say("Your picture has expired.", "A picture that was sent is kept for an hour. Choose it again to go on.", [{ label: "Choose a picture", act: () => $("file").click() }]);
  } else if (status) say(status < 500 ? "The service refused this query." : "Something broke in the service.", message, again);
  else if (navigator.onLine) say("The service cannot be reached.", "It may have stopped. Start it, then try again.", again);
  else say("You are offline.", "The search goes on when the network is back.", again);
}

// The collection

async function meet() {
  const { collections } = await getJson("info").catch(() => ({ collections: [] }));
  state.collection ||= collections[0]?.name ?? "";
  info = collections.find(({ name }) => name === state.collection);
  const isOne = collections.length < 2;
  $("collection").hidden = isOne;
  $("collection").replaceChildren(...collections.map(({ name }) => el("option", { selected: name === state.collection }, name)));
  $("name").textContent = isOne ? state.collection : "";
  $("count").textContent = info ? plural(info.count, "picture") : "";
  const told = await getJson("facets", { collection: state.collection }).catch(() => ({ facets: [] }));
  facets = told.facets;
  showExamples(exampleTexts(facets), (text) => go({ text }, { focus: "text" }));
}

// Begin

async function send(file, at) {
  notice("Sending your picture…");
  try {
    const sent = await upload(file);
    keepSent(sent.upload, sent.picture);
    const ref = { upload: sent.upload };
    await go(at && state.refs[0] ? { refs: [state.refs[0], ref] } : { refs: [ref], trail: [] }, { focus: matchMedia("(pointer: fine)").matches && "text" });
  } catch ({ message }) {
    notice(message, { warns: true });
  }
}

startQuery({
  sent: send,
  changed: ({ second, ...change }, draft) => {
    if (second !== undefined) change.refs = [state.refs[0], second].filter(Boolean);
    go(change, { draft });
  },
  gone: ({ upload: sent }) => { if (sent) fail({ status: 404 }); },
});
startWall({
  pick: (candidate) => take(candidate, "text"),
  like: (candidate) => take(candidate),
  blend: ({ id }) => { if (state.refs[0]) go({ refs: [state.refs[0], { id }] }); },
  why: (candidate) => {
    const controller = new AbortController();
    const { limit, ...body } = answer.body;
    openWhy(candidate, body, { answer: postJson("explain", { ...body, candidate: candidate.id }, controller.signal), onclose: () => { controller.abort(); focusTile(candidate.id); } });
  },
});
document.querySelectorAll("[name=view]").forEach((each) => on(each, "change", () => go({ view: each.value }, { replaces: true })));
on("per", "change", ({ target }) => go({ per: target.checked ? target.value : "" }));
on("collection", "change", ({ target }) => go(emptyState(target.value)));
on("help-button", "click", () => $("help").showModal());
on("curl-button", "click", ({ target }) => target.setAttribute("aria-expanded", String(!($("curl").hidden = !$("curl").hidden))));
on("copy", "click", async ({ target }) => { await navigator.clipboard.writeText($("curl").firstChild.textContent); target.textContent = "Copied"; });
on(window, "online", () => { if (!answer.candidates.length) meet().then(ask); });
on(window, "offline", () => notice("You are offline. What is here stays."));
on(window, "popstate", () => {
  const old = state;
  state = readAddress(location.search);
  state.collection ||= old.collection;
  render(old, {});
});
on(window, "keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input:not([type=radio]), textarea, select") || $("help").open) return;
  const act = { "/": () => $("text").focus(), "?": () => $("help").showModal(), u: undo, Escape: () => $("why").close() }[event.key];
  if (act) { event.preventDefault(); act(); }
});

history.replaceState(history.state ?? { path: [] }, "");
const begun = { ...state, text: null };
await meet();
await render({ ...begun, collection: state.collection }, {});

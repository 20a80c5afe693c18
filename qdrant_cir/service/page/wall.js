// The wall: tiles in the order of either stage, a grid to walk with arrows, tiles that glide when scores arrive.

import { $, button, el, imageUrl, on } from "./dom.js";
import { movement, ordinal, priceOf, titleOf } from "./words.js";

const wall = $("wall");
const still = matchMedia("(prefers-reduced-motion: reduce)");
let shown = { candidates: [], view: "after", collection: "" };
let handlers;
let moving = null;
let waits = false;
let made = 0;
let paint;

const columnsOf = (grid) => Number(getComputedStyle(grid).getPropertyValue("--cols"));
const tilesOf = (within) => [...within.querySelectorAll("[role=gridcell]")];

export function startWall(given) {
  handlers = given;
  on(wall, "keydown", walk);
  on(wall, "focusin", ({ target }) => { const tile = target.closest(".tile"); if (tile) rove(tile); });
  for (const type of ["pointerover", "focusin"]) on(wall, type, markTwin);
  on(wall, "contextmenu", (event) => { // a long press opens what a hover shows
    const tile = event.target.closest(".tile");
    if (!tile || !matchMedia("(hover: none)").matches) return;
    event.preventDefault();
    tilesOf(wall).forEach((each) => each.classList.toggle("open", each === tile));
  });
  on(window, "resize", () => wall.querySelectorAll("[role=grid]").forEach(arrange));
}

/** Show candidates; tiles glide to new places when `moves`. The newest order replaces one that still waits. */
export function showWall(candidates, { view, collection, moves }) {
  shown = { candidates, view, collection };
  wall.classList.remove("old");
  paint = draw;
  waits = Boolean(moving);
  if (waits) return;
  if (moves && !still.matches && document.startViewTransition && !document.hidden) glide();
  else draw();
}

function glide() {
  waits = false;
  name();
  moving = document.startViewTransition(() => { paint(); name(); });
  moving.ready.catch(() => {});
  moving.finished.catch(() => {}).then(() => {
    moving = null;
    tilesOf(wall).forEach((tile) => { tile.style.viewTransitionName = ""; });
    if (waits) glide();
  });
}

/** Resolves when no tile moves. */
export const settled = async () => { while (moving) await moving.finished.catch(() => {}); };

/** Name the tiles in sight, so that they glide; in two walls every tile would be there twice. */
function name() {
  for (const tile of wall.querySelectorAll(":scope > .grid .tile")) {
    const { top, bottom } = tile.getBoundingClientRect();
    tile.style.viewTransitionName = bottom > -200 && top < innerHeight + 200 ? tile.glide : "";
  }
}

function draw() {
  const { candidates, view } = shown;
  const held = document.activeElement.closest?.("#wall .tile")?.dataset;
  const before = [...candidates].sort((one, other) => one.retrieval_rank - other.retrieval_rank);
  const tiles = new Map([...wall.querySelectorAll(":scope > .grid .tile")].map((tile) => [tile.dataset.key, tile]));
  wall.replaceChildren(...(view === "both"
    ? [el("div.sides", {},
      el("section", {}, el("h2", {}, "before"), gridOf(before, "before")),
      el("section", {}, el("h2", {}, "after"), gridOf(candidates, "after")))]
    : [gridOf(view === "before" ? before : candidates, view, tiles)]));
  wall.querySelectorAll(".grid").forEach(arrange);
  if (held) find(held.key, held.side)?.querySelector(".pick").focus({ preventScroll: true });
}

const find = (key, side) => tilesOf(wall).find(({ dataset }) => dataset.key === key && (!side || dataset.side === side));
export const focusTile = (id) => find(String(id))?.querySelector(".pick").focus();

const gridOf = (candidates, side, tiles = new Map()) => el("div.grid", { role: "grid", "aria-label": `Results ${side} re-ranking` },
  candidates.map((candidate, at) => tileOf(candidate, at + 1, side, tiles.get(String(candidate.id)))));

/** Put the tiles of a grid into rows. */
function arrange(grid) {
  const tiles = tilesOf(grid);
  const columns = columnsOf(grid);
  if (grid.firstChild?.className === "row" && grid.firstChild.childElementCount === Math.min(columns, tiles.length)) return;
  grid.replaceChildren(...tiles.flatMap((_, at) => (at % columns ? [] : [el("div.row", { role: "row" }, tiles.slice(at, at + columns))])));
  if (tiles.length) rove(tiles[0]);
}

function tileOf(candidate, place, side, tile = newTile(candidate)) {
  const { rank, retrieval_rank: before, score } = candidate;
  const title = titleOf(candidate);
  const price = priceOf(candidate);
  const moved = side === "after" ? movement(candidate) : rank === before ? null : { text: `now ${rank}`, kind: rank < before ? "up" : "down" };
  tile.candidate = candidate;
  Object.assign(tile.dataset, { key: candidate.id, side });
  const [pick, caption, acts] = tile.children;
  pick.setAttribute("aria-label", [`${ordinal(place)}: ${title}`, price, moved?.text].filter(Boolean).join(", "));
  pick.replaceChildren(pick.firstChild, moved ? el("span", { class: `badge ${moved.kind}` }, moved.text) : "");
  caption.replaceChildren(el("span.place", {}, String(place)), el("span.title", { title }, title), el("span.price", {}, price));
  acts.lastChild.hidden = score === null;
  return tile;
}

const newTile = (candidate) => {
  const title = titleOf(candidate);
  const tile = el("div.tile", { role: "gridcell", draggable: "true", ondragstart: ({ dataTransfer }) => dataTransfer.setData("application/json", JSON.stringify({ id: candidate.id })) },
    button(el("img", { src: imageUrl(shown.collection, candidate.id, 320), alt: "", loading: "lazy", draggable: "false" }), () => handlers.pick(tile.candidate), { class: "pick", tabindex: -1 }),
    el("div.caption", { "aria-hidden": "true" }),
    el("div.acts", {},
      button("more like this", () => handlers.like(tile.candidate), { tabindex: -1, "aria-label": `More like ${title}` }),
      button("why", () => handlers.why(tile.candidate), { tabindex: -1, "aria-label": `Why ${title}?` })));
  made += 1;
  tile.glide = `tile-${made}`;
  return tile;
};

/** One tile of a grid is in the order of Tab; arrows go to the others. */
function rove(tile) {
  tile.closest(".grid").querySelectorAll("[tabindex='0']").forEach((each) => { each.tabIndex = -1; });
  tile.querySelectorAll("button").forEach((each) => { each.tabIndex = 0; });
}

function walk(event) {
  const tile = event.target.closest(".tile");
  if (!tile || event.ctrlKey || event.metaKey || event.altKey) return;
  const grid = tile.closest(".grid");
  const tiles = tilesOf(grid);
  const at = tiles.indexOf(tile);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + columnsOf(grid), ArrowUp: at - columnsOf(grid), Home: 0, End: tiles.length - 1 }[event.key];
  const act = { w: tile.candidate.score !== null && "why", m: "like", 2: "blend" }[event.key];
  if (to === undefined && !act) return;
  event.preventDefault();
  if (act) handlers[act](tile.candidate);
  else tiles[to]?.querySelector(".pick").focus();
}

function markTwin({ target }) {
  const tile = shown.view === "both" && target.closest(".tile");
  const twin = tile && find(tile.dataset.key, tile.dataset.side === "after" ? "before" : "after");
  tilesOf(wall).forEach((each) => each.classList.toggle("twin", each === twin));
}

/** Grey tiles where results will stand, or the former results dimmed. */
export function showWaiting() {
  if (shown.candidates.length) { wall.classList.add("old"); return; }
  wall.replaceChildren(el("div.grid.bones", {}, Array.from({ length: 10 }, () => el("div.tile", {}, el("div.pick", {}), el("div.caption", {})))));
}

/** A state without results: what it is, what to do, buttons {label, act}, and pictures to begin with. */
export function showSaying(headline, sentence, buttons = [], samples = [], collection = "") {
  shown = { candidates: [], view: "after", collection };
  waits = false;
  wall.classList.remove("old", "doubtful");
  const grid = gridOf(samples.map((each) => ({ ...each, score: null })), "after");
  grid.setAttribute("aria-label", "Pictures to begin with");
  const said = el("div.say", {}, el("h2", {}, headline), el("p", {}, sentence),
    buttons.map(({ label, act }, at) => button(label, act, { class: `button${at ? "" : " main"}` })), samples.length ? grid : "");
  paint = () => wall.replaceChildren(said);
  paint();
  arrange(grid);
}

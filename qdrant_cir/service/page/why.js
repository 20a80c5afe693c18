// Why does it stand there? Lit parts and underlined words carried the score.

import { $, button, el, imageUrl, on } from "./dom.js";
import { ordinal, plural, titleOf } from "./words.js";

const drawer = $("why");
let closed;

on(drawer, "close", () => {
  $("screen").classList.remove("explains");
  closed?.();
  closed = null;
});
on(drawer, "keydown", ({ key }) => { if (key === "Escape") drawer.close(); });

/** Close, without giving the focus back. */
export function dropWhy() {
  closed = null;
  drawer.close();
}

/** Open for a candidate of a query; `answer` is a promise of the explanation, `onclose` gives the focus back. */
export async function openWhy(candidate, { text, collection }, { answer, onclose }) {
  dropWhy();
  const title = el("h2", { id: "why-title", tabindex: -1 }, "Why here?");
  const image = el("img", { src: imageUrl(collection, candidate.id, 640), alt: titleOf(candidate) });
  const picture = el("div.lit", {}, image);
  const content = el("div", {}, el("p.quiet", {}, "Taking away words and parts of the picture, one at a time…"));
  drawer.replaceChildren(el("header", {}, title, button("×", () => drawer.close(), { class: "close", "aria-label": "Close" })), picture, content);
  drawer[innerWidth > 760 ? "show" : "showModal"]();
  closed = onclose;
  $("screen").classList.add("explains");
  title.focus();
  try {
    const told = await answer;
    content.replaceChildren(...explained(told, text, collection));
    await image.decode();
    if (told.cells) picture.append(lights(told.cells, image.naturalWidth, image.naturalHeight));
  } catch (error) {
    if (error.name !== "AbortError") content.replaceChildren(el("p", {}, `There is no explanation. ${error.message}`));
  }
}

function explained({ candidate, count, words, cells, first_retrieved: first, notes }, text, collection) {
  const { rank, retrieval_rank: before, score, retrieval_score: retrieved } = candidate;
  const gains = words.filter(({ places }) => places).sort((one, other) => other.places - one.places).slice(0, 4);
  return [
    el("p.sentence", {}, "like this, but ", underlined(text, words)),
    el("p", {}, rank === before ? `${ordinal(rank)} before and after` : `was ${ordinal(before)}, now ${ordinal(rank)}`, ` of ${count}`,
      gains.length ? gains.map(({ word, places }, at) => [at ? ", " : ": ", `${word} `, el("b", {}, `${places > 0 ? "+" : "−"}${plural(Math.abs(places), "place")}`)])
        : "; no single word changes that"),
    first.id === candidate.id ? "" : [el("h3", {}, "First without re-ranking"),
      el("div.instead", {}, el("div.picture", {}, el("img", { src: imageUrl(collection, first.id, 160), alt: "" })), titleOf(first))],
    el("h3", {}, "Scores"), table(["stage", "score", "place"], [["retrieved", retrieved.toFixed(3), before], ["re-ranked", score.toFixed(3), rank]]),
    el("h3", {}, "Without the word"), table(["word", "score falls by", "places lost, about"],
      words.map(({ word, drop, places, is_known: isKnown }) => [isKnown ? word : `${word} (unknown)`, drop.toFixed(3), places])),
    cells ? el("details.fold", {}, el("summary", {}, "The parts as numbers"),
      el("div.cells", { tabindex: 0, role: "region", "aria-label": "The parts as numbers" },
        table(["row", ...cells.text_drops[0].map((_, at) => at + 1)], cells.text_drops.map((row, at) => [at + 1, ...row.map((drop) => drop.toFixed(2))])))) : "",
    notes.map((note) => el("p.quiet", {}, note)),
  ].flat();
}

const table = (heads, rows) => el("table", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, String(head)))),
  rows.map(([first, ...others]) => el("tr", {}, el("th", { scope: "row" }, String(first)), others.map((value) => el("td", {}, String(value))))));

/** The text, each word underlined by how much the score falls without it. */
function underlined(text, words) {
  const most = Math.max(...words.map(({ drop }) => drop), 1e-9);
  let at = 0;
  const pieces = words.map(({ word, start, stop, drop, is_known: isKnown }) => {
    const share = Math.min(1, Math.abs(drop) / most);
    const piece = el(!isKnown ? "s" : share < 0.05 ? "span" : "u", { class: drop < 0 ? "against" : "" }, word);
    piece.style.textDecorationThickness = `${Math.max(1, 7 * share)}px`;
    const gap = text.slice(at, start);
    at = stop;
    return [gap, piece];
  });
  return [pieces, text.slice(at)];
}

/** A veil, thin where cells carried the score; the strongest are framed. */
function lights({ columns, text_drops: drops, pad_ratio: ratio }, width, height) {
  const side = Math.max(Math.min(width, height), Math.max(width, height) / ratio);
  const order = drops.flat().sort((one, other) => other - one);
  const veil = el("div.lights", { "aria-hidden": "true" }, drops.flat().map((drop) => {
    const cell = el("i", { class: drop >= order[Math.min(4, order.length - 1)] && drop > order[0] / 3 ? "best" : "" });
    cell.style.setProperty("--veil", 0.85 * (1 - Math.sqrt(Math.max(0, drop / order[0]))));
    return cell;
  }));
  veil.style.gridTemplateColumns = `repeat(${columns}, 1fr)`;
  veil.style.inset = `${50 - side / height * 50}% ${50 - side / width * 50}%`;
  return veil;
}

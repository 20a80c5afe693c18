// The query column: picture, sentence, examples and the fold. It does not search: it says what changed.

import { $, button, el, pictureOf } from "./dom.js";

const WAIT_MS = 400;
let handlers;
let timer;

/** handlers: changed(change, {final}) with `second` for the other picture, sent(file, place), gone(ref). */
export function startQuery(given) {
  handlers = given;
  for (const name of ["text", "not"]) {
    const value = () => ({ [name]: $(name).value.trim() });
    $(name).addEventListener("input", () => later(value));
    $(name).addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.isComposing) return;
      event.preventDefault();
      handlers.changed(value(), { final: true });
    });
  }
  $("query").addEventListener("submit", (event) => event.preventDefault());
  $("share").addEventListener("input", () => { sayShare($("share").value / 100); later(() => ({ share: $("share").value / 100 })); });
  $("clear").addEventListener("click", () => handlers.changed({ refs: [] }, { final: true }));
  $("clear2").addEventListener("click", () => handlers.changed({ second: null }, { final: true }));
  ["file", "file2", "camera"].forEach((id, place) => $(id).addEventListener("change", ({ target }) => {
    const [file] = target.files;
    target.value = "";
    if (file) handlers.sent(file, place % 2);
  }));
  drops($("drop"), 0);
  drops($("drop2"), 1);
  for (const type of ["dragover", "drop"]) document.addEventListener(type, (event) => event.preventDefault());
  document.addEventListener("paste", (event) => {
    const file = [...event.clipboardData.files].find(({ type }) => type.startsWith("image/"));
    if (file) { event.preventDefault(); handlers.sent(file, 0); }
  });
}

/** Forget what was typed and not yet searched. */
export const settleTyping = () => clearTimeout(timer);

function later(change) {
  settleTyping();
  timer = setTimeout(() => handlers.changed(change(), { final: false }), WAIT_MS);
}

function drops(zone, place) {
  const mark = (isOver) => zone.classList.toggle("over", isOver);
  zone.addEventListener("dragover", () => mark(true));
  zone.addEventListener("dragleave", () => mark(false));
  zone.addEventListener("drop", ({ dataTransfer }) => {
    mark(false);
    const ref = JSON.parse(dataTransfer.getData("application/json") || "null");
    if (ref) handlers.changed(place ? { second: ref } : { refs: [ref] }, { final: true });
    else if (dataTransfer.files[0]) handlers.sent(dataTransfer.files[0], place);
  });
}

const sayShare = (share) => { $("share-said").textContent = `${Math.round(share * 100)} %`; };

/** Show a state; what is being typed stays. */
export function showQuery({ collection, refs, share, text, not }, { typing }) {
  ["reference", "reference2"].forEach((id, at) => {
    const ref = refs[at];
    const key = JSON.stringify([collection, ref]);
    if ($(id).dataset.key === key) return;
    $(id).dataset.key = key;
    $(id).replaceChildren(...(ref ? [pictureOf(collection, ref, { alt: "the picture that is searched with", onmissing: () => handlers.gone(ref) })] : []));
  });
  $("drop").classList.toggle("full", Boolean(refs[0]));
  $("clear").hidden = !refs[0];
  $("hint2").hidden = Boolean(refs[1]);
  $("clear2").hidden = $("share-field").hidden = !refs[1];
  $("share").value = share * 100;
  sayShare(share);
  if (!typing) [$("text").value, $("not").value] = [text, not];
  if (refs[1] || not) $("fold").open = true;
}

export const showExamples = (examples, choose) => $("examples").replaceChildren(...examples.map((text) => button(text, () => choose(text), { class: "chip" })));

/** The sentence again, the words struck through that the model does not know. */
export function showUnknown(words, sentence) {
  $("unknown").hidden = !words.length;
  const bare = (word) => word.toLowerCase().replace(/^\W+|\W+$/g, "");
  $("unknown").replaceChildren(...sentence.split(/(\s+)/).map((word) => (words.some((each) => bare(each) === bare(word)) ? el("s", {}, word) : word)),
    ": the model does not know what is struck through.");
}

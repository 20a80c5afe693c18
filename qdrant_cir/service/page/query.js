// The query column: picture, sentence, examples and the fold. It does not search: it says what changed.

import { $, button, el, pictureOf, on } from "./dom.js";

const WAIT_MS = 400;
let handlers;
let timer;

/** handlers: changed(change, isDraft) with `second` for the other picture, sent(file, place), gone(ref). */
export function startQuery(given) {
  handlers = given;
  for (const name of ["text", "not"]) {
    const value = () => ({ [name]: $(name).value.trim() });
    on(name, "input", () => later(value));
    on(name, "keydown", (event) => {
      if (event.key !== "Enter" || event.isComposing) return;
      event.preventDefault();
      handlers.changed(value());
    });
  }
  on("query", "submit", (event) => event.preventDefault());
  on("share", "input", () => { sayShare($("share").value / 100); later(() => ({ share: $("share").value / 100 })); });
  on("clear", "click", () => handlers.changed({ refs: [] }));
  on("clear2", "click", () => handlers.changed({ second: null }));
  for (const id of ["file", "camera", "file2"]) {
    on(id, "change", ({ target }) => {
      if (target.files[0]) handlers.sent(target.files[0], Number(id === "file2"));
      target.value = "";
    });
  }
  drops($("drop"), 0);
  drops($("drop2"), 1);
  for (const type of ["dragover", "drop"]) on(document, type, (event) => event.preventDefault());
  on(document, "paste", (event) => {
    const file = [...event.clipboardData.files].find(({ type }) => type.startsWith("image/"));
    if (file) { event.preventDefault(); handlers.sent(file, 0); }
  });
}

/** Forget what was typed and not yet searched. */
export const settleTyping = () => clearTimeout(timer);

function later(change) {
  settleTyping();
  timer = setTimeout(() => handlers.changed(change(), true), WAIT_MS);
}

function drops(zone, place) {
  const mark = (isOver) => zone.classList.toggle("over", isOver);
  on(zone, "dragover", () => mark(true));
  on(zone, "dragleave", () => mark(false));
  on(zone, "drop", ({ dataTransfer }) => {
    mark(false);
    const ref = JSON.parse(dataTransfer.getData("application/json") || "null");
    if (ref) handlers.changed(place ? { second: ref } : { refs: [ref] });
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
  $("unknown").replaceChildren(...sentence.split(/([\s,.;:!?]+)/).map((word) => (words.includes(word.toLowerCase()) ? el("s", {}, word) : word)),
    ": the model does not know what is struck through.");
}

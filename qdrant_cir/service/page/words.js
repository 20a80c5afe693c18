// Numbers as sentences.

export const number = (value) => value.toLocaleString("en");
export const plural = (count, one) => `${number(count)} ${one}${count === 1 ? "" : "s"}`;

const milliseconds = (seconds) => (seconds < 0.01 ? `${(seconds * 1000).toFixed(1)} ms` : `${number(Math.round(seconds * 1000))} ms`);

export function ordinal(place) {
  const tail = place % 100 > 10 && place % 100 < 14 ? "th" : ["th", "st", "nd", "rd"][place % 10] ?? "th";
  return number(place) + tail;
}

/** "retrieved 100 of 12,408 in 3 ms, re-ranked 22 (adaptive 95 %) in 41 ms, int8" */
export function honestLine({ retrieved, total, done }) {
  const line = `retrieved ${number(retrieved)} of ${number(total)}`;
  if (!done) return line;
  const { timings, scored, rerank_mode: mode, confidence, precision } = done;
  const how = mode === "exact" ? "" : ` (${mode}${confidence ? ` ${Math.round(confidence * 100)} %` : ""})`;
  return `${line} in ${milliseconds(timings.retrieve)}, ${scored ? `re-ranked ${number(scored)}${how} in ${milliseconds(timings.fetch + timings.rerank)}, ${precision}` : "not re-ranked"}`;
}

export const curlOf = (body) => (
  `curl -s '${new URL("search", document.baseURI)}' -H 'Content-Type: application/json' -d '${JSON.stringify(body).replaceAll("'", "'\\''")}'`);

/** How far re-ranking moved a candidate, or null where it stayed. */
export function movement({ rank, retrieval_rank: before }) {
  if (rank === before) return null;
  if (rank <= 10 && before > 10) return { text: "new in first ten", kind: "new" };
  return rank < before ? { text: `up ${before - rank}`, kind: "up" } : { text: `down ${rank - before}`, kind: "down" };
}

export function movedSentence(candidates) {
  const fresh = candidates.filter(({ rank, retrieval_rank: before }) => rank <= 10 && before > 10).length;
  return `Re-ranked, ${fresh || "none"} new in first ten.`;
}

export const titleOf = ({ id, payload }) => String(["title", "name", "product_name", "label", "caption"].map((key) => payload?.[key]).find(Boolean) ?? id);

export const priceOf = ({ payload }) => payload?.price?.toLocaleString("en", { minimumFractionDigits: payload.price % 1 ? 2 : 0 }) ?? "";

const UNKNOWN = "The model does not know:";
export const unknownWords = (notes) => (notes.find((note) => note.startsWith(UNKNOWN)) ?? "").slice(UNKNOWN.length).split(";")[0].toLowerCase().split(/,| and /).map((word) => word.trim()).filter(Boolean);
export const otherNotes = (notes) => notes.filter((note) => !note.startsWith(UNKNOWN) && !note.startsWith("There is no "));

/** Three completions of the sentence, in the catalogue's own words. */
export function exampleTexts(facets) {
  const lists = facets.filter(({ field }) => !/famil|categ|type|brand|shop|size|price|split|id$/i.test(field)).map(({ field, values }) => (
    values.filter(({ value }) => typeof value === "string" && value.length < 24).map(({ value }) => (/colou?r/i.test(field) ? `in ${value}` : value))));
  const texts = [0, 1, 2].flatMap((turn) => lists.map((list) => list[turn]).filter(Boolean));
  return [...texts, "in red", "in black", "in white"].slice(0, 3);
}

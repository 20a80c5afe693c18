// The state of the page is its address: {collection, refs, share, text, not, filter, per, view, trail: [{ref, text}]}.
// A ref is {id} of a picture in the collection (text or number) or {upload} of one that was sent.

const writeRef = (ref) => {
  if (!ref) return "";
  if (ref.upload) return `*${ref.upload}`;
  return typeof ref.id === "number" ? `~${ref.id}` : ref.id.replace(/^([*~=])/, "=$1");
};

const readRef = (written) => {
  if (!written) return null;
  if (written[0] === "*") return { upload: written.slice(1) };
  return { id: written[0] === "~" ? Number(written.slice(1)) : written.replace(/^=/, "") };
};

// A value of a facet keeps its type: 3 and true as they are, the text "3" in quotes.
const readValue = (written) => { try { return JSON.parse(written); } catch { return written; } };
const writeValue = (value) => (readValue(value) === value ? value : JSON.stringify(value));

export const emptyState = (collection) => ({ collection, refs: [], share: 0.5, text: "", not: "", filter: {}, per: "", view: "after", trail: [] });

export function readAddress(search) {
  const given = new URLSearchParams(search);
  const state = emptyState(given.get("in") ?? "");
  state.refs = [given.get("like"), given.get("and")].map(readRef).filter(Boolean);
  state.share = Number(given.get("share")) || 0.5;
  state.text = given.get("but") ?? "";
  state.not = given.get("not") ?? "";
  state.per = given.get("per") ?? "";
  if (["before", "both"].includes(given.get("view"))) state.view = given.get("view");
  for (const [name, value] of given) {
    if (name.startsWith("f.")) (state.filter[name.slice(2)] ??= []).push(readValue(value));
    if (name === "step") {
      const [ref, ...text] = value.split(" ");
      state.trail.push({ ref: readRef(decodeURIComponent(ref)), text: text.join(" ") });
    }
  }
  return state;
}

export function writeAddress(state) {
  const written = new URLSearchParams();
  const put = (name, value) => value && written.append(name, value);
  put("in", state.collection);
  put("like", writeRef(state.refs[0]));
  put("and", writeRef(state.refs[1]));
  if (state.refs[1] && state.share !== 0.5) put("share", state.share);
  put("but", state.text);
  put("not", state.not);
  put("per", state.per);
  if (state.view !== "after") put("view", state.view);
  for (const [field, values] of Object.entries(state.filter)) values.forEach((value) => put(`f.${field}`, writeValue(value)));
  for (const { ref, text } of state.trail) put("step", `${encodeURIComponent(writeRef(ref))} ${text}`);
  return `?${written}`;
}

/** The body of POST /search: Qdrant's filter, references with weights, every candidate with both ranks. */
export function searchBody(state, depth) {
  const { collection, text, refs, share } = state;
  const body = { collection, text, limit: depth, rerank_depth: depth };
  if (refs[1]) Object.assign(body, { references: refs, weights: [Number((1 - share).toFixed(2)), share] });
  else if (refs[0]) body.reference = refs[0];
  if (refs[0]) body.exclude_reference = true;
  if (state.not) body.must_not = state.not;
  const must = Object.entries(state.filter).filter(([, any]) => any.length).map(([key, any]) => ({ key, match: any.length > 1 ? { any } : { value: any[0] } }));
  if (must.length) body.filter = { must };
  if (state.per) body.group_by = state.per;
  return body;
}

// Filters as chips with counts, one group a field. They apply in Qdrant; the address carries them.

import { $, button, el, on } from "./dom.js";
import { number } from "./words.js";

const bar = $("filters");
let open = "";

function toggle(field) {
  open = open === field ? "" : field;
  bar.querySelectorAll("[aria-expanded]").forEach((each) => {
    each.setAttribute("aria-expanded", String(each.dataset.key === open));
    each.nextSibling.hidden = each.dataset.key !== open;
  });
}

on(document, "click", ({ target }) => { if (open && target.isConnected && !bar.contains(target)) toggle(""); });

export function showFilters(facets, filter, changed) {
  const focused = bar.contains(document.activeElement) && document.activeElement.dataset.key;
  const every = Object.fromEntries(facets.map(({ field, values }) => [field, values]));
  for (const field of Object.keys(filter)) every[field] ??= [];
  bar.replaceChildren(...Object.entries(every).map(([field, values], at) => {
    const chosen = filter[field] ?? [];
    const counts = new Map([...chosen.map((value) => [value, 0]), ...values.map(({ value, count }) => [value, count])]);
    const choices = [...counts].map(([value, count]) => button([`${value} `, count ? el("small", {}, number(count)) : ""], () => (
      changed({ ...filter, [field]: chosen.includes(value) ? chosen.filter((each) => each !== value) : [...chosen, value] })
    ), { class: "chip", "data-key": `${field}=${value}`, "aria-pressed": String(chosen.includes(value)) }));
    return el("div.facet", {},
      button(chosen.length ? `${field}: ${chosen.join(", ")}` : field, () => toggle(field), {
        class: `chip${chosen.length ? " on" : ""}`, "data-key": field, "aria-expanded": String(open === field), "aria-controls": `facet${at}` }),
      el("div.panel", { id: `facet${at}`, role: "group", "aria-label": field, hidden: open !== field }, choices));
  }));
  if (focused) [...bar.querySelectorAll("button")].find((each) => each.dataset.key === focused)?.focus();
}

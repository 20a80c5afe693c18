// Filters as chips with counts, one group a field. They apply in Qdrant; the address carries them.

import { $, button, el } from "./dom.js";
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

document.addEventListener("click", ({ target }) => { if (open && target.isConnected && !bar.contains(target)) toggle(""); });
bar.addEventListener("keydown", ({ key }) => {
  if (key !== "Escape" || !open) return;
  bar.querySelector("[aria-expanded=true]").focus();
  toggle("");
});

export function showFilters(facets, filter, changed) {
  const focused = bar.contains(document.activeElement) && document.activeElement.dataset.key;
  const unlisted = Object.keys(filter).filter((field) => !facets.some((each) => each.field === field)).map((field) => ({ field, values: [] }));
  bar.replaceChildren(...[...facets, ...unlisted].map(({ field, values }, at) => {
    const chosen = filter[field] ?? [];
    const gone = chosen.filter((value) => !values.some((each) => each.value === value)).map((value) => ({ value }));
    const choices = [...gone, ...values].map(({ value, count }) => button([`${value} `, count ? el("small", {}, number(count)) : ""], () => (
      changed({ ...filter, [field]: chosen.includes(value) ? chosen.filter((each) => each !== value) : [...chosen, value] })
    ), { class: "chip", "data-key": `${field}=${value}`, "aria-pressed": String(chosen.includes(value)) }));
    return el("div", { class: "facet" },
      button(chosen.length ? `${field}: ${chosen.join(", ")}` : field, () => toggle(field), {
        class: `chip${chosen.length ? " on" : ""}`, "data-key": field, "aria-expanded": String(open === field), "aria-controls": `facet${at}` }),
      el("div", { class: "panel", id: `facet${at}`, role: "group", "aria-label": field, hidden: open !== field }, choices));
  }));
  if (focused) [...bar.querySelectorAll("button")].find((each) => each.dataset.key === focused)?.focus();
}

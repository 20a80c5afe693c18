// Elements made one by one: nothing that a payload holds is ever read as markup.

export const $ = (id) => document.getElementById(id);
export const on = (target, type, act) => (target.addEventListener ? target : $(target)).addEventListener(type, act);

/** `el("li.here", {id: "x", onclick: act}, ...children)` */
export function el(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const made = document.createElement(name);
  made.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) on(made, key.slice(2), value);
    else if (value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat(3));
  return made;
}

export const button = (label, onclick, attributes = {}) => el("button", { type: "button", onclick, ...attributes }, label);

/** Tell screen readers. */
export const announce = (sentence) => { $("live").textContent = sentence; };

export const imageUrl = (collection, id, size) => `images/${encodeURIComponent(id)}?${new URLSearchParams({ collection, size })}`;

const sent = new Map(); // pictures that were sent from here, drawn from memory while the page lives

export const keepSent = (upload, picture) => sent.set(upload, picture);

/** An element that shows {id} of the collection or {upload}; `onmissing` is called when it cannot. */
export function pictureOf(collection, { id, upload }, { size = 480, alt = "", onmissing } = {}) {
  const bitmap = sent.get(upload);
  if (!bitmap) {
    return el("img", { src: upload ? `uploads/${upload}` : imageUrl(collection, id, size), alt, draggable: "false",
      onerror: ({ target }) => { target.style.visibility = "hidden"; onmissing?.(); } });
  }
  const scale = Math.min(1, 640 / Math.max(bitmap.width, bitmap.height));
  const canvas = el("canvas", { role: "img", "aria-label": alt || "your picture", width: Math.round(bitmap.width * scale), height: Math.round(bitmap.height * scale) });
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas;
}

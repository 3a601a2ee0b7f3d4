// Tables of what is found, with a bar for each figure. Bars are for the eye: the figure stands beside them.

import { make, say, shared } from "./dom.js";
import { write } from "./words.js";

// An element whose text follows the language.
export const written = (tag, text, kind) => write(make(tag, { class: kind }), "{text}", { text });
export const head = (text) => make("th", { scope: "row", dir: "auto" }, text);
export const figure = (text) => written("td", text, "n");
export const side = (value) => (value >= 0 ? "for" : "against");

// A bar from the left, of a share of the whole.
export const bar = (share) => make("td", { class: "track share", "aria-hidden": "true" }, shared(make("span"), share));

// A bar from the middle: to the right for what is above zero, to the left for what is below.
export function sides(value, scale) {
  const drawn = shared(make("span", { class: side(value) }), Math.abs(value) / scale);
  return make("td", { class: "track sides", "aria-hidden": "true" }, drawn);
}

// `heads` are keys of words, null over a bar; `rows` are lists of cells.
export function table({ caption, given, kind }, heads, rows) {
  const top = heads.map((key) => (key ? say("th", key, {}, { scope: "col" }) : make("td")));
  const body = make("tbody", {}, rows.map((cells) => make("tr", {}, cells)));
  return make("table", {}, say("caption", caption, given, { class: kind }), make("thead", {}, make("tr", {}, top)), body);
}

export const wide = (...children) => make("div", { class: "wide" }, children);

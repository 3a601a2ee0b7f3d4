// Elements in one line each. Text only ever becomes text nodes, never markup.

import { write } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
let count = 0;

export const fresh = (stem) => `${stem}-${(count += 1)}`; // an id that nothing else has
export const byId = (id) => document.getElementById(id);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export const make = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
export const draw = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
// An element that says something in the language of the page.
export const say = (tag, key, given = {}, attributes = {}) => write(make(tag, attributes), key, given);
export const note = (key, given = {}, tag = "p") => say(tag, key, given, { class: "note" });
export const button = (key, onclick, attributes = {}) => say("button", key, {}, { type: "button", onclick, ...attributes });

// A share from 0 to 1 that the style sheet makes a length or a depth of colour of.
export function shared(element, share) {
  element.style.setProperty("--share", Math.min(1, Math.max(0, share)).toFixed(3));
  return element;
}

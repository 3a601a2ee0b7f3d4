// Explanations, laid over what was asked. Colour never stands alone: signs and lines mark it, and the parts that count
// most are listed in words.

import { make, note, say, shared } from "./dom.js";
import { plot } from "./plot.js";
import { bar, figure, head, side, sides, table, wide, written } from "./tables.js";
import { list, number, percent, sentence, shorten, unitName, write } from "./words.js";

const TOP = 5;
const LISTED = 30;
const SEEN = 0.03; // of the strongest: less is left plain
const STRONG = 0.3; // of the strongest: a sign is set before it
const largest = (values) => Math.max(...values.map((value) => Math.abs(value ?? 0)), 1e-30);
const signed = (value) => `${value >= 0 ? "+" : "−"}${number(Math.abs(value), 3)}`;

// What the first method found in each column of the row.
export function explanation(facts) {
  const answer = shorten(facts.rows[0].answer, 80);
  const counted = facts.unit.startsWith("value");
  const [found] = Object.values(facts.rows[0].maps);
  if (!found) return make("div");
  const signs = counted ? ["raises", "lowers"] : ["speaks_for", "speaks_against"];
  const legend = make("p", { class: "note legend" }, signs.map((key) => say("span", key)));
  const columns = [...found.columns].sort((a, b) => b.weight - a.weight);
  const node = make("div", { class: "why" }, say("h3", "why", { answer }), legend);
  if (columns.length > 1) node.append(shares(columns));
  const bars = columns.filter(({ shown }) => shown.kind === "parts").flatMap(({ shown }) => shown.parts);
  for (const { name, shown } of columns) {
    if (shown.kind !== "parts") node.append((SHOWN[shown.kind] ?? inWords)(name, shown));
  }
  if (bars.length) node.append(parts(bars));
  node.append(note("in_units", { unit: () => unitName(facts.unit) }));
  return node;
}

const SHOWN = { picture, bands, tokens, curve };
const inWords = (name, { top = [] }) => make("div", {}, make("p", { class: "note", dir: "auto" }, name), listed(top)); // a kind to come

function shares(columns) {
  const rows = columns.map(({ name, share }) => [head(name), bar(share), figure(() => percent(share))]);
  return wide(table({ caption: "columns" }, ["what", null, "share"], rows));
}

function parts(all) {
  const scale = largest(all.map(({ attribution }) => attribution));
  const shown = [...all].sort((a, b) => Math.abs(b.attribution) - Math.abs(a.attribution)).slice(0, LISTED);
  const rows = shown.map(({ name, cell, attribution }) => {
    const value = cell ? make("td", { dir: "auto" }, cell) : say("td", "empty");
    return [head(name), value, sides(attribution, scale), figure(() => signed(attribution))];
  });
  return wide(table({ caption: "counts" }, ["what", "value", null, "counts"], rows));
}

function listed(pairs) {
  const strongest = pairs.filter(([, value]) => value).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1])).slice(0, TOP);
  const lines = strongest.map(([text, value]) => written("li", () => `${typeof text === "function" ? text() : text} (${signed(value)})`));
  return strongest.length ? make("div", {}, note("top"), make("ol", { class: "top" }, lines)) : make("div");
}

// Pictures -------------------------------------------------------------------------------------------------------------

// Of a grid of three by three, the parts with the largest shares, and what they speak for in all: a heat map in words.
export function places(values) {
  const cells = Array.from({ length: 9 }, (_, i) => ({ x: i % 3, y: Math.floor(i / 3), share: 0, net: 0 }));
  values.forEach((line, y) => line.forEach((value, x) => {
    const cell = cells[3 * Math.floor((3 * y) / values.length) + Math.floor((3 * x) / line.length)];
    cell.share += Math.abs(value ?? 0);
    cell.net += value ?? 0;
  }));
  const whole = cells.reduce((sum, { share }) => sum + share, 0) || 1;
  for (const cell of cells) cell.share /= whole;
  return cells.filter(({ share }) => share > 1 / 9).sort((a, b) => b.share - a.share).slice(0, 3);
}

function placed(values) {
  const told = ({ x, y, share, net }) => {
    const names = { vertical: sentence(`y${y}`), horizontal: sentence(`x${x}`) };
    const where = x === 1 && y === 1 ? sentence("centre") : sentence("place", names);
    return `${where} ${net >= 0 ? "+" : "−"}${percent(share)}`;
  };
  return () => list(places(values).map(told));
}

function picture(name, shown) {
  const image = make("img", { class: "heat", src: shown.picture });
  image.addEventListener("load", () => image.classList.toggle("small", image.naturalWidth <= 96), { once: true });
  const told = shown.values ? ["heat_of", { name, top: placed(shown.values) }] : ["heat_plain", { name }];
  write(image, ...told, "alt");
  return make("figure", { class: "heat" }, image, note(...told, "figcaption"));
}

function bands(name, shown) {
  const image = write(make("img", { src: shown.picture, class: "small" }), "bands_of", { name }, "alt");
  return make("figure", { class: "bands" }, image, note("bands_of", { name }, "figcaption"));
}

// Texts ----------------------------------------------------------------------------------------------------------------

function tokens(name, { pieces }) {
  const scale = largest(pieces.map(([, value]) => value));
  const marked = pieces.map(([text, value]) => {
    const share = Math.abs(value ?? 0) / scale;
    if (share < SEEN) return text;
    return shared(make("mark", { class: `${side(value)}${share >= STRONG ? " strong" : ""}`, title: signed(value) }, text), share);
  });
  const words = make("p", { class: "tokens", dir: "auto", tabindex: "0", role: "region" }, marked);
  write(words, "tokens_of", { name }, "aria-label");
  return make("figure", {}, note("tokens_of", { name }, "figcaption"), words, listed(pieces.filter(([, value]) => value !== null)));
}

// Series ---------------------------------------------------------------------------------------------------------------

function curve(name, { features }) {
  const scale = largest(features.flatMap(({ attribution }) => attribution));
  const steps = features.flatMap((one) => one.attribution.map((value, i) =>
    [() => `${features.length > 1 ? `${one.name}, ` : ""}${sentence("step", { step: i + 1 })}: ${number(one.values[i] ?? NaN)}`, value]));
  const drawn = features.map((one) => {
    const told = ["curve_of", { name: one.name }];
    return make("figure", {}, plot(...told, one, scale), note(...told, "figcaption"));
  });
  return make("div", {}, drawn, listed(steps));
}

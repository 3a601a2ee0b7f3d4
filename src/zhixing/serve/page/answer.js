// What the model answers: the answer itself, how sure it is of each class, and why.

import { make, note, say } from "./dom.js";
import { explanation } from "./explain.js";
import { plot } from "./plot.js";
import { bar, figure, head, table, written } from "./tables.js";
import { list, number, percent, sentence, shorten } from "./words.js";

const LISTED = 10; // classes before the rest is folded away
const LONG = 40; // characters that still are a headline

// A cell in words, in the language of the page.
export function said(value) {
  if (value === null || value === undefined || value === "") return sentence("empty");
  if (typeof value === "number") return number(value, 6);
  if (typeof value === "boolean") return sentence(value ? "yes" : "no");
  if (Array.isArray(value)) {
    const nested = value.some(Array.isArray);
    return value.length ? list(value.map((one) => (nested ? `(${said(one)})` : said(one)))) : sentence("empty");
  }
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

const ranked = (chances) => Object.entries(chances ?? {}).sort((a, b) => b[1] - a[1]);

// One line for the status: every answer, with how sure the model is of it.
export function inShort({ answer, probabilities = {} }) {
  const many = Object.keys(answer).length > 1;
  const parts = Object.entries(answer).map(([name, value]) => {
    const sure = chance(value, probabilities[name]);
    const text = shorten(said(value), 120) + (sure === undefined ? "" : ` (${sentence("sure", { percent: percent(sure) })})`);
    return many ? sentence("answer_of", { name, answer: text }) : text;
  });
  return list(parts);
}

const chance = (value, chances) => (typeof value === "string" ? chances?.[value] : undefined);

export function answers({ answer, probabilities = {}, details = {}, explanation: why = {} }) {
  return Object.entries(answer).map(([name, value]) => {
    const text = said(value);
    const sure = chance(value, probabilities[name]);
    const kind = `figure${text.length > LONG ? " long" : ""}`;
    const headline = make("p", { class: kind, dir: "auto" }, written("span", () => said(value), "value"));
    if (sure !== undefined) headline.append(" ", written("small", () => sentence("sure", { percent: percent(sure) })));
    const node = make("section", { class: "result", "data-output": name }, make("h3", { dir: "auto" }, name), headline);
    node.append(...forecast(name, value));
    if (probabilities[name]) node.append(chances(name, ranked(probabilities[name])));
    const found = why[name];
    const beside = Object.entries(details[name] ?? {}).map(([part, one]) => written("p", () => `${part}: ${said(one)}`, "note"));
    node.append(...beside);
    if (found) node.append(explanation(found));
    return node;
  });
}

// A list of numbers, or of steps of numbers, as a curve for each feature.
function forecast(name, value) {
  const steps = Array.isArray(value) ? value.map((step) => [step].flat()) : [];
  const counted = steps.flat().every((one) => typeof one === "number" || one === null);
  if (steps.length < 3 || !counted) return [];
  return steps[0].map((_, i) => {
    const given = { name: steps[0].length > 1 ? `${name} [${i}]` : name };
    const values = steps.map((step) => step[i] ?? null);
    return make("figure", {}, plot("forecast_of", given, { values }), note("forecast_of", given, "figcaption"));
  });
}

function chances(output, classes) {
  const about = { caption: "chances", given: { output }, kind: "hidden" };
  const row = ([name, share]) => [head(name), bar(share), figure(() => percent(share))];
  const shown = (some) => table(about, ["class", null, "probability"], some.map(row));
  const rest = classes.slice(LISTED);
  const node = make("div", { class: "wide chances" }, shown(classes.slice(0, LISTED)));
  if (rest.length) node.append(make("details", {}, say("summary", "more", { count: rest.length }), shown(rest)));
  return node;
}

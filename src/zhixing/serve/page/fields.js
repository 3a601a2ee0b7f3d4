// A field for each input column, made from what the server tells of it. A new type of column gets one by its schema.

import { button, fresh, make, note, say } from "./dom.js";
import { Wrong, dropZone, textOf } from "./files.js";
import { picture, sound } from "./media.js";
import { sentence, typeName, write } from "./words.js";

const LISTED = 300; // choices in a list; of more, the browser suggests while one types
const TICKED = 40; // choices as boxes to tick

// The part of a schema that is not null: cells may be empty.
function plain(schema = {}) {
  const some = (schema.anyOf ?? schema.oneOf ?? []).find((one) => one.type !== "null");
  const type = [some?.type ?? schema.type].flat().find((one) => one !== "null");
  return { ...schema, ...some, type };
}

// The first that fits is taken.
const KINDS = [
  [({ type }) => type === "image", picture],
  [({ type }) => type === "audio", sound],
  [({ options, schema }) => options && schema.type !== "array", choice],
  [({ options, schema, length }) => options?.length <= TICKED && schema.type === "array" && !length, ticks], // of no order
  [({ schema }) => schema.type === "array", items],
  [({ schema }) => ["number", "integer"].includes(schema.type), quantity],
  [({ type, schema }) => type === "date" || /^date/.test(schema.format), date],
  [() => true, text],
];

// {name, node, read(), show(example), clear(), complain(key, given)}; read() gives a cell, a File, or undefined.
export function field(input) {
  const schema = plain(input.schema);
  const facts = { ...input, schema, options: input.classes ?? input.items ?? schema.enum ?? plain(schema.items).enum };
  const ids = { name: fresh("name"), note: fresh("note"), trouble: fresh("trouble") };
  const node = make("div", { class: "field", role: "group", "aria-labelledby": ids.name });
  const told = make("p", { class: "note", id: ids.note });
  write(told, "{note}", { note: () => noteOf(facts) });
  const trouble = make("p", { class: "complaint", id: ids.trouble, role: "alert", hidden: true });
  const about = { named: ids.name, described: `${ids.note} ${ids.trouble}` };
  const quiet = () => {
    trouble.hidden = true;
    node.querySelectorAll("[aria-invalid]").forEach((one) => one.removeAttribute("aria-invalid"));
  };
  const complain = (key, given = {}) => {
    trouble.hidden = false;
    write(trouble, key, given);
    made.target.setAttribute("aria-invalid", "true");
  };
  const context = { ...about, node, quiet, complain };
  const [, build] = KINDS.find(([fits]) => fits(facts));
  const made = build(facts, context);
  const label = make(made.control ? "label" : "span", { class: "name", id: ids.name, for: made.control?.id, dir: "auto" }, input.name);
  if (made.control) {
    node.removeAttribute("role");
    node.removeAttribute("aria-labelledby");
    made.control.setAttribute("aria-describedby", about.described);
  }
  node.append(label, told, ...made.parts, trouble);
  made.target ??= made.control ?? node.querySelector("input");
  node.addEventListener("input", quiet);
  return { name: input.name, sample: made.show && facts.example, node, ...made, complain, quiet };
}

// What a cell is, in a line.
function noteOf({ type, schema, unit, low, high, size, channels, options, count, seconds }) {
  const sides = [size].flat();
  return [
    typeName(type),
    sides.length === 2 && sentence("size", { height: sides[0], width: sides[1] }),
    channels && sentence(channels === 1 ? "grey" : "colour"),
    options && schema.type !== "array" && sentence("one_of", { count: count ?? options.length }),
    unit && sentence("unit", { unit }),
    Number.isFinite(low) && Number.isFinite(high) && sentence("range", { low, high }),
    seconds && sentence("seconds_most", { seconds }),
  ].filter(Boolean).join(" · ");
}

function quantity({ name, example, schema }) {
  const control = make("input", { id: fresh("cell"), type: "number", step: schema.type === "integer" ? 1 : "any", inputmode: "decimal" });
  if (example !== undefined) control.placeholder = String(example);
  const read = () => {
    if (control.validity.badInput) throw new Wrong("wants_number", { name, example: example ?? 1 });
    return control.value === "" ? undefined : Number(control.value);
  };
  return { control, parts: [control], read, show: (cell) => (control.value = cell ?? ""), clear: () => (control.value = "") };
}

function choice({ options }) {
  const id = fresh("cell");
  let control, parts;
  if (options.length <= LISTED) {
    const listed = options.map((one) => make("option", { value: one }, String(one)));
    control = make("select", { id }, say("option", "none", {}, { value: "" }), listed);
    parts = [control];
  } else {
    const suggestions = make("datalist", { id: fresh("list") }, options.map((one) => make("option", { value: one })));
    control = make("input", { id, list: suggestions.id, autocomplete: "off" });
    parts = [control, suggestions];
  }
  const read = () => (control.value === "" ? undefined : (options.find((one) => String(one) === control.value) ?? control.value));
  return { control, parts, read, show: (cell) => (control.value = cell ?? ""), clear: () => (control.value = "") };
}

function ticks({ options }) {
  const boxes = options.map((one) => make("input", { type: "checkbox", id: fresh("tick"), value: one }));
  const labels = boxes.map((box) => make("label", { for: box.id }, box, make("span", { dir: "auto" }, box.value)));
  const set = (cell) => boxes.forEach((box) => (box.checked = cell.includes(box.value)));
  return {
    parts: [make("div", { class: "checks" }, labels)],
    read: () => boxes.filter((box) => box.checked).map((box) => box.value),
    show: (cell) => set((cell ?? []).map(String)),
    clear: () => set([]),
  };
}

function date({ schema, example }) {
  const timed = schema.format === "date-time" || /\d[T ]\d/.test(example ?? "");
  const control = make("input", { id: fresh("cell"), type: timed ? "datetime-local" : "date" });
  const spelled = (cell) => (timed ? cell.replace(" ", "T").slice(0, 16) : cell.slice(0, 10));
  return {
    control, parts: [control],
    read: () => control.value || undefined,
    show: (cell) => (control.value = cell ? spelled(String(cell)) : ""),
    clear: () => (control.value = ""),
  };
}

const parted = (text, between) => text.split(between).map((one) => one.trim()).filter(Boolean);
const numbersIn = (text) => parted(text, /[\s,，;；]+/);
// Where there are lines, each is an item, whatever stands in it.
const itemsIn = (text) => parted(text, text.includes("\n") ? "\n" : /[,，;；]/);

// Lists: numbers in the order of time, steps of several numbers, items.
function items({ name, type, schema, example, options }) {
  const inner = plain(schema.items);
  const steps = inner.type === "array";
  const counted = steps || ["number", "integer"].includes(inner.type);
  const width = inner.minItems ?? example?.[0]?.length ?? 2;
  const control = make("textarea", { id: fresh("cell"), rows: steps ? 6 : 3, inputmode: counted ? "text" : undefined });
  const key = steps ? "steps" : counted ? "numbers" : type === "history" ? "items" : "items_any";
  const help = note(key, { count: width });
  const figure = (word) => {
    if (/^(null|nan|-)$/i.test(word)) return null; // a step without a value
    const value = Number(word);
    if (!Number.isFinite(value)) throw new Wrong("bad_number", { name, value: word });
    return value;
  };
  const read = () => {
    const given = control.value;
    if (!given.trim()) return undefined;
    if (steps) return parted(given, "\n").map((line) => numbersIn(line).map(figure));
    return counted ? numbersIn(given).map(figure) : itemsIn(given);
  };
  const spelled = (cell) => {
    if (steps) return cell.map((step) => step.join(", ")).join("\n");
    return counted ? cell.join(", ") : cell.map((one) => `${one}\n`).join("");
  };
  const show = (cell) => (control.value = Array.isArray(cell) ? spelled(cell) : String(cell ?? ""));
  const parts = [help, control, ...(options ? [adder(name, options, control)] : [])];
  return { control, parts, read, show, clear: () => (control.value = "") };
}

// What is known of, to be added to a list one after another.
function adder(name, options, control) {
  const suggestions = make("datalist", { id: fresh("list") }, options.map((one) => make("option", { value: one })));
  const input = write(make("input", { list: suggestions.id, autocomplete: "off" }), "add", { name }, "aria-label");
  write(input, "add", { name }, "placeholder");
  const add = () => {
    if (!input.value.trim()) return;
    control.value = [...itemsIn(control.value), input.value.trim()].map((one) => `${one}\n`).join("");
    input.value = "";
  };
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault(); // which would send the form
    add();
  });
  return make("div", { class: "row" }, input, suggestions, button("add_it", add, { class: "quiet" }));
}

function text({ example }, { node, named, described, complain }) {
  const control = make("textarea", { id: fresh("cell"), rows: 6, dir: "auto" });
  if (typeof example === "string") control.placeholder = example.slice(0, 200);
  const take = async (file) => {
    try {
      control.value = await textOf(file);
    } catch (wrong) {
      complain(wrong.key, wrong.given);
    }
  };
  const { zone } = dropZone({ words: "drop_text", accept: "text/*,.eml,.txt,.md", take, around: node, named, described });
  zone.classList.add("slim");
  return {
    control, parts: [control, zone],
    read: () => control.value || undefined,
    show: (cell) => (control.value = cell ?? ""),
    clear: () => (control.value = ""),
  };
}

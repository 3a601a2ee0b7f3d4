// The page: fields from the columns of the model, what it answers, and the same request as a program.

import { answers, inShort } from "./answer.js";
import { conversation } from "./chat.js";
import { byId, make, note, say } from "./dom.js";
import { field } from "./fields.js";
import { Wrong } from "./files.js";
import { Refused, ask, curl, filesOf, post, python, setToken } from "./request.js";
import { another, few, list, number, speak, write } from "./words.js";

let model = null;
let fields = [];
let last = null; // what was sent last
let saves = []; // links to its files
let asking = null; // what stops the request that is on its way

async function start() {
  speak();
  write(byId("language"), "other");
  write(byId("method"), "method", {}, "aria-label");
  byId("language").addEventListener("click", () => {
    speak(another());
    byId("language").lang = another() === "zh" ? "zh-CN" : "en";
    programs();
  });
  byId("access").addEventListener("submit", (event) => {
    event.preventDefault();
    setToken(byId("token").value.trim());
    meet();
  });
  byId("form").addEventListener("submit", (event) => (event.preventDefault(), send()));
  byId("form").addEventListener("reset", () => fields.forEach((one) => (one.clear(), one.quiet())));
  byId("example").addEventListener("click", () => fields.forEach((one) => one.sample && (one.quiet(), one.show(one.sample))));
  for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", () => copy(button));
  await meet();
}

// What the server can do.
async function meet() {
  trouble(null);
  let found;
  try {
    found = (await (await ask("v1/models")).json()).models;
  } catch (error) {
    byId("access").hidden = error.status !== 401;
    if (error.status === 401) byId("token").focus();
    return trouble(...(error.status === 401 ? ["token_wanted"] : told(error)));
  }
  byId("access").hidden = true;
  if (!found.length) return trouble("no_models");
  byId("choose").hidden = found.length < 2;
  byId("model").replaceChildren(...found.map(({ id }) => make("option", { value: id }, id)));
  byId("model").onchange = () => show(found[byId("model").selectedIndex]);
  show(found[0]);
}

function show(chosen) {
  model = chosen;
  const outputs = model.outputs.map(({ name }) => name);
  const inputs = model.inputs.map(({ name }) => name).filter((name) => !outputs.includes(name));
  const told = { model: model.id, inputs: () => few(inputs), outputs: () => few(outputs) };
  write(byId("title"), inputs.length ? "title" : "title_free", told);
  document.title = `${model.id} · Zhixing`;
  asking?.abort();
  last = null;
  byId("predict").hidden = !inputs.length; // a language model only writes
  byId("request").hidden = true;
  byId("explaining").hidden = !model.explains?.length;
  byId("method").replaceChildren(...(model.explains ?? []).map((one) => make("option", { value: one }, one.replaceAll("_", " "))));
  byId("answer").replaceChildren();
  write(byId("status"), "waiting");
  fields = inputs.length ? model.inputs.map(field) : [];
  byId("fields").replaceChildren(...fields.map(({ node }) => node));
  byId("example").hidden = !fields.some(({ sample }) => sample);
  conversation(inputs.length ? null : model, remember);
}

const trouble = (key, given) => {
  byId("trouble").hidden = !key;
  if (key) write(byId("trouble"), key, given);
};

// The cells of the form; null, with the fields marked, where something is wrong with them.
async function row() {
  const cells = {};
  const wrong = [];
  for (const one of fields) {
    try {
      const cell = await one.read();
      cells[one.name] = cell ?? null;
    } catch (error) {
      if (!(error instanceof Wrong)) throw error;
      one.complain(error.key, error.given);
      wrong.push(one);
    }
  }
  if (!wrong.length && Object.values(cells).every((cell) => cell === null)) {
    fields[0].complain("wants", { name: fields[0].name });
    wrong.push(fields[0]);
  }
  if (wrong.length) point(wrong);
  return wrong.length ? null : cells;
}

function point(wrong) {
  write(byId("status"), "trouble", { fields: () => list(wrong.map(({ name }) => name)) });
  wrong[0].target.focus();
}

async function send() {
  asking?.abort();
  const mine = (asking = new AbortController());
  fields.forEach((one) => one.quiet());
  byId("answer").replaceChildren();
  write(byId("status"), "sending");
  const cells = await row();
  if (!cells || mine.signal.aborted) return;
  const explain = byId("explain").checked && model.explains?.length > 0 && byId("method").value;
  const request = { path: "v1/predict", body: { model: model.id, rows: [cells], probabilities: true, explain } };
  byId("answer").setAttribute("aria-busy", "true");
  const before = performance.now();
  try {
    const [body, why] = await answered(request, mine.signal);
    const whole = performance.now() - before;
    const found = body.rows[0];
    if (found.error) throw new Refused(200, { ...body, error: found.error });
    byId("answer").replaceChildren(...answers(found), ...(why ? [note("unexplained", { why })] : []));
    const times = { model: () => number(body.milliseconds, 3), whole: () => number(whole, 3) };
    write(byId("status"), "done", { answer: () => inShort(found), ...times });
    const { top } = byId("answer-title").getBoundingClientRect();
    if (top < 0 || top > innerHeight / 2) byId("answer-title").scrollIntoView();
  } catch (error) {
    if (mine.signal.aborted) return;
    failed(error);
  } finally {
    if (asking === mine) byId("answer").removeAttribute("aria-busy");
  }
  remember(request);
}

// What the server answers, and why it explains nothing: not every method has something to work on in every model.
async function answered(request, signal) {
  try {
    return [await (await post({ ...request, signal })).json(), ""];
  } catch (error) {
    if (!request.body.explain || error.status !== 422 || error.body?.rows) throw error;
    request.body.explain = false;
    return [await (await post({ ...request, signal })).json(), error.message];
  }
}

function failed(error) {
  const about = error.body?.rows?.[0]?.error ?? error.body?.error;
  const named = fields.find(({ name }) => name === about?.column);
  if (named) {
    named.complain([about.message, about.mend].filter(Boolean).join(" "));
    return point([named]);
  }
  write(byId("status"), "failed");
  byId("answer").replaceChildren(write(make("p", { class: "complaint", role: "alert" }), ...told(error)));
}

// An error in words: the server's own where it said something.
function told(error) {
  if (!(error instanceof Refused)) return ["away"];
  const { place, message = error.message, mend } = error.body?.rows?.[0]?.error ?? error.body?.error ?? {};
  return ["{text}", { text: `${place ? `${place}: ` : ""}${message}${mend ? ` ${mend}` : ""}` }];
}

function remember(request) {
  last = request;
  programs();
}

function programs() {
  byId("request").hidden = !last;
  if (!last) return;
  byId("curl").textContent = curl(last);
  byId("python").textContent = python(last);
  saves.forEach((one) => URL.revokeObjectURL(one.href));
  saves = filesOf(last.body.rows?.[0]).map(([, file]) => {
    const link = { href: URL.createObjectURL(file), download: file.name };
    return say("a", "save", { file: file.name }, link);
  });
  byId("saves").replaceChildren(...saves);
}

async function copy(button) {
  await navigator.clipboard.writeText(byId(button.dataset.copy).textContent);
  write(button, "copied");
  setTimeout(() => write(button, "copy"), 2000);
}

start();

// A request as one object, and the same object sent, as curl and as Python.

import { base64 } from "./files.js";
import { sentence } from "./words.js";

const KEPT = "zhixing-token";
let token = "";
try {
  token = sessionStorage.getItem(KEPT) ?? "";
} catch {
  // storage may be switched off
}

export function setToken(given) {
  token = given;
  try {
    sessionStorage.setItem(KEPT, given);
  } catch {
    // the token then lasts as long as the page
  }
}

// An answer that is not the one that was hoped for; `body` is what the server said, as far as it said anything.
export class Refused extends Error {
  constructor(status, body) {
    super(body?.error?.message ?? `HTTP ${status}`);
    Object.assign(this, { status, body });
  }
}

export async function ask(path, init = {}) {
  const headers = { ...init.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  const answer = await fetch(path, { ...init, headers });
  if (answer.ok) return answer;
  throw new Refused(answer.status, await answer.json().catch(() => null));
}

// Sends {path, body}: as a form where a row holds files, which is a third shorter than JSON, else as JSON.
export async function post({ path, body, signal }) {
  const init = isForm(body) ? multipart(form(body)) : { body: JSON.stringify(await packed(body)), headers: JSON_ONLY };
  return ask(path, { method: "POST", signal, ...init });
}

const JSON_ONLY = { "Content-Type": "application/json" };

// A body with each file as {"base64": …}.
async function packed(value) {
  if (value instanceof Blob) return { base64: await base64(value) };
  if (Array.isArray(value)) return Promise.all(value.map(packed));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(await Promise.all(Object.entries(value).map(async ([key, one]) => [key, await packed(one)])));
}

// Forms ----------------------------------------------------------------------------------------------------------------

export const filesOf = (row) => Object.entries(row ?? {}).filter(([, cell]) => cell instanceof Blob);
const spelled = (cell) => (typeof cell === "string" ? cell : cell === null ? "" : JSON.stringify(cell));

// Whether a body is sent as a form: it has files, and no column is called as something else, or as no form can say.
function isForm({ rows, ...others }) {
  const row = rows?.[0];
  return filesOf(row).length > 0 && !Object.keys(row).some((name) => name in others || /["\\\r\n]/.test(name));
}

function form({ rows, ...others }) {
  const all = Object.entries({ ...others, ...rows[0] });
  const isFile = ([, cell]) => cell instanceof Blob;
  return { plain: all.filter((one) => !isFile(one)).map(([name, cell]) => [name, spelled(cell)]), files: all.filter(isFile) };
}

// By hand, since FormData makes every line break of a text two characters.
function multipart({ plain, files }) {
  const boundary = `zhixing-${Math.random().toString(36).slice(2)}${Math.random().toString(36).slice(2)}`;
  const head = (name, more = "") => `--${boundary}\r\nContent-Disposition: form-data; name="${name}"${more}\r\n\r\n`;
  const parts = plain.flatMap(([name, text]) => [head(name), text, "\r\n"]);
  for (const [name, file] of files) {
    const kind = `; filename="file"\r\nContent-Type: ${file.type || "application/octet-stream"}`;
    parts.push(head(name, kind), file, "\r\n");
  }
  return { body: new Blob([...parts, `--${boundary}--\r\n`]), headers: { "Content-Type": `multipart/form-data; boundary=${boundary}` } };
}

// Programs -------------------------------------------------------------------------------------------------------------

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
const address = (path) => new URL(path, location.href).href;
// In place of a file's content, in JSON that is shown.
function short(body) {
  const shorten = (_, cell) => (cell instanceof Blob ? { base64: sentence("shortened", { file: cell.name }) } : cell);
  return JSON.parse(JSON.stringify(body, shorten));
}

export function curl({ path, body }) {
  const lines = [`curl ${quoted(address(path))}`];
  if (token) lines.push(`-H "Authorization: Bearer $TOKEN"`);
  if (isForm(body)) {
    const { plain, files } = form(body);
    lines.push(...plain.map(([name, text]) => `--form-string ${quoted(`${name}=${text}`)}`));
    lines.push(...files.map(([name, file]) => `-F ${quoted(`${name}=@${JSON.stringify(file.name)}`)}`));
  } else {
    lines.push("-H 'Content-Type: application/json'", `-d ${quoted(JSON.stringify(short(body)))}`);
  }
  return lines.join(" \\\n  ");
}

export function python({ path, body }) {
  const lines = ["import requests", ""];
  const given = [literal(address(path))];
  if (token) {
    lines.unshift("import os", "");
    given.push(`headers={"Authorization": f"Bearer {os.environ['TOKEN']}"}`);
  }
  if (isForm(body)) {
    const { plain, files } = form(body);
    lines.push(`data = ${literal(Object.fromEntries(plain))}`);
    lines.push(`files = {${files.map(([name, file]) => `${literal(name)}: open(${literal(file.name)}, "rb")`).join(", ")}}`);
    given.push("data=data", "files=files");
  } else {
    lines.push(`body = ${literal(short(body))}`);
    given.push("json=body");
  }
  return [...lines, `answer = requests.post(${given.join(", ")})`, "print(answer.json())"].join("\n");
}

// A value as Python spells it.
export function literal(value) {
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "object") return `{${Object.entries(value).map(([key, one]) => `${literal(key)}: ${literal(one)}`).join(", ")}}`;
  return JSON.stringify(value); // numbers; and strings, whose escapes mean the same there
}

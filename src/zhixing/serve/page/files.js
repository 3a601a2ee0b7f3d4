// A place that files are dropped on or pasted into, which is a button for the file dialog as well; and what is in them.

import { fresh, make, say } from "./dom.js";

// What is wrong with a cell, as a sentence of words.js.
export class Wrong extends Error {
  constructor(key, given = {}) {
    super(key);
    Object.assign(this, { key, given });
  }
}

// `take(file)` is called with each file that is chosen, dropped or pasted. `around` is all of the field: a file that
// is dropped beside the zone would else be opened by the browser in place of the page.
export function dropZone({ words, accept, take, around, named, described }) {
  const text = fresh("drop");
  const input = make("input", {
    type: "file", class: "hidden", accept, "aria-labelledby": `${named} ${text}`, "aria-describedby": described,
    onchange: () => {
      if (input.files.length) take(input.files[0]);
      input.value = ""; // so that the same file can be chosen again
    },
  });
  const zone = make("label", { class: "drop" }, input, say("b", words, {}, { id: text }));
  const files = (event) => (event.clipboardData ?? event.dataTransfer)?.files ?? [];
  const mark = (on) => (event) => {
    event.preventDefault();
    zone.classList.toggle("over", on);
  };
  around.addEventListener("dragenter", mark(true));
  around.addEventListener("dragover", mark(true));
  around.addEventListener("dragleave", mark(false));
  around.addEventListener("drop", (event) => {
    if (!files(event).length) return;
    mark(false)(event);
    take(files(event)[0]);
  });
  around.addEventListener("paste", (event) => {
    if (!files(event).length) return; // plain text goes where it always goes
    event.preventDefault();
    take(files(event)[0]);
  });
  return { zone, input };
}

const told = (file) => ({ file: file.name, type: file.type || file.name.split(".").slice(1).at(-1) || "?" });
const SHOWN = /^image\/(png|jpeg|gif|webp|bmp|avif|x-icon|vnd\.microsoft\.icon)$/; // what every browser reads

// Looks into a file that is said to be a picture: true where the browser can show it. Throws Wrong.
export async function lookAtPicture(file) {
  if (!file.size) throw new Wrong("empty_file", told(file));
  if (!file.type.startsWith("image/") || file.type.startsWith("image/svg")) throw new Wrong("not_picture", told(file));
  try {
    (await createImageBitmap(file)).close();
    return true;
  } catch {
    if (SHOWN.test(file.type)) throw new Wrong("broken_picture", told(file));
    return false; // TIFF, JPEG 2000 …: the server reads more than browsers do
  }
}

// Whether a file may be a sound at all. Throws Wrong.
export function lookAtSound(file) {
  if (!file.size) throw new Wrong("empty_file", told(file));
  const sounding = /^(audio|video)\/|^application\/ogg$/.test(file.type) || /\.(wav|flac|ogg|oga|opus|mp3|aiff?|au|caf)$/i.test(file.name);
  if (!sounding) throw new Wrong("not_sound", told(file));
}

// The text of a file in UTF-8. Throws Wrong.
export async function textOf(file) {
  const content = await file.arrayBuffer();
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(content);
    if (!text.includes("\0")) return text;
  } catch {
    // told of below
  }
  throw new Wrong("not_text", told(file));
}

export function base64(blob) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => failed(reader.error);
    reader.readAsDataURL(blob);
  });
}

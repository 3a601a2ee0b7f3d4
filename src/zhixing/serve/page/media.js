// Fields for pictures and sounds: draw, record, drop, choose, paste.

import { button, make, note, say } from "./dom.js";
import { pad } from "./draw.js";
import { Wrong, dropZone, lookAtPicture, lookAtSound } from "./files.js";
import { record, samplesOf, waveform } from "./sound.js";
import { write } from "./words.js";

const SMALL = 64; // pixels of the longer side of pictures that are drawn rather than taken

const unseen = (file) => say("p", "no_preview", { file: file.name });

// Shows a file that was chosen. {node, put(file, shown), file()}.
function shelf(show) {
  const node = make("div", { class: "shown", hidden: true });
  let kept = null;
  let address = "";
  const put = (file, can = true) => {
    URL.revokeObjectURL(address);
    kept = file;
    node.hidden = !file;
    node.replaceChildren();
    if (!file) return;
    address = URL.createObjectURL(file);
    node.append(...(can ? show(file, address) : [unseen(file)]), make("p", { class: "note", dir: "auto" }, file.name));
  };
  return { node, put, file: () => kept };
}

export function picture(facts, { node, named, described, complain, quiet }) {
  const shown = shelf((file, src) => [write(make("img", { src }), "picture_of", { file: file.name }, "alt")]);
  const take = async (file) => {
    quiet();
    try {
      const can = await lookAtPicture(file);
      paper.clear(); // what came last is sent
      shown.put(file, can);
    } catch (wrong) {
      complain(wrong.key, wrong.given);
    }
  };
  const paper = pad(facts, facts.name, () => {
    if (paper.drawn()) shown.put(null);
  });
  const longest = Math.max(...[facts.size ?? SMALL].flat());
  const drawing = make("details", { open: longest <= SMALL }, say("summary", "drawing"), note("draw"), paper.node);
  const { zone, input } = dropZone({ words: "drop_picture", accept: "image/*", take, around: node, named, described });
  const read = async () => {
    const blob = await paper.blob();
    const file = blob ? new File([blob], "drawing.png", { type: "image/png" }) : shown.file();
    if (!file) throw new Wrong("wants_picture", { name: facts.name });
    return file;
  };
  const clear = () => (paper.clear(), shown.put(null));
  return { parts: [drawing, zone, shown.node], read, clear, target: input };
}

export function sound(facts, { node, named, described, complain, quiet }) {
  const rate = facts.sample_rate ?? 16000;
  const shown = shelf((file, src) => {
    const canvas = make("canvas", { class: "wave", width: 600, height: 72, role: "img" });
    write(canvas, "sound_of", { file: file.name }, "aria-label");
    // What the browser cannot read, the server may.
    samplesOf(file, rate).then((samples) => waveform(canvas, samples), () => canvas.replaceWith(unseen(file)));
    return [canvas, make("audio", { src, controls: true, "aria-label": file.name })];
  });
  const take = (file) => {
    quiet();
    try {
      lookAtSound(file);
      shown.put(file);
    } catch (wrong) {
      complain(wrong.key, wrong.given);
    }
  };
  const clock = make("span", { class: "note", role: "status" });
  const recorder = microphone(rate, facts.seconds ?? 30, clock, take, complain);
  const { zone, input } = dropZone({ words: "drop_sound", accept: "audio/*,.flac,.ogg,.oga,.opus", take, around: node, named, described });
  const read = () => {
    if (!shown.file()) throw new Wrong("wants_sound", { name: facts.name });
    return shown.file();
  };
  return { parts: [make("div", { class: "row" }, recorder, clock), zone, shown.node], read, clear: () => shown.put(null), target: input };
}

// A button that starts and stops a recording, which ends by itself after as many seconds as the model hears.
function microphone(rate, longest, clock, take, complain) {
  let stop = null;
  let ticking = 0;
  const end = async () => {
    clearInterval(ticking);
    const file = stop;
    stop = null;
    write(node, "record");
    const blob = await file();
    const seconds = Math.round(((blob.size - 44) / 2 / rate) * 10) / 10;
    write(clock, "recorded", { seconds });
    take(new File([blob], "recording.wav", { type: "audio/wav" }));
  };
  const node = button("record", async () => {
    if (stop) return end();
    try {
      stop = await record(rate);
    } catch (error) {
      return complain("no_microphone", { why: error.message });
    }
    const start = performance.now();
    write(node, "stop_recording");
    write(clock, "recording", { seconds: 0 });
    ticking = setInterval(() => {
      const seconds = (performance.now() - start) / 1000;
      write(clock, "recording", { seconds: Math.floor(seconds) });
      if (seconds >= longest && stop) end();
    }, 250);
  });
  return node;
}

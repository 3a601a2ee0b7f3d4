// A drawing area for fingers, pens and mice, whose paper and ink are those of the pictures that the model has seen.

import { button, fresh, make, say } from "./dom.js";
import { write } from "./words.js";

const SIDE = 280; // pixels of the longer side: many for each of the model's, which the server averages
const PEN = 1 / 13; // of the longer side

// What lies around the thing in a picture is most of it: where pictures are dark in the mean, paper is black.
export function colours(facts) {
  const mean = [facts.mean ?? 255].flat().map(Number);
  const dark = mean.reduce((sum, one) => sum + one, 0) / mean.length < 100;
  return dark ? { paper: "#000000", ink: "#ffffff" } : { paper: "#ffffff", ink: "#000000" };
}

// {node, clear(), blob()}: blob() is a PNG, null while nothing is drawn. `changed` is called after each line.
export function pad(facts, name, changed) {
  const { paper, ink } = colours(facts);
  const [height, width] = [facts.size ?? 28].flat().length === 2 ? facts.size : [1, 1];
  const scale = SIDE / Math.max(height, width);
  const canvas = make("canvas", { class: "pad", width: width * scale, height: height * scale, role: "img" });
  write(canvas, "pad", { name }, "aria-label");
  const context = canvas.getContext("2d");
  const lines = [];
  const id = fresh("ink");
  const chosen = facts.channels === 3 ? make("input", { type: "color", id, value: ink }) : null;

  function paint() {
    context.fillStyle = paper;
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.lineWidth = SIDE * PEN;
    context.lineCap = context.lineJoin = "round";
    for (const line of lines) stroke(line);
  }

  function stroke({ colour, points }) {
    context.strokeStyle = colour;
    context.beginPath();
    context.moveTo(...points[0]);
    if (points.length === 1) context.lineTo(...points[0]);
    for (const point of points.slice(1)) context.lineTo(...point);
    context.stroke();
  }

  function place(event) {
    const box = canvas.getBoundingClientRect();
    const left = box.left + canvas.clientLeft;
    const top = box.top + canvas.clientTop;
    return [((event.clientX - left) / canvas.clientWidth) * canvas.width, ((event.clientY - top) / canvas.clientHeight) * canvas.height];
  }

  let pen = null;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || pen !== null) return;
    event.preventDefault();
    canvas.setPointerCapture(event.pointerId);
    pen = event.pointerId;
    lines.push({ colour: chosen?.value ?? ink, points: [place(event)] });
    paint();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerId !== pen) return;
    const passed = event.getCoalescedEvents?.() ?? [];
    for (const one of passed.length ? passed : [event]) lines.at(-1).points.push(place(one));
    paint();
  });
  for (const over of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(over, (event) => {
      if (event.pointerId !== pen) return;
      pen = null;
      changed();
    });
  }

  const wipe = () => {
    lines.length = 0;
    paint();
  };
  const undo = () => {
    lines.pop();
    paint();
    changed();
  };
  const node = make("div", {}, canvas, make("div", { class: "row" },
    button("undo", undo, { class: "quiet" }),
    button("clear", () => (wipe(), changed()), { class: "quiet" }),
    chosen && [say("label", "ink", {}, { for: id }), chosen]));
  paint();
  const blob = () => (lines.length ? new Promise((done) => canvas.toBlob(done, "image/png")) : Promise.resolve(null));
  return { node, clear: wipe, drawn: () => lines.length > 0, blob };
}

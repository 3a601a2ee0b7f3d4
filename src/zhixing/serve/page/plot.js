// A curve with a bar below each step: drawn by hand, coloured by the style sheet.

import { draw } from "./dom.js";
import { side } from "./tables.js";
import { number, write } from "./words.js";

const WIDTH = 360, LEFT = 54, HIGH = 10, LOW = 92, BASE = 132, REACH = 24;

// `values` (null where one is missing) as a line; `attribution`, where given, as bars whose largest is `scale`.
// `key` and `given` are what the drawing is called.
export function plot(key, given, { values, attribution = [] }, scale = 1) {
  const known = values.filter((value) => value !== null);
  const [low, high] = known.length ? [Math.min(...known), Math.max(...known)] : [0, 1];
  const flat = high === low;
  const wide = (WIDTH - LEFT - 6) / Math.max(1, values.length);
  const x = (i) => LEFT + (i + 0.5) * wide;
  const y = (value) => (flat ? (HIGH + LOW) / 2 : LOW - ((value - low) / (high - low)) * (LOW - HIGH));
  const label = (value) => draw("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, number(value, 3));
  const points = values.flatMap((value, i) => (value === null ? [] : [[x(i), y(value)]]));
  const bars = attribution.map((value, i) => {
    const tall = (REACH * Math.abs(value)) / scale;
    const box = { x: x(i) - wide * 0.45, y: value >= 0 ? BASE - tall : BASE, width: Math.max(wide * 0.9, 0.5), height: tall };
    return draw("rect", { class: side(value), ...box });
  });
  const tall = bars.length ? BASE + REACH + 6 : LOW + 12;
  const image = draw("svg", { class: "curve", viewBox: `0 0 ${WIDTH} ${tall}`, role: "img" },
    label(high), flat ? null : label(low),
    draw("polyline", { class: "line", points: points.map((point) => point.map((one) => one.toFixed(1)).join(",")).join(" ") }),
    points.length <= 40 ? points.map(([cx, cy]) => draw("circle", { class: "dot", cx, cy, r: 2 })) : [],
    bars, bars.length ? draw("line", { class: "axis", x1: LEFT, x2: WIDTH - 6, y1: BASE, y2: BASE }) : null);
  return write(image, key, given, "aria-label");
}

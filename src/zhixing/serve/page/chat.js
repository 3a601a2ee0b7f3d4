// Talk with a model that writes, as it writes: the OpenAI forms, streamed.

import { byId, make, say } from "./dom.js";
import { Refused, post } from "./request.js";
import { number, write } from "./words.js";

let turns = [];
let model = null;
let remember = () => {};
let writing = null; // what stops the answer that is being written

// Opens the conversation of a model, or hides it where there is none that writes.
export function conversation(chosen, kept) {
  writing?.abort();
  [model, remember] = [chosen, kept];
  byId("talk").hidden = !model?.generates;
  if (!model?.generates) return;
  byId("ways").hidden = !model.chats;
  byId("way").value = model.chats ? "chat" : "complete";
  byId("way").onchange = open;
  open();
  byId("say").onsubmit = (event) => (event.preventDefault(), speak());
  byId("stop").onclick = () => writing?.abort();
  byId("anew").onclick = anew;
  byId("words").onkeydown = (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || !chats()) return;
    event.preventDefault();
    speak();
  };
}

const chats = () => byId("way").value === "chat";

function open() {
  const form = byId("way").value;
  write(byId("talk-title"), form, { model: model.id });
  write(byId("words-label"), `${form}_words`);
  write(byId("speak"), `${form}_send`);
  anew();
}

function anew() {
  writing?.abort();
  turns = [];
  byId("log").replaceChildren();
  write(byId("talk-status"), "{none}", { none: "" });
}

function turn(role, text) {
  const said = make("span", { class: "text", dir: "auto" }, text);
  const node = make("div", { class: `turn ${role}` }, say("span", role, {}, { class: "who" }), said);
  byId("log").append(node);
  return { node, said };
}

// What is asked: all turns of a chat, or the beginning of a text.
function request(words) {
  const [most, heat] = [byId("most").valueAsNumber || 128, byId("heat").valueAsNumber || 0];
  const common = { model: model.id, max_tokens: most, temperature: heat, stream: true };
  if (chats()) return { path: "v1/chat/completions", body: { ...common, messages: [...turns] } };
  return { path: "v1/completions", body: { ...common, prompt: words } };
}

async function speak() {
  const words = byId("words").value;
  if (writing) return;
  if (!words.trim()) {
    write(byId("talk-status"), "say_something");
    return byId("words").focus();
  }
  writing = new AbortController();
  byId("stop").disabled = false;
  turns.push({ role: "user", content: words });
  turn("user", words);
  const { node, said } = turn("assistant", chats() ? "" : words);
  node.setAttribute("aria-busy", "true"); // so that it is read out once, when it is whole
  const asked = request(words);
  if (chats()) byId("words").value = "";
  write(byId("talk-status"), "writing");
  const start = performance.now();
  let text = "";
  try {
    const answer = await post({ ...asked, signal: writing.signal });
    for await (const piece of pieces(answer)) {
      text += piece;
      said.append(piece);
      byId("log").scrollTop = byId("log").scrollHeight;
    }
    write(byId("talk-status"), "written", { seconds: () => number((performance.now() - start) / 1000, 2) });
  } catch (error) {
    if (writing.signal.aborted) write(byId("talk-status"), "stopped");
    else if (error instanceof Refused || error.told) write(byId("talk-status"), "{why}", { why: error.message });
    else write(byId("talk-status"), "away");
  }
  node.removeAttribute("aria-busy");
  if (text) turns.push({ role: "assistant", content: text });
  else {
    turns.pop(); // it was not answered
    node.remove();
  }
  writing = null;
  byId("stop").disabled = true;
  remember({ ...asked, body: { ...asked.body, stream: false } });
}

// The pieces of a stream of server-sent events, in the OpenAI forms.
async function* pieces(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let kept = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    kept += value;
    const lines = kept.split(/\r?\n/);
    kept = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const content = line.slice(5).trim();
      if (content === "[DONE]") return;
      const event = JSON.parse(content);
      if (event.error) throw Object.assign(new Error(event.error.message), { told: true });
      const piece = event.choices?.[0]?.delta?.content ?? event.choices?.[0]?.text;
      if (piece) yield piece;
    }
  }
}

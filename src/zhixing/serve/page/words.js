// Every sentence of the page in both languages, and what writes them into elements again when the language changes.

const EN = {
  skip: "Skip to the form", other: "中文", title: "{model}: from {inputs} to {outputs}", title_free: "{model}: {outputs}",
  token: "Access token", enter: "Enter", token_wanted: "This server wants an access token.", model: "Model",
  asked: "What is asked", explain: "Explain the answer by", method: "Method of explanation", unexplained: "This method has no explanation here: {why}", send: "Ask the model", sending: "The model is at work …",
  example: "Fill in an example", clear_all: "Clear all", answer: "The answer", waiting: "Nothing has been asked yet.",
  done: "{answer}. Answered in {model} ms, {whole} ms with the way there and back.", failed: "There is no answer.",
  away: "The server cannot be reached. Is it still running?", no_models: "The server has no models.",
  trouble: "Something is wrong with what was asked: {fields}.",
  request: "The same from a program", request_note: "This is what was sent last.", copy: "Copy", copied: "Copied", save: "Save {file}", shortened: "the base64 of {file}",
  draw: "Draw with a finger, a pen or the mouse. The keyboard does it with a picture file, below.", pad: "Drawing area for {name}",
  ink: "Colour", undo: "Undo a line", clear: "Clear", drop_picture: "Choose a picture, or drop or paste it here",
  drop_sound: "Choose a sound file, or drop it here", drop_text: "Choose a text file, or drop it here",
  picture_of: "The picture that will be sent: {file}", drawing: "Drawing", no_preview: "{file}: this browser cannot show it; the server will try.",
  not_picture: "{file} is not a picture ({type}). Choose a PNG, JPEG, WebP or other picture file.",
  broken_picture: "{file} cannot be read as a picture. It may be damaged.",
  not_sound: "{file} is not a sound ({type}). Choose a WAV, FLAC, Ogg, MP3 or other sound file.",
 
  not_text: "{file} is not plain text ({type}).", empty_file: "{file} is empty.",
  record: "Record", stop_recording: "Stop recording", recording: "Recording: {seconds} s", recorded: "Recording of {seconds} s",
  no_microphone: "The microphone cannot be used: {why}", sound_of: "Waveform of {file}", seconds_most: "at most {seconds} s are heard",
  wants_picture: "{name}: draw or choose a picture.", wants_sound: "{name}: record or choose a sound.", wants: "{name}: this is missing.",
  wants_number: "{name}: a number, such as {example}.", none: "(empty)", one_of: "one of {count}", range: "usually {low} to {high}", unit: "in {unit}",
  numbers: "Numbers between commas, the oldest first", steps: "A line for each step, its {count} numbers between commas",
  items: "One a line or between commas, the oldest first", items_any: "One a line, or between commas", add: "Add to {name}", add_it: "Add", mode: "How it answers", as_chat: "As in a talk, turn by turn", as_text: "Going on with a text",
  bad_number: "{name}: {value} is not a number.", size: "{height} × {width} pixels", grey: "grey", colour: "colour",
  class: "Class", chances: "Probabilities of {output}", probability: "Probability", more: "{count} more",
  answer_of: "{name}: {answer}", sure: "{percent} sure", empty: "empty", yes: "yes", no: "no",
  why: "Why: {answer}", in_units: "What each part adds is in units of the {unit}.", unit_logit: "score (logit)", unit_log_probability: "log probability",
  unit_value_in_standard_deviations: "value, in standard deviations", unit_minus_the_loss: "loss, below zero", speaks_for: "+ speaks for the answer (solid line)", raises: "+ raises the answer (solid line)", lowers: "− lowers it (dashed line)",
  speaks_against: "− speaks against it (dashed line)", heat_of: "Heat map over {name}: orange speaks for the answer, blue against it. Most important: {top}.",
  heat_plain: "Heat map over {name}: orange speaks for the answer, blue against it.",
  bands_of: "Heat map over the spectrogram of {name}: time to the right, low bands below.", tokens_of: "{name}, the words coloured",
  top: "What counts most", columns: "Columns", what: "What", value: "Value", counts: "Counts", share: "Share",
  forecast_of: "{name}, step by step", curve_of: "{name}: its values above, what each step adds below", step: "step {step}",
  place: "{vertical} {horizontal}", centre: "centre", y0: "top", y1: "middle", y2: "bottom", x0: "left", x1: "centre", x2: "right",
  chat: "Talk with {model}", complete: "Let {model} go on with a text", chat_words: "What you say", complete_words: "The beginning of the text",
  chat_send: "Say it", complete_send: "Go on", how: "How it is written", most: "Most tokens", heat: "Temperature, 0 to 2", stop: "Stop",
  anew: "Start anew", user: "You", assistant: "The model", writing: "The model is writing …", written: "Written in {seconds} s.",
  stopped: "Stopped.", say_something: "Write something first.",
  type_image: "picture", type_audio: "sound", type_text: "text", type_number: "number", type_category: "choice", type_tags: "tags",
  type_series: "series of numbers", type_history: "what came before", type_date: "date", type_labels: "labels",
};

const ZH = {
  skip: "跳到表单", other: "English", title: "{model}：由 {inputs} 得出 {outputs}", title_free: "{model}：{outputs}",
  token: "访问令牌", enter: "确定", token_wanted: "此服务器需要访问令牌。", model: "模型",
  asked: "输入", explain: "解释答案，方法：", method: "解释方法", unexplained: "此方法在这里没有解释：{why}", send: "询问模型", sending: "模型正在计算……",
  example: "填入示例", clear_all: "全部清空", answer: "答案", waiting: "还没有提问。",
  done: "{answer}。模型用时 {model} 毫秒，连同往返共 {whole} 毫秒。", failed: "没有答案。",
  away: "无法连接服务器。它还在运行吗？", no_models: "服务器上没有模型。",
  trouble: "输入有误：{fields}。",
  request: "用程序发送同样的请求", request_note: "这是最近一次发送的内容。", copy: "复制", copied: "已复制", save: "保存 {file}", shortened: "{file} 的 base64",
  draw: "用手指、笔或鼠标作画。使用键盘时，请在下面选择图片文件。", pad: "{name}的画板",
  ink: "颜色", undo: "撤销一笔", clear: "清空", drop_picture: "选择图片，或拖放、粘贴到这里",
  drop_sound: "选择声音文件，或拖放到这里", drop_text: "选择文本文件，或拖放到这里",
  picture_of: "将发送的图片：{file}", drawing: "手绘图", no_preview: "{file}：浏览器无法显示，将由服务器尝试读取。",
  not_picture: "{file} 不是图片（{type}）。请选择 PNG、JPEG、WebP 等图片文件。",
  broken_picture: "{file} 无法作为图片读取，可能已损坏。",
  not_sound: "{file} 不是声音（{type}）。请选择 WAV、FLAC、Ogg、MP3 等声音文件。",
 
  not_text: "{file} 不是纯文本（{type}）。", empty_file: "{file} 是空文件。",
  record: "录音", stop_recording: "停止录音", recording: "正在录音：{seconds} 秒", recorded: "{seconds} 秒的录音",
  no_microphone: "无法使用麦克风：{why}", sound_of: "{file} 的波形", seconds_most: "最多听取 {seconds} 秒",
  wants_picture: "{name}：请画一幅或选择一张图片。", wants_sound: "{name}：请录音或选择声音文件。", wants: "{name}：尚未填写。",
  wants_number: "{name}：请填一个数，例如 {example}。", none: "（空）", one_of: "{count} 项中选一", range: "通常为 {low} 到 {high}", unit: "单位：{unit}",
  numbers: "用逗号隔开的数，由旧到新", steps: "每步一行，每行 {count} 个用逗号隔开的数",
  items: "每行一项或用逗号隔开，由旧到新", items_any: "每行一项，或用逗号隔开", add: "添加到 {name}", add_it: "添加", mode: "回答方式", as_chat: "像谈话一样一问一答", as_text: "接着文章往下写",
  bad_number: "{name}：{value} 不是数。", size: "{height} × {width} 像素", grey: "灰度", colour: "彩色",
  class: "类别", chances: "{output}的概率", probability: "概率", more: "其余 {count} 项",
  answer_of: "{name}：{answer}", sure: "把握 {percent}", empty: "空", yes: "是", no: "否",
  why: "为什么是 {answer}", in_units: "各部分的影响以{unit}为单位。", unit_logit: "得分（logit）", unit_log_probability: "对数概率",
  unit_value_in_standard_deviations: "以标准差计的数值", unit_minus_the_loss: "负损失", speaks_for: "+ 支持该答案（实线）", raises: "+ 使答案增大（实线）", lowers: "− 使答案减小（虚线）",
  speaks_against: "− 反对该答案（虚线）", heat_of: "{name}上的热图：橙色支持该答案，蓝色反对。最重要的部分：{top}。",
  heat_plain: "{name}上的热图：橙色支持该答案，蓝色反对。",
  bands_of: "{name}声谱图上的热图：时间向右，低频在下。", tokens_of: "{name}，词语已着色",
  top: "影响最大的部分", columns: "各列", what: "部分", value: "值", counts: "影响", share: "占比",
  forecast_of: "{name}，逐步的数值", curve_of: "{name}：上为数值，下为每一步的影响", step: "第 {step} 步",
  place: "{vertical}{horizontal}", centre: "正中", y0: "上", y1: "中", y2: "下", x0: "左", x1: "中", x2: "右",
  chat: "与 {model} 对话", complete: "让 {model} 续写", chat_words: "你想说的话", complete_words: "文章的开头",
  chat_send: "发送", complete_send: "续写", how: "写作设置", most: "最多词元数", heat: "温度，0 到 2", stop: "停止",
  anew: "重新开始", user: "你", assistant: "模型", writing: "模型正在写……", written: "用时 {seconds} 秒。",
  stopped: "已停止。", say_something: "请先写点什么。",
  type_image: "图片", type_audio: "声音", type_text: "文本", type_number: "数", type_category: "选项", type_tags: "标签",
  type_series: "数列", type_history: "历史记录", type_date: "日期", type_labels: "标注",
};

export const WORDS = { en: EN, zh: ZH };
const KEPT = "zhixing-language";
const values = new WeakMap(); // of each element that is written in words
let language = kept() ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");

function kept() {
  try {
    const found = localStorage.getItem(KEPT);
    return found in WORDS ? found : null;
  } catch {
    return null; // storage may be switched off
  }
}

function keep(chosen) {
  try {
    localStorage.setItem(KEPT, chosen);
  } catch {
    // the choice then lasts as long as the page
  }
}

export const current = () => language;

// A sentence with its {gaps} filled. Values that are functions are asked each time, so that they follow the language.
export function sentence(key, given = {}) {
  const text = WORDS[language][key] ?? WORDS.en[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (gap, name) => {
    const value = typeof given[name] === "function" ? given[name]() : given[name];
    return value === undefined ? gap : typeof value === "number" ? number(value) : String(value);
  });
}

export const shorten = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
export const known = (key) => key in WORDS.en;
export const unitName = (unit) => {
  const key = `unit_${unit.replaceAll(" ", "_")}`;
  return known(key) ? sentence(key) : unit;
};
export const typeName = (type) => (known(`type_${type}`) ? sentence(`type_${type}`) : type);
export const number = (value, digits = 4) =>
  new Intl.NumberFormat(language, { maximumSignificantDigits: digits, useGrouping: Math.abs(value) >= 1e5, notation: value !== 0 && Math.abs(value) < 1e-4 ? "scientific" : "standard" }).format(value);
export const percent = (share) =>
  new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: share > 0.1 && share < 0.999 ? 0 : 1 }).format(share);
export const list = (parts) => parts.join(language === "zh" ? "、" : ", ");
export const few = (parts, most = 3) => list(parts.length > most ? [...parts.slice(0, most), "…"] : parts);

// Write a sentence into an element (or one of its attributes), now and after each change of language.
export function write(element, key, given = {}, attribute = "") {
  const kept = values.get(element) ?? {};
  kept[attribute] = { key, given };
  values.set(element, kept);
  element.dataset.words ??= "";
  put(element, attribute, sentence(key, given));
  return element;
}

function put(element, attribute, text) {
  if (attribute) element.setAttribute(attribute, text);
  else element.textContent = text;
}

function translate(root) {
  for (const element of root.querySelectorAll("[data-words]")) {
    const kept = values.get(element) ?? {};
    if (element.dataset.words && !("" in kept)) kept[""] = { key: element.dataset.words, given: {} };
    for (const [attribute, { key, given }] of Object.entries(kept)) put(element, attribute, sentence(key, given));
  }
}

// Names of data are in the language of whoever made them, so `lang` is only that of the page's own words.
export function speak(chosen = language) {
  if (chosen !== language) keep(chosen);
  language = chosen;
  document.documentElement.lang = chosen === "zh" ? "zh-CN" : "en";
  translate(document);
}

export const another = () => (language === "en" ? "zh" : "en");

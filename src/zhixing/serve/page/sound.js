// Sounds: the microphone to a WAV file, and the waveform of any sound that the browser can read.

const MIME = ["audio/webm;codecs=opus", "audio/mp4", "audio/ogg"];

// Samples of a file as [S] at a rate, all channels mixed to one. Throws where the browser cannot read it.
export async function samplesOf(blob, rate) {
  const context = new OfflineAudioContext(1, 1, rate);
  const found = await context.decodeAudioData(await blob.arrayBuffer()); // which resamples as well
  const mixed = new Float32Array(found.length);
  for (let channel = 0; channel < found.numberOfChannels; channel += 1) {
    const part = found.getChannelData(channel);
    for (let i = 0; i < part.length; i += 1) mixed[i] += part[i] / found.numberOfChannels;
  }
  return mixed;
}

// Samples of -1 … 1 as a WAV file of one channel, 16 bits each.
export function wav(samples, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const letters = (place, text) => [...text].forEach((letter, i) => view.setUint8(place + i, letter.charCodeAt(0)));
  letters(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  letters(8, "WAVEfmt ");
  view.setUint32(16, 16, true); // bytes of what follows
  view.setUint16(20, 1, true); // plain PCM
  view.setUint16(22, 1, true); // one channel
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  letters(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((value, i) => view.setInt16(44 + 2 * i, Math.round(32767 * Math.min(1, Math.max(-1, value))), true));
  return new Blob([view], { type: "audio/wav" });
}

// Starts to record; gives stop(), which gives the WAV file. Throws where there is no microphone, or none is allowed.
export async function record(rate) {
  if (!navigator.mediaDevices?.getUserMedia) throw new Error("https");
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  const type = MIME.find((one) => MediaRecorder.isTypeSupported(one));
  const recorder = new MediaRecorder(stream, type ? { mimeType: type } : {});
  const parts = [];
  recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
  recorder.start();
  return async function stop() {
    const over = new Promise((done) => recorder.addEventListener("stop", done, { once: true }));
    recorder.stop();
    await over;
    for (const track of stream.getTracks()) track.stop();
    return wav(await samplesOf(new Blob(parts, { type: recorder.mimeType }), rate), rate);
  };
}

// The loudness of a sound over time: for each column of the canvas a line from its lowest to its highest sample.
export function waveform(canvas, samples) {
  const context = canvas.getContext("2d");
  const { width, height } = canvas;
  context.clearRect(0, 0, width, height);
  context.fillStyle = getComputedStyle(canvas).color;
  for (let x = 0; x < width; x += 1) {
    let low = 0;
    let high = 0;
    const end = Math.ceil(((x + 1) * samples.length) / width);
    for (let i = Math.floor((x * samples.length) / width); i < end; i += 1) {
      low = Math.min(low, samples[i] ?? 0);
      high = Math.max(high, samples[i] ?? 0);
    }
    context.fillRect(x, ((1 - high) * height) / 2, 1, Math.max(1, ((high - low) * height) / 2));
  }
}

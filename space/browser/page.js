/**
 * A sound in, its log-mel spectrogram and the factors that a linear map reads from its embedding out.
 *
 * page.json says all that depends on the checkpoint, and where ONNX Runtime's files lie; `python
 * training/export_browser.py CHECKPOINT FOLDER` writes it beside these files. Sounds are decoded and resampled by the
 * browser, and go nowhere else.
 */

const LARGEST_FILE = 50e6; // bytes: an hour of MP3; what it decodes to has to fit into memory
const element = (id) => document.getElementById(id);

/** Why a sound cannot be used: a sentence for the person who gave it. */
class Refusal extends Error {}

async function load() {
  const page = await (await fetch("page.json")).json();
  const runtime = new URL(page.runtime, document.baseURI).href;
  const ort = await import(`${runtime}ort.wasm.min.mjs`);
  ort.env.wasm.wasmPaths = runtime;
  ort.env.wasm.numThreads = 1; // more need headers that a static host seldom sends
  return { page, ort, session: await ort.InferenceSession.create(page.model, { executionProviders: ["wasm"] }) };
}

/** The samples of a file, mono, at the model's rate: decoding in a context of that rate also resamples. */
async function decode(blob, rate) {
  if (blob.size === 0) throw new Refusal("This file is empty. Choose one that holds a sound.");
  if (blob.size > LARGEST_FILE) {
    throw new Refusal(`This file has ${Math.round(blob.size / 1e6)} MB, and the page reads up to 50. Cut it first.`);
  }
  let sound;
  try {
    sound = await new OfflineAudioContext(1, 1, rate).decodeAudioData(await blob.arrayBuffer());
  } catch {
    throw new Refusal("The browser finds no sound in this file. Choose a WAV, FLAC, MP3 or Ogg file.");
  }
  const mono = new Float32Array(sound.length);
  for (let channel = 0; channel < sound.numberOfChannels; channel++) {
    sound.getChannelData(channel).forEach((value, at) => { mono[at] += value / sound.numberOfChannels; });
  }
  return mono;
}

/** What the model hears of the samples: one window at most. */
function heard(samples, page) {
  if (samples.length < page.shortest_samples) {
    const least = (1000 * page.shortest_samples) / page.sampling_rate;
    const lasts = Math.round((1000 * samples.length) / page.sampling_rate);
    throw new Refusal(`This sound lasts ${lasts} ms, and the model hears ${least} at least. Choose a longer one.`);
  }
  const window = samples.subarray(0, page.window_samples);
  if (window.every((value) => value === 0)) throw new Refusal("This sound is silent. Choose another one.");
  return window;
}

async function embed({ ort, session }, samples) {
  const { embedding, log_mel: logMel } = await session.run({
    waveform: new ort.Tensor("float32", samples, [1, samples.length]),
    lengths: new ort.Tensor("int64", BigInt64Array.of(BigInt(samples.length)), [1]),
  });
  return { embedding: embedding.data, frames: logMel.dims[1], bands: logMel.dims[2], logMel: logMel.data };
}

/** The value of a factor, linear in the embedding. */
const read = (factor, embedding) => factor.weights.reduce((sum, weight, at) => sum + weight * embedding[at], factor.bias);

/** A value in the unit that people know; what is logarithmic was read in octaves. */
function inWords(factor, value) {
  const shown = factor.logarithmic ? 2 ** value : value;
  const digits = Math.abs(shown) >= 100 ? 0 : Math.abs(shown) >= 10 ? 1 : 2;
  return `${shown.toFixed(digits)} ${factor.logarithmic ? "Hz" : factor.unit}`.trim();
}

/** Dark violet over red to light yellow, lighter all the way: stops between which colours are mixed. */
const COLOURS = [[10, 7, 36], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];

function colour(share) {
  const place = Math.min(0.9999, Math.max(0, share)) * (COLOURS.length - 1);
  const [from, to] = [COLOURS[Math.floor(place)], COLOURS[Math.floor(place) + 1]];
  return from.map((value, at) => value + (place % 1) * (to[at] - value));
}

function draw({ logMel, frames, bands }, page) {
  const canvas = element("spectrogram");
  [canvas.width, canvas.height] = [frames, bands];
  const image = new ImageData(frames, bands);
  const sorted = Float32Array.from(logMel).sort();
  const [low, high] = [sorted[Math.floor(0.02 * sorted.length)], sorted[sorted.length - 1]];
  for (let frame = 0; frame < frames; frame++) {
    for (let band = 0; band < bands; band++) {
      const value = (logMel[frame * bands + band] - low) / (high - low || 1);
      image.data.set([...colour(value), 255], 4 * ((bands - 1 - band) * frames + frame));
    }
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  element("frequencies").replaceChildren(...page.ticks.map(({ hertz, band }) => {
    const tick = document.createElement("span");
    tick.textContent = hertz < 1000 ? `${hertz} Hz` : `${hertz / 1000} kHz`;
    tick.style.bottom = `${(100 * (band + 0.5)) / bands}%`;
    return tick;
  }));
}

function tell(page, embedding, truth) {
  element("truth").hidden = !truth;
  element("factors").replaceChildren(...page.factors.map((factor) => {
    const value = read(factor, embedding);
    const row = document.createElement("tr");
    row.className = factor.r2 < 0.5 ? "weak" : "";
    const name = document.createElement("th");
    name.scope = "row";
    name.textContent = factor.name;
    const range = document.createElement("td");
    range.innerHTML = '<div class="range"><i></i></div>';
    const share = (value - factor.low) / (factor.high - factor.low);
    range.querySelector("i").style.left = `${100 * Math.min(1, Math.max(0, share))}%`;
    range.title = `${inWords(factor, factor.low)} to ${inWords(factor, factor.high)}`;
    const cells = [inWords(factor, value), ...(truth ? [factor.name in truth ? inWords(factor, truth[factor.name]) : ""] : [])];
    const written = [...cells, factor.r2.toFixed(2)].map((text) => {
      const cell = document.createElement("td");
      cell.textContent = text;
      return cell;
    });
    row.append(name, ...written.slice(0, -1), range, written.at(-1));
    return row;
  }));
}

function say(state, text) {
  document.body.dataset.state = state;
  element("message").textContent = text;
}

/** Hear a blob, or one that is still to come: the page says that it is busy from the click on. */
async function hear(model, sound, truth = null) {
  const { page } = model;
  element("result").hidden = true;
  say("busy", "Listening …");
  try {
    const blob = await sound;
    const samples = await decode(blob, page.sampling_rate);
    const window = heard(samples, page);
    const result = await embed(model, window);
    globalThis.audiopg = result; // for whoever opens the console
    draw(result, page);
    tell(page, result.embedding, truth);
    const seconds = (count) => (count / page.sampling_rate).toFixed(2);
    element("caption").textContent = `${seconds(window.length)} s of log-mel, ${result.bands} bands, as the encoder hears it.`;
    URL.revokeObjectURL(element("player").src);
    element("player").src = URL.createObjectURL(blob);
    element("result").hidden = false;
    const all = `${result.embedding.length} numbers from ${seconds(window.length)} s`;
    say("done", window.length < samples.length ? `${all}, the first of ${seconds(samples.length)} s.` : `${all}.`);
  } catch (error) {
    if (!(error instanceof Refusal)) console.error(error);
    say("refused", error instanceof Refusal ? error.message : `The model could not hear this sound: ${error.message}`);
  }
}

/** Record until the button is pressed again, or a window is full. */
async function record(model, button) {
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  } catch {
    return say("refused", "The browser gives no microphone to this page. Allow it, or choose a file.");
  }
  const recorder = new MediaRecorder(stream);
  const parts = [];
  recorder.ondataavailable = ({ data }) => parts.push(data);
  recorder.onstop = () => {
    stream.getTracks().forEach((track) => track.stop());
    button.textContent = "Record";
    button.onclick = () => record(model, button);
    hear(model, new Blob(parts, { type: recorder.mimeType }));
  };
  const longest = (1000 * model.page.window_samples) / model.page.sampling_rate;
  const timer = setTimeout(() => recorder.stop(), longest);
  button.textContent = "Stop";
  button.onclick = () => { clearTimeout(timer); recorder.stop(); };
  recorder.start();
  say("recording", "Recording …");
}

try {
  const model = await load();
  const { page } = model;
  element("name").textContent = page.name;
  element("note").textContent = page.note;
  element("file").onchange = ({ target }) => target.files.length && hear(model, target.files[0]);
  element("microphone").onclick = () => record(model, element("microphone"));
  element("example").onclick = () => hear(model, fetch(page.example.file).then((answer) => answer.blob()), page.example.factors);
  ["file", "microphone", "example"].forEach((id) => { element(id).disabled = false; });
  say("ready", "Choose a sound.");
} catch (error) {
  say("refused", `The model could not be loaded: ${error.message}`);
}

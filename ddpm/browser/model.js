/* A model's two files, config.json and model.safetensors, from wherever they are: nothing in them
   is trusted. Every number is bounded before memory is taken, names and shapes must agree exactly,
   the sha256 must match, and nothing in them is ever executed. The bounds are those of ddpm/unet.py
   and ddpm/hub.py, and that they fit into a page. */

const HUB = "https://huggingface.co";
const MOST_PARAMETERS = 20_000_000; // 80 MB, and as much again while they are read
const MOST_VALUES = 8_000_000; // in the widest layer of an image: its memory is a multiple of this
const CONFIG_BYTES = 1_000_000,
  HEADER_BYTES = 1_000_000;
const BYTES = { F32: 4, F16: 2, BF16: 2 };
const NAME = /^[\w.-]+\/[\w.-]+$/;

const whole = (value, low, high) => Number.isInteger(value) && low <= value && value <= high;

/* Whether they are those of a distilled model, as hub.py has it. */
const areWalks = (walks, T) =>
  walks?.constructor === Object &&
  whole(Object.keys(walks).length, 1, 10) &&
  Object.entries(walks).every(
    ([steps, times]) =>
      Array.isArray(times) &&
      whole(times.length, 1, 100) &&
      steps === String(times.length) &&
      times.every((t, k) => typeof t === "number" && 1 <= t && t <= T && !(k && t >= times[k - 1])),
  );

/* The configuration that the text holds, with what the network needs bounded. Throws Error in
   words. */
function readConfig(text) {
  let config;
  try {
    config = JSON.parse(text);
  } catch {
    throw Error("config.json is not valid JSON");
  }
  const { channels, size, classes, width, mults, blocks, attention, prediction, schedule } =
    config ?? {};
  const list = Array.isArray(mults) && whole(mults.length, 1, 5),
    side = list ? 2 ** (mults.length - 1) : 1;
  const rules = [
    ["channels must be 1 or 3", [1, 3].includes(channels)],
    ["mults must be 1 to 5 whole numbers in 1..16", list && mults.every((m) => whole(m, 1, 16))],
    [`size must be a multiple of ${side} in 4..256`, whole(size, 4, 256) && size % side === 0],
    ["classes must be a whole number in 0..1000", whole(classes, 0, 1000)],
    ["width must be a multiple of 8 in 8..256", whole(width, 8, 256) && width % 8 === 0],
    ["blocks must be a whole number in 1..8", whole(blocks, 1, 8)],
    [
      "attention must be true or false for each level",
      list &&
        Array.isArray(attention) &&
        attention.length === mults.length &&
        attention.every((a) => typeof a === "boolean"),
    ],
    [
      `prediction must be one of ${Object.keys(TO_X0).join(", ")}`,
      Object.hasOwn(TO_X0, String(prediction)),
    ],
    [
      "schedule must have a name and a number T",
      typeof schedule?.name === "string" && whole(schedule.T, 1, 10_000),
    ],
    [
      `distilled must have walks: for each number of steps, 1 to 100, as many times, falling from at most ${schedule?.T} to 1`,
      config?.distilled == null || areWalks(config.distilled.walks, schedule?.T),
    ],
    ["sha256 must be 64 hexadecimal digits", /^[0-9a-f]{64}$/.test(config?.sha256)],
    [
      "class_names must be as many texts as there are classes",
      config?.class_names == null ||
        (Array.isArray(config.class_names) &&
          config.class_names.length === classes &&
          config.class_names.every((name) => typeof name === "string" && name.length <= 100)),
    ],
    [
      "class_counts must be as many whole numbers as there are classes",
      config?.class_counts == null ||
        (Array.isArray(config.class_counts) &&
          config.class_counts.length === classes &&
          config.class_counts.every((count) => whole(count, 0, 1e12)) &&
          config.class_counts.some(Boolean)),
    ],
  ];
  for (const [rule, holds] of rules) if (!holds) throw Error(`config.json: ${rule}`);
  const parameters = count(shapes(config)),
    values = size * size * width * Math.max(...mults) * 2;
  if (parameters > MOST_PARAMETERS)
    throw Error(
      `the model has ${words(parameters)} parameters; a page takes up to ${words(MOST_PARAMETERS)}`,
    );
  if (values > MOST_VALUES || (attention[0] && size > 64))
    throw Error(
      `images of ${size}×${size} at this width are too large for a page; python -m ddpm draws them`,
    );
  return config;
}

const words = (number) => number.toLocaleString("en-US");
const product = (shape) => shape.reduce((a, b) => a * b, 1);
const count = (named) => [...named.values()].reduce((sum, shape) => sum + product(shape), 0);

/* Float32Arrays by name from the bytes of a safetensors file; exactly the parameters that config
   asks for. */
async function readWeights(bytes, config) {
  if (!globalThis.crypto?.subtle)
    throw Error("this browser checks no sha256 here; open the page from disk or by https");
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  if (Array.from(digest, (b) => b.toString(16).padStart(2, "0")).join("") !== config.sha256)
    throw Error(
      "the weights are damaged, or not those that config.json describes (their sha256 differs)",
    );
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = bytes.length < 8 ? NaN : Number(view.getBigUint64(0, true));
  let header;
  try {
    if (!whole(length, 2, Math.min(HEADER_BYTES, bytes.length - 8))) throw 0;
    header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  } catch {
    throw Error("the weights are not a whole safetensors file");
  }
  const expected = shapes(config),
    found = new Map();
  const unknown = Object.keys(header).find(
    (name) => name !== "__metadata__" && !expected.has(name),
  );
  if (unknown) throw Error(`the weights have the unknown tensor ${unknown.slice(0, 80)}`);
  for (const [name, shape] of expected) {
    const { dtype, shape: stored, data_offsets: [from, to] = [] } = header[name] ?? {};
    if (!stored) throw Error(`the weights lack tensor ${name}`);
    if (String(stored) !== String(shape))
      throw Error(`${name} is ${stored}, config.json wants ${shape}`);
    const size = Object.hasOwn(BYTES, dtype) ? BYTES[dtype] : NaN,
      start = 8 + length + from;
    if (
      !whole(from, 0, bytes.length) ||
      to - from !== size * product(shape) ||
      start + to - from > bytes.length
    )
      throw Error(`${name} is not whole, or not stored as ${Object.keys(BYTES).join(", ")}`);
    const values = floats(bytes.slice(start, start + to - from), dtype);
    if (!values.every(Number.isFinite))
      throw Error(`${name} holds values that are not finite numbers`);
    found.set(name, values);
  }
  return found;
}

/* The values of a tensor as float32. */
function floats(bytes, dtype) {
  if (dtype === "F32") return new Float32Array(bytes.buffer);
  const halves = new Uint16Array(bytes.buffer),
    out = new Float32Array(halves.length),
    bits = new Uint32Array(out.buffer);
  for (let i = 0; i < halves.length; i++) {
    const h = halves[i];
    if (dtype === "BF16") {
      bits[i] = h << 16;
      continue;
    }
    bits[i] = (h & 0x7fff) << 13; // with an exponent that is 112 too small
    out[i] *= (h & 0x7c00) === 0x7c00 ? NaN : 2 ** 112;
    bits[i] |= (h & 0x8000) << 16;
  }
  return out;
}

/* The files of NAMESPACE/NAME on the Hub: { config, bytes }. No more is read than such a model can
   have. */
async function fromHub(name, endpoint = HUB) {
  if (!NAME.test(name)) throw Error("a model of the Hub is named NAMESPACE/NAME");
  const config = readConfig(
    new TextDecoder().decode(await fetched(endpoint, name, "config.json", CONFIG_BYTES)),
  );
  const bytes = await fetched(
    endpoint,
    name,
    "model.safetensors",
    4 * count(shapes(config)) + HEADER_BYTES,
  );
  return { config, bytes };
}

async function fetched(endpoint, name, file, most) {
  let answer;
  try {
    answer = await fetch(`${endpoint}/${name}/resolve/main/${file}`, { credentials: "omit" });
  } catch {
    throw Error(`the Hub cannot be reached for ${name}: check the connection`);
  }
  if (!answer.ok)
    throw Error(
      answer.status === 404 || answer.status === 401
        ? `the Hub has no ${file} of ${name} that is open to all`
        : `the Hub answered ${answer.status} for ${file} of ${name}`,
    );
  const parts = [],
    reader = answer.body.getReader();
  let size = 0;
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch {
      throw Error(`${file} of ${name} broke off on its way; try again`);
    }
    if (part.done) break;
    size += part.value.length;
    if (size > most) {
      reader.cancel();
      throw Error(`${file} of ${name} has more than the ${words(most)} bytes that it may have`);
    }
    parts.push(part.value);
  }
  const whole = new Uint8Array(size);
  parts.reduce((at, part) => (whole.set(part, at), at + part.length), 0);
  return whole;
}

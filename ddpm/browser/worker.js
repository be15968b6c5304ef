/* What runs beside the page, so that the page stays quick: opens models, and draws one request
   after another.

   In: {kind: "open", …} once; {kind: "model", id, name, endpoint}; {kind: "draw", id, images,
   steps, sampler, guidance, from, picture, mask}; {kind: "stop", id}. Out, with the same id:
   {frame} for each moment of a walk, then {done}; or {error} in words. An image is {seed, label}
   or, on the way to another one, {seed, label, to: {seed, label}, share}. picture: pixels 0..255 of
   one image, channels last; with `from`, one of Studio.offers.starts, walks start at it with noise up
   to that time; with a mask, where that is 1, its pixels are held. */

const MIXED = 0.6;
const stopped = new Set();
let facts,
  kernels,
  logSnr,
  walks,
  net,
  busy = Promise.resolve();

/* Between two evaluations messages are looked at, or nothing could be stopped. */
const { port1: bell, port2: button } = new MessageChannel();
const pause = () =>
  new Promise((resolve) => {
    bell.onmessage = resolve;
    button.postMessage(0);
  });

/* A loop, as Uint8Array.from takes a tenth of a second for the weights. */
function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

const JOBS = {
  /* facts: what __init__.py says of the page; data: the weights and the walks, compressed; kernels:
     WebAssembly. */
  async open({ facts: said, data, kernels: codes }) {
    facts = said;
    const understood = codes.split(" ").map(bytesOf).find((code) => WebAssembly.validate(code));
    if (!understood) throw Error("this browser has no WebAssembly SIMD: take a newer one");
    kernels = new WebAssembly.Module(understood);
    const unzipped = new Blob([bytesOf(data)])
      .stream()
      .pipeThrough(new DecompressionStream("gzip"));
    let bytes;
    try {
      bytes = new Uint8Array(await new Response(unzipped).arrayBuffer());
    } catch {
      throw Error("the weights in this file are damaged: get it again");
    }
    const behind = Math.max(0, bytes.length - facts.weights_bytes);
    const numbers = new Float32Array(bytes.buffer, 0, behind >> 2),
      { T } = facts.config.schedule;
    logSnr = numbers.subarray(0, T);
    walks = numbers.subarray(T);
    return take(readConfig(JSON.stringify(facts.config)), bytes.subarray(behind));
  },

  async model({ name, endpoint }) {
    const { config, bytes } = await fromHub(name, endpoint);
    const { name: kind, T } = config.schedule,
      ours = facts.config.schedule;
    if (kind !== ours.name || T !== ours.T)
      throw Error(
        `${name} has the noise schedule ${kind} with T = ${T}; this page has walks for ` +
          `${ours.name} with T = ${ours.T}: python -m ddpm.browser --model ${name} makes its page`,
      );
    return take(config, bytes);
  },

  async draw({ id, images, steps, sampler, guidance, from, picture, mask }) {
    const { channels, size, classes } = net.config;
    const noise = ({ seed }) => randn(seed, channels, size);
    const noises = images.map(({ to, share, ...image }) => {
      const from = noise(image),
        there = to && noise(to);
      return to ? () => slerp(from(), there(), share) : from;
    });
    const labels = (t) =>
      images.map((image) => (classes ? mixture(image, t / net.config.schedule.T) : {}));
    const values = picture && Float32Array.from(picture, (gray) => facts.levels[gray]);
    let last;
    for (const { t, alpha, sigma, evaluations, x, x0 } of walk(
      net,
      net.config.distilled ? own(steps, from) : from ? startingAt(from) : table(sampler, steps),
      noises,
      labels,
      facts.limit,
      {
        guidance,
        pictures: from && images.map(() => values),
        known: mask && { mask, values },
      },
    )) {
      if (stopped.has(id)) return { stopped: true };
      const frame = {
        t,
        snr: sigma ? (alpha / sigma) ** 2 : null,
        nfe: evaluations,
        x: x.map(pixels),
        x0: x0.map(pixels),
      };
      postMessage({ id, frame });
      last = x;
      await pause();
    }
    return { x: last }; // before they are rounded to pixels
  },
};

/* What an image is to show at a time, 1 for pure noise: on its way to another label a mixture of
   both, as long as there is more noise than strokes; then the nearer one, as a mixture, which
   training never showed, leaves grain. */
function mixture({ label, to, share }, time) {
  if (!to || to.label === label) return { [label]: 1 };
  return time > MIXED
    ? { [label]: 1 - share, [to.label]: share }
    : { [share < 0.5 ? label : to.label]: 1 };
}

async function take(config, bytes) {
  const weights = await readWeights(bytes, config);
  net = new UNet(kernels, config, weights);
  return { config };
}

/* The walk of a distilled model in so many steps; from a time of its longest walk, what is left of
   that. */
function own(steps, from) {
  const { walks } = net.config.distilled,
    times = from ? Object.values(walks).at(-1) : walks[steps]; // whole numbers as keys: they rise
  if (!times?.includes(from ?? times[0]))
    throw Error(`this model is distilled: no walk from t = ${from} in ${steps} steps is its own`);
  return jumps(times.filter((t) => !from || t <= from), logSnr);
}

/* Where the walk of a sampler lies among all: they follow each other in the order of facts.walks
   and facts.steps. */
function table(sampler, steps) {
  let at = 0;
  for (const [name, sizes] of Object.entries(facts.walks))
    for (const [k, [evaluations, width]] of sizes.entries()) {
      const length = (evaluations + 1) * width;
      if (name === sampler && facts.steps[k] === steps)
        return { values: walks.subarray(at, at + length), evaluations, width };
      at += length;
    }
  throw Error(`no walk of ${sampler} in ${steps} steps is in this page`);
}

/* The walk from a picture with noise up to a time; these lie behind the others. */
function startingAt(time) {
  const { times, sizes } = facts.starts;
  let at = walks.length - sizes.reduce((sum, [evaluations, width]) => sum + (evaluations + 1) * width, 0);
  for (const [k, [evaluations, width]] of sizes.entries()) {
    const length = (evaluations + 1) * width;
    if (times[k] === time) return { values: walks.subarray(at, at + length), evaluations, width };
    at += length;
  }
  throw Error(`no walk from t = ${time} is in this page`);
}

/* Values as gray levels 0..255, as pixels.to_pixels does. */
const pixels = (image) => Uint8Array.from(image, level);

function level(value) {
  let [low, high] = [0, facts.between.length]; // the answer is in low..high
  while (low < high) {
    const middle = (low + high) >> 1;
    if (facts.between[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

onmessage = ({ data: { kind, ...request } }) => {
  if (kind === "stop") return stopped.add(request.id);
  busy = busy.then(async () => {
    const { id } = request;
    try {
      if (kind !== "open" && !net) throw Error("there is no model to draw with");
      postMessage({ id, done: stopped.has(id) ? { stopped: true } : await JOBS[kind](request) });
    } catch (error) {
      const memory =
        error instanceof RangeError ? "there is not enough memory for this here" : error.message;
      postMessage({ id, error: memory });
    }
    stopped.delete(id);
  });
};

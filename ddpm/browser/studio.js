/* What every page does with an engine: wishes are checked, images come on canvases, walks become
   films for the player, and files are saved. Nothing here knows the layout of a page. */

class Studio {
  constructor(engine, facts) {
    this.engine = engine;
    this.facts = facts;
    this.config = facts.config; // of the model that is drawn with
  }

  get names() {
    const { class_names, classes } = this.config;
    return class_names ?? Array.from({ length: classes }, (_, k) => String(k));
  }

  /* What an image was asked to show, in words; null if nothing. */
  called(label) {
    return this.config.classes ? (this.names[label] ?? null) : null;
  }

  /* The class that a seed draws if none is asked for, by the rule of Pipeline.label_of. */
  labelOf(seed) {
    const { classes, class_counts } = this.config;
    if (!classes) return null;
    const counts = (class_counts ?? Array(classes).fill(1)).map(BigInt);
    const place =
      (((BigInt(seed) * BigInt(this.facts.golden)) % 2n ** 32n) *
        counts.reduce((a, b) => a + b)) >>
      32n;
    let bound = 0n;
    return counts.findIndex((count) => place < (bound += count));
  }

  /* What can be asked of the model: of a distilled one, its own walks alone. starts: times that a
     walk from a picture can begin at. */
  get offers() {
    const { steps, walks, usual_steps, sampler, distilled, guidance, starts } = this.facts,
      own = this.config.distilled?.walks;
    if (own) {
      const steps = Object.keys(own).map(Number); // whole numbers as keys: they rise
      const usual = { steps: steps.at(-1), sampler: distilled };
      return { steps, samplers: [distilled], usual, guidance: 0, starts: own[usual.steps].toReversed() };
    }
    const usual = { steps: usual_steps, sampler };
    return { steps, samplers: Object.keys(walks), usual, guidance, starts: starts.times };
  }

  /* A wish with what it leaves out. */
  filled({
    seed = 0,
    label = null,
    steps = this.offers.usual.steps,
    sampler = this.offers.usual.sampler,
    guidance = 0,
    images = 1,
  } = {}) {
    return { seed, label, steps, sampler, guidance, images };
  }

  /* A wish as the worker wants it; throws Error in words if it cannot be. */
  checked(wish) {
    const { seed, label, steps, sampler, guidance, images } = this.filled(wish),
      { facts, offers } = this,
      { classes } = this.config,
      most = facts.max_seed - images + 1;
    const not = (value) => `not ${String(value).slice(0, 40)}`; // whatever it is, no more of it
    if (!Number.isInteger(seed) || seed < 0 || seed > most)
      throw Error(`a seed is a whole number in 0..${most}, ${not(seed)}`);
    if (label !== null && !classes) throw Error("this model knows no labels: leave the label out");
    if (label !== null && !(Number.isInteger(label) && 0 <= label && label <= classes))
      throw Error(
        `a label is a whole number in 0..${classes - 1}, or ${classes} for none, ${not(label)}`,
      );
    if (!offers.steps.includes(steps))
      throw Error(`steps are one of ${offers.steps.join(", ")}, ${not(steps)}`);
    if (!offers.samplers.includes(sampler))
      throw Error(`a sampler is one of ${offers.samplers.join(", ")}, ${not(sampler)}`);
    if (guidance && !offers.guidance) throw Error("this model is distilled: it takes no guidance");
    if (typeof guidance !== "number" || !(0 <= guidance && guidance <= offers.guidance))
      throw Error(`guidance is a number in 0..${offers.guidance}, ${not(guidance)}`);
    if (guidance && (!classes || label === classes)) throw Error("guidance needs a label");
    const seeds = Array.from({ length: images }, (_, k) => seed + k);
    return {
      kind: "draw",
      steps,
      sampler,
      guidance,
      images: seeds.map((each) => ({ seed: each, label: label ?? this.labelOf(each) })),
    };
  }

  /* The finished image of a wish: pixels 0..255, row by row, the channels of a pixel side by side.
   */
  async sample(wish) {
    await this.engine.ready;
    let last;
    await this.engine.ask(this.checked({ ...wish, images: 1 }), (frame) => {
      last = frame;
    });
    const { size, channels } = this.config;
    return { pixels: new Uint8Array(last.x[0]), width: size, height: size, channels };
  }

  /* Images (pixels of one, or of many in a sheet with gaps, as pixels.sheet lays them out) on a
     canvas. */
  sheet(images, canvas = document.createElement("canvas")) {
    const { size, channels } = this.config,
      columns = Math.ceil(Math.sqrt(images.length)),
      on = size + this.facts.gap;
    canvas.width = columns * on - this.facts.gap;
    canvas.height = Math.ceil(images.length / columns) * on - this.facts.gap;
    const brush = canvas.getContext("2d", { willReadFrequently: true });
    brush.fillRect(0, 0, canvas.width, canvas.height);
    images.forEach((pixels, k) => {
      const rgba = new ImageData(size, size);
      for (let i = 0; i < size * size; i++)
        for (let c = 0; c < 4; c++)
          rgba.data[4 * i + c] = c === 3 ? 255 : pixels[i * channels + (c % channels)];
      brush.putImageData(rgba, (k % columns) * on, Math.floor(k / columns) * on);
    });
    return canvas;
  }

  /* The image on a canvas (of any size) as pixels for the worker: gray, or red, green and blue. */
  pixels(canvas) {
    const { size, channels } = this.config,
      small = Object.assign(document.createElement("canvas"), { width: size, height: size }),
      brush = small.getContext("2d", { willReadFrequently: true });
    brush.drawImage(canvas, 0, 0, size, size);
    const { data } = brush.getImageData(0, 0, size, size);
    return Uint8Array.from({ length: size * size * channels }, (_, i) =>
      channels === 1 ? data[4 * i] : data[4 * Math.floor(i / 3) + (i % 3)],
    );
  }

  /* A film that grows while it is drawn, as the player shows it. id: of the film. grown: called
     with the film at every moment. Resolves to the whole film; to null if it was overtaken. */
  async film(newest, request, id, grown = () => {}) {
    const { images, steps } = request;
    const walk = {
      title: "",
      note: "",
      count: images.length,
      columns: Math.ceil(Math.sqrt(images.length)),
      side: this.config.size,
      gap: this.facts.gap,
      mode: this.config.channels === 1 ? "L" : "RGB",
      seeds: images.map((image) => image.seed),
      labels: images.map((image) => this.called(image.label)),
      total: steps + 1,
      distance: null,
      frames: [],
    };
    const film = () => ({ id, walks: [{ ...walk }] });
    const done = await newest.ask(request, (frame) => {
      if (frame.snr !== null && frame.t >= walk.frames.at(-1)?.t) walk.frames = []; // a new worker
      const sheets = { x: this.sheet(frame.x), x0: this.sheet(frame.x0) };
      walk.frames = [...walk.frames, { ...frame, ...sheets }];
      grown(film());
    });
    return done && film();
  }
}

/* One wish after another, for one place on a page: a new one stops the one before. */
class Newest {
  constructor(engine) {
    this.engine = engine;
    this.number = 0;
  }

  /* Resolves to what the worker answers; to null if it was stopped, or a newer wish has come. */
  async ask(message, frame = () => {}) {
    this.stop();
    const mine = this.number;
    const answer = this.engine.ask(message, (each) => {
      if (mine === this.number) frame(each);
    });
    this.id = answer.id;
    try {
      const done = await answer;
      return mine === this.number && !done.stopped ? done : null;
    } catch (error) {
      if (mine === this.number) throw error;
      return null;
    }
  }

  stop() {
    this.number++;
    this.engine.stop(this.id);
  }
}

/* Canvases of one size as a GIF that plays for ever. held: which of them stand still for a while. */
function moving(sheets, facts, held) {
  const times = sheets.map((_, k) => (held(k) ? facts.last_ms : facts.frame_ms));
  return encoded(sheets, times, facts);
}

/* The way from noise, as pixels.gif has it: the result first, as that is all that a still shows. */
function filmed(sheets, facts) {
  return encoded([sheets.at(-1), ...sheets], durations(sheets.length, facts), facts);
}

/* times: milliseconds for each. */
function encoded(sheets, times, { gif_width }) {
  const { width, height } = sheets[0];
  const frames = sheets.map(
    (canvas) => canvas.getContext("2d").getImageData(0, 0, width, height).data,
  );
  const hundredths = times.map((ms) => Math.round(ms / 10));
  return gif(frames, width, height, hundredths, Math.max(2, Math.ceil(gif_width / width)));
}

/* Canvases of one size, side by side on one. */
function beside(canvases, between) {
  const { width, height } = canvases[0],
    row = document.createElement("canvas");
  Object.assign(row, { width: canvases.length * (width + between) - between, height });
  canvases.forEach((canvas, k) => row.getContext("2d").drawImage(canvas, k * (width + between), 0, width, height));
  return row;
}

/* A canvas as a PNG file, each pixel a square of eight. */
function savePng(canvas, name) {
  const large = document.createElement("canvas");
  Object.assign(large, { width: 8 * canvas.width, height: 8 * canvas.height });
  const brush = large.getContext("2d");
  brush.imageSmoothingEnabled = false;
  brush.drawImage(canvas, 0, 0, large.width, large.height);
  large.toBlob((blob) => download(blob, name), "image/png");
}

function download(blob, name) {
  const link = document.createElement("a");
  Object.assign(link, { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/* The page: what a visitor sets, drawn at once; the newest wish wins. window.ddpm is the same for
   scripts. */
(() => {
  const $ = (selector) => document.querySelector(selector);
  const text = (id) => document.getElementById(id).textContent;
  const COUNTS = [1, 4, 16]; // images at once
  const SHARES = 17; // pictures on the way from one image to another
  const MORPH_STEPS = 10;
  const facts = JSON.parse(text("facts"));
  const engine = new Engine(text("worker"), {
    facts,
    data: text("data"),
    kernels: text("kernels"),
  });
  const player = $("ddpm-player");
  let config = facts.config; // of the model that is drawn with
  let film = null; // what was drawn last, once it is whole
  let newest = 0; // the number of the newest wish

  const say = (words, bad = false) => {
    $("#says").textContent = words;
    $("#says").classList.toggle("bad", bad);
  };
  const names = () =>
    config.class_names ?? Array.from({ length: config.classes }, (_, k) => String(k));
  const called = (label) => (config.classes ? (names()[label] ?? null) : null);

  /* The class that a seed draws if none is asked for, by the rule of Pipeline.label_of. */
  function labelOf(seed) {
    if (!config.classes) return null;
    const counts = (config.class_counts ?? Array(config.classes).fill(1)).map(BigInt);
    const place =
      (((BigInt(seed) * BigInt(facts.golden)) % 2n ** 32n) * counts.reduce((a, b) => a + b)) >> 32n;
    let bound = 0n;
    return counts.findIndex((count) => place < (bound += count));
  }

  /* A wish with what it leaves out. */
  const filled = ({
    seed = 0,
    label = null,
    steps = facts.usual_steps,
    sampler = facts.sampler,
    images = 1,
  } = {}) => ({ seed, label, steps, sampler, images });

  /* A wish as the worker wants it; throws Error in words if it cannot be. */
  function checked(wish) {
    const { seed, label, steps, sampler, images } = filled(wish);
    const most = facts.max_seed - images + 1;
    const { classes } = config;
    const not = (value) => `not ${String(value).slice(0, 40)}`; // whatever it is, no more of it
    if (!Number.isInteger(seed) || seed < 0 || seed > most)
      throw Error(`a seed is a whole number in 0..${most}, ${not(seed)}`);
    if (label !== null && !classes) throw Error("this model knows no labels: leave the label out");
    if (label !== null && !(Number.isInteger(label) && 0 <= label && label <= classes))
      throw Error(
        `a label is a whole number in 0..${classes - 1}, or ${classes} for none, ${not(label)}`,
      );
    if (!facts.steps.includes(steps))
      throw Error(`steps are one of ${facts.steps.join(", ")}, ${not(steps)}`);
    if (!Object.hasOwn(facts.walks, sampler))
      throw Error(`a sampler is one of ${Object.keys(facts.walks).join(", ")}, ${not(sampler)}`);
    const seeds = Array.from({ length: images }, (_, k) => seed + k);
    return {
      kind: "draw",
      steps,
      sampler,
      images: seeds.map((each) => ({ seed: each, label: label ?? labelOf(each) })),
    };
  }

  /* The finished image of a wish: pixels 0..255, row by row, the channels of a pixel side by side.
   */
  async function sample(wish) {
    await opened;
    let last;
    await engine.ask(checked({ ...wish, images: 1 }), (frame) => {
      last = frame;
    });
    const { size, channels } = config;
    return { pixels: new Uint8Array(last.x[0]), width: size, height: size, channels };
  }

  /* Images (pixels of one, or of many in a sheet with gaps, as pixels.grid lays them out) on a
     canvas. */
  function sheet(images, canvas = document.createElement("canvas")) {
    const { size, channels } = config,
      columns = Math.ceil(Math.sqrt(images.length)),
      on = size + facts.gap;
    canvas.width = columns * on - facts.gap;
    canvas.height = Math.ceil(images.length / columns) * on - facts.gap;
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

  /* --- What is wished for --- */

  const chosen = (id) => Number($(`#${id} input:checked`)?.value ?? -1);
  const number = (value) => (/^\s*\d{1,10}\s*$/.test(value) ? Number(value) : NaN);
  const wish = () => ({
    seed: number($("#seed").value),
    label: chosen("labels") < 0 ? null : chosen("labels"),
    steps: facts.steps[$("#steps").value],
    sampler: $("#sampler").value,
    images: chosen("images"),
  });

  function chips(id, choices, value) {
    $(`#${id} .chips`).replaceChildren(
      ...choices.map(([key, words, title]) => {
        const label = document.createElement("label"),
          input = document.createElement("input");
        Object.assign(input, { type: "radio", name: id, value: key, checked: key === value });
        if (title) input.setAttribute("aria-label", (label.title = title));
        label.append(input, words);
        return label;
      }),
    );
  }

  function settings(wish) {
    const { seed, label, steps, sampler, images } = filled(wish);
    const labels = names().map((name, k) => [k, name]);
    $("#labels").hidden = $("#other").hidden = !config.classes;
    chips("labels", [[-1, "any", "The class that the seed draws"], ...labels], label ?? -1);
    chips("other", labels, labels[(labelOf(seed) + 3) % labels.length]?.[0]);
    chips(
      "images",
      COUNTS.map((count) => [count, String(count)]),
      images,
    );
    $("#seed").value = seed;
    $("#other-seed").value ||= 1;
    Object.assign($("#steps"), { max: facts.steps.length - 1, value: facts.steps.indexOf(steps) });
    $("#sampler").replaceChildren(
      ...Object.keys(facts.walks).map((name) => new Option(name, name, false, name === sampler)),
    );
    $("#told").textContent = steps;
  }

  /* What the address asks for: ?seed=&digit=&steps=&sampler=&images=&model=NAMESPACE/NAME */
  function asked() {
    const query = new URLSearchParams(location.search),
      found = {};
    const take = (key, name, read) => {
      if (query.has(key)) found[name] = read(query.get(key));
    };
    take("seed", "seed", number);
    take("digit", "label", (name) => (names().includes(name) ? names().indexOf(name) : NaN));
    take("steps", "steps", number);
    take("sampler", "sampler", String);
    take("images", "images", number);
    if (found.images !== undefined && !COUNTS.includes(found.images))
      throw Error(
        `images are one of ${COUNTS.join(", ")}, not ${String(query.get("images")).slice(0, 40)}`,
      );
    if (Number.isNaN(found.seed)) found.seed = query.get("seed");
    if (Number.isNaN(found.label))
      throw Error(`digit is one of ${names().join(", ")}, not ${query.get("digit").slice(0, 40)}`);
    checked(found);
    return found;
  }

  function address() {
    const { seed, label, steps, sampler, images } = wish(),
      query = new URLSearchParams({ seed, steps, sampler, images });
    if (label !== null) query.set("digit", names()[label]);
    if (engine.model) query.set("model", engine.model.name);
    return `${location.href.split(/[?#]/)[0]}?${query}`;
  }

  /* --- Drawing --- */

  /* Draws what is wished for. play: from noise, moment by moment; else the finished images, all at
     once. */
  async function draw(play) {
    const mine = ++newest,
      wanted = wish(),
      start = performance.now();
    engine.stop(draw.id);
    try {
      const request = checked(wanted),
        { images } = request;
      $("#seed").removeAttribute("aria-invalid");
      const rows = facts.walks[wanted.sampler][facts.steps.indexOf(wanted.steps)];
      const walk = {
        title: "",
        note: "",
        count: images.length,
        columns: Math.ceil(Math.sqrt(images.length)),
        side: config.size,
        gap: facts.gap,
        mode: config.channels === 1 ? "L" : "RGB",
        seeds: images.map((image) => image.seed),
        labels: images.map((image) => called(image.label)),
        total: wanted.steps + 1,
        distance: null,
        frames: [],
      };
      film = null;
      const sheets = [],
        id = `walk ${mine}`;
      const answer = engine.ask(request, (frame) => {
        if (mine !== newest) return;
        if (frame.nfe <= 1 && frame.snr !== null) walk.frames = []; // begun again by a new worker
        sheets.length = walk.frames.length;
        sheets.push(sheet(frame.x));
        walk.frames = [
          ...walk.frames,
          { ...frame, x: sheets.at(-1).toDataURL(), x0: sheet(frame.x0).toDataURL() },
        ];
        if (play) player.show({ id, walks: [{ ...walk }] });
      });
      draw.id = answer.id;
      if ((await answer).stopped || mine !== newest) return;
      if (!play) {
        player.resting = false;
        player.show({ id, walks: [{ ...walk }], rest: walk.total - 1 });
      }
      film = { name: `digits-${wanted.seed}`, sheets };
      const ms = Math.round(performance.now() - start),
        many = images.length > 1;
      say(
        `${images.length} image${many ? "s" : ""} · ${rows[0]} evaluation${rows[0] > 1 ? "s" : ""}${
          many ? " each" : ""
        } · ${ms} ms here`,
      );
    } catch (error) {
      if (mine !== newest) return;
      if (/seed/.test(error.message)) $("#seed").setAttribute("aria-invalid", "true");
      say(error.message, true);
    }
  }

  /* --- From one image to another --- */

  const morph = { images: [], newest: 0 };

  async function between() {
    if (!$("#morph").open) return;
    const mine = ++morph.newest;
    engine.stop(morph.id);
    try {
      const first = checked({ ...wish(), images: 1 }).images[0],
        label = config.classes ? chosen("other") : null;
      const [to] = checked({ seed: number($("#other-seed").value), label }).images;
      const shares = Array.from({ length: SHARES }, (_, k) => k / (SHARES - 1));
      const images = shares.map((share) => ({ ...first, to, share }));
      let last;
      const answer = engine.ask(
        { kind: "draw", steps: Math.min(MORPH_STEPS, facts.usual_steps), sampler: facts.sampler, images },
        (frame) => {
          last = frame;
        },
      );
      morph.id = answer.id;
      if ((await answer).stopped || mine !== morph.newest) return;
      Object.assign(morph, { images: last.x, name: `morph-${first.seed}-${to.seed}` });
      const [left, , right] = document.querySelectorAll("#morph canvas");
      sheet([last.x[0]], left);
      sheet([last.x.at(-1)], right);
      showBetween();
    } catch (error) {
      if (mine === morph.newest) say(error.message, true);
    }
  }

  function showBetween() {
    if (!morph.images.length) return;
    const canvas = $("#morph .between"),
      at = Number($("#share").value);
    sheet([morph.images[at]], canvas);
    canvas.setAttribute(
      "aria-label",
      `${at} of ${SHARES - 1} of the way from the first image to the second`,
    );
  }

  /* --- Files, weights, keys --- */

  function saveGif(name, sheets, times) {
    const { width, height } = sheets[0];
    const frames = sheets.map(
      (canvas) => canvas.getContext("2d").getImageData(0, 0, width, height).data,
    );
    const blob = gif(frames, width, height, times, Math.max(2, Math.ceil(facts.gif_width / width)));
    const link = Object.assign(document.createElement("a"), {
      href: URL.createObjectURL(blob),
      download: `${name}.gif`,
    });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  const hundredths = (ms) => Math.round(ms / 10);
  const held = (count, hold) =>
    Array.from({ length: count }, (_, k) => hundredths(hold(k) ? facts.last_ms : facts.frame_ms));

  /* Weights of the Hub. What is there stays, if they cannot be had. endpoint: of another Hub than
     the public one. */
  async function load(name, endpoint) {
    say(`${name}: on its way`);
    try {
      ({ config } = await engine.ask({ kind: "model", name, endpoint }));
    } catch (error) {
      say(error.message, true);
      throw error;
    }
    $("#model").value = name;
    settings({ ...wish(), label: null });
    await draw(true);
    await between();
  }

  function listen() {
    const on = (selector, event, act) => $(selector).addEventListener(event, act);
    const roll = () => {
      $("#seed").value = crypto.getRandomValues(new Uint32Array(1))[0] >>> 1;
      draw(true);
      between();
    };
    on("form", "submit", (event) => event.preventDefault());
    on("#labels", "change", () => {
      draw(true);
      between();
    });
    on("#images", "change", () => draw(true));
    on("#seed", "input", () => {
      draw(false);
      between();
    });
    on("#steps", "input", () => {
      $("#told").textContent = facts.steps[$("#steps").value];
      draw(false);
    });
    on("#sampler", "change", () => draw(false));
    on("#roll", "click", roll);
    on("#seed", "keydown", (event) => {
      if (event.key === "Enter") draw(true);
    });
    on("ddpm-player", "pick", (event) => {
      $("#seed").value = event.detail.seed;
    });
    on("#save", "click", () =>
      film
        ? saveGif(
            film.name,
            [film.sheets.at(-1), ...film.sheets],
            durations(film.sheets.length, facts).map(hundredths),
          )
        : say("There is nothing to save yet.", true),
    );
    on("#link", "click", async () => {
      try {
        await navigator.clipboard.writeText(address());
        say("The link is copied.");
      } catch {
        say(address());
      }
    });
    on("#morph", "toggle", between);
    on("#other", "change", between);
    on("#other-seed", "input", between);
    on("#share", "input", showBetween);
    on("#save-morph", "click", () => {
      const there = morph.images.map((image) => sheet([image])),
        way = [...there, ...there.slice(1, -1).reverse()];
      if (way.length)
        saveGif(
          morph.name,
          way,
          held(way.length, (k) => k === 0 || k === SHARES - 1),
        );
    });
    on("#load", "click", () => {
      if ($("#model").value.trim()) load($("#model").value.trim()).catch(() => {});
    });
    document.addEventListener("keydown", (event) => {
      if (
        event.ctrlKey ||
        event.metaKey ||
        event.altKey ||
        event.target.matches("input:not([type=radio]), select")
      )
        return;
      const digit = event.key === "r" ? -2 : names().indexOf(event.key);
      if (digit === -2) roll();
      else if (digit >= 0) {
        $(`#labels input[value="${digit}"]`).checked = true;
        draw(true);
        between();
      }
    });
    Object.assign($("#share"), { max: SHARES - 1, value: (SHARES - 1) / 2 });
  }

  async function open() {
    let refused = null;
    settings();
    listen();
    try {
      settings(asked());
    } catch (error) {
      refused = `This address cannot be followed: ${error.message}`;
    }
    try {
      await engine.ready;
    } catch (error) {
      return say(error.message, true);
    }
    await draw(true);
    if (refused) say(refused, true);
    const model = new URLSearchParams(location.search).get("model");
    if (model) await load(model).catch(() => {});
  }

  const opened = engine.ready;
  window.ddpm = { sample, load, engine };
  open();
})();

/* The page: what a visitor sets, drawn at once; the newest wish wins. window.ddpm is the same for
   scripts. */
(() => {
  const $ = (selector) => document.querySelector(selector);
  const text = (id) => document.getElementById(id).textContent;
  const COUNTS = [1, 4, 16]; // images at once
  const facts = JSON.parse(text("facts"));
  const engine = new Engine(text("worker"), {
    facts,
    data: text("data"),
    kernels: text("kernels"),
  });
  const player = $("ddpm-player");
  const studio = new Studio(engine, facts);
  let film = null, // what was drawn last, once it is whole
    films = 0;
  const drawing = new Newest(engine);
  const lend = () => {
    for (const tool of document.querySelectorAll(".tools > details > :last-child"))
      tool.studio = studio;
  };

  const say = (words, bad = false) => {
    $("#says").textContent = words;
    $("#says").classList.toggle("bad", bad);
  };

  /* --- What is wished for --- */

  const chosen = (id) => Number($(`#${id} input:checked`)?.value ?? -1);
  const number = (value) => (/^\s*\d{1,10}\s*$/.test(value) ? Number(value) : NaN);
  const wish = () => ({
    seed: number($("#seed").value),
    label: chosen("labels") < 0 ? null : chosen("labels"),
    steps: studio.offers.steps[$("#steps").value],
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
    const { seed, label, steps, sampler, images } = studio.filled(wish),
      { offers } = studio;
    const labels = studio.names.map((name, k) => [k, name]);
    $("#labels").hidden = !studio.config.classes;
    chips("labels", [[-1, "any", "The class that the seed draws"], ...labels], label ?? -1);
    chips(
      "images",
      COUNTS.map((count) => [count, String(count)]),
      images,
    );
    $("#seed").value = seed;
    Object.assign($("#steps"), { max: offers.steps.length - 1, value: offers.steps.indexOf(steps) });
    $("#sampler").replaceChildren(
      ...offers.samplers.map((name) => new Option(name, name, false, name === sampler)),
    );
    $("#sampler").parentElement.hidden = offers.samplers.length < 2;
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
    take("digit", "label", (name) => (studio.names.includes(name) ? studio.names.indexOf(name) : NaN));
    take("steps", "steps", number);
    take("sampler", "sampler", String);
    take("images", "images", number);
    if (found.images !== undefined && !COUNTS.includes(found.images))
      throw Error(
        `images are one of ${COUNTS.join(", ")}, not ${String(query.get("images")).slice(0, 40)}`,
      );
    if (Number.isNaN(found.seed)) found.seed = query.get("seed");
    if (Number.isNaN(found.label))
      throw Error(`digit is one of ${studio.names.join(", ")}, not ${query.get("digit").slice(0, 40)}`);
    studio.checked(found);
    return found;
  }

  function address() {
    const { seed, label, steps, sampler, images } = wish(),
      query = new URLSearchParams({ seed, steps, sampler, images });
    if (label !== null) query.set("digit", studio.names[label]);
    if (engine.model) query.set("model", engine.model.name);
    return `${location.href.split(/[?#]/)[0]}?${query}`;
  }

  /* --- Drawing --- */

  /* Draws what is wished for. play: from noise, moment by moment; else the finished images, all at
     once. */
  async function draw(play) {
    const wanted = wish(),
      start = performance.now();
    try {
      const request = studio.checked(wanted);
      $("#seed").removeAttribute("aria-invalid");
      film = null;
      const id = `walk ${++films}`,
        made = await studio.film(drawing, request, id, (grown) => play && player.show(grown));
      if (!made) return;
      if (!play) {
        player.show({ ...made, live: true });
      }
      film = { name: `digits-${wanted.seed}`, sheets: made.walks[0].frames.map(({ x }) => x) };
      const ms = Math.round(performance.now() - start),
        many = wanted.images > 1,
        spent = made.walks[0].frames.at(-1).nfe;
      say(
        `${wanted.images} image${many ? "s" : ""} · ${spent} evaluation${spent > 1 ? "s" : ""}${
          many ? " each" : ""
        } · ${ms} ms here`,
      );
    } catch (error) {
      drawing.stop();
      if (/seed/.test(error.message)) $("#seed").setAttribute("aria-invalid", "true");
      say(error.message, true);
    }
  }

  /* --- Files, weights, keys --- */


  /* Weights of the Hub. What is there stays, if they cannot be had. endpoint: of another Hub than
     the public one. follow: sets the form for them; else it stays, but for the steps where either
     model is distilled. */
  async function load(name, endpoint, follow = null) {
    say(`${name}: on its way`);
    let config;
    try {
      ({ config } = await engine.ask({ kind: "model", name, endpoint }));
    } catch (error) {
      say(error.message, true);
      throw error;
    }
    const { seed, images, steps, sampler } = wish(),
      alike = !studio.config.distilled && !config.distilled;
    studio.config = config;
    $("#model").value = name;
    settings({ seed, images, ...(alike && { steps, sampler }) });
    const refused = follow?.();
    await draw(true);
    if (refused) say(refused, true);
    lend();
  }

  function listen() {
    const on = (selector, event, act) => $(selector).addEventListener(event, act);
    const roll = () => {
      $("#seed").value = crypto.getRandomValues(new Uint32Array(1))[0] >>> 1;
      draw(true);
    };
    on("form", "submit", (event) => event.preventDefault());
    on("#labels", "change", () => draw(true));
    on("#images", "change", () => draw(true));
    on("#seed", "input", () => draw(false));
    on("#steps", "input", () => {
      $("#told").textContent = studio.offers.steps[$("#steps").value];
      draw(false);
    });
    on("#sampler", "change", () => draw(false));
    on("#roll", "click", roll);
    on("#seed", "keydown", (event) => {
      if (event.key === "Enter") draw(true);
    });
    on("ddpm-player", "pick", (event) => {
      $("#seed").value = event.detail.seed;
      $(`#images input[value="${event.detail.count}"]`).checked = true;
    });
    on("#save", "click", () =>
      film
        ? download(filmed(film.sheets, facts), `${film.name}.gif`)
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
      const digit = event.key === "r" ? -2 : studio.names.indexOf(event.key);
      if (digit === -2) roll();
      else if (digit >= 0) {
        $(`#labels input[value="${digit}"]`).checked = true;
        draw(true);
        }
    });
  }

  /* The form as the address asks for it. Returns why it cannot be; null if it can. */
  function follow() {
    try {
      return settings(asked()), null;
    } catch (error) {
      return `This address cannot be followed: ${error.message}`;
    }
  }

  async function open() {
    const model = new URLSearchParams(location.search).get("model");
    settings();
    listen();
    const refused = follow();
    try {
      await engine.ready;
    } catch (error) {
      return say(error.message, true);
    }
    lend();
    await draw(true);
    if (model) await load(model, undefined, follow).catch(() => {}); // the address is meant for it
    else if (refused) say(refused, true);
  }

  window.ddpm = { sample: (wish) => studio.sample(wish), load, engine };
  open();
})();

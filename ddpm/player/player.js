/* <ddpm-player>: plays walks from noise to images. One file, no dependency, no request.

   player.show({id, walks: [walk, …], loop, rest, live}) where a walk is what ddpm/player/__init__.py makes:
     {title, note, count, columns, side, gap, seeds, labels, total, frames: [{t, snr, nfe, x, x0}, …], distance}
   x and x0 are PNGs (data URIs) or canvases of all images in a sheet. A walk may still grow: show() again with more frames, and
   the playhead follows; if it is live, without playing. All walks of a film share one playhead. Left is noise and right is clean, everywhere.
   With the attribute "menu" the page has a menu to save, and the player no button. With "joined" the chart joins its points: they are one sampler in ever more steps.
   Events: "pick" with {seed, label, count: 1} when somebody singles out an image, and with the first seed of all when they let go. */
(() => {
  const VIEWS = { x: ["noisy image (xₜ)", "The noisy image itself, x at time t"],
                  x0: ["what it believes (x̂₀)", "What the network believes the clean image to be, x̂₀"],
                  both: ["both", "The noisy image and what the network believes, side by side"] };
  // What happens at a signal-to-noise ratio below so many decibels.
  const STAGES = [[-15, "only noise: it guesses an average"], [0, "it commits to one image"], [Infinity, "details"]];
  const STYLE = `
    :host { --ink: #1d2433; --soft: #5d6678; --line: #d5dae3; --face: #fff; --accent: #4f46e5; display: block;
            color: var(--ink); font: 14px/1.45 system-ui, sans-serif; container-type: inline-size; }
    :host([dark]) { --ink: #e8ebf2; --soft: #a2abbd; --line: #3a4256; --face: #171c28; --accent: #a5b4fc; }
    :host(:not([on])) { visibility: hidden; }
    * { box-sizing: border-box; }
    .stage { display: grid; gap: 14px; justify-content: center; align-items: start;
             grid-template-columns: repeat(var(--across), minmax(0, min(var(--most), var(--tallest, 100rem)))); }
    figure { margin: 0; min-width: 0; }
    .sheet { position: relative; background: #000; border-radius: 6px; overflow: hidden; }
    canvas { display: block; width: 100%; image-rendering: pixelated; }
    .cells { position: absolute; inset: 0; display: grid; }
    .cells button { all: unset; cursor: zoom-in; }
    .alone .cells button { cursor: zoom-out; }
    .cells button:hover { box-shadow: inset 0 0 0 1.5px rgb(165 180 252 / .7); }
    .cells button:focus-visible { box-shadow: inset 0 0 0 3px #a5b4fc; }
    figcaption { margin-top: 6px; text-align: center; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
    figcaption b { font-weight: 600; display: block; }
    figcaption span, .says { color: var(--soft); font-size: 13px; white-space: pre-line; }
    .says { text-align: center; min-height: 1.45em; margin: 10px 0 0; font-variant-numeric: tabular-nums; }
    @container (max-width: 420px) { .says { min-height: 2.9em; } }
    .waits { text-align: center; margin: 0; font-weight: 600; }
    .film { position: relative; height: 44px; margin: 10px auto 0; max-width: 30rem; }
    .film canvas { position: absolute; inset: 6px 0; width: 100%; height: 32px; border-radius: 4px; background: #000; }
    input[type=range] { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; background: none;
                        appearance: none; -webkit-appearance: none; cursor: ew-resize; touch-action: pan-y; }
    input::-webkit-slider-thumb { -webkit-appearance: none; width: 12px; height: 44px; border-radius: 6px;
                        background: var(--accent); border: 3px solid var(--face); cursor: ew-resize; }
    input::-moz-range-thumb { width: 8px; height: 38px; border-radius: 6px; background: var(--accent);
                        border: 3px solid var(--face); cursor: ew-resize; }
    input:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; border-radius: 6px; }
    .ends { display: flex; justify-content: space-between; gap: 8px; max-width: 30rem; margin: 0 auto; font-size: 13px;
            color: var(--soft); }
    .means { color: var(--ink); text-align: center; }
    .status { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
    .bar { display: flex; flex-wrap: wrap; gap: 6px; justify-content: center; margin-top: 10px; }
    .bar > button, .bar label, select { font: inherit; color: var(--ink); background: var(--face);
            border: 1px solid var(--line); border-radius: 8px; min-height: 38px; padding: 0 10px; cursor: pointer; }
    .bar > button:hover, .bar label:hover, select:hover { border-color: var(--accent); }
    .bar > button:focus-visible, select:focus-visible, .views:has(:focus-visible) {
            outline: 2px solid var(--accent); outline-offset: 2px; }
    :host([menu]) .save { display: none; }
    .play { min-width: 84px; }
    .step { min-width: 38px; padding: 0; }
    .views { display: flex; border-radius: 8px; }
    .views label { display: grid; place-items: center; border-radius: 0; margin-left: -1px; }
    .views label:first-of-type { border-radius: 8px 0 0 8px; margin: 0; }
    .views label:last-of-type { border-radius: 0 8px 8px 0; }
    .views label:has(:checked) { background: var(--accent); border-color: var(--accent); color: var(--face); }
    .views input { position: absolute; opacity: 0; pointer-events: none; }
    .chart { display: block; max-width: 34rem; width: 100%; margin: 14px auto 0; }
    .chart text { fill: var(--soft); font-size: 11px; } .chart .axis { stroke: var(--line); }
    .chart polyline { fill: none; stroke: var(--accent); stroke-width: 2; }
    .chart circle { fill: var(--accent); stroke: var(--face); stroke-width: 2; }
    @media (pointer: coarse) { .bar > button, .bar label, select { min-height: 44px; min-width: 44px; } }
    @container (max-width: 420px) { .stage { grid-template-columns: repeat(min(var(--across), 2), minmax(0, 1fr)); } }
  `;
  const BODY = `
    <div class="stage"></div>
    <p class="waits" role="status"></p>
    <p class="says" part="says"></p>
    <div class="film"><canvas aria-hidden="true"></canvas>
      <input type="range" min="0" max="1" step="1" value="0" aria-label="Moment: from noise to clean"></div>
    <div class="ends" aria-hidden="true"><span>noise</span><span class="means"></span><span class="end">clean</span></div>
    <p class="status" role="status"></p>
    <div class="bar">
      <button class="play" type="button"></button>
      <button class="step" type="button" data-step="-1" aria-label="One step back" title="One step back">‹</button>
      <button class="step" type="button" data-step="1" aria-label="One step on" title="One step on">›</button>
      <div class="views" role="radiogroup" aria-label="What to show"></div>
      <select aria-label="Speed" title="Speed">
        <option value="0.25">¼×</option><option value="0.5">½×</option><option value="1" selected>1×</option>
        <option value="2">2×</option><option value="4">4×</option></select>
      <button class="save" type="button" title="Save the finished picture, or the one singled out, as a PNG">⤓ PNG</button>
    </div>
    <div class="graph"></div>`;
  const make = (name, settings = {}, ...children) => {
    const node = Object.assign(document.createElement(name), settings);
    node.append(...children);
    return node;
  };
  const decoded = new WeakMap();  // frame -> view -> image
  const picture = (frame, view) => {
    if (!decoded.has(frame)) decoded.set(frame, {});
    const known = decoded.get(frame);
    if (frame[view] instanceof HTMLCanvasElement) return frame[view];
    if (!known[view]) {
      known[view] = new Image();
      known[view].src = frame[view];
    }
    return known[view];
  };
  const ready = (image) => (image.complete === false ? image.decode().catch(() => {}) : Promise.resolve());

  class Player extends HTMLElement {
    constructor() {
      super();
      this.attachShadow({ mode: "open" }).append(make("style", { textContent: STYLE }));
      const body = make("div", { innerHTML: BODY });
      this.shadowRoot.append(body);
      this.$ = (selector) => body.querySelector(selector);
      for (const [name, [sign, hint]] of Object.entries(VIEWS)) {
        const input = make("input", { type: "radio", name: "view", value: name, checked: name === "x" });
        input.addEventListener("change", () => { this.view = name; this.#layOut(); this.#paint(); });
        this.$(".views").append(make("label", { title: hint }, input, make("span", { textContent: sign })));
      }
      this.view = "x";
      this.walks = [];
      this.at = 0;             // the playhead: a moment of 0..last, the same for all walks
      this.playing = false;
      this.alone = null;       // the number of the image singled out
      this.halted = null;      // the id of the film that was stopped
      this.$(".play").addEventListener("click", () => (this.playing ? this.pause() : this.play()));
      for (const button of body.querySelectorAll(".step"))
        button.addEventListener("click", () => this.#go(this.at + Number(button.dataset.step)));
      this.$("input[type=range]").addEventListener("input", (event) => this.#go(Number(event.target.value)));
      this.$(".save").addEventListener("click", () => this.save());
      body.addEventListener("keydown", (event) => this.#key(event));
      new ResizeObserver(() => this.#strip()).observe(this.$(".film"));
    }

    connectedCallback() {  // the page's theme; a page of its own follows the system
      const system = matchMedia("(prefers-color-scheme: dark)");
      const root = document.body;
      const look = () => this.toggleAttribute("dark", root.classList.contains("dark")
        || (root.hasAttribute("data-system-theme") && system.matches));
      look();
      new MutationObserver(look).observe(root, { attributes: true, attributeFilter: ["class"] });
      system.addEventListener("change", look);
      this.#say();
    }

    get calm() { return matchMedia("(prefers-reduced-motion: reduce)").matches; }
    get last() { return Math.max(1, ...this.walks.map((walk) => walk.total)) - 1; }          // the last moment
    get edge() {  // the last moment that every walk has a frame for: the others are on their way
      return Math.min(...this.walks.map((walk) => walk.frames.length === walk.total ? this.last
        : Math.floor((walk.frames.length - 1) * this.last / Math.max(1, walk.total - 1))));
    }
    get done() { return this.walks.length > 0 && this.walks.every((walk) => walk.frames.length === walk.total); }

    /* A new film, or more of the one that is on: told apart by its id. */
    show(film) {
      const words = film?.before ? `Waiting: ${film.before} before you.` : "";
      if (this.$(".waits").textContent !== words) this.$(".waits").textContent = words;  // said once
      if (film?.before) this.toggleAttribute("on", true);
      if (!film?.walks?.length || film.id === this.halted) return;
      const fresh = film.id !== this.id;
      film.walks.forEach((walk, k) => {  // frames that are known stay the same objects, and so their pictures
        const old = fresh ? [] : this.walks[k]?.frames ?? [];
        walk.frames = walk.frames.map((frame, i) => (old[i]?.x === frame.x ? old[i] : frame));
      });
      this.id = film.id;
      this.toggleAttribute("on", true);  // without a film there is nothing to look at
      this.loop = Boolean(film.loop);
      this.walks = film.walks;
      if (fresh) {
        this.alone = null;
        if (film.rest === undefined) this.at = this.calm && this.done ? this.last : 0;
        else if (!this.resting) this.at = film.rest;  // else the playhead stays where somebody has put it
        this.resting = film.rest !== undefined;
      } else if (this.calm && !this.playing) this.at = this.edge;
      if (film.live) {
        this.playing = false;
        this.at = this.edge;
      }
      this.#layOut();
      this.#strip(fresh);
      this.#graph();
      this.#paint();
      this.#tell();
      if (fresh && !this.resting && !this.calm && !film.live) this.play();
    }

    play() {
      if (this.at >= this.last) this.at = 0;
      this.playing = true;
      this.due = performance.now();
      cancelAnimationFrame(this.timer);
      const tick = (now) => {
        if (!this.playing || !this.isConnected) return;
        const pace = Math.min(400, Math.max(60, 2500 / this.last)) / Number(this.$("select").value);
        if (now >= this.due && this.at < this.edge) {
          this.at = Math.min(this.edge, this.at + Math.max(1, Math.floor((now - this.due) / pace)));
          this.due = now + pace;
          this.#paint();
        } else if (this.at >= this.edge) this.due = Math.max(this.due, now);
        if (this.at >= this.last) {
          if (!this.loop) return this.pause();
          if (!this.held) this.held = now + 2000;
          else if (now >= this.held) { this.held = 0; this.at = 0; this.due = now + pace; this.#paint(); }
        }
        this.timer = requestAnimationFrame(tick);
      };
      this.timer = requestAnimationFrame(tick);
      this.#say();
      this.#paint();
    }

    /* No more frames will come: what is there is all there is. */
    halt() {
      this.halted = this.id;  // a frame may be on its way yet
      this.$(".waits").textContent = "";
      for (const walk of this.walks) {
        walk.total = walk.frames.length;
        walk.note = walk.note.replace(/measuring.*/, "not measured");
      }
      this.at = Math.min(this.at, this.last);
      this.#paint();
      this.#tell();
    }

    get time() { return this.walks.length ? this.#frame(this.walks[0]).t : 0; }  // t under the playhead

    pause() { this.playing = false; this.held = 0; this.#say(); }

    get name() {  // of a file
      const { seeds } = this.walks[0];
      return this.alone === null ? `digits-${seeds[0]}` : `digit-${seeds[this.alone]}`;
    }

    /* The finished pictures of all walks, or the one singled out, as a PNG; each pixel a square of four, or sixteen if alone. */
    async save() {
      const canvas = await this.#still(this.last, ["x"], this.alone === null ? 4 : 16);
      canvas.toBlob((blob) => {
        const link = make("a", { href: URL.createObjectURL(blob), download: `${this.name}.png` });
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
      }, "image/png");
    }

    /* What is drawn in the end, of all images or the one singled out, on a canvas. */
    still() { return this.#still(this.last, ["x"]); }

    /* Every moment as it is shown, on a canvas. */
    moments() {
      return Promise.all(Array.from({ length: this.last + 1 }, (_, at) => this.#still(at, this.#views)));
    }

    /* All walks at a moment, side by side on a canvas. */
    async #still(at, views, scale = 1) {
      const frames = this.walks.map((walk) => this.#frame(walk, at));
      const parts = await Promise.all(frames.map(async (frame, k) => {
        const sheets = views.map((view) => picture(frame, view)), part = make("canvas");
        await Promise.all(sheets.map(ready));
        this.#brush(part, sheets, this.walks[k]);
        return part;
      }));
      const on = parts[0].width + 3 * this.walks[0].gap, { width, height } = parts[0];  // from walk to walk
      const canvas = make("canvas", { width: ((parts.length - 1) * on + width) * scale, height: height * scale });
      const brush = canvas.getContext("2d", { willReadFrequently: true });
      brush.imageSmoothingEnabled = false;
      parts.forEach((part, k) => brush.drawImage(part, k * on * scale, 0, width * scale, height * scale));
      return canvas;
    }

    get #views() { return this.view === "both" ? ["x", "x0"] : [this.view]; }

    #go(moment) {
      this.pause();
      this.loop = false;
      this.at = Math.min(this.edge, Math.max(0, moment));
      this.#paint();
    }

    #key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const { target, key } = event;
      if (target.closest(".cells")) return this.#walkCells(event);
      if (target.matches("select, [type=radio]")) return;
      const moves = { ArrowLeft: this.at - 1, ArrowRight: this.at + 1, ArrowDown: this.at - 1, ArrowUp: this.at + 1,
                      Home: 0, End: this.last };
      if (key in moves) this.#go(moves[key]);
      else if (key === " " && !target.matches("button")) this.playing ? this.pause() : this.play();
      else return;
      event.preventDefault();
    }

    /* One tab stop for a whole sheet; arrows go from image to image. */
    #walkCells(event) {
      const cells = [...event.target.parentNode.children], here = cells.indexOf(event.target);
      const { columns } = this.walks[0];
      const to = { ArrowLeft: here - 1, ArrowRight: here + 1, ArrowUp: here - columns, ArrowDown: here + columns }[event.key];
      if (event.key === "Escape" && this.alone !== null) this.#single(null);
      else if (to === undefined) return;
      else if (cells[to]) { event.target.tabIndex = -1; cells[to].tabIndex = 0; cells[to].focus(); }
      event.preventDefault();
    }

    #single(which) {
      const before = this.alone;
      this.alone = which;
      this.#layOut();
      this.#strip();
      this.#paint();
      const cells = [...this.shadowRoot.querySelectorAll(".cells button")], here = cells[which === null ? before : 0];
      for (const cell of cells) cell.tabIndex = cell === here ? 0 : -1;
      here?.focus();
      const walk = this.walks[0];
      const detail = which === null ? { seed: walk.seeds[0], label: null, count: walk.count }
        : { seed: walk.seeds[which], label: walk.labels[which], count: 1 };
      this.dispatchEvent(new CustomEvent("pick", { detail, bubbles: true, composed: true }));
    }

    /* One figure a walk, made anew only if their number or shape changes. */
    #layOut() {
      const shape = JSON.stringify([this.walks.map((w) => [w.count, w.title, w.labels, w.seeds]), this.view, this.alone]);
      if (shape === this.shape) return;
      this.shape = shape;
      const many = this.walks.length > 1, stage = this.$(".stage");
      stage.style.setProperty("--across", Math.min(this.walks.length, 4));
      stage.style.setProperty("--most", many ? "15rem" : this.view === "both" ? "46rem" : "30rem");
      stage.replaceChildren(...this.walks.map((walk) => {
        const sheet = make("div", { className: "sheet" + (this.alone === null ? "" : " alone") }, make("canvas"));
        if (walk.count > 1 && !many && (this.view !== "both" || this.alone !== null)) sheet.append(this.#cells(walk));
        const caption = make("figcaption", {}, make("b", { textContent: walk.title ?? "" }), make("span"));
        return make("figure", {}, sheet, caption);
      }));
    }

    #cells(walk) {
      const cells = make("div", { className: "cells" });
      cells.style.gridTemplateColumns = `repeat(${this.alone === null ? walk.columns : 1}, 1fr)`;
      const numbers = this.alone === null ? walk.seeds.keys() : [this.alone];
      for (const k of numbers) {
        const button = make("button", { type: "button", tabIndex: cells.children.length ? -1 : 0 });
        const name = walk.labels[k] === null ? "" : `, a ${walk.labels[k]}`;
        button.setAttribute("aria-label", this.alone === null ? `Single out seed ${walk.seeds[k]}${name}` : "Show all again");
        button.title = this.alone === null ? `seed ${walk.seeds[k]}${name}` : "show all again";
        button.addEventListener("click", () => this.#single(this.alone === null ? k : null));
        cells.append(button);
      }
      return cells;
    }

    #frame(walk, at = this.at) {  // of a walk at a moment: all walks are in step
      const k = Math.round(at * (walk.total - 1) / Math.max(1, this.last));
      return walk.frames[Math.min(k, walk.frames.length - 1)];
    }

    #paint() {
      this.walks.forEach((walk, k) => {
        const frame = this.#frame(walk), figure = this.$(".stage").children[k];
        if (!frame || !figure) return;
        const sheets = this.#views.map((view) => picture(frame, view));
        Promise.all(sheets.map(ready)).then(() => {
          if (this.#frame(walk) === frame) this.#brush(figure.querySelector("canvas"), sheets, walk);
        });
        figure.querySelector("span").textContent = this.walks.length > 1
          ? `${frame.nfe} evaluation${frame.nfe === 1 ? "" : "s"}${walk.note && ` · ${walk.note}`}` : walk.note;
      });
      this.#say();
    }

    #brush(canvas, sheets, walk) {
      const { side, gap, columns } = walk, alone = this.alone !== null;
      const left = alone ? this.alone % columns * (side + gap) : 0;
      const top = alone ? Math.floor(this.alone / columns) * (side + gap) : 0;
      const width = alone ? side : sheets[0].width, height = alone ? side : sheets[0].height;
      const between = alone ? gap : 3 * gap, wide = width * sheets.length + between * (sheets.length - 1);
      if (canvas.width !== wide || canvas.height !== height) Object.assign(canvas, { width: wide, height });
      const brush = canvas.getContext("2d");
      sheets.forEach((sheet, k) => brush.drawImage(sheet, left, top, width, height, k * (width + between), 0, width, height));
    }

    /* What is told in words: beside the pictures, and to those who cannot see them. */
    #say() {
      const play = this.$(".play"), range = this.$("input[type=range]");
      play.textContent = this.playing ? "❚❚ Pause" : "▶ Play";
      if (!this.walks.length) return;
      const walk = this.walks[0], frame = this.#frame(walk);
      if (!frame) return;
      range.max = this.last;
      range.value = this.at;
      const snr = frame.snr === null ? "no noise" : frame.snr === 0 ? "pure noise"
        : `signal to noise ${(10 * Math.log10(frame.snr)).toFixed(1).replace("-", "−")} dB`;
      const parts = [`t = ${Math.round(frame.t)}`, snr];
      if (this.walks.length === 1) parts.push(`${frame.nfe} network evaluation${frame.nfe === 1 ? "" : "s"}`);
      if (this.alone !== null)
        parts.unshift(`seed ${walk.seeds[this.alone]}${walk.labels[this.alone] === null ? "" : `, a ${walk.labels[this.alone]}`}`);
      const words = parts.join(" · ");
      this.$(".says").textContent = words;
      const means = frame.snr === null ? "" : STAGES.find(([most]) => 10 * Math.log10(frame.snr) < most)[1];
      this.$(".means").textContent = means;
      range.setAttribute("aria-valuetext", `${words}, ${means && `${means}, `}moment ${this.at} of ${this.last}`);
      const what = walk.count === 1 ? "1 image" : `${walk.count} images`;
      this.shadowRoot.querySelectorAll(".sheet > canvas").forEach((canvas, k) => {
        canvas.setAttribute("role", "img");
        canvas.setAttribute("aria-label", `${what}${this.walks[k]?.title ? `, ${this.walks[k].title}` : ""} at t = ${Math.round(frame.t)}`);
      });
    }

    /* Those who cannot see it hear when drawing begins and ends. */
    #tell() {
      const count = this.walks.reduce((sum, walk) => sum + walk.count, 0), what = count === 1 ? "1 image" : `${count} images`;
      const t = this.walks[0]?.frames.at(-1)?.t;
      const words = !this.done ? `Drawing ${what}.` : this.halted === this.id && t > 0 ? "Stopped." : `${what} drawn.`;
      const status = this.$(".status");
      if (status.textContent !== words) status.textContent = words;
      this.$(".end").textContent = this.halted === this.id && t > 0 ? `stopped at t = ${Math.round(t)}` : "clean";
    }

    /* The strip under the slider: the first image (or the one singled out) on its way from noise to clean. */
    #strip(fresh) {
      const { id } = this, canvas = this.$(".film canvas"), [walk] = this.walks.toSorted((a, b) => b.total - a.total);
      if (!walk || !canvas.clientWidth) return;
      const { side, gap, columns } = walk, shown = this.alone ?? 0;
      const slots = Math.max(2, Math.floor(canvas.clientWidth / 32));
      const width = Math.round(canvas.clientWidth * side / 32);
      if (canvas.width !== width) Object.assign(canvas, { width, height: side });
      const brush = canvas.getContext("2d");
      if (fresh) brush.clearRect(0, 0, canvas.width, canvas.height);
      for (let slot = 0; slot < slots; slot++) {
        const frame = walk.frames[Math.round(slot * (walk.total - 1) / (slots - 1))];
        if (!frame) continue;
        const sheet = picture(frame, "x");
        ready(sheet).then(() => id === this.id && brush.drawImage(sheet, shown % columns * (side + gap), Math.floor(shown / columns) * (side + gap),
          side, side, Math.round(slot * (width - side) / (slots - 1)), 0, side, side));
      }
    }

    /* How far each walk ends from the reference, over its evaluations: a small chart, both axes logarithmic. */
    #graph() {
      const joined = this.hasAttribute("joined");
      const points = this.walks.filter((walk) => walk.distance > 0)
        .map((walk) => [walk.frames.at(-1).nfe, walk.distance, walk.title]).sort((a, b) => a[0] - b[0]);
      if (points.length < (joined ? 4 : 2)) return this.$(".graph").replaceChildren();
      const [w, h, left, bottom] = [480, 170, 46, 34];
      const scale = (values, from, to) => {
        const [low, high] = [Math.log(Math.min(...values)), Math.log(Math.max(...values))];
        return (value) => from + (high - low ? (Math.log(value) - low) / (high - low) : 0.3) * (to - from);
      };
      const x = scale(points.map((p) => p[0]), left + 16, joined ? w - 52 : w - 170);
      const y = scale(points.map((p) => p[1]), h - bottom - 10, 22);
      const text = (px, py, anchor = "middle") => `<text x="${px}" y="${py}" text-anchor="${anchor}"></text>`;
      const labels = [], say = (px, py, words, anchor) => { labels.push(words); return text(px, py, anchor); };
      const at = points.map(([a, b, title]) => ({ px: x(a), py: y(b), title, nfe: a, far: b.toPrecision(2) }));
      let tick = -Infinity, last = -Infinity;
      const ticks = at.filter(({ px }) => px - tick > 22 && (tick = px)).map(({ px, nfe }) => say(px, h - bottom + 15, Number(nfe)));
      const names = joined ? at.map(({ px, py, far }) => say(px + 4, py - 8, far, "start"))  // the line falls
        : at.toSorted((a, b) => a.py - b.py).map(({ px, py, title, far }) =>  // beside the points, none on another
          say(px + 10, (last = Math.max(py + 4, last + 13)), `${title}: ${far}`, "start"));
      this.$(".graph").innerHTML = `<svg class="chart" viewBox="0 0 ${w} ${h}" role="img">
        <path class="axis" d="M${left} 10V${h - bottom}H${w}" fill="none"/>
        ${joined ? `<polyline points="${at.map(({ px, py }) => `${px},${py}`).join(" ")}"/>` : ""}
        ${at.map(({ px, py }) => `<circle cx="${px}" cy="${py}" r="5"/>`).join("")}${ticks.join("")}${names.join("")}
        ${say(w / 2 + left / 2, h - 4, "network evaluations")}
        <text transform="rotate(-90)" x="${-(h - bottom) / 2}" y="12" text-anchor="middle">distance to reference</text></svg>`;
      const svg = this.$("svg.chart");  // words are set as text: titles may come from elsewhere
      svg.setAttribute("aria-label", `Distance to the reference by network evaluations: ${at.map(({ nfe, far }) => `${nfe}: ${far}`).join(", ")}`);
      labels.forEach((words, k) => { svg.querySelectorAll("text")[k].textContent = words; });
    }
  }
  if (!customElements.get("ddpm-player")) customElements.define("ddpm-player", Player);
})();

/* <ddpm-draw>: what you draw, the same with noise up to a time, and what the model makes of that;
   all three follow the pen. Without a studio it asks for the last two: event "ask" with {picture,
   t, seed, label}; `film` takes the answer. */
class Draw extends Tool {
  static style = `
    .panes { display: grid; gap: 12px 14px; grid-template: auto 1fr / repeat(3, minmax(0, 1fr)); align-items: start;
      max-width: max(42rem, (100vh - 24rem) * 3); }
    .panes figure:first-child { grid-row: 1 / 3; }
    .settings { grid-column: 2 / 4; }
    .settings .row:first-child { margin: 0; }
    @container (max-width: 640px) {
      .panes { grid-template: none / repeat(2, minmax(0, 1fr)); }
      .panes figure:first-child, .settings { grid-column: 1 / -1; grid-row: auto; } }
  `;
  static body = `
    <div class="panes">
      <figure><figcaption>Draw here: a digit, a star, a face</figcaption><ddpm-pad></ddpm-pad></figure>
      <figure><figcaption>with noise</figcaption><canvas class="noisy" role="img" aria-label="Your drawing with noise"></canvas></figure>
      <figure><figcaption>what comes back</figcaption><canvas class="back" role="img" aria-label="What the model makes of it"></canvas></figure>
      <div class="settings">
        <div class="row">
          <label class="grow">Noise <output></output><input class="t" type="range" min="0" step="1"></label>
          <button type="button" class="other">Other noise</button>
        </div>
        <fieldset class="row"><legend>Tell the model what it is</legend><div class="chips"></div></fieldset>
      </div>
    </div>`;

  listen() {
    this.noise = 0; // a seed
    this.pad = this.$("ddpm-pad");
    this.pad.addEventListener("stroke", () => this.draw());
    this.pad.addEventListener("ink", () => (this.draw(), this.ask()));
    this.on(".t", "input", () => (this.told(), this.draw()));
    this.on(".t", "change", () => this.ask());
    this.on(".other", "click", () => (this.noise++, this.draw(), this.ask()));
    this.on(".chips", "change", () => (this.draw(), this.ask()));
    this.times([...Array(40).keys()].map((k) => 25 * (k + 1)));
    this.labels([]);
  }

  start() {
    this.times(this.studio.offers.starts);
    this.labels(this.named);
    this.draw();
  }

  times(times) {
    this.all = times;
    const off = times.map((t) => Math.abs(t - 0.6 * times.at(-1)));
    Object.assign(this.$(".t"), { max: times.length - 1, value: off.indexOf(Math.min(...off)) });
    this.told();
  }

  labels(names) {
    this.$("fieldset").hidden = !names.length;
    const choices = names.map((name, k) => [k, name]);
    this.chips(".chips", [[-1, "nothing"], ...choices], -1);
  }

  get settings() {
    const { pad } = this;
    return {
      picture: [packed(pad.gray()), async (text) => pad.take(pad.sheet(await unpacked(text, pad.side ** 2)))],
      t: [
        this.t,
        (text) => {
          if (!this.all.includes(Number(text))) throw Error(`not one of the times ${this.all.join(", ")}`);
          this.$(".t").value = this.all.indexOf(Number(text));
          this.told();
        },
      ],
      seed: [this.noise, (text) => (this.noise = whole_number(text, this.studio.facts.max_seed))],
      digit: this.labelSetting,
    };
  }

  get t() {
    return this.all[this.$(".t").value];
  }

  told() {
    this.$("output").textContent = `up to t = ${Math.round(this.t)} of ${Math.round(this.all.at(-1))}`;
  }

  draw() {
    if (!this.studio) return;
    const request = () => {
      const { classes } = this.studio.config,
        label = this.chosen(".chips");
      return {
        kind: "draw",
        images: [{ seed: this.noise, label: label < 0 ? (classes || null) : label }],
        from: this.t,
        picture: this.studio.pixels(this.pad.paper),
      };
    };
    const frames = [];
    this.follow(request, (frame) => {
      if (!frame) {
        this.way = frames;
        return this.drawn();
      }
      if (frames.push(frame) === 1) this.studio.sheet(frame.x, this.$(".noisy"));
      this.studio.sheet(frame.snr === null ? frame.x : frame.x0, this.$(".back"));
    });
  }

  name = "drawing";

  /* The three panes. */
  get picture() {
    return beside([this.pad.paper, this.$(".noisy"), this.$(".back")], Math.round(this.pad.side / 7));
  }

  refuse(why) {
    this.refused = true;
    this.$("fieldset").hidden = true;
    this.say(`The server draws, when you lift the pen: ${why}.`);
    this.ask();
  }

  /* Somebody else has to do it. */
  ask() {
    if (!this.refused || !this.pad.inked) return;
    const picture = this.pad.paper.toDataURL("image/png");
    const detail = { picture, t: this.t, seed: this.noise, label: "none" };
    this.dispatchEvent(new CustomEvent("ask", { detail }));
  }

  set film(film) {
    const frames = film?.walks[0].frames;
    if (!frames) return;
    for (const [selector, uri] of [[".noisy", frames[0].x], [".back", frames.at(-1).x0]]) {
      const image = new Image(), canvas = this.$(selector);
      image.src = uri;
      image.decode().then(() => {
        Object.assign(canvas, { width: image.width, height: image.height });
        canvas.getContext("2d").drawImage(image, 0, 0);
      });
    }
  }
}
customElements.define("ddpm-draw", Draw);

/* <ddpm-mend>: rub out a part of an image, and the model finishes it, four ways: at every step the
   pixels that are left are held (walk.js: known). */
class Mend extends Tool {
  static style = `
    .all { display: flex; flex-wrap: wrap; gap: 14px 28px; }
    .panes { display: grid; gap: 14px; grid-template-columns: repeat(2, minmax(0, 1fr)); align-items: start;
      flex: 3 1 30rem; min-width: 0; max-width: max(36rem, (100vh - 22rem) * 2); }
    .controls { flex: 1 1 15rem; min-width: 0; }
    .four { display: grid; gap: 6px; grid-template-columns: repeat(2, minmax(0, 1fr)); }
    @container (max-width: 420px) { .panes { grid-template-columns: minmax(0, 1fr); } .four { grid-template-columns: repeat(4, minmax(0, 1fr)); } }
  `;
  static body = `
    <div class="all"><div class="panes">
      <figure><figcaption>Rub out a part</figcaption><ddpm-pad rub></ddpm-pad></figure>
      <figure><figcaption>Four ways to finish it</figcaption><div class="four" role="img" aria-label="Four finished images"></div></figure>
    </div><div class="controls">
    <div class="row"><button type="button" class="another">Another image</button>
      <button type="button" class="more">Four other ways</button></div>
    <fieldset class="row"><legend>Tell the model what it is</legend><div class="chips"></div></fieldset>
    </div></div>`;
  static SAMPLER = "ddpm"; // its fresh noise lets the new part fit the old one

  listen() {
    this.noise = 1;
    this.image = 3; // the seed of the image that is rubbed out
    this.pad = this.$("ddpm-pad");
    for (const event of ["stroke", "ink"]) this.pad.addEventListener(event, () => this.draw());
    this.on(".another", "click", () => {
      this.image = crypto.getRandomValues(new Uint32Array(1))[0] >>> 1;
      this.open();
    });
    this.on(".more", "click", () => ((this.noise += 4), this.draw()));
    this.on(".chips", "change", () => this.draw());
    this.pad.shadowRoot.querySelector(".clear").textContent = "Start again";
    this.pad.shadowRoot.querySelector(".clear").addEventListener("click", () => this.original && this.take());
  }

  start() {
    const cannot = !this.studio.offers.samplers.includes(Mend.SAMPLER);
    for (const part of this.shadowRoot.querySelectorAll(".all, .saving")) part.hidden = cannot;
    if (cannot)
      return this.say("A part is finished in many small steps, and this model is made for a few large ones.");
    this.pad.side = this.studio.config.size;
    this.$("fieldset").hidden = !this.named.length;
    this.chips(".chips", [[-1, "nothing"], ...this.named.map((name, k) => [k, name])], -1);
    this.opened = this.open();
  }

  get settings() {
    if (!this.opened) return {}; // this model cannot
    const { pad } = this, most = this.studio.facts.max_seed - 3;
    return {
      image: [
        this.image,
        async (text) => {
          this.image = whole_number(text, most);
          await this.open();
        },
      ],
      seed: [this.noise, (text) => (this.noise = whole_number(text, most))],
      digit: this.labelSetting,
      left: [
        packed(pad.mask()),
        async (text) => {
          const mask = await unpacked(text, pad.side ** 2);
          await this.opened; // the image that comes first
          this.take();
          pad.rubOut(mask);
        },
      ],
    };
  }

  /* An image of the model's own, its lower half rubbed out. */
  async open() {
    if (!this.studio) return;
    try {
      this.original = await this.studio.sample({ seed: this.image, steps: this.steps(20) });
      this.take();
      const { side } = this.pad;
      const from = Math.round(side * 0.55) * side;
      this.pad.rubOut(Uint8Array.from({ length: side ** 2 }, (_, i) => Number(i < from)));
    } catch (error) {
      this.say(error.message);
    }
  }

  get name() {
    return `mended-${this.image}`;
  }

  get picture() {
    return this.pictures()?.at(-1);
  }

  take() {
    this.pad.take(this.studio.sheet([this.original.pixels]));
  }

  draw() {
    if (!this.studio || !this.original) return;
    const request = () => {
      const { classes, channels } = this.studio.config,
        told = this.chosen(".chips"),
        label = told < 0 ? classes || null : told;
      const mask = this.pad.mask();
      return {
        kind: "draw",
        steps: this.steps(25),
        sampler: Mend.SAMPLER,
        images: [0, 1, 2, 3].map((k) => ({ seed: this.noise + k, label })),
        picture: this.original.pixels,
        mask: Uint8Array.from({ length: mask.length * channels }, (_, i) => mask[Math.floor(i / channels)]),
      };
    };
    const frames = [];
    this.follow(request, (frame) => {
      if (!frame) {
        this.way = frames;
        return this.drawn();
      }
      frames.push(frame);
      const four = this.$(".four");
      if (!four.children.length)
        four.replaceChildren(...frame.x.map(() => document.createElement("canvas")));
      frame.x0.forEach((pixels, k) => this.studio.sheet([pixels], four.children[k]));
    });
  }
}
customElements.define("ddpm-mend", Mend);

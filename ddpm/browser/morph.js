/* <ddpm-morph>: pick two images, and drag from one to the other: the noise goes along the great
   circle between theirs (slerp in random.js). */
class Morph extends Tool {
  static style = `
    .ten { display: grid; gap: 6px; grid-template-columns: repeat(10, minmax(0, 1fr)); margin-top: 12px; }
    .ten button { padding: 0; overflow: hidden; min-height: 0; min-width: 0; aspect-ratio: 1; background: #000; }
    .ten button[aria-pressed=true] { outline: 3px solid var(--accent); outline-offset: 1px; }
    .ten canvas { border-radius: 0; }
    .middle { display: grid; gap: 14px; grid-template-columns: 1fr 2.4fr 1fr; align-items: center; margin: 14px auto 0;
      max-width: max(22rem, (100vh - 29rem) * 1.8); }
    @container (max-width: 520px) { .ten { grid-template-columns: repeat(5, minmax(0, 1fr)); } }
  `;
  static body = `
    <div class="row">
      <label class="grow">Seed of the first digit <input class="seed" inputmode="numeric" spellcheck="false" value="4"></label>
      <button type="button" class="roll">Other digits</button>
      <button type="button" class="loop" aria-pressed="false">▶ Loop</button>
    </div>
    <div class="ten" role="group" aria-label="Images to pick two of"></div>
    <div class="middle"><canvas></canvas><canvas class="between" role="img"></canvas><canvas></canvas></div>
    <input class="share" type="range" min="0" step="1" aria-label="From the first image to the second">`;
  static SHARES = 25; // pictures on the way

  listen() {
    this.picked = [3, 8];
    Object.assign(this.$(".share"), { max: Morph.SHARES - 1, value: (Morph.SHARES - 1) / 2 });
    this.on(".seed", "input", () => this.draw());
    this.on(".roll", "click", () => (this.roll(), this.draw()));
    this.on(".share", "input", () => (this.loop(false), this.between()));
    this.on(".loop", "click", () => this.loop(!this.timer));
  }

  start() {
    this.draw();
  }

  get settings() {
    const share = this.$(".share"),
      end = (k) => [
        this.picked[k],
        (text) => {
          const other = this.picked[1 - k], found = whole_number(text, 9);
          this.picked[k] = found;
          if (found === other) this.picked[1 - k] = (found + 1) % 10; // the second comes after the first
        },
      ];
    return {
      seed: this.seedSetting,
      first: end(0),
      second: end(1),
      share: [share.value, (text) => (share.value = whole_number(text, Morph.SHARES - 1))],
    };
  }

  /* Ten images to pick from: one of every class, each with a seed of its own. */
  draw() {
    if (!this.studio) return;
    const { classes } = this.studio.config;
    let last;
    const request = () => {
      const first = this.seed();
      this.images = Array.from({ length: 10 }, (_, k) => ({
        seed: Math.min(first + k, this.studio.facts.max_seed),
        label: classes ? k % classes : null,
      }));
      this.way = [];
      return this.asking(this.images);
    };
    this.follow(request, (frame) => {
      const images = frame ? frame.x0 : last;
      last = frame?.x ?? last;
      this.offer(images);
      if (!frame) this.pick();
    });
  }

  asking(images) {
    return { kind: "draw", steps: this.steps(10), sampler: this.studio.offers.usual.sampler, images };
  }

  offer(images) {
    const row = this.$(".ten");
    if (!row.children.length)
      row.replaceChildren(
        ...images.map((_, k) => {
          const button = Object.assign(document.createElement("button"), { type: "button" });
          button.append(document.createElement("canvas"));
          button.addEventListener("click", () => {
            if (!this.picked.includes(k)) this.picked = [this.picked[1], k];
            this.pick();
          });
          return button;
        }),
      );
    this.ten = images.map((pixels, k) => {
      const button = row.children[k];
      button.setAttribute("aria-label", `Seed ${this.images[k].seed}${this.named.length ? `, a ${this.named[this.images[k].label]}` : ""}`);
      return this.studio.sheet([pixels], button.firstChild);
    });
  }

  /* The two ends are known. */
  pick() {
    this.way = [];
    this.way[0] = this.ten[this.picked[0]];
    this.way[Morph.SHARES - 1] = this.ten[this.picked[1]];
    [...this.$(".ten").children].forEach((button, k) =>
      button.setAttribute("aria-pressed", this.picked.includes(k)),
    );
    const [left, , right] = this.shadowRoot.querySelectorAll(".middle canvas");
    this.show(left, this.way[0]);
    this.show(right, this.way.at(-1));
    this.between();
  }

  show(canvas, picture) {
    Object.assign(canvas, { width: picture.width, height: picture.height });
    canvas.getContext("2d", { willReadFrequently: true }).drawImage(picture, 0, 0);
  }

  /* The picture under the slider, drawn if it is not known yet; then the others. */
  between(at = Number(this.$(".share").value)) {
    const canvas = this.$(".between"),
      words = `${at} of ${Morph.SHARES - 1} of the way from the first image to the second`;
    canvas.setAttribute("aria-label", words);
    this.$(".share").setAttribute("aria-valuetext", words);
    if (!this.ten) return;
    if (this.way[at]) this.show(canvas, this.way[at]);
    const missing = [at, ...Array(Morph.SHARES).keys()].find((share) => !this.way[share]);
    if (missing === undefined) return this.drawn();
    const { way } = this,
      [first, to] = this.picked.map((k) => this.images[k]);
    let last;
    const image = { ...first, to, share: missing / (Morph.SHARES - 1) };
    this.follow(
      () => this.asking([image]),
      (frame) => {
        if (frame) return (last = frame);
        way[missing] = this.studio.sheet(last.x);
        if (way === this.way) this.between();
      },
    );
  }

  loop(on) {
    clearInterval(this.timer);
    this.timer = null;
    const share = this.$(".share");
    if (on) {
      let by = 1;
      this.timer = setInterval(() => {
        if (!this.isConnected || !this.offsetParent) return this.loop(false);
        const at = Number(share.value);
        if (at + by < 0 || at + by >= Morph.SHARES) by = -by;
        if (!this.way[at + by]) return;
        share.value = at + by;
        this.between();
      }, 80);
    }
    this.$(".loop").textContent = on ? "❚❚ Stop" : "▶ Loop";
    this.$(".loop").setAttribute("aria-pressed", on);
  }

  get name() {
    return `morph-${this.picked.map((k) => this.images[k].seed).join("-")}`;
  }

  /* What the slider shows. */
  get picture() {
    return this.way?.[this.$(".share").value];
  }

  /* The way there and back. */
  gif() {
    const { way } = this;
    if (!way || way.filter(Boolean).length < Morph.SHARES) throw Error("The way is not drawn yet.");
    const there = [...way, ...way.slice(1, -1).reverse()];
    return moving(there, this.studio.facts, (k) => k === 0 || k === Morph.SHARES - 1);
  }
}
customElements.define("ddpm-morph", Morph);

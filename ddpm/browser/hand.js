/* <ddpm-hand>: every class from the same noise: one hand. Where the classes are digits, a number is
   written with them. */
class Hand extends Tool {
  static style = `
    .ten { display: grid; gap: 6px; grid-template-columns: repeat(10, minmax(0, 1fr)); margin-top: 12px; }
    .ten canvas, .line canvas { border-radius: 4px; }
    .line { margin-top: 14px; overflow-x: auto; background: #000; border-radius: 8px; }
    .line canvas { aspect-ratio: auto; height: 6rem; width: auto; max-width: 100%; margin: 0 auto; object-fit: contain; }
    @container (max-width: 520px) { .ten { grid-template-columns: repeat(5, minmax(0, 1fr)); } }
  `;
  static body = `
    <div class="row">
      <label class="grow">Seed: whose hand <input class="seed" inputmode="numeric" spellcheck="false" value="13"></label>
      <button type="button" class="roll">Another hand</button>
    </div>
    <div class="ten" role="img"></div>
    <div class="writing">
      <div class="row"><label class="grow">A number to write, up to 12 digits
        <input class="number" inputmode="decimal" maxlength="16" spellcheck="false" placeholder="2026-11-26"></label></div>
      <div class="line"><canvas role="img"></canvas></div>
    </div>`;
  static MOST = 12;

  listen() {
    this.moments = []; // of all classes: pixels by class
    this.on(".seed", "input", () => this.draw());
    this.on(".roll", "click", () => (this.roll(), this.draw()));
    this.on(".number", "input", () => {
      this.write();
      this.say(/\d/.test(this.$(".number").value) ? "" : "Only the digits 0 to 9 are written.");
      if (this.moments.length) this.drawn();
    });
  }

  start() {
    const digits = this.named.slice(0, 10).join("") === "0123456789";
    this.$(".writing").hidden = !digits;
    if (!this.named.length) return this.say("This model knows no classes: there is one hand only.");
    const date = new Date();
    this.$(".number").value ||= `${date.getFullYear()}-${date.getMonth() + 1}-${date.getDate()}`;
    this.draw();
  }

  draw() {
    if (!this.studio) return;
    let moments = [];
    const labels = this.named.slice(0, 10).map((_, label) => label);
    const request = () => {
      moments = [];
      const seed = this.seed();
      this.name = `number-${seed}`;
      const images = labels.map((label) => ({ seed, label })),
        { usual, guidance } = this.studio.offers;
      return { kind: "draw", steps: this.steps(10), sampler: usual.sampler, guidance: Math.min(1.5, guidance), images };
    };
    this.follow(request, (frame) => {
      if (frame) moments.push(frame.x);
      const ready = frame ? frame.x0 : (this.moments = moments).at(-1);
      const cells = this.$(".ten");
      if (cells.children.length !== ready.length)
        cells.replaceChildren(...ready.map(() => document.createElement("canvas")));
      ready.forEach((pixels, k) => this.studio.sheet([pixels], cells.children[k]));
      cells.setAttribute("aria-label", `${this.named.slice(0, 10).join(", ")} from the noise of seed ${this.$(".seed").value}`);
      this.write(ready);
      if (!frame) this.drawn();
    });
  }

  get settings() {
    const number = this.$(".number");
    const take = (text) => {
      if (text.length > number.maxLength) throw Error(`at most ${number.maxLength} characters`);
      number.value = text;
    };
    return { seed: this.seedSetting, number: [number.value, take] };
  }

  /* What is to be written, as classes; null is a gap. */
  get text() {
    let digits = 0;
    const letters = [...this.$(".number").value].map((letter) => (/\d/.test(letter) ? Number(letter) : null));
    return letters.filter((letter) => letter === null || ++digits <= Hand.MOST);
  }

  /* The number on the line, in pictures of the ten. */
  write(ten = this.moments.at(-1), canvas = this.$(".line canvas")) {
    const { text } = this,
      { size } = this.studio.config,
      wide = (letter) => (letter === null ? size >> 1 : Math.round(0.75 * size)),
      side = (size - wide(0)) / 2; // strokes are in the middle: left out on both sides
    if (!ten) return canvas;
    canvas.width = Math.max(size, text.reduce((sum, letter) => sum + wide(letter), 0) + size - wide(0));
    canvas.height = size;
    const brush = canvas.getContext("2d", { willReadFrequently: true });
    brush.fillRect(0, 0, canvas.width, size);
    brush.globalCompositeOperation = "lighten";
    let at = 0;
    for (const letter of text) {
      if (letter !== null) brush.drawImage(this.studio.sheet([ten[letter]]), at, 0);
      at += wide(letter);
    }
    canvas.setAttribute("aria-label", `${this.$(".number").value}, written`);
    return canvas;
  }

  /* Classes that are no digits are saved side by side. */
  pictures(moments = this.moments) {
    if (!moments.length) return null;
    const row = (ten) => beside(ten.map((pixels) => this.studio.sheet([pixels])), 2);
    const line = (ten) => this.write(ten, document.createElement("canvas"));
    return moments.map(this.$(".writing").hidden ? row : line);
  }

  get picture() {
    return this.pictures(this.moments.slice(-1))?.[0];
  }
}
customElements.define("ddpm-hand", Hand);

/* <ddpm-pad>: a square to draw in, with pen or finger; ready pictures under it.

   pad.offer(uri, first): pictures in a row, of which one is taken at once. pad.paper: the canvas.
   Events: "stroke" while the pen moves, "ink" when there is a new drawing. With the attribute "rub"
   the pen rubs out: pad.mask(), one byte a pixel, has 0 where it was. */
(() => {
  const SIDE = 28, PEN = 2.4, RUBBER = 5, RUBBED = "#818cf8";
  const STYLE = `
    :host { --ink: #1d2433; --line: #d5dae3; --face: #fff; --accent: #4f46e5; display: block;
            color: var(--ink); font: 14px/1.45 system-ui, sans-serif; }
    :host([dark]) { --ink: #e8ebf2; --line: #3a4256; --face: #171c28; --accent: #a5b4fc; }
    .paper { display: block; width: 100%; aspect-ratio: 1; background: #000; border-radius: 8px; touch-action: none;
             cursor: crosshair; image-rendering: pixelated; }
    .shelf { display: flex; flex-wrap: wrap; gap: 6px; margin-top: 8px; }
    button { font: inherit; color: var(--ink); background: var(--face); border: 1px solid var(--line);
             border-radius: 8px; min-height: 40px; padding: 0 12px; cursor: pointer; }
    button:hover { border-color: var(--accent); }
    button:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
    .digits { display: contents; }
    .digits button { padding: 0; width: 40px; height: 40px; overflow: hidden; background: #000; }
    .digits button[aria-pressed=true] { outline: 2px solid var(--accent); outline-offset: 1px; }
    .digits canvas { display: block; width: 100%; image-rendering: pixelated; }
    @media (max-width: 640px) { .shelf { flex-wrap: nowrap; overflow-x: auto; padding: 3px; } .shelf button { flex: none; } }
    @media (pointer: coarse) { button { min-height: 44px; } .digits button { width: 44px; height: 44px; } }
  `;

  class Pad extends HTMLElement {
    constructor() {
      super();
      const root = this.attachShadow({ mode: "open" });
      root.innerHTML = `<style>${STYLE}</style>
        <canvas class="paper" width="${SIDE}" height="${SIDE}" role="img" aria-label="Drawing: use pen, mouse or finger"></canvas>
        <div class="shelf"><button type="button" class="clear">Clear</button>
          <div class="digits" role="group" aria-label="Ready pictures"></div></div>`;
      this.paper = root.querySelector(".paper");
      this.brush = this.paper.getContext("2d", { willReadFrequently: true });
      this.rubbed = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
      this.side = SIDE;
      root.querySelector(".clear").addEventListener("click", () => this.clear());
      this.#listen();
    }

    /* How many pixels a side of the paper has; it is clean then. */
    set side(side) {
      for (const canvas of [this.paper, this.rubbed.canvas]) Object.assign(canvas, { width: side, height: side });
      this.#wipe();
    }

    get side() { return this.paper.width; }

    mask() {
      const { data } = this.rubbed.getImageData(0, 0, this.side, this.side);
      return Uint8Array.from({ length: this.side ** 2 }, (_, i) => Number(data[4 * i + 3] < 64));
    }

    get rubs() { return this.hasAttribute("rub"); }
    get inked() { return this.#inked; }
    #inked = false;

    #listen() {
      let from = null;
      const point = (event) => {
        const box = this.paper.getBoundingClientRect();
        return [(event.clientX - box.left) * this.side / box.width, (event.clientY - box.top) * this.side / box.height];
      };
      const stroke = (to) => {
        this.#line(from, to);
        from = to;
        this.dispatchEvent(new CustomEvent("stroke"));
      };
      this.paper.addEventListener("pointerdown", (event) => {
        this.paper.setPointerCapture(event.pointerId);
        if (this.chosen && !this.rubs) this.#wipe();  // a drawing of one's own starts on clean paper
        this.#mark(null);
        from = point(event);
        stroke(from);
      });
      this.paper.addEventListener("pointermove", (event) => { if (from) stroke(point(event)); });
      for (const end of ["pointerup", "pointercancel"])
        this.paper.addEventListener(end, () => { if (from) this.#tell(); from = null; });
    }

    #line(from, to) {
      const lineWidth = (this.rubs ? RUBBER : PEN) * this.side / SIDE, strokeStyle = this.rubs ? RUBBED : "#fff";
      for (const brush of this.rubs ? [this.brush, this.rubbed] : [this.brush]) {
        Object.assign(brush, { lineWidth, strokeStyle, lineCap: "round", lineJoin: "round" });
        brush.beginPath();
        brush.moveTo(...from);
        brush.lineTo(...to);
        brush.stroke();
      }
    }

    connectedCallback() {
      const look = () => this.toggleAttribute("dark", document.body.classList.contains("dark")
        || (document.body.hasAttribute("data-system-theme") && matchMedia("(prefers-color-scheme: dark)").matches));
      look();
      new MutationObserver(look).observe(document.body, { attributes: true, attributeFilter: ["class"] });
    }

    /* Rubs out where the mask is 0, as if by the pen. */
    rubOut(mask) {
      for (const brush of [this.brush, this.rubbed]) {
        brush.fillStyle = RUBBED;
        mask.forEach((left, i) => { if (!left) brush.fillRect(i % this.side, Math.floor(i / this.side), 1, 1); });
      }
      this.#tell();
    }

    /* The drawing as gray levels, one byte a pixel; and such bytes as a canvas. */
    gray() {
      const { data } = this.brush.getImageData(0, 0, this.side, this.side);
      return Uint8Array.from({ length: this.side ** 2 }, (_, i) => data[4 * i]);
    }

    sheet(gray) {
      const canvas = Object.assign(document.createElement("canvas"), { width: this.side, height: this.side });
      const rgba = new ImageData(this.side, this.side);
      gray.forEach((level, i) => rgba.data.set([level, level, level, 255], 4 * i));
      canvas.getContext("2d").putImageData(rgba, 0, 0);
      return canvas;
    }

    /* Ready pictures, side by side in one; the given one is taken at once. */
    async offer(uri, first) {
      const sheet = new Image();
      sheet.src = uri;
      await sheet.decode();
      const side = sheet.naturalHeight, row = this.shadowRoot.querySelector(".digits");
      row.replaceChildren(...Array.from({ length: sheet.naturalWidth / side }, (_, digit) => {
        const button = document.createElement("button"), face = document.createElement("canvas");
        Object.assign(face, { width: side, height: side });
        face.getContext("2d").drawImage(sheet, -digit * side, 0);
        Object.assign(button, { type: "button", title: `a real ${digit}` });
        button.setAttribute("aria-label", `A real ${digit}`);
        button.append(face);
        button.addEventListener("click", () => this.take(face, button));
        return button;
      }));
      row.children[first].click();
    }

    /* A picture on a canvas becomes the drawing. */
    take(picture, button = null) {
      this.#wipe();
      this.brush.drawImage(picture, 0, 0, this.side, this.side);
      this.#mark(button ?? picture);
      this.#tell();
    }

    clear() {
      this.#wipe();
      this.#mark(null);
      this.#tell();
    }

    #wipe() {
      this.brush.fillStyle = "#000";
      this.brush.fillRect(0, 0, this.side, this.side);
      this.rubbed.clearRect(0, 0, this.side, this.side);
    }

    #mark(chosen) {
      this.chosen = chosen;
      for (const button of this.shadowRoot.querySelectorAll(".digits button"))
        button.setAttribute("aria-pressed", button === chosen);
    }

    #tell() {
      this.#inked = true;
      this.dispatchEvent(new CustomEvent("ink", { detail: { picture: this.paper.toDataURL("image/png") } }));
    }
  }
  if (!customElements.get("ddpm-pad")) customElements.define("ddpm-pad", Pad);
})();

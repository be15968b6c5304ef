/* <ddpm-pad>: a little square to draw a digit in, with pen or finger; ten ready ones beside it.

   pad.digits = "data:…": ten digits in a row. Event "ink" with {picture} (a PNG as data URI) when there is a new drawing. */
(() => {
  const SIDE = 28;
  const STYLE = `
    :host { --ink: #1d2433; --soft: #5d6678; --line: #d5dae3; --face: #fff; --accent: #4f46e5; display: block;
            color: var(--ink); font: 14px/1.45 system-ui, sans-serif; }
    :host([dark]) { --ink: #e8ebf2; --soft: #a2abbd; --line: #3a4256; --face: #171c28; --accent: #a5b4fc; }
    .digits { display: grid; grid-template-columns: repeat(5, 1fr); gap: 6px; max-width: 20rem; }
    button { font: inherit; color: var(--ink); background: var(--face); border: 1px solid var(--line);
             border-radius: 8px; min-height: 38px; cursor: pointer; }
    button:hover { border-color: var(--accent); }
    button:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
    .digits button { padding: 0; overflow: hidden; background: #000; aspect-ratio: 1; }
    .digits button[aria-pressed=true] { outline: 2px solid var(--accent); outline-offset: 1px; }
    .digits canvas { display: block; width: 100%; image-rendering: pixelated; }
    .paper { display: flex; gap: 12px; align-items: end; margin-top: 12px; flex-wrap: wrap; }
    .paper canvas { width: 10rem; height: 10rem; background: #000; border-radius: 8px; touch-action: none;
                    cursor: crosshair; image-rendering: pixelated; border: 1px solid var(--line); }
    p { margin: 0 0 6px; color: var(--soft); }
    .clear { padding: 0 14px; }
  `;

  class Pad extends HTMLElement {
    constructor() {
      super();
      const root = this.attachShadow({ mode: "open" });
      root.innerHTML = `<style>${STYLE}</style><p>Take one of these, or draw your own.</p>
        <div class="digits" role="group" aria-label="Real handwritten digits"></div>
        <div class="paper"><canvas width="${SIDE}" height="${SIDE}" role="img"
          aria-label="Drawing: use pen, mouse or finger"></canvas>
        <button type="button" class="clear">Clear</button></div>`;
      this.paper = root.querySelector(".paper canvas");
      this.brush = this.paper.getContext("2d");
      Object.assign(this.brush, { lineWidth: 2.4, lineCap: "round", lineJoin: "round", strokeStyle: "#fff" });
      root.querySelector(".clear").addEventListener("click", () => {
        this.#wipe();
        this.#mark(null);
        this.#tell();
      });
      let from = null;
      const point = (event) => {
        const box = this.paper.getBoundingClientRect();
        return [(event.clientX - box.left) * SIDE / box.width, (event.clientY - box.top) * SIDE / box.height];
      };
      const stroke = (to) => {
        this.brush.beginPath();
        this.brush.moveTo(...from);
        this.brush.lineTo(...to);
        this.brush.stroke();
        from = to;
      };
      this.paper.addEventListener("pointerdown", (event) => {
        this.paper.setPointerCapture(event.pointerId);
        if (this.chosen) this.#wipe();  // a drawing of one's own starts on clean paper
        this.#mark(null);
        from = point(event);
        stroke(from);
      });
      this.paper.addEventListener("pointermove", (event) => { if (from) stroke(point(event)); });
      for (const end of ["pointerup", "pointercancel"])
        this.paper.addEventListener(end, () => { if (from) this.#tell(); from = null; });
      this.#wipe();
    }

    connectedCallback() {
      const look = () => this.toggleAttribute("dark", document.body.classList.contains("dark"));
      look();
      new MutationObserver(look).observe(document.body, { attributes: true, attributeFilter: ["class"] });
    }

    /* Ten digits in one picture; the given one is taken at once. */
    async offer(uri, first) {
      const sheet = new Image();
      sheet.src = uri;
      await sheet.decode();
      const side = sheet.naturalHeight, row = this.shadowRoot.querySelector(".digits");
      row.replaceChildren(...Array.from({ length: 10 }, (_, digit) => {
        const button = document.createElement("button"), face = document.createElement("canvas");
        Object.assign(face, { width: side, height: side });
        face.getContext("2d").drawImage(sheet, -digit * side, 0);
        Object.assign(button, { type: "button", title: `a real ${digit}` });
        button.setAttribute("aria-label", `A real ${digit}`);
        button.append(face);
        button.addEventListener("click", () => {
          this.#wipe();
          this.brush.drawImage(face, 0, 0, SIDE, SIDE);
          this.#mark(button);
          this.#tell();
        });
        return button;
      }));
      row.children[first].click();
    }

    #wipe() { this.brush.fillStyle = "#000"; this.brush.fillRect(0, 0, SIDE, SIDE); }

    #mark(chosen) {
      this.chosen = chosen;
      for (const button of this.shadowRoot.querySelectorAll(".digits button"))
        button.setAttribute("aria-pressed", button === chosen);
    }

    #tell() { this.dispatchEvent(new CustomEvent("ink", { detail: { picture: this.paper.toDataURL("image/png") } })); }
  }
  if (!customElements.get("ddpm-pad")) customElements.define("ddpm-pad", Pad);
})();

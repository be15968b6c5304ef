/* What the tools of a page have in common: a look that follows the theme, a studio that comes when
   it is ready, and files to save. A tool is an element; it draws once its `studio` is set, or says
   why it cannot. Each has `picture`, a canvas for a PNG; `pictures()`, those of a GIF; both null
   while there is nothing to save; and `name`, of its files. */

const LOOK = `
  :host { --ink: #1d2433; --soft: #5d6678; --line: #d5dae3; --face: #fff; --accent: #4f46e5; display: block;
          color: var(--ink); font: 15px/1.45 system-ui, sans-serif; container-type: inline-size; }
  :host([dark]) { --ink: #e8ebf2; --soft: #a2abbd; --line: #3a4256; --face: #171c28; --accent: #a5b4fc; }
  * { box-sizing: border-box; }
  [hidden], :host([menu]) .saving { display: none !important; }
  p { margin: 0; }
  .row { display: flex; flex-wrap: wrap; gap: 10px; align-items: end; margin-top: 12px; }
  .grow { flex: 1 1 12rem; min-width: 0; }
  label, legend { color: var(--soft); font-size: 14px; padding: 0; }
  fieldset { border: 0; margin: 0; padding: 0; min-width: 0; }
  button, input:not([type=range], [type=radio]) { font: inherit; color: var(--ink); background: var(--face);
    border: 1px solid var(--line); border-radius: 9px; min-height: 40px; padding: 0 12px; }
  button { cursor: pointer; }
  button:hover, .chips label:hover { border-color: var(--accent); }
  button:disabled { opacity: .5; cursor: default; }
  :focus-visible, .chips label:has(:focus-visible) { outline: 2px solid var(--accent); outline-offset: 2px; }
  input[type=range] { width: 100%; min-height: 40px; margin: 0; accent-color: var(--accent); cursor: ew-resize; }
  label > input:not([type=radio]) { display: block; width: 100%; margin-top: 4px; }
  .chips { display: flex; flex-wrap: wrap; gap: 6px; margin-top: 4px; max-height: 11rem; overflow-y: auto; padding: 2px; }
  .chips label { display: grid; place-items: center; min-width: 40px; min-height: 40px; padding: 0 8px; cursor: pointer;
    color: var(--ink); background: var(--face); border: 1px solid var(--line); border-radius: 9px; }
  .chips label:has(:checked) { background: var(--accent); border-color: var(--accent); color: var(--face); }
  .chips input { position: absolute; opacity: 0; pointer-events: none; }
  canvas { display: block; width: 100%; image-rendering: pixelated; background: #000; border-radius: 8px; aspect-ratio: 1; }
  figure { margin: 0; min-width: 0; }
  figcaption { margin-bottom: 4px; color: var(--soft); font-size: 14px; }
  .says { color: var(--soft); margin-top: 10px; min-height: 1.45em; overflow-wrap: anywhere; }
  @media (pointer: coarse) { button, .chips label, input:not([type=range], [type=radio]) { min-height: 44px; min-width: 44px; } }
`;

/* Bytes as text for an address: deflated, in base64url. */
async function packed(bytes) {
  const small = new Blob([bytes]).stream().pipeThrough(new CompressionStream("deflate-raw")),
    text = String.fromCharCode(...new Uint8Array(await new Response(small).arrayBuffer()));
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/* So many bytes from such a text; throws Error in words. */
async function unpacked(text, count) {
  try {
    const small = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0)),
      bytes = new Blob([small]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    const found = new Uint8Array(await new Response(bytes).arrayBuffer());
    if (found.length === count) return found;
  } catch {}
  throw Error("not a whole drawing");
}

const whole_number = (text, high) => {
  if (/^\d{1,10}$/.test(text) && Number(text) <= high) return Number(text);
  throw Error(`not a whole number in 0..${high}`);
};

class Tool extends HTMLElement {
  #studio = null;

  constructor() {
    super();
    const { style, body } = this.constructor;
    this.attachShadow({ mode: "open" }).innerHTML =
      `<style>${LOOK}${style}</style>${body}
      <div class="row saving"><button type="button" class="png">Save as PNG</button>
        <button type="button" class="gif">Save as GIF</button></div>
      <p class="says" role="status"></p>`;
    this.$ = (selector) => this.shadowRoot.querySelector(selector);
    this.on(".png", "click", () => this.saving(() => this.save()));
    this.on(".gif", "click", () => this.saving(() => download(this.gif(), `${this.name}.gif`)));
    this.listen();
  }

  connectedCallback() {
    const system = matchMedia("(prefers-color-scheme: dark)"),
      root = document.body;
    const look = () =>
      this.toggleAttribute(
        "dark",
        root.classList.contains("dark") ||
          (root.hasAttribute("data-system-theme") && system.matches),
      );
    look();
    new MutationObserver(look).observe(root, { attributes: true, attributeFilter: ["class"] });
    system.addEventListener("change", look);
  }

  get studio() {
    return this.#studio;
  }

  /* It begins when it comes into sight. */
  set studio(studio) {
    this.newest = new Newest(studio.engine);
    new IntersectionObserver(([{ isIntersecting }], observer) => {
      if (!isIntersecting) return;
      observer.disconnect();
      this.#studio = studio;
      this.start();
      if (this.asked) this.restore();
    }).observe(this);
  }

  /* What a link says (URLSearchParams) is set; what cannot be stays as it is, and is named. A tool
     says by `settings` what can be in a link: {key: [text, function that takes a text]}. */
  async restore() {
    const wrong = [];
    for (const [key, [, take]] of Object.entries(this.settings))
      try {
        if (this.asked.has(key)) await take(this.asked.get(key));
      } catch (error) {
        wrong.push(`${key}: ${error.message}`);
      }
    this.asked = null;
    if (wrong.length)
      this.warning = `The link has settings that are not valid, and is followed without them: ${wrong.join("; ")}.`;
    for (const event of ["input", "pointerdown"])
      this.shadowRoot.addEventListener(event, () => (this.warning = ""), { once: true });
    this.draw();
  }

  /* The settings, as text for an address. */
  async link() {
    const pairs = Object.entries(this.settings).map(async ([key, [text]]) => [key, String(await text)]);
    return new URLSearchParams(await Promise.all(pairs));
  }

  /* A seed in a field, for `settings`: the last one that was valid. */
  get seedSetting() {
    const field = this.$(".seed");
    return [this.valid ?? field.value, (text) => (field.value = whole_number(text, this.studio.facts.max_seed))];
  }

  /* What the model is told, for `settings`. */
  get labelSetting() {
    const names = ["none", ...this.named];
    return [
      names[this.chosen(".chips") + 1],
      (text) => {
        if (!names.includes(text)) throw Error(`not one of ${names.join(", ")}`);
        this.$(`.chips [value="${names.indexOf(text) - 1}"]`).checked = true;
      },
    ];
  }

  /* No studio will come. */
  refuse(why) {
    this.say(`This draws in the browser only, and here it cannot: ${why}. Generate, Draw, Compare and Steps draw on the server.`);
  }

  get named() {
    return this.#studio?.names ?? [];
  }

  /* Saves a PNG. Throws Error in words if there is nothing to save. */
  save() {
    if (!this.picture) throw Error("There is nothing to save yet.");
    savePng(this.picture, `${this.name}.png`);
  }

  /* The moments of `way`, which a tool keeps once they are whole. */
  pictures() {
    return this.way?.map(({ x }) => this.studio.sheet(x));
  }

  /* The way from noise as a GIF file. Throws Error in words if there is nothing to save. */
  gif() {
    const pictures = this.pictures();
    if (!pictures) throw Error("There is nothing to save yet.");
    return filmed(pictures, this.studio.facts);
  }

  saving(save) {
    try {
      save();
    } catch (error) {
      this.say(error.message);
    }
  }

  /* Whoever waits for the first picture, or the next, hears of it. */
  drawn() {
    this.seen = (this.seen ?? 0) + 1;
    this.dispatchEvent(new CustomEvent("drawn"));
  }

  say(words) {
    this.$(".says").textContent = words;
  }

  on(selector, event, act) {
    this.$(selector).addEventListener(event, act);
  }

  /* Choices as buttons of which one is pressed: [[value, words], …]. */
  chips(selector, choices, value) {
    const name = selector.replace(/\W/g, "");
    this.$(selector).replaceChildren(
      ...choices.map(([key, words]) => {
        const label = document.createElement("label"),
          input = document.createElement("input");
        Object.assign(input, { type: "radio", name, value: key, checked: key === value });
        label.append(input, words);
        return label;
      }),
    );
  }

  chosen(selector) {
    return Number(this.$(`${selector} :checked`).value);
  }

  /* The number in a field, as a seed; throws Error in words. */
  seed(selector = ".seed") {
    const { value } = this.$(selector);
    const wish = { seed: /^\s*\d{1,10}\s*$/.test(value) ? Number(value) : value || "nothing" };
    return (this.valid = this.studio.checked(wish).images[0].seed);
  }

  roll(selector = ".seed") {
    this.$(selector).value = crypto.getRandomValues(new Uint32Array(1))[0] >>> 1;
  }

  /* So many steps, or as many as there are. */
  steps(most) {
    return this.studio.offers.steps.findLast((steps) => steps <= most);
  }

  /* Draws the newest of many wishes: the one on its way is finished first, so that something is
     seen while they come. make: gives the request; show: takes its frames, and at last null. */
  async follow(make, show) {
    this.wanted = { make, show };
    if (this.busy) return;
    this.busy = true;
    while (this.wanted) {
      const { make, show } = this.wanted;
      this.wanted = null;
      try {
        if (await this.newest.ask(make(), show)) show(null);
        this.say(this.warning ?? "");
      } catch (error) {
        this.say(error.message);
      }
    }
    this.busy = false;
  }
}

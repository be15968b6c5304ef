/* <ddpm-steps label most>: how many steps, by a slider with logarithmic stops or as a number.
   `value` is a whole number in 1..most, always: what is typed and is none changes nothing, and is
   told. `only`: nothing but these numbers, which rise; null: all. Event "input" when somebody has
   changed it. */
(() => {
  const STOPS = [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40, 50, 100, 200, 500, 1000];
  const TYPING_MS = 350;
  let ids = 0;

  class Steps extends HTMLElement {
    #value = 20;
    #only = null;

    connectedCallback() {
      if (this.firstChild) return;
      const id = `steps-${++ids}`, label = this.getAttribute("label");
      this.most = Number(this.getAttribute("most"));
      this.innerHTML = `<label for="${id}">${label}</label>
        <input type="range" min="0" step="1" aria-label="${label}, by stops">
        <input id="${id}" type="number" min="1" max="${this.most}" step="1" inputmode="numeric" aria-describedby="${id}-no">
        <p id="${id}-no" role="alert"></p>`;
      [this.range, this.number, this.no] = this.querySelectorAll("[type=range], [type=number], p");
      this.range.addEventListener("input", (event) => this.#set(event, this.stops[this.range.value]));
      this.number.addEventListener("input", (event) => {
        event.stopPropagation();
        clearTimeout(this.typing);  // 5 and 50 are on the way to 500
        this.typing = setTimeout(() => this.#set(event, this.number.valueAsNumber), TYPING_MS);
      });
      this.number.addEventListener("change", (event) => {
        clearTimeout(this.typing);
        if (this.number.valueAsNumber !== this.#value) this.#set(event, this.number.valueAsNumber);
      });
      this.number.addEventListener("blur", () => { this.value = this.#value; });
      this.only = this.#only;
    }

    set only(only) {
      this.#only = only;
      if (!this.range) return;
      this.stops = only ?? STOPS.filter((stop) => stop <= this.most);
      this.range.max = this.stops.length - 1;
      this.number.max = this.stops.at(-1);
      this.value = this.#can(this.#value) ? this.#value : this.stops.at(-1);
    }

    #can(value) {
      return Number.isInteger(value) && 1 <= value && value <= this.most && (this.#only?.includes(value) ?? true);
    }

    get value() { return this.#value; }

    set value(value) {
      if (!this.#can(value)) return;
      this.#value = value;
      const nearest = this.stops.findLastIndex((stop) => stop <= value);
      this.range.value = nearest;
      this.range.setAttribute("aria-valuetext", `${value}`);
      if (this.number.valueAsNumber !== value) this.number.value = value;
      this.#say("");
    }

    #set(event, value) {
      event.stopPropagation();  // the page hears of valid numbers only
      this.value = value;
      if (this.#value !== value) return this.#say(this.#only ? `one of ${this.#only.join(", ")}` : `a whole number in 1..${this.most}`);
      this.dispatchEvent(new CustomEvent("input"));
    }

    #say(words) {
      this.no.textContent = words;
      this.number.toggleAttribute("aria-invalid", Boolean(words));
    }
  }
  customElements.define("ddpm-steps", Steps);
})();

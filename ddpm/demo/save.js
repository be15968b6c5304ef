/* <ddpm-save>: one menu of what can be taken along. Each entry is [words, what is done]. */
(() => {
  let ids = 0;

  class Save extends HTMLElement {
    connectedCallback() {
      if (this.firstChild) return;
      const id = `save-${++ids}`;
      this.innerHTML = `<button type="button" aria-expanded="false" aria-controls="${id}">Save …</button>
        <div id="${id}" role="group" aria-label="Save or share" hidden></div>`;
      [this.button, this.menu] = this.children;
      this.button.addEventListener("click", () => this.open(this.menu.hidden));
      this.addEventListener("keydown", ({ key }) => {
        if (key === "Escape" && !this.menu.hidden) { this.open(false); this.button.focus(); }
      });
      document.addEventListener("pointerdown", (event) => {
        if (!this.contains(event.target)) this.open(false);
      });
    }

    open(on) {
      this.menu.hidden = !on;
      this.button.setAttribute("aria-expanded", on);
    }

    offer(entries) {
      this.menu.replaceChildren(...entries.map(([words, act]) => {
        const button = Object.assign(document.createElement("button"), { type: "button", textContent: words });
        button.addEventListener("click", async () => {
          this.open(false);
          this.button.focus();
          try {
            const said = await act();
            if (said) this.say(said);
          } catch (error) {
            this.say(error.name === "AbortError" ? "" : error.message);
          }
        });
        return button;
      }));
    }

    /* Beside it, if there is room for words. */
    say(words) {
      const line = this.nextElementSibling;
      if (line?.getAttribute("role") !== "status") return page.say(words);
      line.textContent = words;
      setTimeout(() => { if (line.textContent === words) line.textContent = ""; }, 4000);
    }
  }
  customElements.define("ddpm-save", Save);
})();

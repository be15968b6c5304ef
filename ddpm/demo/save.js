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

    say(words) { page.say(words); }
  }
  customElements.define("ddpm-save", Save);

  /* <ddpm-link>: copies the address, which has the settings of the tab. */
  class Link extends HTMLElement {
    connectedCallback() {
      this.innerHTML = '<button type="button">Copy the link</button> <span role="status"></span>';
      this.firstChild.addEventListener("click", async () => {
        this.lastChild.textContent = await page.copy();
        setTimeout(() => { this.lastChild.textContent = ""; }, 4000);
      });
    }
  }
  customElements.define("ddpm-link", Link);
})();

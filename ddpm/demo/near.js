/* <ddpm-near>: is the one image that is seen a copy? It shows the nearest training images, which the
   server finds. */
(() => {
  class Near extends HTMLElement {
    connectedCallback() {
      if (this.firstChild) return;
      this.innerHTML = `<button type="button">Did it copy? Show the nearest training images</button>
        <div role="status"></div>`;
      [this.button, this.found] = this.children;
      this.button.addEventListener("click", () => this.ask());
      this.offer(null);
    }

    /* image: gives a canvas with the image; null: there is none to ask about. */
    offer(image) {
      this.image = image;
      this.hidden = !image;
      this.button.hidden = false;
      this.found.replaceChildren();
    }

    async ask() {
      const { image } = this;
      try {
        const data = [(await image()).toDataURL("image/png")], headers = { "Content-Type": "application/json" };
        const answer = await fetch(page.address("gradio_api/run/nearest"), { method: "POST", headers, body: JSON.stringify({ data }) });
        const { data: found, error } = await answer.json();
        if (!found) throw Error(error || "the server did not answer");
        if (this.image === image) this.show(...found);
      } catch (error) {
        if (this.image === image) this.found.textContent = error.message;
      }
    }

    async show({ words, distances }, { url }) {
      const far = distances.map((distance) => distance.toFixed(1)), picture = new Image();
      Object.assign(picture, { src: url, alt: `The nearest training images, ${far.join(", ")} away` });
      const make = (tag, ...inside) => {
        const made = document.createElement(tag);
        made.append(...inside);
        return made;
      };
      const below = make("figcaption", ...far.map((words) => make("span", words)));
      this.found.replaceChildren(make("figure", picture, below), make("p", words));
      this.button.hidden = true;
    }
  }
  customElements.define("ddpm-near", Near);
})();

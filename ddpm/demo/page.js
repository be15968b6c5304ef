// What the page does by itself. It draws with the engine in the visitor's browser; where that cannot
// be, the server draws. app.py puts this into the head and calls `page.…` from its events.
window.page = {
  names: [], // what a link carries, in the order of the form; set by app.py, and
  times: {}, // how long a GIF shows its frames
  studio: null, // what draws here; null: nothing does, and `why` says so
  why: "this browser is not ready yet",
  sought: new URLSearchParams(location.search), // what the address asked for, when the page was opened:
  // the settings of one tab, and which ("tab"; none: Generate)
  links: {}, // the settings of each tab, as in an address
  films: 0,
  index: false, // of the training images: whether the server has one
  tools: [],

  // --- The engine ---

  async open() {
    try {
      const answer = await fetch(this.address("engine.json"));
      const { worker, refused, index, ...opening } = await answer.json();
      this.index = index;
      if (refused) throw Error(refused);
      const engine = new Engine(worker, opening);
      await engine.ready;
      this.newest = new Newest(engine);
      this.studio = new Studio(engine, opening.facts);
      this.why = "";
    } catch (error) {
      this.studio = null;
      this.why = error.message;
    }
  },

  // Other weights have come. For distilled ones the form is another.
  async reopen() {
    const distilled = () => Boolean(this.studio?.config.distilled), before = distilled();
    this.opened = this.open();
    for (const tool of this.tools) this.lend(tool);
    await this.opened;
    if (distilled() !== before) location.reload();
  },

  address(file) {
    return new URL(file, location.origin + location.pathname.replace(/\/?$/, "/"));
  },

  // --- Drawing ---

  // The form as the engine wants it; null if it cannot draw that here. values: as in `names`.
  wish(values) {
    const [digit, images, seed, steps, sampler, grid, eta, guidance] = values;
    const { studio } = this;
    if (!studio || !studio.offers.steps.includes(steps) || grid !== "best" || eta) return null;
    const label = digit === "any" ? null : studio.names.indexOf(digit);
    return studio.checked({ seed, label, steps, sampler, guidance, images });
  },

  // The first picture: the page comes with that of the usual settings.
  begin(values) {
    this.begun = true;
    if (this.recalled) this.draw(values, this.linked);
    else this.drawn = JSON.stringify(values);
    this.arrive();
  },

  // Draws what the form says, if that is not what is there. play: from noise, and in any case.
  async draw(values, play = false) {
    const key = JSON.stringify(values), mine = {};
    if (this.rolled) play = true;
    if (!this.begun) return;
    if (!play && (key === this.drawn || this.isAlone(values))) {
      if (this.singled || key !== this.drawn) this.remember(values);  // one image, or all again
      this.singled = key !== this.drawn;
      return;
    }
    if (play) this.clear();
    this.rolled = false;
    this.drawn = key;
    this.latest = mine;
    if (values[2] === null) return play && this.click("dice");
    await this.opened;
    if (this.latest !== mine) return;
    try {
      const request = this.wish(values);
      this.remember(values);
      if (request) await this.here(request, play);
      else await this.there();
    } catch (error) {
      this.newest?.stop();
      this.say(error.message);
    }
  },

  // What was said of the picture before.
  clear() {
    this.say("");
    document.querySelector("ddpm-near").offer(null);
  },

  // In this browser.
  async here(request, play) {
    this.stopServer();
    const player = this.player("film"), id = `here ${++this.films}`, start = performance.now();
    const late = () => performance.now() - start > 300;
    const film = await this.studio.film(this.newest, request, id, (grown) => {
      if (play) player.show(grown);
      else if (late()) player.show({ ...grown, live: true });
    });
    if (!film) return;
    if (!play) player.show({ ...film, live: true });
    const { frames, count } = film.walks[0], ms = Math.round(performance.now() - start);
    this.seen();
    this.say(`Drawn in your browser: ${count} image${count > 1 ? "s" : ""}, ${frames.at(-1).nfe} evaluation${frames.at(-1).nfe > 1 ? "s" : ""}${count > 1 ? " each" : ""}, ${ms} ms.`);
  },

  // By the server, once the wishes pause. What it draws already is finished first.
  async there() {
    this.newest?.stop();
    const { latest } = this;
    await new Promise((done) => setTimeout(done, 250));
    if (this.latest !== latest) return;
    this.asked = { before: this.player("film").id };
    this.say(this.studio ? "The server draws this one." : `The server draws: ${this.why}.`);
    this.click("ask");
  },

  // It may wait its turn, or be on its way.
  stopServer() {
    const { id, done } = this.player("film");
    if (this.asked && (id === this.asked.before || !done)) this.click("leave");
    this.asked = null;
  },

  told() {
    this.asked = null;
    this.seen();
  },

  // If one image alone is seen, its nearest training images can be too; at once if it was singled
  // out.
  seen() {
    const player = this.player("film"), near = document.querySelector("ddpm-near");
    const one = player.alone !== null || player.walks[0]?.count === 1;
    near.offer(this.index && one && player.done ? () => player.still() : null);
    if (player.alone !== null && near.image) near.ask();
  },

  // A button says stop, or the server failed.
  halt(film) {
    if (film === "film") {
      this.newest?.stop();
      this.latest = null;
      this.say("");
    }
    this.player(film).halt();
  },

  // One image is singled out, and the form has its seed: that is what there is to see.
  isAlone(values) {
    const { alone, walks } = this.player("film"), [, count, seed] = JSON.parse(this.drawn ?? "[]");
    return alone !== null && walks[0].seeds[alone] === values[2]
      && JSON.stringify(values.with(1, count).with(2, seed)) === this.drawn;
  },

  // A random seed that leaves room for so many images.
  roll(most) {
    this.rolled = true;
    return Math.floor(Math.random() * (2 ** 32 - most));
  },

  // What the form's line says, and a screen reader.
  say(words) { document.querySelector("#says").textContent = words; },

  // --- The address ---

  // A seed field left empty is null: no text of a link.
  query(values) {
    const pairs = this.names.map((name, k) => [name, values[k]]).filter(([, value]) => value !== null);
    return new URLSearchParams(pairs).toString();
  },

  // What was asked for goes into the address, and is kept for the next visit.
  remember(values) {
    const query = this.query(values);
    try { localStorage.setItem("ddpm", query); } catch {}
    this.note("generate", query);
  },

  // The address has the settings of the tab that is seen.
  note(tab, query) {
    this.links[tab] = query;
    this.mark();
  },

  mark() {
    const settings = this.links[this.tab] ?? (this.tab === "generate" ? "" : `tab=${this.tab}`);
    const query = (this.sought.has("embed") ? "embed=1&" : "") + settings;
    try { history.replaceState(null, "", query ? "?" + query : location.pathname); } catch {}
  },

  get tab() { return document.querySelector("[role=tab][aria-selected=true]").textContent.trim().toLowerCase(); },

  // What Compare or Steps was asked for. names: of the values.
  ran(tab, names, values) {
    const pairs = names.map((name, k) => [name, values[k]]).filter(([, value]) => value !== null);
    this.note(tab, new URLSearchParams([["tab", tab], ...pairs]).toString());
  },

  // The query for the tab, if the address is one of its own; "" else.
  queryOf(tab) { return this.sought.get("tab") === tab ? "?" + this.sought : ""; },

  // Goes to the tab that the address names. form: the tab whose form has its settings now; the
  // others need none.
  arrive(form = null) {
    const name = this.sought.get("tab");
    if (!name || form !== (["compare", "steps"].includes(name) ? name : null)) return;
    if (!this.go(name)) this.say(`The link names a tab that is not there: ${name.slice(0, 40)}.`);
  },

  // Opens a tab, if there is one of this name.
  go(name) {
    const tab = [...document.querySelectorAll("[role=tab]")].find((each) => each.textContent.trim().toLowerCase() === name);
    tab?.click();
    return Boolean(tab);
  },

  recall() {
    const asked = this.sought.has("tab") ? new URLSearchParams() : new URLSearchParams(this.sought);
    for (const name of [...asked.keys()]) if (!this.names.includes(name)) asked.delete(name);
    let kept = "";
    try { kept = localStorage.getItem("ddpm") || ""; } catch {}
    this.linked = asked.size > 0;
    return (this.recalled = this.linked ? "?" + asked : kept);
  },

  // --- Saving ---

  // What a player or a tool shows: of a player every moment, of the image singled out or of all.
  entries(source) {
    const there = () => {
      if (source.walks?.length === 0) throw Error("There is nothing to save yet.");
    };
    const gif = async () => {
      there();
      const file = source.gif?.() ?? filmed(await source.moments(), this.times);
      return new File([file], `${source.name}.gif`, { type: "image/gif" });
    };
    const alone = source === this.player("film");
    const share = navigator.canShare?.({ files: [new File([], "a.gif", { type: "image/gif" })] });
    return [
      ["Copy the link", () => this.copy()],
      ["Save a GIF", async () => { const file = await gif(); download(file, file.name); }],
      ["Save a PNG", () => (there(), source.save())],
      ["Save a page that draws offline", () => this.whole()],
      ...(alone ? [["Copy the code for a page of yours", () => this.code()]] : []),
      ...(share ? [["Share …", async () => navigator.share({ files: [await gif()], url: location.href })]] : []),
    ];
  },

  async copy(text = location.href, what = "link") {
    try { await navigator.clipboard.writeText(text); } catch { prompt(`The ${what}:`, text); return ""; }
    return `The ${what} is copied.`;
  },

  // The player alone, in a page of someone else's (page.css: .embed).
  code() {
    const address = new URL(location.href);
    address.searchParams.set("embed", "1");
    const src = address.href.replaceAll("&", "&amp;");
    return this.copy(`<iframe src="${src}" title="${document.title}" width="480" height="740" style="border: 0; max-width: 100%"></iframe>`, "code");
  },

  async whole() {
    const answer = await fetch(this.address("page.html"));
    if (!answer.ok) return (await answer.json()).detail;
    download(await answer.blob(), "digits.html");
  },

  // --- Tools ---

  // Gives a tool its studio, or tells it that there is none. digits: ready ones for its pad.
  async tool(tool, digits) {
    await customElements.whenDefined(tool.localName);
    if (digits) await tool.pad.offer(digits, 5);
    const name = tool.localName.replace("ddpm-", "");
    if (this.sought.get("tab") === name) tool.asked = this.sought;
    tool.addEventListener("drawn", () => {
      clearTimeout(tool.noting); // a browser bears few changes of the address
      tool.noting = setTimeout(async () => this.note(name, `tab=${name}&${await tool.link()}`), 300);
    });
    this.tools.push(tool);
    tool.toggleAttribute("menu", true); // has what its own buttons would do
    this.lend(tool);
  },

  async lend(tool) {
    await this.opened;
    if (this.studio) tool.studio = this.studio;
    else tool.refuse(this.why);
  },

  // What a tool wants from the server, as the arguments of `denoise`.
  askFor([, , , , sampler, steps]) {
    const { picture, t, seed, label } = this.wanted;
    return [picture, t, seed, label, sampler, steps];
  },

  came(film) { document.querySelector("ddpm-draw").film = film; },

  // What a hidden tab has at work is stopped: nobody watches it, and the visible one would wait for it.
  leave() {
    for (const stop of document.querySelectorAll("[id^=stop-]")) if (!stop.offsetParent) stop.click();
  },

  click(id) { document.querySelector("#" + id).click(); },

  player(id) { return document.querySelector(`#${id} ddpm-player`); },

  // A tab opens with a picture, not with a form.
  openWith(film, button) {
    setTimeout(() => { if (this.player(film)?.walks.length === 0) this.click(button); }, 50);
  },
};
page.opened = page.open();
document.documentElement.classList.toggle("embed", page.sought.has("embed"));
document.addEventListener("pick", () => page.seen());
document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href="?tab=draw"]');  // it works without the script, too
  if (link) {
    event.preventDefault();
    page.go("draw");
  }
  if (event.target.closest("[role=tab]")) setTimeout(() => { page.leave(); page.mark(); }, 50);
});

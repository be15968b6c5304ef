// What the page does by itself: the settings in the address, and small helpers of its buttons.
// app.py puts this into the head and calls `page.…` from its events.
window.page = {
  names: [], // what a link carries, in the order of the form; set by app.py

  // A seed field left empty is null: no text of a link.
  query(values) {
    const pairs = this.names.map((name, k) => [name, values[k]]).filter(([, value]) => value !== null);
    return new URLSearchParams(pairs).toString();
  },

  // What was asked for goes into the address, and is kept for the next visit.
  remember(values) {
    const query = this.query(values);
    try {
      localStorage.setItem("ddpm", query);
      history.replaceState(null, "", "?" + query);
    } catch {}
  },

  recall() {
    const asked = new URLSearchParams(location.search);
    for (const name of [...asked.keys()]) if (!this.names.includes(name)) asked.delete(name);
    let kept = "";
    try { kept = localStorage.getItem("ddpm") || ""; } catch {}
    return asked.size ? "?" + asked : kept;
  },

  async copy(values) {
    const link = location.origin + location.pathname + "?" + this.query(values);
    try { await navigator.clipboard.writeText(link); } catch { prompt("The link:", link); return; }
    const button = document.querySelector("#copy"), words = button.textContent;
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = words; }, 1500);
  },

  download(file) {
    const link = document.createElement("a");
    link.href = file.url;
    link.download = file.orig_name;
    link.click();
  },

  // What a hidden tab has at work is stopped: nobody watches it, and the visible one would wait for it.
  leave() {
    for (const stop of document.querySelectorAll("[id^=stop-]")) if (!stop.offsetParent) stop.click();
  },

  click(id) { document.querySelector("#" + id).click(); },

  player(id) { return document.querySelector(`#${id} ddpm-player`); },

  // A tab opens with a picture, not with a form.
  openWith(film, button) {
    setTimeout(() => { if (!this.player(film).walks.length) this.click(button); }, 50);
  },
};
document.addEventListener("click", (event) => {
  if (event.target.closest("[role=tab]")) setTimeout(() => page.leave(), 50);
});

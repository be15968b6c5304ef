/* The page's side of the worker: requests become promises. A worker that dies is started again,
   once a request. Where the browser refuses workers, the page itself does their work. */
class Engine {
  /* source: the worker's script. opening: what it needs at first, {facts, data, kernels}. */
  constructor(source, opening) {
    this.source = source;
    this.opening = { kind: "open", ...opening };
    this.pending = new Map(); // id -> {message, frame, resolve, reject, tries}
    this.ids = 0;
    this.failures = 0; // of workers that died before they had opened the model
    this.ready = new Promise((resolve, reject) => {
      this.settle = { resolve, reject };
    });
    this.ready.catch(() => {}); // whoever draws is told
    this.patience = 30_000; // ms of silence after which a busy worker is taken for dead
    this.start();
    this.watch = setInterval(() => {
      if (this.pending.size && performance.now() - this.heard > this.patience) this.died();
    }, 250);
  }

  start() {
    this.heard = performance.now();
    try {
      this.worker = (this.refused ? inPage : inWorker)(this.source);
    } catch {
      this.refused = true;
      this.worker = inPage(this.source);
    }
    this.worker.onmessage = ({ data }) => this.hear(data);
    this.worker.onerror = (event) => {
      event.preventDefault();
      this.died();
    };
    this.ask(this.opening).then(() => {
      this.opened = true;
      this.settle.resolve();
    }, this.settle.reject);
  }

  /* Resolves to what the worker answers; rejects with its words. frame: called with every moment of
     a walk. */
  ask(message, frame = () => {}) {
    const id = ++this.ids;
    const answer = new Promise((resolve, reject) =>
      this.send(id, { message: { ...message, id }, frame, resolve, reject, tries: 0 }),
    );
    return Object.assign(answer, { id });
  }

  send(id, request) {
    if (!this.pending.size) this.heard = performance.now();
    this.pending.set(id, request);
    this.worker.postMessage(request.message);
  }

  stop(id) {
    if (this.pending.has(id)) this.worker.postMessage({ kind: "stop", id });
  }

  hear({ id, frame, done, error }) {
    this.heard = performance.now();
    const request = this.pending.get(id);
    if (!request) return;
    if (frame) return request.frame(frame);
    this.pending.delete(id);
    if (error) return request.reject(Error(error));
    if (request.message.kind === "model") this.model = request.message;
    request.resolve(done);
  }

  died() {
    this.worker.terminate();
    this.refused ||= !this.opened && ++this.failures > 1;
    const unanswered = [...this.pending.values()].filter(({ message }) => message.kind !== "open");
    this.pending.clear();
    this.start();
    if (this.model) this.ask(this.model).catch(() => {});
    for (const request of unanswered) {
      if (request.tries++)
        request.reject(Error("the part that draws stopped twice; reload the page"));
      else this.send(request.message.id, request);
    }
  }
}

/* The script in a worker: beside the page, which stays quick. */
function inWorker(source) {
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  try {
    return new Worker(url);
  } finally {
    URL.revokeObjectURL(url);
  }
}

/* The script in the page, with a worker's ways. The page waits for each evaluation, no longer. */
function inPage(source) {
  const worker = { terminate() {} };
  const take = new Function("postMessage", "onmessage", `${source}\nreturn onmessage;`);
  const hear = take((data) => worker.onmessage({ data }));
  worker.postMessage = (data) => setTimeout(hear, 0, { data });
  return worker;
}

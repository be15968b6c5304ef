/* The network of ddpm/unet.py on the kernels of kernels.c. Read it beside unet.py: the functions
   have the names of what they translate. Nothing here knows noise, samplers or pages. */

const GROUPS = 8; // of every GroupNorm, as in unet.py
const OUT = 16; // channels that the kernel `conv` makes at a time, as in kernels.c
const AT_ONCE = 4; // images that are computed together: more take more memory, and are no faster
const PAGE = 65536; // bytes by which WebAssembly's memory grows

/* Every parameter's shape by its name, in the order of unet.py's state_dict. */
function shapes({ channels, classes, width, mults, blocks, attention }) {
  const found = new Map(),
    stem = width * mults[0],
    emb = 4 * stem;
  const layer = (name, ...shape) =>
    found.set(`${name}.weight`, shape).set(`${name}.bias`, [shape[0]]);
  const residual = (name, c_in, c_out, attends) => {
    layer(`${name}.norm1`, c_in);
    layer(`${name}.conv1`, c_out, c_in, 3, 3);
    layer(`${name}.emb`, 2 * c_out, emb);
    layer(`${name}.norm2`, c_out);
    layer(`${name}.conv2`, c_out, c_out, 3, 3);
    if (c_in !== c_out) layer(`${name}.shortcut`, c_out, c_in, 1, 1);
    if (!attends) return;
    layer(`${name}.attention.norm`, c_out);
    for (const part of "q k v out".split(" ")) layer(`${name}.attention.${part}`, c_out, c_out);
  };
  layer("time.0", emb, stem);
  layer("time.2", emb, emb);
  if (classes) found.set("label.weight", [classes + 1, emb]);
  layer("conv_in", stem, channels, 3, 3);
  const skips = [stem];
  let down = 0,
    up = 0,
    last = mults.length - 1;
  mults.forEach((mult, level) => {
    for (let block = 0; block < blocks; block++) {
      residual(`down.${down++}`, skips.at(-1), width * mult, attention[level]);
      skips.push(width * mult);
    }
    if (level === last) return;
    layer(`down.${down++}.conv`, width * mult, width * mult, 3, 3);
    skips.push(width * mult);
  });
  let c = width * mults[last];
  residual("middle.0", c, c, true);
  residual("middle.1", c, c, false);
  for (let level = last; level >= 0; level--) {
    for (let block = 0; block <= blocks; block++) {
      residual(`up.${up++}`, c + skips.pop(), width * mults[level], attention[level]);
      c = width * mults[level];
    }
    if (level) layer(`up.${up++}.conv`, c, c, 3, 3);
  }
  layer("norm_out", stem);
  layer("conv_out", channels, stem, 3, 3);
  return found;
}

/* A network that is ready to compute. kernels: the compiled module. weights: Float32Arrays by name.
 */
class UNet {
  constructor(kernels, config, weights) {
    this.config = config;
    this.memory = new WebAssembly.Memory({ initial: 1, maximum: 16384 });
    this.run = new WebAssembly.Instance(kernels, { env: { memory: this.memory } }).exports;
    this.top = PAGE; // bytes in use; the first page is the kernels' own
    this.shapes = shapes(config);
    this.labels = weights.get("label.weight"); // stays here: rows of it are added, no more
    this.at = new Map(); // where each parameter lies
    for (const [name, shape] of this.shapes) {
      if (name === "label.weight") continue;
      const values = shape.length > 1 ? packed(weights.get(name), shape) : weights.get(name);
      const room = this.take(Math.ceil(values.length / OUT) * OUT);
      this.view(room, values.length).set(values);
      this.at.set(name, room);
    }
    this.base = this.top;
    this.room = this.take(
      Math.max(
        64,
        ...config.mults.map((m, level) =>
          Math.max(4 * config.width * m * 2, (config.size >> level) ** 2 + 4),
        ),
      ),
    ); // for the kernels' own use
    this.base = this.top;
  }

  /* Room for so many float32 values, as an address. */
  take(count) {
    const at = this.top;
    this.top += (4 * count + 15) & ~15;
    const missing = this.top - this.memory.buffer.byteLength;
    if (missing > 0) this.memory.grow(Math.ceil(missing / PAGE));
    return at;
  }

  view(at, count) {
    return new Float32Array(this.memory.buffer, at, count);
  }

  image(n, h, w, c) {
    return { at: this.take(n * h * w * c), n, h, w, c };
  }

  /* The same with a border of zeros, for a 3×3 kernel to look at. */
  bordered({ n, h, w, c }) {
    const count = n * (h + 2) * (w + 2) * c,
      at = this.take(count);
    this.view(at, count).fill(0);
    return { at, n, h, w, c };
  }

  conv(name, x, { kernel = 3, stride = 1, plus = 0, out } = {}) {
    const c_out = Math.ceil(this.shapes.get(`${name}.weight`)[0] / 4) * 4; // of 1 or 3: 4
    const y = out ?? this.image(x.n, x.h / stride, x.w / stride, c_out);
    this.run.conv(
      x.at,
      this.at.get(`${name}.weight`),
      this.at.get(`${name}.bias`),
      plus,
      y.at,
      x.n,
      y.h,
      y.w,
      x.c,
      c_out,
      kernel,
      stride,
    );
    return y;
  }

  linear(name, x, more) {
    return this.conv(name, x, { kernel: 1, ...more });
  }

  norm(name, x, out, { steer = 0, silu = true, border = 1 } = {}) {
    this.run.norm(
      x.at,
      this.at.get(`${name}.weight`),
      this.at.get(`${name}.bias`),
      steer,
      out.at,
      this.room,
      x.n,
      x.h,
      x.w,
      x.c,
      GROUPS,
      Number(silu),
      border,
    );
    return out;
  }

  attention(name, x) {
    const mark = this.top,
      { n, h, w, c } = x;
    const seen = this.norm(`${name}.norm`, x, this.image(n, h, w, c), { silu: false, border: 0 });
    const [q, k, v] = ["q", "k", "v"].map((part) => this.linear(`${name}.${part}`, seen));
    this.run.attention(q.at, k.at, v.at, seen.at, this.room, n, h * w, c, this.config.width);
    this.linear(`${name}.out`, seen, { plus: x.at, out: x });
    this.top = mark;
  }

  residual(name, x, emb) {
    const out = this.image(x.n, x.h, x.w, this.shapes.get(`${name}.conv1.weight`)[0]),
      mark = this.top;
    let h = this.conv(`${name}.conv1`, this.norm(`${name}.norm1`, x, this.bordered(x)));
    const steer = this.linear(`${name}.emb`, emb).at;
    h = this.norm(`${name}.norm2`, h, this.bordered(h), { steer });
    const short = this.at.has(`${name}.shortcut.weight`) ? this.linear(`${name}.shortcut`, x) : x;
    this.conv(`${name}.conv2`, h, { plus: short.at, out });
    this.top = mark;
    if (this.at.has(`${name}.attention.q.weight`)) this.attention(`${name}.attention`, out);
    return out;
  }

  /* x into the middle of out, each pixel `times` a side; among its channels from `offset` on. */
  place(x, out, { times = 1, border = 1, offset = 0 } = {}) {
    this.run.place(x.at, out.at, x.n, x.h, x.w, x.c, times, border, out.c, offset);
    return out;
  }

  downsample(name, x) {
    return this.conv(`${name}.conv`, this.place(x, this.bordered(x)), { stride: 2 });
  }

  upsample(name, x) {
    const large = this.bordered({ n: x.n, h: 2 * x.h, w: 2 * x.w, c: x.c });
    return this.conv(`${name}.conv`, this.place(x, large, { times: 2 }));
  }

  joined(a, b) {
    const out = this.image(a.n, a.h, a.w, a.c + b.c);
    this.place(a, out, { border: 0 });
    return this.place(b, out, { border: 0, offset: a.c });
  }

  /* What the blocks are told: the time, and for each image its label, or a mixture {label: share}.
   */
  embedding(t, labels) {
    const { width, mults } = this.config,
      stem = width * mults[0],
      half = stem / 2;
    const said = this.image(1, 1, 1, stem),
      angles = this.view(said.at, stem);
    for (let k = 0; k < half; k++) {
      const angle = Math.fround((t - 1) * Math.fround(Math.exp((-Math.log(10000) * k) / half)));
      angles[k] = Math.cos(angle);
      angles[half + k] = Math.sin(angle);
    }
    const inner = this.linear("time.0", said);
    this.run.silu(inner.at, inner.at, inner.c);
    const time = this.linear("time.2", inner),
      emb = this.image(labels.length, 1, 1, time.c),
      c = emb.c;
    const from = this.view(time.at, c),
      to = this.view(emb.at, labels.length * c);
    labels.forEach((mixture, n) => {
      to.set(from, n * c);
      for (const [label, share] of this.labels ? Object.entries(mixture) : [])
        for (let i = 0; i < c; i++) to[n * c + i] += share * this.labels[label * c + i];
    });
    this.run.silu(emb.at, emb.at, labels.length * c);
    return emb;
  }

  /* What the network says of images x (Float32Arrays, channels last) at time t. */
  forward(x, t, labels) {
    const outs = [];
    for (let k = 0; k < x.length; k += AT_ONCE)
      outs.push(...this.together(x.slice(k, k + AT_ONCE), t, labels.slice(k, k + AT_ONCE)));
    return outs;
  }

  together(x, t, labels) {
    const { channels, size, mults, blocks } = this.config,
      n = x.length,
      last = mults.length - 1;
    this.top = this.base;
    const emb = this.embedding(t, labels),
      given = this.image(n, size, size, channels);
    x.forEach((image, k) => this.view(given.at, n * image.length).set(image, k * image.length));
    let h = this.conv("conv_in", this.place(given, this.bordered(given))),
      down = 0,
      up = 0;
    const skips = [h];
    for (let level = 0; level <= last; level++) {
      for (let block = 0; block < blocks; block++)
        skips.push((h = this.residual(`down.${down++}`, h, emb)));
      if (level < last) skips.push((h = this.downsample(`down.${down++}`, h)));
    }
    h = this.residual("middle.1", this.residual("middle.0", h, emb), emb);
    for (let level = last; level >= 0; level--) {
      for (let block = 0; block <= blocks; block++)
        h = this.residual(`up.${up++}`, this.joined(h, skips.pop()), emb);
      if (level) h = this.upsample(`up.${up++}`, h);
    }
    h = this.conv("conv_out", this.norm("norm_out", h, this.bordered(h)));
    const all = this.view(h.at, n * size * size * h.c),
      pixels = size * size;
    return x.map((_, k) =>
      Float32Array.from(
        { length: pixels * channels },
        (_, i) => all[(k * pixels + Math.floor(i / channels)) * h.c + (i % channels)],
      ),
    );
  }
}

/* A layer's weights c_out×c_in(×k×k) as the kernel `conv` reads them: c_out/16 × k × k × c_in × 16.
 */
function packed(weights, [c_out, c_in, k = 1]) {
  const out = new Float32Array(Math.ceil(c_out / OUT) * OUT * c_in * k * k);
  for (let o = 0, at = 0; o < c_out; o++) {
    const block = (o - (o % OUT)) * k * k * c_in + (o % OUT);
    for (let i = 0; i < c_in; i++)
      for (let tap = 0; tap < k * k; tap++) out[block + (tap * c_in + i) * OUT] = weights[at++];
  }
  return out;
}

/* From noise to an image along a table that ddpm/browser/walks.py made: see there what its numbers
   are. The walks of distilled models are made here. */

const HEAD = 5; // [t, alpha, sigma, shown, a] come before the multiples in a row

const TO_X0 = {
  // (what the network says, x, alpha, sigma) -> x0: diffusion.PREDICTIONS
  v: (out, x, alpha, sigma) => alpha * x - sigma * out,
  eps: (out, x, alpha, sigma) => (x - sigma * out) / alpha,
  x0: (out) => out,
};

/* The walk of a distilled model as a table: from each time to the next, and at last to 0, the DDIM
   step (Song et al. 2021, Eq. 12, eta = 0) that it was trained for. Its times come with its weights,
   perhaps from the Hub, so no table could be made before. times: falling. logSnr: at 1, 2, … T. */
function jumps(times, logSnr) {
  const evaluations = times.length,
    width = HEAD + evaluations,
    values = new Float32Array((evaluations + 1) * width);
  let before;
  for (const [k, t] of [...times, 0].entries()) {
    const [alpha, sigma] = coefficients(t, logSnr),
      row = values.subarray(k * width, (k + 1) * width);
    row.set([t, alpha, sigma, 1, 1]);
    if (before) {
      const shrink = sigma / before.sigma;
      row[HEAD - 1] = shrink;
      row[HEAD + k - 1] = alpha - before.alpha * shrink;
    }
    before = { alpha, sigma };
  }
  return { values, evaluations, width };
}

/* alpha and sigma at 0, or at a time in 1..T, as Schedule.__call__ has them. */
function coefficients(t, logSnr) {
  if (t === 0) return [1, 0];
  const below = logSnr[Math.floor(t) - 1],
    above = logSnr[Math.ceil(t) - 1],
    here = below + (above - below) * (t - Math.floor(t));
  return [1 / Math.sqrt(1 + Math.exp(-here)), 1 / Math.sqrt(1 + Math.exp(here))];
}

/* Yields {t, alpha, sigma, evaluations, x, x0} for everything that the sampler shows; the last one
   is the image.

   table: { values, evaluations, width }. noises: for each image a function that gives noise, call
   after call. labels: a function of t that gives what each image is to show, as UNet.forward wants
   it. x0 is clamped to [-limit, limit], as diffusion.denoiser does.
   guidance: as in Settings. pictures: for each image the one that the walk starts from, with noise
   up to the table's first time, as Settings.start; null: from pure noise. known: {mask, values} of
   pixels that are held: wherever the mask is 1, x0 is what values say. */
function* walk(net, table, noises, labels, limit, { guidance = 0, pictures, known } = {}) {
  const { values, evaluations, width } = table,
    cost = guidance ? 2 : 1;
  let x = noises.map((next) => next());
  if (pictures) {
    const [, alpha, sigma] = values;
    x = x.map((noise, n) => noise.map((eps, i) => alpha * pictures[n][i] + sigma * eps));
  }
  const seen = [],
    fresh = [];
  for (let k = 0; k <= evaluations; k++) {
    const row = values.subarray(k * width, (k + 1) * width),
      [t, alpha, sigma, shown, a] = row;
    x = x.map((image) => image.map((value) => a * value));
    for (let j = HEAD; j < width; j++) {
      if (!row[j]) continue;
      const which = j - HEAD - evaluations; // of the fresh noises, in the order of the calls
      while (fresh.length <= which) fresh.push(noises.map((next) => next()));
      const from = which < 0 ? seen[j - HEAD] : fresh[which];
      x.forEach((image, n) => {
        for (let i = 0; i < image.length; i++) image[i] += row[j] * from[n][i];
      });
    }
    let x0 = x;
    if (k < evaluations) {
      x0 = estimate(net, x, row, labels(t), limit, guidance);
      if (known) x0 = x0.map((image) => image.map((value, i) => (known.mask[i] ? known.values[i] : value)));
      seen.push(x0);
    }
    if (shown) yield { t, alpha, sigma, evaluations: cost * Math.min(k + 1, evaluations), x, x0 };
  }
}

/* The images x0 that the network believes in, at the time of a table's row: diffusion.denoiser. */
function estimate(net, x, [t, alpha, sigma], labels, limit, guidance) {
  const { prediction, classes } = net.config,
    to_x0 = TO_X0[prediction];
  let outs = net.forward(x, t, labels);
  if (guidance) {
    // classifier-free: Ho & Salimans 2022, Eq. 6
    const without = net.forward(x, t, labels.map(() => ({ [classes]: 1 })));
    outs = outs.map((out, n) =>
      out.map((value, i) => (1 + guidance) * value - guidance * without[n][i]),
    );
  }
  return x.map((image, n) =>
    image.map((value, i) =>
      Math.min(limit, Math.max(-limit, to_x0(outs[n][i], value, alpha, sigma))),
    ),
  );
}

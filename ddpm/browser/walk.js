/* From noise to an image along a table that ddpm/browser/walks.py made: see there what its numbers
   are. */

const HEAD = 5; // [t, alpha, sigma, shown, a] come before the multiples in a row

const TO_X0 = {
  // (what the network says, x, alpha, sigma) -> x0: diffusion.PREDICTIONS
  v: (out, x, alpha, sigma) => alpha * x - sigma * out,
  eps: (out, x, alpha, sigma) => (x - sigma * out) / alpha,
  x0: (out) => out,
};

/* Yields {t, alpha, sigma, evaluations, x, x0} for everything that the sampler shows; the last one
   is the image.

   table: { values, evaluations, width }. noises: for each image a function that gives noise, call
   after call. labels: a function of t that gives what each image is to show, as UNet.forward wants
   it. x0 is clamped to [-limit, limit], as diffusion.denoiser does. */
function* walk(net, { values, evaluations, width }, noises, labels, limit) {
  const to_x0 = TO_X0[net.config.prediction];
  let x = noises.map((next) => next());
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
      const outs = net.forward(x, t, labels(t));
      x0 = x.map((image, n) =>
        image.map((value, i) =>
          Math.min(limit, Math.max(-limit, to_x0(outs[n][i], value, alpha, sigma))),
        ),
      );
      seen.push(x0);
    }
    if (shown) yield { t, alpha, sigma, evaluations: Math.min(k + 1, evaluations), x, x0 };
  }
}

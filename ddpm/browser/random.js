/* The normal numbers that torch's CPU generator gives for a seed, so that a seed has the same
   picture here. */

/* The Mersenne Twister, 32 bits a call. Matsumoto & Nishimura 1998;
   torch.Generator().manual_seed(seed). */
function twister(seed) {
  const state = new Uint32Array(624);
  state[0] = seed;
  for (let k = 1; k < 624; k++)
    state[k] = Math.imul(1812433253, state[k - 1] ^ (state[k - 1] >>> 30)) + k;
  let at = 624;
  return () => {
    if (at === 624) {
      for (let k = 0; k < 624; k++) {
        const y = (state[k] & 0x80000000) | (state[(k + 1) % 624] & 0x7fffffff);
        state[k] = state[(k + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
      }
      at = 0;
    }
    let y = state[at++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  };
}

/* A function that gives torch.randn(channels, size, size) with the generator of that seed, call
   after call; channels last, as the network here has them. Box and Muller in blocks of 16, as
   ATen's normal_fill has it. */
function randn(seed, channels, size) {
  const next = twister(seed),
    count = channels * size * size;
  const uniform = () => (next() & 0xffffff) / 0x1000000;
  const fill = (values) => {
    for (let j = 0; j < 8; j++) {
      const radius = Math.sqrt(-2 * Math.log(1 - values[j])),
        angle = 2 * Math.PI * values[j + 8];
      values[j] = radius * Math.cos(angle);
      values[j + 8] = radius * Math.sin(angle);
    }
  };
  return () => {
    const values = Float32Array.from({ length: count }, uniform);
    for (let k = 0; k + 16 <= count; k += 16) fill(values.subarray(k, k + 16));
    if (count % 16) {
      // the last sixteen are drawn anew
      const last = values.subarray(count - 16);
      last.set(Array.from({ length: 16 }, uniform));
      fill(last);
    }
    if (channels === 1) return values;
    return values.map((_, i) => values[(i % channels) * size * size + Math.floor(i / channels)]);
  };
}

/* From one noise to another, both of unit variance, along the great circle: so is all in between. 0
   <= share <= 1. */
function slerp(a, b, share) {
  let aa = 0,
    bb = 0,
    ab = 0;
  for (let i = 0; i < a.length; i++) {
    aa += a[i] * a[i];
    bb += b[i] * b[i];
    ab += a[i] * b[i];
  }
  const angle = Math.acos(Math.min(1, Math.max(-1, ab / Math.sqrt(aa * bb)))),
    whole = Math.sin(angle);
  const [left, right] =
    whole < 1e-6
      ? [1 - share, share]
      : [Math.sin((1 - share) * angle) / whole, Math.sin(share * angle) / whole];
  return a.map((value, i) => left * value + right * b[i]);
}

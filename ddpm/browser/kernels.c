/* What the network needs of a machine, for WebAssembly with 128-bit SIMD: five loops.

   `python -m ddpm.browser.build` makes kernels.wasm of this file, and fused.wasm, which fuses product and sum where a
   browser can (relaxed SIMD): a quarter faster. It knows no network and no memory
   management: unet.js says what lies where. Images are channels last, N×H×W×C, so that the C
   values of a pixel, and the three pixels under a row of a 3×3 kernel, are neighbours in memory.
   C is a multiple of 8 (the caller pads the picture's own one or three channels on the way out). */

#include <wasm_simd128.h>

typedef v128_t four;                     /* four neighbouring channels */
#define EXPORT(name) __attribute__((export_name(#name))) void name
#define load(p) wasm_v128_load(p)
#define store(p, v) wasm_v128_store(p, v)
#define all(a) wasm_f32x4_splat(a)
#define add wasm_f32x4_add
#define sub wasm_f32x4_sub
#define mul wasm_f32x4_mul
#ifdef __wasm_relaxed_simd__
#define madd wasm_f32x4_relaxed_madd     /* a·b + c, rounded once */
#else
#define madd(a, b, c) add(c, mul(a, b))
#endif

enum { PIXELS = 2, OUT = 16 };           /* outputs made at a time, held in registers */

/* e^x to about 1e-7 of it: 2^n times a polynomial in what is left of x / ln 2 (Cephes, expf). */
static inline four exp4(four x) {
  x = wasm_f32x4_pmax(all(-87), wasm_f32x4_pmin(all(88), x));
  four n = wasm_f32x4_nearest(mul(x, all(1.44269504f)));
  four r = sub(sub(x, mul(n, all(0.693359375f))), mul(n, all(-2.12194440e-4f)));
  four p = all(1.9875691500e-4f);
  p = add(mul(p, r), all(1.3981999507e-3f));
  p = add(mul(p, r), all(8.3334519073e-3f));
  p = add(mul(p, r), all(4.1665795894e-2f));
  p = add(mul(p, r), all(1.6666665459e-1f));
  p = add(mul(p, r), all(5.0000001201e-1f));
  p = add(add(mul(mul(p, r), r), r), all(1));
  four exponent = wasm_i32x4_add(wasm_i32x4_trunc_sat_f32x4(n), wasm_i32x4_splat(127));
  four power = wasm_i32x4_shl(exponent, 23);
  return mul(p, power);
}

static inline four silu4(four x) {
  return wasm_f32x4_div(x, add(all(1), exp4(wasm_f32x4_neg(x))));
}

/* out = silu(x), count values (a multiple of 4). */
EXPORT(silu)(const float *x, float *out, int count) {
  for (int i = 0; i < count; i += 4) store(out + i, silu4(load(x + i)));
}

/* Convolution with a k×k kernel, and with k = 1 a linear layer: out[pixel] = sum over the window +
   bias (+ add[pixel], if there is one).

   x is N×(stride·h + k-1)×(stride·w + k-1)×c_in, its border already there. weights are packed by
   unet.js: c_out/16 × k × k × c_in × 16. out is N×h×w×c_out. The window's rows are runs of k·c_in
   neighbours. */
EXPORT(conv)(const float *x, const float *weights, const float *bias, const float *plus, float *out,
             int n, int h, int w, int c_in, int c_out, int k, int stride) {
  int pitch = (stride * w + k - 1) * c_in, image = (stride * h + k - 1) * pitch, run = k * c_in;
  int pixels = n * h * w;
  for (int c = 0; c < c_out; c += OUT, weights += k * run * OUT) {
    for (int first = 0; first < pixels; first += PIXELS) {
      const float *from[PIXELS];
      four sum[PIXELS][OUT / 4];
      for (int p = 0; p < PIXELS; p++) {
        int at = first + p < pixels ? first + p : pixels - 1;   /* the last may be made twice */
        from[p] = x + at / (h * w) * image + at / w % h * stride * pitch + at % w * stride * c_in;
        for (int i = 0; i < OUT / 4; i++) sum[p][i] = load(bias + c + 4 * i);
      }
      const float *weight = weights;
      for (int row = 0; row < k; row++) {
        for (int step = 0; step < run; step++, weight += OUT) {
          four value[PIXELS];
          for (int p = 0; p < PIXELS; p++) value[p] = wasm_v128_load32_splat(from[p] + step);
          for (int i = 0; i < OUT / 4; i++) {
            four factor = load(weight + 4 * i);
            for (int p = 0; p < PIXELS; p++) sum[p][i] = madd(value[p], factor, sum[p][i]);
          }
        }
        for (int p = 0; p < PIXELS; p++) from[p] += pitch;
      }
      for (int p = 0; p < PIXELS && first + p < pixels; p++)
        for (int i = 0; i < OUT / 4 && c + 4 * i < c_out; i++) {
          int at = (first + p) * c_out + c + 4 * i;
          store(out + at, plus ? add(sum[p][i], load(plus + at)) : sum[p][i]);
        }
    }
  }
}

/* Copies n images h×w×c into the middle of (h·times + 2·border) squares of pixels, each pixel
   `times` a side; the border is left as it is. `stride` and `offset` place the channels among those
   of out: so are two images joined. */
EXPORT(place)(const float *x, float *out, int n, int h, int w, int c, int times, int border,
              int stride, int offset) {
  int pitch = (w * times + 2 * border) * stride;
  for (int image = 0; image < n; image++, out += (h * times + 2 * border) * pitch)
    for (int row = 0; row < h * times; row++)
      for (int column = 0; column < w * times; column++) {
        const float *from = x + ((image * h + row / times) * w + column / times) * c;
        float *to = out + (row + border) * pitch + (column + border) * stride + offset;
        if (c % 4) for (int i = 0; i < c; i++) to[i] = from[i];
        else for (int i = 0; i < c; i += 4) store(to + i, load(from + i));
      }
}

/* Group normalisation (Wu & He 2018) of n images h×w×c, then scale and shift of the layer, then,
   where `steer` (N×2c: scale, shift) is given, x·(1 + scale) + shift, and SiLU if asked for. out
   has a border, left as it is. `room` holds 2c values. */
EXPORT(norm)(const float *x, const float *gain, const float *bias, const float *steer, float *out,
             float *room, int n, int h, int w, int c, int groups, int activate, int border) {
  int pixels = h * w, size = c / groups, pitch = (w + 2 * border) * c;
  float *scale = room, *shift = room + c;
  for (int image = 0; image < n; image++, x += pixels * c, out += (h + 2 * border) * pitch) {
    for (int pass = 0; pass < 2; pass++) {         /* means into shift; then variances into scale */
      for (int i = 0; i < c; i += 4) {
        four sum = all(0), mean = pass ? load(shift + i) : all(0);
        for (int p = 0; p < pixels; p++) {
          four value = load(x + p * c + i), off = sub(value, mean);
          sum = add(sum, pass ? mul(off, off) : value);
        }
        store((pass ? scale : shift) + i, sum);
      }
      float *sums = pass ? scale : shift;
      for (int g = 0; g < c; g += size) {
        float total = 0;
        for (int i = 0; i < size; i++) total += sums[g + i];
        for (int i = 0; i < size; i++) sums[g + i] = total / (size * pixels);
      }
    }
    for (int i = 0; i < c; i++) {                  /* all is one scale and one shift a channel */
      float a = gain[i] / __builtin_sqrtf(scale[i] + 1e-5f), b = bias[i] - shift[i] * a;
      float more = steer ? 1 + steer[image * 2 * c + i] : 1;
      scale[i] = a * more;
      shift[i] = b * more + (steer ? steer[image * 2 * c + c + i] : 0);
    }
    for (int p = 0; p < pixels; p++) {
      float *to = out + (p / w + border) * pitch + (p % w + border) * c;
      for (int i = 0; i < c; i += 4) {
        four value = add(mul(load(x + p * c + i), load(scale + i)), load(shift + i));
        store(to + i, activate ? silu4(value) : value);
      }
    }
  }
}

/* Self-attention of n images of `pixels` pixels: q, k, v, out N×pixels×c, in heads of `size`
   channels. softmax(q·k / sqrt(size))·v. `room` holds as many values as there are pixels, rounded
   up to a multiple of 4. */
EXPORT(attention)(const float *q, const float *k, const float *v, float *out, float *room,
                  int n, int pixels, int c, int size) {
  float by = 1 / __builtin_sqrtf(size);
  int padded = (pixels + 3) & ~3;
  int next = pixels * c;
  for (int image = 0; image < n; image++, q += next, k += next, v += next, out += next)
    for (int head = 0; head < c; head += size)
      for (int p = 0; p < pixels; p++) {
        float most = -1e30f, total = 0;
        for (int o = 0; o < pixels; o++) {
          four dot = all(0);
          for (int i = head; i < head + size; i += 4)
            dot = add(dot, mul(load(q + p * c + i), load(k + o * c + i)));
          float score = by * (wasm_f32x4_extract_lane(dot, 0) + wasm_f32x4_extract_lane(dot, 1)
                            + wasm_f32x4_extract_lane(dot, 2) + wasm_f32x4_extract_lane(dot, 3));
          room[o] = score;
          most = score > most ? score : most;
        }
        for (int o = pixels; o < padded; o++) room[o] = -1e30f;
        for (int o = 0; o < padded; o += 4) store(room + o, exp4(sub(load(room + o), all(most))));
        for (int o = 0; o < pixels; o++) total += room[o];
        for (int i = head; i < head + size; i += 4) {
          four sum = all(0);
          for (int o = 0; o < pixels; o++) sum = add(sum, mul(all(room[o]), load(v + o * c + i)));
          store(out + p * c + i, mul(sum, all(1 / total)));
        }
      }
}

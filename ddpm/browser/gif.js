/* An animated GIF that plays for ever. frames: RGBA of w×h pixels; times: hundredths of a second
   for each; every pixel becomes a square of `scale`. Gray pictures have all 256 grays, coloured
   ones 252 colours. GIF89a, with LZW. */
function gif(frames, w, h, times, scale) {
  const gray = frames.every((rgba) =>
    rgba.every((value, i) => i % 4 === 3 || value === rgba[i - (i % 4)]),
  );
  const palette = Array.from({ length: 256 }, (_, k) =>
    gray
      ? [k, k, k]
      : [(Math.floor(k / 42) % 6) * 51, (Math.floor(k / 6) % 7) * 42.5, (k % 6) * 51],
  );
  const index = (r, g, b) =>
    gray ? r : Math.round(r / 51) * 42 + Math.round(g / 42.5) * 6 + Math.round(b / 51);
  const two = (value) => [value & 255, value >> 8],
    text = (words) => Array.from(words, (letter) => letter.charCodeAt(0));
  const size = [...two(w * scale), ...two(h * scale)];
  const parts = [
    [
      ...text("GIF89a"),
      ...size,
      0xf7,
      0,
      0,
      ...palette.flat(),
      0x21,
      0xff,
      11,
      ...text("NETSCAPE2.0"),
      3,
      1,
      0,
      0,
      0,
    ],
  ];
  frames.forEach((rgba, k) => {
    const pixels = new Uint8Array(w * h * scale * scale);
    for (let i = 0; i < pixels.length; i++) {
      const x = Math.floor((i % (w * scale)) / scale),
        y = Math.floor(i / (w * scale * scale)),
        at = 4 * (y * w + x);
      pixels[i] = index(rgba[at], rgba[at + 1], rgba[at + 2]);
    }
    parts.push([0x21, 0xf9, 4, 0, ...two(times[k]), 0, 0, 0x2c, 0, 0, 0, 0, ...size, 0, 8]);
    const bytes = lzw(pixels);
    for (let at = 0; at < bytes.length; at += 255)
      parts.push([Math.min(255, bytes.length - at)], Uint8Array.from(bytes.slice(at, at + 255)));
    parts.push([0]);
  });
  return new Blob([...parts.map((part) => Uint8Array.from(part)), Uint8Array.of(0x3b)], {
    type: "image/gif",
  });
}

/* For how many milliseconds a GIF of `count` pictures shows each frame: the last one first, so that
   a still preview shows the result. As in ddpm/pixels.py. */
function durations(count, { first_ms, frame_ms, way_ms, last_ms }) {
  const way = Math.floor(Math.min(frame_ms, way_ms / Math.max(1, count - 1)) / 10) * 10;
  return [first_ms, ...Array(count - 1).fill(Math.max(way, 20)), last_ms];
}

/* Lempel, Ziv and Welch's code as GIF has it, of values in 0..255; begun anew when all 4096 words
   are taken. */
function lzw(values) {
  const CLEAR = 256,
    END = 257,
    bytes = [];
  let known = new Map(),
    next = END + 1,
    bits = 9,
    held = 0,
    count = 0;
  const say = (code) => {
    for (held |= code << count, count += bits; count >= 8; held >>>= 8, count -= 8)
      bytes.push(held & 255);
  };
  say(CLEAR);
  let word = values[0];
  for (let i = 1; i < values.length; i++) {
    const longer = (word << 8) | values[i],
      found = known.get(longer);
    if (found !== undefined) {
      word = found;
      continue;
    }
    say(word);
    word = values[i];
    if (next < 4096) {
      if (next === 1 << bits) bits++;
      known.set(longer, next++);
    } else {
      say(CLEAR);
      known = new Map();
      next = END + 1;
      bits = 9;
    }
  }
  say(word);
  if (next === 1 << bits && bits < 12) bits++;
  say(END);
  if (count) bytes.push(held & 255);
  return bytes;
}

"use strict";
// From a photo to the model's input, byte for byte as preprocess.py does it with Pillow: an antialiased filter along x,
// rounded to bytes, then along y, in whole numbers with 22 bits behind the point.

const POINT = 22;
const sinc = (x) => (x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI));
const FILTERS = { // how far each reaches, and its value
  box: [0.5, (x) => (x > -0.5 && x <= 0.5 ? 1 : 0)],
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  hamming: [1, (x) => (Math.abs(x) >= 1 ? 0 : sinc(Math.abs(x)) * (0.54 + 0.46 * Math.cos(Math.abs(x) * Math.PI)))],
  bicubic: [2, (x) => {
    const t = Math.abs(x);
    return t < 1 ? (1.5 * t - 2.5) * t * t + 1 : t < 2 ? (((t - 5) * t + 8) * t - 4) * -0.5 : 0;
  }],
  lanczos: [3, (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0)],
};

// Python's round(): a half goes to the even number.
function rounded(x) {
  const low = Math.floor(x), part = x - low;
  return part < 0.5 || (part === 0.5 && low % 2 === 0) ? low : low + 1;
}

// Size of a whole photo resized, and left and top of the part that is kept: covering() of preprocess.py.
function coveringOf(width, height, { image_size: [high, wide], crop_pct: part }) {
  const targetHigh = Math.floor(high / part), targetWide = Math.floor(wide / part);
  let size;
  if (targetHigh === targetWide) {
    const long = Math.trunc((targetHigh * Math.max(width, height)) / Math.min(width, height));
    size = width <= height ? [targetHigh, long] : [long, targetHigh];
  } else {
    const ratio = Math.min(height / targetHigh, width / targetWide);
    size = [rounded(width / ratio), rounded(height / ratio)];
  }
  return { size, left: rounded((size[0] - wide) / 2), top: rounded((size[1] - high) / 2) };
}

// For each of `count` results from `first` on: where its values begin, how many there are, and their weights.
function filterOf(name, old, size, first, count) {
  if (name === "nearest") return nearestOf(old, size, first, count);
  const [reach, value] = FILTERS[name], scale = old / size, wide = Math.max(1, scale), support = reach * wide;
  return Array.from({ length: count }, (_, i) => {
    const centre = (first + i + 0.5) * scale, from = Math.max(0, Math.trunc(centre - support + 0.5));
    const length = Math.min(old, Math.trunc(centre + support + 0.5)) - from, weights = new Float64Array(length);
    let sum = 0;
    for (let j = 0; j < length; j++) sum += weights[j] = value((j + from - centre + 0.5) * (1 / wide));
    for (let j = 0; j < length; j++) {
      const whole = (sum === 0 ? weights[j] : weights[j] / sum) * 2 ** POINT;
      weights[j] = Math.trunc(whole + (whole < 0 ? -0.5 : 0.5));
    }
    return { from, weights };
  });
}

function nearestOf(old, size, first, count) {
  const scale = old / size, found = [];
  for (let i = 0, at = scale * 0.5; i < first + count; i++, at += scale) { // added up as Pillow does it
    if (i >= first) found.push({ from: Math.min(old - 1, Math.trunc(at)), weights: Float64Array.of(2 ** POINT) });
  }
  return found;
}

const clamped = (sum) => Math.max(0, Math.min(255, sum >> POINT));

// The part that the model sees, red, green, blue: `photo` has a width, a height and rows(top, count) in RGBA.
function covered(photo, preprocess) {
  const [high, wide] = preprocess.image_size, { interpolation } = preprocess;
  const { size, left, top } = coveringOf(photo.width, photo.height, preprocess);
  const along = filterOf(interpolation, photo.width, size[0], left, wide);
  const down = filterOf(interpolation, photo.height, size[1], top, high);
  const firstRow = down[0].from, lastRow = Math.max(...down.map(({ from, weights }) => from + weights.length));
  const narrow = new Uint8Array((lastRow - firstRow) * wide * 3);
  const strip = Math.max(1, Math.floor(2 ** 20 / photo.width)); // rows at a time: a copy of 50 megapixels is 200 MB
  for (let row = firstRow; row < lastRow; row += strip) {
    const count = Math.min(strip, lastRow - row), pixels = photo.rows(row, count);
    for (let y = 0, at = (row - firstRow) * wide * 3; y < count; y++) {
      for (const { from, weights } of along) {
        let red = 2 ** (POINT - 1), green = red, blue = red;
        for (let j = 0, p = 4 * (y * photo.width + from); j < weights.length; j++, p += 4) {
          red += pixels[p] * weights[j];
          green += pixels[p + 1] * weights[j];
          blue += pixels[p + 2] * weights[j];
        }
        narrow[at++] = clamped(red);
        narrow[at++] = clamped(green);
        narrow[at++] = clamped(blue);
      }
    }
  }
  const out = new Uint8Array(high * wide * 3);
  for (let y = 0, at = 0; y < high; y++) {
    const { from, weights } = down[y];
    for (let x = 0; x < 3 * wide; x++) {
      let sum = 2 ** (POINT - 1);
      for (let j = 0, p = (from - firstRow) * wide * 3 + x; j < weights.length; j++, p += 3 * wide) sum += narrow[p] * weights[j];
      out[at++] = clamped(sum);
    }
  }
  return out;
}

// Bytes as the model takes them: (value / 255 - mean) / std, in fp32 as in Python.
function normalisedPixels(bytes, { mean, std }) {
  const { fround } = Math, table = [0, 1, 2].map((c) => Float32Array.from({ length: 256 }, (_, value) =>
    fround(fround(fround(value / 255) - fround(mean[c])) / fround(std[c]))));
  return Float32Array.from(bytes, (value, i) => table[i % 3][value]);
}

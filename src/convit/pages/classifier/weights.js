"use strict";
// The weights: export_web.py says how they are coded.

// All halves of two bytes as numbers, by table: 65,536 entries.
const halves = Float32Array.from({ length: 65536 }, (_, code) => {
  const sign = code & 0x8000 ? -1 : 1, exponent = (code >> 10) & 31, fraction = code & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
});

// `tensors` are [name, count, size] in order: of each, the bytes hold `size` planes of `count`. Two bytes are fp16, four
// fp32, and three fp32 whose lowest byte is 0.
function tensorsOf(tensors, bytes) {
  const found = {};
  let at = 0;
  for (const [name, count, size] of tensors) {
    const values = new Float32Array(count), raw = new Uint8Array(values.buffer);
    for (let plane = 0; size > 2 && plane < size; plane++) {
      for (let i = 0; i < count; i++) raw[4 * i + 4 - size + plane] = bytes[at + plane * count + i];
    }
    for (let i = 0; size === 2 && i < count; i++) values[i] = halves[bytes[at + i] | (bytes[at + count + i] << 8)];
    found[name] = values;
    at += size * count;
  }
  if (at !== bytes.length) throw new Error("The weights in this file are damaged.");
  return found;
}

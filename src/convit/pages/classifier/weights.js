"use strict";
// The weights: export_web.py says how they are coded. Two planes of bytes, gzip, base64.

// All halves of two bytes as numbers, by table: 65,536 entries.
const halves = Float32Array.from({ length: 65536 }, (_, code) => {
  const sign = code & 0x8000 ? -1 : 1, exponent = (code >> 10) & 31, fraction = code & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
});

// `tensors` are [name, type, count] in order; bytes hold one plane for each byte of a value, for each tensor.
function tensorsOf(tensors, bytes) {
  const found = {};
  let at = 0;
  for (const [name, type, count] of tensors) {
    const size = type === "fp16" ? 2 : 4, values = new Float32Array(count);
    if (type === "fp16") {
      for (let i = 0; i < count; i++) values[i] = halves[bytes[at + i] | (bytes[at + count + i] << 8)];
    } else {
      const raw = new Uint8Array(values.buffer);
      for (let plane = 0; plane < 4; plane++) for (let i = 0; i < count; i++) raw[4 * i + plane] = bytes[at + plane * count + i];
    }
    found[name] = values;
    at += size * count;
  }
  if (at !== bytes.length) throw new Error("The weights in this file are damaged.");
  return found;
}

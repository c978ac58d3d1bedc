"use strict";
// Positional attention is the product of a softmax along x and one along y: along[query * size + key] for each axis.

function axes(weight, width, height) {
  const [alongX, alongY, squared] = weight.map((value) => value ?? NaN);
  return { x: softmaxes(alongX, squared, width), y: softmaxes(alongY, squared, height) };
}

function softmaxes(linear, squared, size) {
  const out = new Float64Array(size * size);
  for (let query = 0; query < size; query++) {
    const row = out.subarray(query * size, (query + 1) * size);
    for (let key = 0; key < size; key++) row[key] = linear * (key - query) + squared * (key - query) ** 2;
    const most = row.reduce((a, b) => Math.max(a, b));
    let sum = 0;
    for (let key = 0; key < size; key++) sum += row[key] = Math.exp(row[key] - most);
    for (let key = 0; key < size; key++) row[key] /= sum;
  }
  return out;
}

"use strict";
// Matrices as rows of a Float32Array, and what the model does with them. Plain JavaScript: sums are in fp64.
// Blocks of four rows times four columns take each value out of memory once for four products.

// out = a b^T + bias: a is (rows, depth), b is (columns, depth), out is (rows, columns).
function product(a, b, rows, columns, depth, bias = null, out = new Float32Array(rows * columns)) {
  const wholeRows = rows - (rows % 4), wholeColumns = columns - (columns % 4);
  for (let i = 0; i < wholeRows; i += 4) {
    for (let j = 0; j < wholeColumns; j += 4) block(a, b, out, i, j, columns, depth);
  }
  for (let i = 0; i < rows; i++) {
    for (let j = i < wholeRows ? wholeColumns : 0; j < columns; j++) {
      let sum = 0;
      for (let t = 0, p = i * depth, q = j * depth; t < depth; t++) sum += a[p + t] * b[q + t];
      out[i * columns + j] = sum;
    }
  }
  if (bias) {
    for (let i = 0, at = 0; i < rows; i++) for (let j = 0; j < columns; j++) out[at++] += bias[j];
  }
  return out;
}

function block(a, b, out, i, j, columns, depth) {
  let s00 = 0, s01 = 0, s02 = 0, s03 = 0, s10 = 0, s11 = 0, s12 = 0, s13 = 0;
  let s20 = 0, s21 = 0, s22 = 0, s23 = 0, s30 = 0, s31 = 0, s32 = 0, s33 = 0;
  const p0 = i * depth, p1 = p0 + depth, p2 = p1 + depth, p3 = p2 + depth;
  const q0 = j * depth, q1 = q0 + depth, q2 = q1 + depth, q3 = q2 + depth;
  for (let t = 0; t < depth; t++) {
    const a0 = a[p0 + t], a1 = a[p1 + t], a2 = a[p2 + t], a3 = a[p3 + t];
    const b0 = b[q0 + t], b1 = b[q1 + t], b2 = b[q2 + t], b3 = b[q3 + t];
    s00 += a0 * b0; s01 += a0 * b1; s02 += a0 * b2; s03 += a0 * b3;
    s10 += a1 * b0; s11 += a1 * b1; s12 += a1 * b2; s13 += a1 * b3;
    s20 += a2 * b0; s21 += a2 * b1; s22 += a2 * b2; s23 += a2 * b3;
    s30 += a3 * b0; s31 += a3 * b1; s32 += a3 * b2; s33 += a3 * b3;
  }
  const o0 = i * columns + j, o1 = o0 + columns, o2 = o1 + columns, o3 = o2 + columns;
  out[o0] = s00; out[o0 + 1] = s01; out[o0 + 2] = s02; out[o0 + 3] = s03;
  out[o1] = s10; out[o1 + 1] = s11; out[o1 + 2] = s12; out[o1 + 3] = s13;
  out[o2] = s20; out[o2 + 1] = s21; out[o2 + 2] = s22; out[o2 + 3] = s23;
  out[o3] = s30; out[o3 + 1] = s31; out[o3 + 2] = s32; out[o3 + 3] = s33;
}

// (rows, columns) to (columns, rows).
function transposed(a, rows, columns) {
  const out = new Float32Array(a.length);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) out[j * rows + i] = a[i * columns + j];
  return out;
}

function add(a, b) {
  const out = new Float32Array(a.length);
  for (let i = 0; i < out.length; i++) out[i] = a[i] + b[i];
  return out;
}

// The softmax of each row, in place.
function softmaxRows(a, columns) {
  for (let start = 0; start < a.length; start += columns) {
    let most = -Infinity, sum = 0;
    for (let j = start; j < start + columns; j++) if (a[j] > most) most = a[j];
    for (let j = start; j < start + columns; j++) sum += a[j] = Math.exp(a[j] - most);
    for (let j = start; j < start + columns; j++) a[j] /= sum;
  }
  return a;
}

// `columns` values at a time are made to have mean 0 and variance 1; then each channel is scaled and shifted.
function normalised(x, columns, weight, bias, eps) {
  const out = new Float32Array(x.length), channels = weight.length;
  for (let start = 0; start < x.length; start += columns) {
    let sum = 0, squares = 0;
    for (let i = start; i < start + columns; i++) sum += x[i];
    const mean = sum / columns;
    for (let i = start; i < start + columns; i++) squares += (x[i] - mean) ** 2;
    const scale = 1 / Math.sqrt(squares / columns + eps);
    for (let i = start, c = 0; i < start + columns; i++) {
      out[i] = (x[i] - mean) * scale * weight[c] + bias[c];
      if (++c === channels) c = 0;
    }
  }
  return out;
}

// Each channel scaled and shifted: what batch norm is after training.
function affine(x, weight, bias) {
  const out = new Float32Array(x.length), channels = weight.length;
  for (let i = 0, c = 0; i < out.length; i++) {
    out[i] = x[i] * weight[c] + bias[c];
    if (++c === channels) c = 0;
  }
  return out;
}

// Phi(x), the normal distribution function, by the series 1/2 + phi(x) (x + x^3 / 3 + x^5 / 15 + x^7 / 105 + ...).
function normalDistribution(x) {
  if (Math.abs(x) > 8) return x > 0 ? 1 : 0; // to 1e-15
  let term = x, sum = x;
  for (let n = 3; Math.abs(term) > 1e-17 * Math.abs(sum); n += 2) sum += term *= (x * x) / n;
  return 0.5 + sum * Math.exp(-x * x / 2) / Math.sqrt(2 * Math.PI);
}

// The normal distribution function at steps of 1/256 from -6 to 6. Between them a straight line is within 1e-6; an
// exponential for each of the two million values of a perceptron would take as long as a tenth of its products.
const GELU_END = 6, GELU_STEPS = 256;
const gelus = Float64Array.from({ length: 2 * GELU_END * GELU_STEPS + 2 }, (_, i) =>
  normalDistribution(i / GELU_STEPS - GELU_END));

// x Phi(x), in place.
function gelu(x) {
  for (let i = 0; i < x.length; i++) {
    const value = x[i], at = (value + GELU_END) * GELU_STEPS;
    if (at <= 0) x[i] = 0;
    else if (at < 2 * GELU_END * GELU_STEPS) {
      const low = Math.floor(at), part = gelus[low];
      x[i] = value * (part + (at - low) * (gelus[low + 1] - part));
    }
  }
  return x;
}

"use strict";
// What a head looks at from a patch, and its colours. A layer gives the row of a query in a head's content map by
// addContent(head, row, scale, out); of a layer without a gate that is the row of its whole map.
//
// A query is a patch, numbered row by row from 0, or a prefix token: -1 the class token, -2 the next, ...
// Layers, heads and tokens are counted from 0 here and in window.convit, from 1 in what people read.

const header = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const setGates = new Map(); // "layer:head" -> the gate set by hand; it stays from picture to picture

const gateName = (layer, head) => `${layer.index}:${layer.heads[head]}`;
const gateOf = (layer, head) => setGates.get(gateName(layer, head)) ?? layer.gates[head] ?? NaN;

// What a query attends to, prefix tokens first; null where there is no such map. A prefix token has no position.
function attend(layer, head, kind, query) {
  const { prefix, tokens, width, height, positional } = layer;
  if (-query > prefix || (kind === "position" && (!positional || query < 0))) return null;
  const contentOnly = query < 0 || !positional || kind === "content";
  const gate = contentOnly ? 0 : kind === "position" ? 1 : gateOf(layer, head);
  const out = new Float64Array(tokens);
  if (gate < 1) {
    layer.addContent(head, query < 0 ? -1 - query : prefix + query, 1 - gate, out);
  }
  if (gate > 0) {
    const { x, y } = positional[head], startX = (query % width) * width, startY = Math.floor(query / width) * height;
    for (let j = 0, key = prefix; j < height; j++) {
      const part = gate * y[startY + j];
      for (let i = 0; i < width; i++, key++) out[key] += part * x[startX + i];
    }
  }
  return out;
}

// -- colours ---------------------------------------------------------------------------------------------------------

const DECADES = 3; // of the logarithmic scale
const VIRIDIS = [[68, 1, 84], [71, 45, 123], [59, 82, 139], [44, 114, 142], [33, 145, 140], [40, 174, 128],
  [94, 201, 98], [173, 220, 48], [253, 231, 37]];
const colours = Uint32Array.from({ length: 256 }, (_, i) => {
  const at = (i / 255) * (VIRIDIS.length - 1), low = Math.min(Math.floor(at), VIRIDIS.length - 2);
  const [r, g, b] = VIRIDIS[low].map((value, c) => Math.round(value + (VIRIDIS[low + 1][c] - value) * (at - low)));
  return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
});

// Draws values[from...] as a picture of patches, with `top` as the brightest colour; what is no number stays clear.
function paint(canvas, values, from, top, log) {
  const context = (canvas.context ??= canvas.getContext("2d"));
  const image = (canvas.image ??= context.createImageData(canvas.width, canvas.height));
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < pixels.length; i++) {
    const part = values[from + i] / top, at = log ? 1 + Math.log10(part) / DECADES : part;
    pixels[i] = Number.isNaN(part) ? 0 : colours[Math.max(0, Math.min(255, Math.round(at * 255)))];
  }
  context.putImageData(image, 0, 0);
}

function greatest(values, from) {
  let most = 0;
  for (let i = from; i < values.length; i++) if (values[i] > most) most = values[i];
  return most;
}

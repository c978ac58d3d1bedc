"use strict";
// ConViT's forward pass for one image. Tokens are rows of C channels, prefix tokens first; pixels are rows of red,
// green and blue, so every convolution is one matrix product.
//
// `spec` is the header's "model"; `weights` are its tensors by name. A pass keeps what each block was given, so that a
// gate moved in block n computes anew from block n on only.

const TINY = 1e-31; // positional weights below are 0: a processor multiplies denormal numbers many times slower

// An image (height, width, channels) by a kernel of side `kernel`: the tokens, their height and width.
function convolved(x, height, width, { weight, bias, kernel, stride, padding }) {
  const channels = x.length / (height * width), depth = kernel * kernel * channels;
  const rows = Math.floor((height + 2 * padding - kernel) / stride) + 1;
  const columns = Math.floor((width + 2 * padding - kernel) / stride) + 1;
  const patches = new Float32Array(rows * columns * depth);
  for (let row = 0, at = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      for (let i = 0; i < kernel; i++) {
        const y = row * stride + i - padding, left = column * stride - padding;
        for (let j = 0; j < kernel; j++, at += channels) {
          if (y < 0 || y >= height || left + j < 0 || left + j >= width) continue;
          const from = (y * width + left + j) * channels;
          for (let c = 0; c < channels; c++) patches[at + c] = x[from + c];
        }
      }
    }
  }
  return [product(patches, weight, rows * columns, weight.length / depth, depth, bias), rows, columns];
}

// Queries (scaled), keys and transposed values of a head, out of rows (queries, keys, values) of 3 `dim` channels.
function headParts(qkv, head, dim, width) {
  const tokens = qkv.length / (3 * dim), scale = 1 / Math.sqrt(width);
  const q = new Float32Array(tokens * width), k = new Float32Array(q.length), values = new Float32Array(q.length);
  for (let token = 0; token < tokens; token++) {
    const from = token * 3 * dim + head * width;
    for (let c = 0; c < width; c++) {
      q[token * width + c] = qkv[from + c] * scale;
      k[token * width + c] = qkv[from + dim + c];
      values[c * tokens + token] = qkv[from + 2 * dim + c];
    }
  }
  return { q, k, values };
}

// One softmax over content and position: v_pos . r is added to a patch's row of logits, from `at` on.
function addPosition(logits, at, [alongX, alongY, squared], patch, [high, wide]) {
  for (let j = 0, dy = -Math.floor(patch / wide); j < high; j++, dy++) {
    for (let i = 0, dx = -(patch % wide); i < wide; i++, dx++) {
      logits[at++] += alongX * dx + alongY * dy + squared * (dx * dx + dy * dy);
    }
  }
}

// The softmax of a head's logits, (tokens, tokens): of content, or of content and position where no gate parts them.
function contentMap({ q, k }, block, head, width, prefix, grid) {
  const tokens = q.length / width, map = product(q, k, tokens, tokens, width);
  for (let patch = 0; block.kind === "psa" && patch < tokens - prefix; patch++) {
    addPosition(map, (prefix + patch) * tokens + prefix, block.posWeight[head], patch, grid);
  }
  return softmaxRows(map, tokens);
}

function makeModel(spec, weights) {
  const { dim, heads, prefixAt, pool } = spec, width = dim / heads;
  const normOf = (name) => {
    const weight = weights[`${name}.weight`], bias = weights[`${name}.bias`], { kind, eps } = spec.norms[name];
    return kind === "affine" ? (x) => affine(x, weight, bias)
      : (x) => normalised(x, kind === "layer" ? dim : x.length, weight, bias, eps);
  };
  const linear = (name) => {
    const weight = weights[`${name}.weight`], bias = weights[`${name}.bias`] ?? null;
    return (x, depth) => product(x, weight, x.length / depth, weight.length / depth, depth, bias);
  };
  const stem = spec.stem.map((step) => ({ ...step, weight: weights[`${step.name}.weight`],
    bias: weights[`${step.name}.bias`] ?? null, then: step.norm && normOf(step.norm) }));
  const blocks = spec.blocks.map(({ kind }, index) => {
    const at = `blocks.${index}`, posWeight = weights[`${at}.attn.position`], gates = weights[`${at}.attn.gates`];
    return {
      index, kind,
      posWeight: posWeight ? Array.from({ length: heads }, (_, head) => [...posWeight.subarray(3 * head, 3 * head + 3)])
        : null,
      gates: gates ? [...gates] : null,
      positional: null, // made for the grid
      norm1: normOf(`${at}.norm1`), norm2: normOf(`${at}.norm2`),
      qkv: linear(`${at}.attn.qkv`), proj: linear(`${at}.attn.proj`),
      fc1: linear(`${at}.mlp.fc1`), fc2: linear(`${at}.mlp.fc2`),
    };
  });

  // What positional attention gives each patch of a head, (patches, width) transposed in each column of patches.
  function byPosition(values, tokens, prefix, grid, along) {
    const [high, wide] = grid, patches = high * wide, own = new Float32Array(width * patches);
    for (let c = 0; c < width; c++) {
      own.set(values.subarray(c * tokens + prefix, (c + 1) * tokens), c * patches);
    }
    const mixedX = product(own, along.x, width * high, wide, wide), turned = new Float32Array(own.length);
    for (let c = 0; c < width; c++) {
      turned.set(transposed(mixedX.subarray(c * patches, (c + 1) * patches), high, wide), c * patches);
    }
    return product(turned, along.y, width * wide, high, high); // [c][x][y]
  }

  function attention(block, x, grid, prefix, gates) {
    const tokens = x.length / dim, qkv = block.qkv(x, dim), out = new Float32Array(x.length), [high, wide] = grid;
    for (let head = 0; head < heads; head++) {
      const own = headParts(qkv, head, dim, width), { values } = own, gate = gates ? gates[head] : 0;
      if (gate < 1 || prefix) {
        const map = contentMap(own, block, head, width, prefix, grid);
        const content = product(map, values, tokens, width, tokens);
        for (let token = 0; token < tokens; token++) {
          const part = token < prefix ? 1 : 1 - gate;
          for (let c = 0; c < width; c++) out[token * dim + head * width + c] = part * content[token * width + c];
        }
      }
      if (gate > 0) {
        const mixed = byPosition(values, tokens, prefix, grid, block.along[head]);
        for (let patch = 0; patch < high * wide; patch++) {
          const to = (prefix + patch) * dim + head * width, from = (patch % wide) * high + Math.floor(patch / wide);
          for (let c = 0; c < width; c++) out[to + c] += gate * mixed[c * high * wide + from];
        }
      }
    }
    return [block.proj(out, dim), qkv];
  }

  function embed(pixels, height, wide) {
    let x = pixels, rows = height, columns = wide;
    for (const step of stem) {
      [x, rows, columns] = convolved(x, rows, columns, step);
      if (step.then) x = gelu(step.then(x));
    }
    return [weights.pos_embed ? add(x, weights.pos_embed) : x, [rows, columns]];
  }

  function answer(x) {
    const tokens = x.length / dim, prefix = prefixAt === null ? 0 : 1;
    const read = new Float32Array(dim), [from, to] = pool === "token" ? [0, 1] : [prefix, tokens];
    for (let token = from; token < to; token++) for (let c = 0; c < dim; c++) read[c] += x[token * dim + c] / (to - from);
    return product(read, weights["head.weight"], 1, weights["head.bias"].length, dim, weights["head.bias"]);
  }

  // The tokens with the class token before them.
  function joined(x) {
    const out = new Float32Array(x.length + dim);
    out.set(weights.cls_token);
    out.set(x, dim);
    return out;
  }

  const finalNorm = normOf("norm");

  return {
    blocks, joined,

    // A pass over pixels, not yet run.
    begin(pixels, height, wide) {
      const [x, grid] = embed(pixels, height, wide);
      for (const block of blocks) {
        if (!block.posWeight || block.kind === "psa" || String(block.grid) === String(grid)) continue;
        block.grid = grid;
        block.positional = block.posWeight.map((weight) => axes(weight, grid[1], grid[0]));
        block.along = block.positional.map(({ x, y }) => ({ x: sparse(x), y: sparse(y) }));
      }
      return { grid, inputs: [x], middles: [], qkv: [], prefixes: [], logits: null };
    },

    // Runs block `index`, which needs all before it; gates are those of the block, or null for none.
    step(pass, index, gates) {
      const block = blocks[index];
      let x = pass.inputs[index], prefix = index ? pass.prefixes[index - 1] : 0;
      if (index === prefixAt) {
        x = joined(x);
        prefix = 1;
      }
      const [attended, qkv] = attention(block, block.norm1(x), pass.grid, prefix, gates);
      x = add(x, attended);
      pass.middles[index] = x;
      x = add(x, block.fc2(gelu(block.fc1(block.norm2(x), dim)), weights[`blocks.${index}.mlp.fc1.bias`].length));
      pass.inputs[index + 1] = x;
      pass.qkv[index] = qkv;
      pass.prefixes[index] = prefix;
      if (index === blocks.length - 1) pass.logits = answer(finalNorm(x));
    },

    // The row of a head's content map that belongs to a token, times `scale`, added to `out`; of a layer without a gate,
    // the whole map's.
    addContent(pass, index, head, token, scale, out) {
      const qkv = pass.qkv[index], tokens = qkv.length / (3 * dim), prefix = pass.prefixes[index];
      const row = new Float32Array(tokens), from = token * 3 * dim + head * width;
      for (let key = 0; key < tokens; key++) {
        const to = key * 3 * dim + dim + head * width;
        let sum = 0;
        for (let c = 0; c < width; c++) sum += qkv[from + c] * qkv[to + c];
        row[key] = sum / Math.sqrt(width);
      }
      if (blocks[index].kind === "psa" && token >= prefix) {
        addPosition(row, prefix, blocks[index].posWeight[head], token - prefix, pass.grid);
      }
      softmaxRows(row, tokens);
      for (let key = 0; key < tokens; key++) out[key] += scale * row[key];
    },
  };
}

const sparse = (map) => Float32Array.from(map, (value) => (value > TINY ? value : 0));

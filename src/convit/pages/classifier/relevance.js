"use strict";
// Which patches speak for an answer: what `convit inspect` shows as relevance (Chefer et al. 2021, equations 5 and 6),
//
//   R_l = R_(l-1) + mean_h max(0, dy/dA_l * A_l) R_(l-1),   R_0 = I
//
// The head reads one row of R, or the mean of the patches' rows, so a row is carried from the last layer to the first,
// together with the gradient of the answer's logit y. It costs about two passes.

function makeRelevance(spec, weights, model) {
  const { dim, heads, pool, prefixAt } = spec, width = dim / heads;

  // The gradient by the input x of a norm, from the one by its output.
  function throughNorm(name, x, gradient) {
    const weight = weights[`${name}.weight`], { kind, eps } = spec.norms[name], out = new Float32Array(x.length);
    if (kind === "affine") return affine(gradient, weight, new Float32Array(dim));
    for (let start = 0; start < x.length; start += dim) {
      let mean = 0, variance = 0, sum = 0, along = 0;
      for (let c = 0; c < dim; c++) mean += x[start + c] / dim;
      for (let c = 0; c < dim; c++) variance += (x[start + c] - mean) ** 2 / dim;
      const scale = 1 / Math.sqrt(variance + eps);
      for (let c = 0; c < dim; c++) {
        const by = gradient[start + c] * weight[c];
        sum += by / dim;
        along += (by * (x[start + c] - mean) * scale) / dim;
      }
      for (let c = 0; c < dim; c++) {
        const normal = (x[start + c] - mean) * scale;
        out[start + c] = scale * (gradient[start + c] * weight[c] - sum - normal * along);
      }
    }
    return out;
  }

  // The gradient by the input of a linear layer of `inputs` channels.
  function throughLinear(name, gradient, inputs) {
    const weight = weights[`${name}.weight`], outputs = weight.length / inputs, rows = gradient.length / outputs;
    return product(gradient, transposed(weight, outputs, inputs), rows, inputs, outputs);
  }

  function throughPerceptron(block, name, x, gradient) {
    const inner = block.fc1(block.norm2(x), dim), inside = throughLinear(`${name}.mlp.fc2`, gradient, inner.length / (x.length / dim));
    for (let i = 0; i < inner.length; i++) {
      const t = inner[i], bell = Math.exp(-0.5 * t * t) / Math.sqrt(2 * Math.PI);
      inside[i] *= normalDistribution(t) + t * bell;
    }
    return add(gradient, throughNorm(`${name}.norm2`, x, throughLinear(`${name}.mlp.fc1`, inside, dim)));
  }

  // What a head's queries attend to, (tokens, tokens), with its content part.
  function mapsOf(block, own, head, gate, prefix, grid) {
    const content = contentMap(own, block, head, width, prefix, grid), tokens = own.q.length / width, [high, wide] = grid;
    if (!(gate > 0)) return { content, mixed: content };
    const mixed = content.slice(), { x, y } = block.along[head];
    for (let patch = 0; patch < high * wide; patch++) {
      const startX = (patch % wide) * wide, startY = Math.floor(patch / wide) * high;
      let at = (prefix + patch) * tokens;
      for (let key = 0; key < tokens; key++) mixed[at + key] *= 1 - gate;
      at += prefix;
      for (let j = 0; j < high; j++) {
        for (let i = 0; i < wide; i++) mixed[at++] += gate * y[startY + j] * x[startX + i];
      }
    }
    return { content, mixed };
  }

  // One head: adds its part to the row, and its gradients by queries, keys and values to `by`.
  function throughHead(block, head, gate, qkv, prefix, grid, gradient, row, found, by) {
    const own = headParts(qkv, head, dim, width), tokens = qkv.length / (3 * dim), scale = 1 / Math.sqrt(width);
    const { content, mixed } = mapsOf(block, own, head, gate, prefix, grid), byOut = new Float32Array(tokens * width);
    for (let token = 0; token < tokens; token++) {
      const from = token * dim + head * width;
      byOut.set(gradient.subarray(from, from + width), token * width);
    }
    const byMap = product(byOut, transposed(own.values, width, tokens), tokens, tokens, width);
    for (let query = 0, at = 0; query < tokens; query++) {
      for (let key = 0; key < tokens; key++, at++) {
        const part = byMap[at] * mixed[at];
        if (part > 0) found[key] += (row[query] * part) / heads;
      }
    }
    if (!by) return;
    const byValues = product(transposed(mixed, tokens, tokens), transposed(byOut, tokens, width), tokens, width, tokens);
    for (let query = 0; query < tokens; query++) {
      const start = query * tokens, part = query < prefix ? 1 : 1 - gate;
      let sum = 0;
      for (let key = 0; key < tokens; key++) sum += byMap[start + key] * content[start + key];
      for (let key = 0; key < tokens; key++) byMap[start + key] = part * content[start + key] * (byMap[start + key] - sum);
    }
    const byQueries = product(byMap, transposed(own.k, tokens, width), tokens, width, tokens);
    const byKeys = product(transposed(byMap, tokens, tokens), transposed(own.q, tokens, width), tokens, width, tokens);
    for (let token = 0; token < tokens; token++) {
      for (let c = 0, to = token * 3 * dim + head * width; c < width; c++, to++) {
        by[to] = byQueries[token * width + c] * scale;
        by[to + dim] = byKeys[token * width + c]; // own.q is scaled already
        by[to + 2 * dim] = byValues[token * width + c];
      }
    }
  }

  return {
    // The state before the last block: the gradient of a class's logit, and the row that the head reads.
    begin(pass, target) {
      const x = pass.inputs.at(-1), tokens = x.length / dim, prefix = prefixAt === null ? 0 : 1;
      const gradient = new Float32Array(x.length), row = new Float64Array(tokens);
      const [from, to] = pool === "token" ? [0, 1] : [prefix, tokens], part = 1 / (to - from);
      for (let token = from; token < to; token++) {
        row[token] = part;
        for (let c = 0; c < dim; c++) gradient[token * dim + c] = part * weights["head.weight"][target * dim + c];
      }
      return { gradient: throughNorm("norm", x, gradient), row, read: row.slice(prefix) };
    },

    // From behind block `index` to before it.
    step(state, pass, index, gates) {
      const block = model.blocks[index], name = `blocks.${index}`, prefix = pass.prefixes[index], qkv = pass.qkv[index];
      const x = index === prefixAt ? model.joined(pass.inputs[index]) : pass.inputs[index];
      const after = throughPerceptron(block, name, pass.middles[index], state.gradient);
      const byOut = throughLinear(`${name}.attn.proj`, after, dim), found = state.row.slice();
      const by = index ? new Float32Array(qkv.length) : null; // before the first block nothing is asked
      for (let head = 0; head < heads; head++) {
        throughHead(block, head, gates ? gates[head] : 0, qkv, prefix, pass.grid, byOut, state.row, found, by);
      }
      state.row = found;
      if (by) state.gradient = add(after, throughNorm(`${name}.norm1`, x, throughLinear(`${name}.attn.qkv`, by, dim)));
      if (index === prefixAt) {
        state.row = state.row.slice(1);
        state.gradient = state.gradient.slice(dim);
      }
    },

    // The relevance of each patch, without its own part in the row.
    end({ row, read }) {
      return Array.from(row, (value, patch) => value - read[patch]);
    },
  };
}

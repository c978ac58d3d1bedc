// The maps of pictures as page.py coded them, and the start of a page that shows them.

const weightOf = Float64Array.from({ length: 256 }, (_, code) =>
  code ? Math.exp(((code - 255) * header.coding.depth) / header.coding.levels) : 0);

const GATE_NOTE = "A slider re-mixes its head's map; the answer is not computed anew.";
function gatesChanged() {}
function viewBuilt() {}

const decoded = new Map();
function layersOf(number) {
  if (!decoded.has(number)) decoded.set(number, decode(number));
  return decoded.get(number);
}

// The layers of a picture, with their maps.
async function decode(number) {
  const { buffer } = await unpacked($(`maps-${number}`).textContent);
  const { width, height, layers } = header.inspections[number];
  const rowsOf = ({ heads, prefix }) => heads.length * (prefix + width * height);
  let rows = 0, codes = 4 * layers.reduce((sum, layer) => sum + rowsOf(layer), 0);
  return layers.map((layer) => {
    const tokens = layer.prefix + width * height, count = rowsOf(layer);
    const tops = new Float32Array(buffer, rows * 4, count), all = new Uint8Array(buffer, codes, count * tokens);
    const decoded = {
      ...layer, tokens, width, height,
      addContent(head, row, scale, out) {
        const start = (head * tokens + row) * tokens, top = scale * tops[head * tokens + row];
        for (let key = 0; key < tokens; key++) out[key] += top * weightOf[all[start + key]];
      },
      positional: layer.kind === "gpsa" ? layer.posWeight.map((weight) => axes(weight, width, height)) : null,
    };
    rows += count;
    codes += count * tokens;
    return decoded;
  });
}

async function start() {
  buildPage();
  if (header.inspections.length > 1) header.inspections.forEach((_, number) => addPicture(number));
  const error = 100 * (Math.exp(header.coding.depth / header.coding.levels / 2) - 1);
  $("precision").textContent = `Weights of content are within ${error.toFixed(0)}% of what the model computed; those `
    + `under ${percent(Math.exp(-header.coding.depth))} of the query's greatest are 0. Position is computed here, exact. `
    + "A plain layer's map takes the place of content. Lengths are in patches; a span under half a patch is one patch.";
  await show(0);
}

window.convit.ready = start().catch(fail);

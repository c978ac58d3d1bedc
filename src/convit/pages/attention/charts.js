// The charts and tables under the maps: gates, centres, answers with parts off.

function buildCharts() {
  const gated = layers.filter((layer) => layer.gates), positional = layers.filter((layer) => layer.centres);
  $("gates-card").hidden = $("about-card").hidden = !gated.length;
  $("centres-card").hidden = !positional.length;
  $("masking-card").hidden = !seen.masking.length;
  if (gated.length) {
    const numbers = spoken("gates as the model has them", gated, (layer, head) => layer.gates[head]?.toFixed(2) ?? "–");
    $("gates").replaceChildren(gateChart(gated, $("gates").clientWidth), numbers);
  }
  if (positional.length) {
    const range = centreRange(positional);
    const numbers = spoken("where heads look by position, in patches", positional, centreInWords);
    $("centres").replaceChildren(...positional.map((layer) => centreChart(layer, range)), numbers);
  }
  if (seen.masking.length) buildMasking(seen.masking[0].before[0]);
}

// The numbers of a chart as a table, for screen readers; text(layer, head) is a cell.
function spoken(title, rows, text) {
  const heads = [...new Set(rows.flatMap((layer) => layer.heads))].sort((a, b) => a - b);
  const columns = ["layer", ...heads.map((head) => `head ${head + 1}`)];
  const cell = (layer, head) => el("td", { textContent: head < 0 ? "" : text(layer, head) });
  const row = (layer) => el("tr", {}, el("th", { scope: "row", textContent: layer.index + 1 }),
    ...heads.map((head) => cell(layer, layer.heads.indexOf(head))));
  return el("div", { className: "visually-hidden" }, el("table", {}, el("caption", { textContent: title }),
    el("thead", {}, el("tr", {}, ...columns.map((word) => el("th", { scope: "col", textContent: word })))),
    el("tbody", {}, ...rows.map(row))));
}

function centreInWords({ centres, spans }, head) {
  const [x, y] = centres[head], span = spans[head];
  return [x, y, span].includes(null) ? "no centre" : `looks ${offset(x, y)}, span ${span.toFixed(2)}`;
}

function titled(shape, text, tile) {
  shape.append(svg("title", {}, text));
  shape.addEventListener("click", () => choose(tile));
  return shape;
}

const tileOf = (layer, head) => tiles.find((tile) => tile.layer === layer && tile.head === head);

function gateChart(gated, room) {
  const left = 34, top = 10, high = 170, column = Math.max(14, Math.min(90, (room - left - 8) / gated.length));
  const wide = left + column * gated.length, y = (gate) => top + high * (1 - gate);
  const chart = svg("svg", { width: wide, height: top + high + 34, role: "img", "aria-label": "gates of all heads" });
  for (const gate of [0, 0.5, 1]) {
    chart.append(svg("line", { class: "rule", x1: left, x2: wide, y1: y(gate), y2: y(gate) }),
      svg("text", { x: left - 26, y: y(gate) + 4 }, String(gate)));
  }
  gated.forEach((layer, i) => {
    const middle = left + column * (i + 0.5);
    chart.append(svg("text", { x: middle, y: top + high + 18, "text-anchor": "middle" }, String(layer.index + 1)));
    layer.gates.forEach((gate, head) => {
      if (gate === null) return;
      const tile = tileOf(layer, head), spread = layer.gates.length > 1 ? head / (layer.gates.length - 1) - 0.5 : 0;
      const at = { cx: middle + spread * column * 0.6, r: Math.min(5, column / 7 + 1.5) };
      const old = svg("circle", { class: "dot old", cy: y(gate), ...at });
      const words = `${nameOf(layer, head)}: gate ${gate.toFixed(3)}`;
      tile.dot = titled(svg("circle", { class: "dot", ...at }), words, tile);
      tile.moveDot = (value) => {
        tile.dot.setAttribute("cy", y(value));
        old.classList.toggle("hidden", value === gate);
      };
      chart.append(old, tile.dot);
    });
  });
  chart.append(svg("text", { x: left + (wide - left) / 2, y: top + high + 33, "text-anchor": "middle" }, "layer"));
  return chart;
}

// Offsets that the charts of centres show: nine circles of ten are in them.
function centreRange(positional) {
  const reach = positional.flatMap(({ centres, spans }) => centres.map(([x, y], head) =>
    (x === null ? [] : [Math.max(Math.abs(x), Math.abs(y)) + Math.min(spans[head], 2)]))).flat();
  reach.sort((a, b) => a - b);
  const nearly = reach[Math.floor(0.9 * (reach.length - 1))] ?? 2;
  return Math.ceil(Math.max(2, Math.min(nearly, seen.width, seen.height))) + 0.5;
}

function centreChart(layer, range) {
  const chart = svg("svg", { viewBox: `${-range} ${-range} ${2 * range} ${2 * range}`, width: 116, height: 116,
    role: "img", "aria-label": `where the heads of layer ${layer.index + 1} look by position` });
  for (let at = 0.5; at < range; at += range > 6 ? 2 : 1) {
    for (const line of [-at, at]) {
      chart.append(svg("line", { class: "rule", x1: line, x2: line, y1: -range, y2: range }),
        svg("line", { class: "rule", y1: line, y2: line, x1: -range, x2: range }));
    }
  }
  chart.append(svg("rect", { x: -0.5, y: -0.5, width: 1, height: 1, class: "here" }));
  let hidden = 0;
  layer.centres.forEach(([x, y], head) => {
    const tile = tileOf(layer, head), span = layer.spans[head];
    if ([x, y, span].includes(null) || Math.max(Math.abs(x), Math.abs(y)) > range) { hidden++; return; }
    const words = `${nameOf(layer, head)}: ${centreInWords(layer, head)} patches`;
    tile.circle = titled(svg("circle", { class: "circle", cx: x, cy: y, r: span }), words, tile);
    chart.append(tile.circle);
  });
  const caption = `Layer ${layer.index + 1}${hidden ? `, ${hidden} not in view` : ""}`;
  return el("figure", {}, chart, el("figcaption", { textContent: caption }));
}

// The answers with parts off; `before` is the answer of the whole model.
function buildMasking(before) {
  const gated = seen.masking.some((row) => row.layers);
  $("masking-note").replaceChildren(gated ? "Content off: all gates of the first layers at 1. Position off: at 0. " : "",
    "The first answer of the whole model is “", el("bdi", { textContent: before }), "”.");
  const table = (title, first, offs, type = "") => {
    const rows = seen.masking.filter((row) => offs.includes(row.off));
    if (!rows.length) return [];
    const words = [first, "answer", "probability", "of the first answer"];
    const head = el("tr", {}, ...words.map((word) => el("th", { scope: "col", textContent: word })));
    return [el("table", { className: type }, el("caption", { textContent: title }), el("thead", {}, head),
      el("tbody", {}, ...rows.map((row) => maskingRow(row, before))))];
  };
  $("masking").replaceChildren(
    ...table("Whole model", "off", ["nothing", "position embeddings"], "whole"),
    ...table("Content off in the first layers", "layers", ["content"]),
    ...table("Position off in the first layers", "layers", ["position"]));
}

function maskingRow(row, before) {
  const probability = (value) =>
    el("td", {}, bar(value), el("span", { className: "number", textContent: percent(value) }));
  return el("tr", { className: row.best[0] === before ? "" : "other" },
    el("th", { scope: "row", textContent: row.layers || row.off }),
    el("td", {}, el("bdi", { textContent: row.best[0], title: row.best[0] })), probability(row.best[1]), probability(row.before[1]));
}

// The page: its words, its elements, what is drawn when the state changes. Text from users goes in as textContent only.

// state.patch is the query, or the last patch before it where the query is a token.
const state = { query: 0, patch: 0, kind: "mix", log: false, common: false, over: "nothing", chosen: null, held: false };
let seen, layers, tiles = [], shown = 0;

function el(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function percent(value) {
  const hundredth = 100 * value;
  if (value === null || Number.isNaN(hundredth)) return "–";
  if (hundredth === 0 || hundredth >= 99.95) return `${Math.round(hundredth)}%`;
  return hundredth >= 10 ? `${hundredth.toFixed(1)}%` : hundredth >= 0.001 ? `${hundredth.toPrecision(2)}%` : "<0.001%";
}

const KINDS = { gpsa: "GPSA", psa: "PSA, position without a gate", sa: "plain self-attention" };
const nameOf = (layer, head) => `layer ${layer.index + 1}, head ${layer.heads[head] + 1}`;
const tokenName = (query) => (query === -1 ? "class token" : `extra token ${-query}`);
const patchName = (patch) => `row ${Math.floor(patch / seen.width) + 1}, column ${(patch % seen.width) + 1}`;
// In words: offset(-1.5, 2) is "1.5 left, 2.0 down".
function offset(x, y) {
  const along = (value, less, more) =>
    (Math.abs(value) < 0.05 ? [] : [`${Math.abs(value).toFixed(1)} ${value < 0 ? less : more}`]);
  return [...along(x, "left", "right"), ...along(y, "up", "down")].join(", ") || "at its own patch";
}

const EXPLANATIONS = {
  content: "Content: what looks alike, the softmax of queries times keys.",
  position: "Position: where the head looks by offset, whatever is in the picture.",
  mix: "Mix: what multiplied the values, (1 − gate) content + gate position. ",
};

function explanation() {
  if (state.kind === "mix" && !layers.some((layer) => layer.gates)) return "The attention that multiplied the values.";
  return state.kind === "mix" ? EXPLANATIONS.mix + GATE_NOTE : EXPLANATIONS[state.kind];
}

const meanGate = (layer) => layer.gates.reduce((sum, _, head) => sum + gateOf(layer, head), 0) / layer.gates.length;

// Why a layer has nothing to show, or where its number beside the name comes from.
function layerNote(layer) {
  if (-state.query > layer.prefix) return `the ${tokenName(state.query)} takes no part here`;
  if (state.kind === "position" && state.query < 0) return "a token without a position attends by content alone";
  if (state.kind === "position" && !layer.positional) {
    return layer.kind === "psa" ? "one softmax over content and position: see mix" : "attends by content alone";
  }
  const tokens = layer.prefix > 1 ? "tokens without a position" : "the class token";
  const toToken = layer.prefix ? [`below a map, → what goes to ${tokens}`] : [];
  if (!layer.gates) return toToken.join();
  return [`mean gate ${meanGate(layer).toFixed(2)}`, ...toToken].join("; ");
}

// What a tile shows, in words: where it looks most, or why there is nothing.
function tileInWords(tile) {
  if (!tile.values) return layerNote(tile.layer);
  const best = tile.values.subarray(tile.layer.prefix).indexOf(tile.top);
  return best < 0 ? "" : `most at ${patchName(best)}: ${percent(tile.top)}`;
}

// -- building --------------------------------------------------------------------------------------------------------

// A group of buttons of which one is pressed; `options` are [value, text, hint, key].
function choice(id, options, get, set) {
  $(id).replaceChildren(...options.map(([value, text, hint = "", disabled = false]) => {
    const button = el("button", { type: "button", textContent: text, title: hint, disabled });
    button.dataset.value = String(value);
    button.addEventListener("click", () => { set(value); schedule(); });
    return button;
  }));
  $(id).update = () => {
    const value = String(get());
    for (const button of $(id).children) button.setAttribute("aria-pressed", String(button.dataset.value === value));
  };
}

function buildTile(layer, head) {
  const canvas = el("canvas", { width: layer.width, height: layer.height });
  const mark = el("i", { className: "mark" });
  const map = el("button", { type: "button", className: "map", tabIndex: -1 }, canvas, mark);
  map.setAttribute("aria-label", nameOf(layer, head));
  const gate = el("span", { title: "gate" });
  const element = el("div", { className: "tile" }, map,
    el("div", { className: "caption" }, el("span", { textContent: layer.heads[head] + 1, title: "head" }), gate));
  const tile = { layer, head, canvas, mark, map, gate, element, values: null };
  if (layer.gates) {
    tile.slider = el("input", { type: "range", min: 0, max: 1, step: 0.01, tabIndex: -1,
      title: "Gate: the weight of position. Double click to reset." });
    tile.slider.setAttribute("aria-label", `gate of ${nameOf(layer, head)}`);
    tile.slider.addEventListener("input", () => setGate(tile, Number(tile.slider.value)));
    tile.slider.addEventListener("dblclick", () => setGate(tile, null));
    tile.slider.addEventListener("focus", () => makeTabStop(tile));
    element.append(tile.slider);
  }
  if (layer.prefix) element.append((tile.toToken = el("div", { className: "to-token" })));
  map.addEventListener("pointerdown", (event) => { touched = event.pointerType === "touch"; });
  map.addEventListener("click", (event) => { // a key clicks too, with detail 0
    if (touched && event.detail) tap(tile, event);
    else choose(state.chosen === tile ? null : tile);
  });
  map.addEventListener("focus", () => { makeTabStop(tile); describe(tile); });
  map.addEventListener("pointermove", (event) => event.pointerType !== "touch" && showTip(tile, event));
  map.addEventListener("pointerleave", hideTip);
  return tile;
}

function buildTiles() {
  tiles = [];
  $("layers").replaceChildren(...layers.map((layer) => {
    const own = layer.heads.map((_, head) => buildTile(layer, head));
    tiles.push(...own);
    layer.note = el("span");
    const grid = el("div", { className: "tiles" }, ...own.map((tile) => tile.element));
    grid.style.setProperty("--heads", own.length);
    const heading = el("h3", { textContent: `Layer ${layer.index + 1} · ${KINDS[layer.kind]}` });
    heading.append(layer.note);
    return el("section", { className: "layer" }, heading, grid);
  }));
  makeTabStop(tiles[0]);
}

// Tiles are one stop of the tab key, and the slider of the tile where one is, another.
function makeTabStop(tile) {
  for (const other of tiles) {
    other.map.tabIndex = other === tile ? 0 : -1;
    if (other.slider) other.slider.tabIndex = other.map.tabIndex;
  }
}

function buildPicture() {
  $("image").src = seen.picture;
  $("image").alt = seen.name;
  $("image").classList.toggle("coarse", seen.patchSize < 8);
  $("name").textContent = $("name").title = seen.name;
  buildLabel();
  $("overlay").width = seen.width;
  $("overlay").height = seen.height;
  delete $("overlay").image;
  $("main").style.setProperty("--width", seen.width);
  $("main").style.setProperty("--height", seen.height);
  $("main").style.setProperty("--ratio", seen.width / seen.height);
  buildPredictions();
  const prefix = Math.max(...layers.map((layer) => layer.prefix));
  choice("tokens", Array.from({ length: prefix }, (_, i) => [-1 - i, tokenName(-1 - i), "As the query (0)"]),
    () => state.query, (query) => select(state.query === query ? state.patch : query, true));
  const relevant = seen.relevance ? [["relevance", "relevance", "Which patches speak for the first answer"]] : [];
  choice("over", [["nothing", "picture"], ["head", "head", "The map of the chosen head; click a tile"], ...relevant],
    () => state.over, (over) => {
      state.over = over;
      if (over === "head" && !state.chosen) state.chosen = tiles[0];
    });
}

function buildPredictions() {
  $("predictions").replaceChildren(...seen.predictions.map(([name, probability]) =>
    el("li", {}, bar(probability), el("bdi", { textContent: name, title: name }),
      el("span", { className: "number", textContent: percent(probability) }))));
}

// The true class, where it is known, and whether the first answer is another.
function buildLabel() {
  const { label, predictions } = seen, missed = predictions.length > 0 && predictions[0][0] !== label;
  $("label").hidden = typeof label !== "string";
  $("label").classList.toggle("other", missed);
  $("label").replaceChildren("true class: ", el("bdi", { textContent: label, title: label }), missed ? ", missed" : "");
}

function bar(probability) {
  const fill = el("i", { className: "fill" });
  fill.style.width = `${100 * (probability ?? 0)}%`;
  return fill;
}

function buildControls() {
  const gated = layers.some((layer) => layer.gates);
  const why = "No layer here has gated positional attention";
  if (!gated) state.kind = "mix";
  choice("kind", [
    ["content", "content", gated ? "(c)" : why, !gated],
    ["position", "position", gated ? "(p)" : why, !gated],
    ["mix", gated ? "mix" : "attention", "(m)"],
  ], () => state.kind, (kind) => { state.kind = kind; });
  choice("scale", [[false, "linear", "(l)"], [true, "log", "(l)"]], () => state.log, (log) => { state.log = log; });
  choice("top", [[false, "each head", "The brightest colour is the greatest weight of each head (s)"],
    [true, "common", "The brightest colour is the greatest weight of all heads (s)"]],
  () => state.common, (common) => { state.common = common; });
  $("reset").hidden = !gated;
}

// -- drawing ---------------------------------------------------------------------------------------------------------

const REST = 300; // ms without a change after which the tiles are described anew
let waiting = 0, resting = 0;
function schedule() {
  waiting ||= requestAnimationFrame(draw);
}

function draw() {
  cancelAnimationFrame(waiting);
  waiting = 0;
  if (!seen) return; // all pictures were removed
  const { query, kind, log, common } = state;
  for (const tile of tiles) {
    tile.values = attend(tile.layer, tile.head, kind, query);
    tile.top = tile.values ? greatest(tile.values, tile.layer.prefix) : 0;
  }
  const most = tiles.reduce((top, tile) => Math.max(top, tile.top), 0);
  for (const tile of tiles) {
    tile.element.classList.toggle("nothing", !tile.values);
    if (tile.values) paint(tile.canvas, tile.values, tile.layer.prefix, common ? most : tile.top, log);
    writeTile(tile);
  }
  for (const layer of layers) {
    layer.note.textContent = layerNote(layer);
    if (layer.slider) layer.slider.value = meanGate(layer);
  }
  $("main").classList.toggle("by-token", query < 0);
  for (const mark of [$("mark"), ...tiles.map((tile) => tile.mark)]) place(mark, Math.max(0, query));
  $("mark").classList.toggle("held", state.held);
  for (const id of ["kind", "scale", "top", "over", "tokens", "all-gates", "covering"]) $(id).update?.();
  const held = state.held ? ", held: click it to let go." : ".";
  setText($("where"), query < 0 ? `From the ${tokenName(query)}.`
    : `From the patch in ${patchName(query)} of ${seen.height} × ${seen.width}${held}`);
  $("explanation").textContent = explanation();
  drawOver(common ? most : null);
  drawTicks(common ? most : null);
  clearTimeout(resting);
  resting = setTimeout(() => tiles.forEach(describe), REST);
}

// For screen readers.
function describe(tile) {
  tile.map.setAttribute("aria-description", tileInWords(tile));
}

// Moves a mark, which is as large as a patch. Not by a custom property: the browser would style every element anew.
function place(mark, patch) {
  mark.style.translate = `${100 * (patch % seen.width)}% ${100 * Math.floor(patch / seen.width)}%`;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text; // spares the browser 192 layouts
}

function writeTile(tile) {
  const { layer, head } = tile;
  if (tile.toToken) {
    const sum = tile.values ? tile.values.subarray(0, layer.prefix).reduce((a, b) => a + b) : null;
    setText(tile.toToken, sum === null ? "" : `→ ${percent(sum)}`);
  }
  if (!layer.gates) return;
  const gate = gateOf(layer, head);
  setText(tile.gate, Number.isNaN(gate) ? "–" : gate.toFixed(2));
  tile.gate.classList.toggle("changed", setGates.has(gateName(layer, head)));
  tile.slider.value = gate;
  if (tile.dot && tile.drawn !== gate) {
    tile.moveDot(gate);
    if (tile.circle) tile.circle.style.opacity = 0.15 + 0.85 * gate;
    tile.drawn = gate;
  }
}

// The chosen head, or relevance, on the picture, and the head in words.
function drawOver(top) {
  const tile = state.chosen, head = state.over === "head" && tile;
  const values = head ? tile.values : state.over === "relevance" ? seen.relevance : null;
  $("overlay").hidden = !values;
  if (values) {
    const from = head ? tile.layer.prefix : 0;
    paint($("overlay"), values, from, (head && top) || greatest(values, from), head && state.log);
  }
  for (const other of tiles) {
    const chosen = other === tile;
    other.map.setAttribute("aria-pressed", String(chosen));
    other.dot?.classList.toggle("chosen", chosen);
    other.circle?.classList.toggle("chosen", chosen);
  }
  if (!tile) { setText($("selected"), ""); return; }
  const words = [nameOf(tile.layer, tile.head).replace("layer", "Layer")], centre = tile.layer.centres?.[tile.head];
  if (tile.layer.gates) words.push(`gate ${gateOf(tile.layer, tile.head)?.toFixed(2)}`);
  if (centre) words.push(centre[0] === null ? "no centre" : `looks ${offset(...centre)}`);
  setText($("selected"), [...words, tileInWords(tile)].filter(Boolean).join(" · "));
}

function drawTicks(top) {
  const parts = { 0: "0", 0.001: "1/1000", 0.01: "1/100", 0.1: "1/10", 0.5: "half", 1: "head's most" };
  const steps = state.log ? [0.001, 0.01, 0.1, 1] : [0, 0.5, 1];
  const words = steps.map((step) => (top ? percent(step * top) : parts[step]));
  if (state.log) words[0] = `≤ ${words[0]}`;
  if (words.join() === $("ticks").dataset.words) return;
  $("ticks").dataset.words = words.join();
  $("ticks").replaceChildren(...words.map((word) => el("span", { textContent: word })));
}

// -- the whole -------------------------------------------------------------------------------------------------------

async function show(number) {
  shown = number;
  const found = await layersOf(number);
  if (shown !== number) return; // another picture was chosen meanwhile
  const chosen = state.chosen && gateName(state.chosen.layer, state.chosen.head);
  const before = seen;
  [seen, layers] = [header.inspections[number], found];
  $("main").hidden = false;
  buildTiles();
  state.chosen = tiles.find((tile) => gateName(tile.layer, tile.head) === chosen) ?? null;
  if (!state.chosen && state.over === "head" || (!seen.relevance && state.over === "relevance")) state.over = "nothing";
  buildPicture();
  buildControls();
  buildCharts();
  viewBuilt();
  const middle = Math.floor(seen.height / 2) * seen.width + Math.floor(seen.width / 2);
  select(before && before.width === seen.width && before.height === seen.height ? state.query : middle);
  [...$("pictures").children].forEach((button, i) => button.setAttribute("aria-pressed", String(i === number)));
  draw();
}

function buildPage() {
  $("problem").hidden = true;
  document.title = $("title").textContent = header.title;
  paint($("colours"), Float64Array.from({ length: 256 }, (_, i) => i), 0, 255, false);
  listenToPicture();
  $("theme").addEventListener("click", toggleTheme);
  $("reset").addEventListener("click", resetGates);
  document.addEventListener("keydown", onKey);
  document.addEventListener("pointerdown", hideTip);
  addEventListener("resize", () => {
    if (!seen) return;
    for (const tile of tiles) tile.drawn = null;
    buildCharts();
    schedule();
  });
}

// A button that shows a picture, among those to choose from.
function addPicture(number) {
  const { name, picture } = header.inspections[number];
  const button = el("button", { type: "button", title: name }, el("img", { src: picture, alt: "" }),
    el("span", { textContent: name, dir: "auto" }));
  button.addEventListener("click", () => show(number).catch(fail));
  $("pictures").append(button);
}

function fail(error) {
  $("problem").textContent = error.message;
  $("problem").hidden = false;
}

// For tests and the console. row() gives what the page shows, prefix tokens first, or null: layers and heads by their
// numbers in the model, kind "content", "position" or "mix". ready, which is set last,
// resolves when the page can be used.
window.convit = {
  state, select, show, setGates,
  row(layer, head, kind, query) {
    const found = layers.find((one) => one.index === layer);
    return attend(found, found.heads.indexOf(head), kind, query);
  },
};

// What people do: point, click, press keys, move sliders. Each changes the state and has the page drawn anew.

function select(query, held = state.held) {
  const prefix = Math.max(...layers.map((layer) => layer.prefix));
  state.query = Math.max(-prefix, Math.min(seen.width * seen.height - 1, query));
  if (state.query >= 0) state.patch = state.query;
  state.held = held;
  schedule();
}

function choose(tile) {
  state.chosen = tile;
  state.over = tile ? "head" : "nothing";
  schedule();
}

function setGate(tile, value) {
  const name = gateName(tile.layer, tile.head);
  if (value === null) setGates.delete(name);
  else setGates.set(name, value);
  state.kind = "mix"; // the only map that a gate changes
  gatesChanged();
  schedule();
}

function resetGates() {
  setGates.clear();
  gatesChanged();
  schedule();
}

const within = (at, size) => Math.max(0, Math.min(size - 1, at));

function patchAt(element, { clientX, clientY }) {
  const box = element.getBoundingClientRect();
  const column = within(Math.floor(((clientX - box.left) / box.width) * seen.width), seen.width);
  return within(Math.floor(((clientY - box.top) / box.height) * seen.height), seen.height) * seen.width + column;
}

function listenToPicture() {
  const picture = $("picture");
  let before = null;
  picture.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    const patch = patchAt(picture, event);
    before = state.held && patch === state.query ? patch : null; // pressed where it is held: a click lets go
    picture.setPointerCapture(event.pointerId);
    select(patch, true);
  });
  picture.addEventListener("pointermove", (event) => {
    const dragging = picture.hasPointerCapture(event.pointerId);
    if (state.held && !dragging) return;
    const patch = patchAt(picture, event);
    if (patch !== state.query) { before = null; select(patch); }
  });
  picture.addEventListener("pointerup", (event) => {
    if (before !== null && event.pointerType !== "touch") select(before, false);
    before = null;
  });
}

function showTip(tile, event) {
  if (!tile.values) return;
  const patch = patchAt(tile.canvas, event), { layer, head } = tile, key = layer.prefix + patch;
  const lines = [`${nameOf(layer, head)} → ${patchName(patch)}`, `${percent(tile.values[key])} of the attention`];
  if (layer.gates && state.query >= 0) {
    for (const kind of ["content", "position"]) {
      lines.push(`${kind} ${percent(attend(layer, head, kind, state.query)[key])}`);
    }
  }
  const tip = $("tip");
  tip.textContent = lines.join("\n");
  tip.hidden = false;
  const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 6);
  const below = event.clientY + 18, above = event.clientY - tip.offsetHeight - 10;
  tip.style.translate = `${left}px ${below + tip.offsetHeight > innerHeight ? above : below}px`;
  $("key-mark").hidden = false;
  place($("key-mark"), patch);
}

let touched = false; // the last press on a tile was a finger's
let tapped = null; // the patch of the last tap

// A tap chooses the head and tells the weight of the patch under it; the same patch again lets go of both.
function tap(tile, event) {
  const patch = patchAt(tile.canvas, event), again = state.chosen === tile && tapped === patch;
  tapped = patch;
  choose(again ? null : tile);
  if (!again) showTip(tile, event);
}

function hideTip() {
  $("tip").hidden = $("key-mark").hidden = true;
}

function toggleTheme() {
  const style = document.documentElement.style;
  const dark = style.colorScheme ? style.colorScheme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  style.colorScheme = dark ? "light" : "dark";
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function moveQuery([x, y]) {
  const row = within(Math.floor(state.patch / seen.width) + y, seen.height);
  select(row * seen.width + within((state.patch % seen.width) + x, seen.width), true);
}

function moveTile(tile, [x, y]) {
  const own = tiles.filter((other) => other.layer === tile.layer), row = layers.indexOf(tile.layer);
  const next = y ? layers[within(row + y, layers.length)] : tile.layer;
  const head = within(tile.head + x, y ? next.heads.length : own.length);
  tileOf(next, head).map.focus();
}

const KEYS = {
  c: () => { if (layers.some((layer) => layer.gates)) state.kind = "content"; },
  p: () => { if (layers.some((layer) => layer.gates)) state.kind = "position"; },
  m: () => { state.kind = "mix"; },
  l: () => { state.log = !state.log; },
  s: () => { state.common = !state.common; },
  r: resetGates,
  t: toggleTheme,
  0: () => { if (layers.some((layer) => layer.prefix)) select(state.query === -1 ? state.patch : -1, true); },
  Escape: () => { state.held = false; choose(null); hideTip(); },
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const slider = event.target instanceof HTMLInputElement, arrow = ARROWS[event.key];
  if (slider && event.key !== "Escape" && (arrow || /[0-9]/.test(event.key))) return; // these are the slider's own
  const tile = tiles.find((other) => other.map === event.target);
  if (arrow && tile) moveTile(tile, arrow);
  else if (arrow && event.target === $("picture")) moveQuery(arrow);
  else if (Object.hasOwn(KEYS, event.key)) KEYS[event.key]();
  else return;
  event.preventDefault();
  schedule();
}

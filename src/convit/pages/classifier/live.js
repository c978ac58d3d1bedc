// The classifier: what is computed when a photo comes in, a gate moves or a patch is covered, and when.
//
// One pass at a time belongs to the photo that is shown. Passes wait between blocks, so that the page stays usable; a
// pass that was asked for later takes the place of one that is under way.

const GATE_NOTE = "A slider changes the gate of its head, and the answer is computed anew.";
const TOP = 5; // answers that are shown
const WAIT = 30; // ms of work after which others get their turn
const { preprocess, classNames, temperature } = header;
let model, speaker; // the model and what tells relevance; made when the weights are unpacked
let job = 0; // number of the newest pass asked for

const [HIGH, WIDE] = preprocess.image_size;
const photos = header.inspections; // what is shown of each photo, and its bytes, covered patches and logits

let worked = performance.now();
function breathe() {
  if (performance.now() - worked < WAIT) return null;
  return new Promise((done) => {
    const channel = new MessageChannel();
    channel.port1.onmessage = () => { worked = performance.now(); done(); };
    channel.port2.postMessage(0);
  });
}

function probabilities(logits) {
  const scaled = Array.from(logits, (logit) => logit / temperature), most = Math.max(...scaled);
  const parts = scaled.map((value) => Math.exp(value - most)), sum = parts.reduce((a, b) => a + b);
  return parts.map((part) => part / sum);
}

// The best answers, as [class, probability].
function ranked(logits, count = TOP) {
  const found = probabilities(logits).map((probability, index) => [classNames[index], probability]);
  return found.sort((a, b) => b[1] - a[1]).slice(0, count);
}

// Whether a photo is unlike those that the model learned from: its score, the largest logit by the temperature, is below
// the threshold of the chosen rate of false alarms.
const isNone = (logits) => Math.max(...logits) / temperature < (header.rejectBelow[$("reject").value] ?? -Infinity);

const gatesOf = ({ gates }, index) => gates && gates.map((gate, head) => setGates.get(`${index}:${head}`) ?? gate);

// The input of a photo, with a covered patch as grey as the mean of all photos.
function pixelsOf({ bytes, covers }) {
  const pixels = normalisedPixels(bytes, preprocess), side = header.model.patchSize, columns = WIDE / side;
  for (const patch of covers) {
    const top = Math.floor(patch / columns) * side, left = (patch % columns) * side;
    for (let y = top; y < top + side; y++) pixels.fill(0, 3 * (y * WIDE + left), 3 * (y * WIDE + left + side));
  }
  return pixels;
}

// A pass over a photo, from the first block whose gates are others than in `before`; null if `stays()` no longer holds.
async function passOver(photo, gates, stays, before = null) {
  const begun = performance.now(), pass = before ?? { ...model.begin(pixelsOf(photo), HIGH, WIDE), gates: [] };
  const same = (index) => pass.gates[index] !== undefined && String(pass.gates[index]) === String(gates[index]);
  let first = 0;
  while (first < model.blocks.length && same(first)) first++;
  for (let index = first; index < model.blocks.length; index++) {
    await breathe();
    if (!stays()) return null;
    pass.gates.length = index; // what follows belongs to other gates until it is computed
    model.step(pass, index, gates[index]);
    pass.gates[index] = gates[index];
  }
  if (first < model.blocks.length) pass.time = performance.now() - begun;
  return pass;
}

// The logits of a photo with gates that need not be those of the page.
async function logitsWith(photo, gates, stays = () => true) {
  return (await passOver(photo, gates, stays))?.logits ?? null;
}

const trainedGates = () => model.blocks.map((block) => block.gates);

// The layers of a photo as the view takes them; they read the photo's own pass.
async function layersOf(number) {
  while (shown === number && !(await update(number))); // a gate that moves meanwhile begins it again
  return photos[number]?.layers;
}

function makeLayers(photo) {
  const [height, width] = photo.pass.grid;
  return model.blocks.map(({ index, kind, gates, posWeight, positional }) => ({
    index, kind, gates, posWeight, positional, width, height,
    heads: Array.from({ length: header.model.heads }, (_, head) => head),
    prefix: photo.pass.prefixes[index],
    tokens: width * height + photo.pass.prefixes[index],
    centres: posWeight && posWeight.map(([x, y, squared]) =>
      (squared < 0 ? [-x / (2 * squared), -y / (2 * squared)] : [null, null])),
    spans: posWeight && posWeight.map(([, , squared]) => (squared < 0 ? Math.sqrt(-1 / (2 * squared)) : null)),
    addContent: (head, row, scale, out) => model.addContent(photo.pass, index, head, row, scale, out),
  }));
}

// Computes the photo's answer with the page's gates and covered patches. Its pass is kept while it is shown.
async function update(number) {
  const own = ++job, photo = photos[number];
  const gates = model.blocks.map(gatesOf);
  const pass = await passOver(photo, gates, () => own === job, photo.stale ? null : photo.pass);
  if (!pass) return false;
  for (const other of photos) if (other !== photo) other.pass = other.layers = null;
  photo.pass = pass;
  photo.stale = false;
  photo.layers ??= makeLayers(photo);
  photo.predictions = ranked(pass.logits);
  return true;
}

// What a moved gate or a covered patch changes of the page.
async function recompute() {
  if (shown === null || !photos[shown]) return;
  const number = shown;
  if (!(await update(number)) || shown !== number) return;
  seen = photos[number];
  buildPredictions();
  sayAnswer();
  draw();
  rest();
}

function gatesChanged() {
  recompute().catch(fail);
}

// -- words about the answer ------------------------------------------------------------------------------------------

function sayAnswer() {
  const photo = photos[shown], { time } = photo.pass, [name, probability] = photo.predictions[0], changes = [];
  if (setGates.size) changes.push(`${setGates.size} ${setGates.size === 1 ? "gate" : "gates"} moved`);
  if (photo.covers.size) changes.push(`${photo.covers.size} ${photo.covers.size === 1 ? "patch" : "patches"} covered`);
  const note = $("answer-note");
  note.hidden = !changes.length;
  const [before, was] = ranked(photo.logits)[0];
  note.replaceChildren(`${changes.join(", ")}; before: `, el("bdi", { textContent: before }), ` ${percent(was)}`);
  $("status").replaceChildren(isNone(photo.pass.logits) ? "none of these; nearest: " : "",
    el("bdi", { textContent: name }), ` ${percent(probability)}`, `, computed in ${time < 10 ? time.toFixed(1) : Math.round(time)} ms`);
}

// Answers with all gates at 1 and at 0, for the table; when nothing else is to be done, as each takes a whole pass.
let idle = 0;
function rest() {
  clearTimeout(idle);
  idle = setTimeout(() => explain().then(compareParts).catch(fail), 400);
}

// The patches that speak for the first answer, with the gates and covers of the page.
async function explain() {
  const photo = photos[shown], own = job, { pass } = photo ?? {};
  if (!pass || photo.stale) return;
  const state = speaker.begin(pass, pass.logits.indexOf(Math.max(...pass.logits)));
  for (let index = model.blocks.length - 1; index >= 0; index--) {
    await breathe();
    if (own !== job) return;
    speaker.step(state, pass, index, pass.gates[index]);
  }
  photo.relevance = speaker.end(state);
  schedule();
}

async function compareParts() {
  const number = shown, photo = photos[number], own = job, stays = () => own === job && shown === number;
  if (!photo || photo.masking.length) return;
  const gated = model.blocks.filter((block) => block.gates).length, first = ranked(photo.logits, classNames.length);
  const rows = [{ off: "nothing", layers: 0, best: first[0], before: first[0] }];
  for (const [off, value] of gated ? [["content", 1], ["position", 0]] : []) {
    const gates = model.blocks.map((block) => block.gates && block.gates.map(() => value));
    const logits = await logitsWith(photo, gates, stays);
    if (!logits) return;
    const found = ranked(logits, classNames.length);
    rows.push({ off, layers: gated, best: found[0], before: found.find(([name]) => name === first[0][0]) });
  }
  photo.masking = rows;
  buildCharts();
  for (const tile of tiles) tile.drawn = null;
  schedule();
}

// -- controls that only a page with a model has ----------------------------------------------------------------------

function setAllGates(value, only = null) {
  for (const layer of layers) {
    if (!layer.gates || (only && layer !== only)) continue;
    layer.gates.forEach((_, head) => {
      if (value === null) setGates.delete(gateName(layer, head));
      else setGates.set(gateName(layer, head), value);
    });
  }
  gatesChanged();
  schedule();
}

function allGates() {
  const values = layers.filter((layer) => layer.gates).flatMap((layer) => layer.gates.map((_, head) => gateOf(layer, head)));
  if (!setGates.size) return "trained";
  return values.every((value) => value === 1) ? 1 : values.every((value) => value === 0) ? 0 : "some";
}

// Below each layer's name a slider for all its gates.
function buildLayerGates() {
  layers.forEach((layer, i) => {
    if (!layer.gates) return;
    const slider = el("input", { type: "range", min: 0, max: 1, step: 0.01, title: "All gates of this layer" });
    slider.setAttribute("aria-label", `all gates of layer ${layer.index + 1}`);
    slider.addEventListener("input", () => setAllGates(Number(slider.value), layer));
    slider.addEventListener("dblclick", () => setAllGates(null, layer));
    $("layers").children[i].querySelector("h3").append(el("label", { className: "layer-gate" }, "all gates", slider));
    layer.slider = slider;
  });
}

// The rates of false alarms that the validation images of the run can tell; without any there is no "none of these".
function buildRejecting() {
  const rates = ["0.01", "0.05", "0.10", "0.20"].filter((rate) => rate in header.rejectBelow);
  $("reject").append(el("option", { value: "", textContent: "never" }), ...rates.map((rate) =>
    el("option", { value: rate, textContent: `with ${Math.round(100 * rate)}% false alarms` })));
  if (rates.includes("0.05")) $("reject").value = "0.05";
  $("rejecting").hidden = !rates.length;
  $("reject").addEventListener("change", () => {
    photos.forEach((_, number) => sayBelow(number));
    if (photos[shown]?.pass) sayAnswer();
  });
}

function cover(patch) {
  const { covers } = photos[shown];
  if (!covers.delete(patch)) covers.add(patch);
  coversChanged();
}

KEYS.x = () => { if (photos[shown]) cover(state.patch); };

function uncover() {
  photos[shown].covers.clear();
  coversChanged();
}

function coversChanged() {
  photos[shown].stale = true; // its pass is one of other pixels, until it is computed anew
  drawCovers();
  recompute().catch(fail);
}

// Grey over the covered patches, on the picture that is shown.
function drawCovers() {
  const photo = photos[shown], { width, height } = photo, marks = [];
  for (const patch of photo.covers) {
    const mark = el("i", { className: "cover" });
    mark.style.translate = `${100 * (patch % width)}% ${100 * Math.floor(patch / width)}%`;
    marks.push(mark);
  }
  for (const old of $("picture").querySelectorAll(".cover")) old.remove();
  $("image").after(...marks);
}

function viewBuilt() {
  const gated = layers.some((layer) => layer.gates);
  buildLayerGates();
  choice("all-gates", gated ? [["trained", "as trained", "All gates as the model learned them (r)"],
    [1, "position only", "All gates at 1: every head looks at a fixed spot, as a convolution"],
    [0, "content only", "All gates at 0: plain self-attention"]] : [],
  allGates, (value) => setAllGates(value === "trained" ? null : value));
  choice("covering", [["cover", "cover this patch", "Cover the patch, or uncover it, and see the answer change (x)"],
    ["uncover", "uncover all", "Take all covers off"]],
  () => (photos[shown].covers.has(state.query) ? "cover" : "none"),
  (what) => (what === "cover" ? cover(state.patch) : uncover()));
  $("reset").hidden = true; // "as trained" does it
  drawCovers();
  sayAnswer();
  rest();
}

// A picture drawn by hand: strokes of a pointer on a square, light on dark as most sets of written characters are.

const PEN = 0.11, HALO = 0.08; // width of a stroke and of its soft edge, as parts of the square
const strokes = []; // each a list of [x, y], as parts of the square
const drawing = new Map(); // pointer -> the stroke that it draws
let drawn = 0; // pictures taken so far

function redraw() {
  const pad = $("pad"), context = pad.getContext("2d"), side = pad.width;
  const [paper, ink] = $("light").checked ? ["#000", "#fff"] : ["#fff", "#000"];
  context.fillStyle = paper;
  context.shadowBlur = 0;
  context.fillRect(0, 0, side, side);
  context.strokeStyle = context.shadowColor = ink;
  context.shadowBlur = HALO * side;
  context.lineWidth = PEN * side;
  context.lineCap = context.lineJoin = "round";
  for (const [first, ...others] of strokes) {
    context.beginPath();
    context.moveTo(first[0] * side, first[1] * side);
    for (const [x, y] of others.length ? others : [first]) context.lineTo(x * side, y * side);
    context.stroke();
  }
  $("take").disabled = $("wipe").disabled = !strokes.length;
}

function placeOf(event) {
  const { left, top, width, height } = $("pad").getBoundingClientRect();
  return [(event.clientX - left) / width, (event.clientY - top) / height];
}

function beginStroke(event) {
  if (event.button) return;
  event.preventDefault(); // no text is selected meanwhile
  $("pad").setPointerCapture(event.pointerId);
  const stroke = [placeOf(event)];
  drawing.set(event.pointerId, stroke);
  strokes.push(stroke);
  redraw();
}

function goOn(event) {
  const stroke = drawing.get(event.pointerId);
  if (!stroke) return;
  const all = event.getCoalescedEvents?.() ?? [];
  stroke.push(...(all.length ? all : [event]).map(placeOf));
  redraw();
}

function wipe() {
  drawing.clear();
  strokes.length = 0;
  redraw();
}

function openPad() {
  $("drawing").hidden = false;
  wipe();
  $("pad").scrollIntoView({ block: "nearest" });
}

function closePad() {
  $("drawing").hidden = true;
  $("draw").focus();
}

function takeDrawing() {
  const pad = $("pad"), [canvas, context] = canvasOf(pad.width, pad.height);
  context.drawImage(pad, 0, 0);
  take([[canvas, `drawing ${++drawn}`]]);
  wipe();
}

function listenForStrokes() {
  $("draw").addEventListener("click", openPad);
  $("pad").addEventListener("pointerdown", beginStroke);
  $("pad").addEventListener("pointermove", goOn);
  $("pad").addEventListener("lostpointercapture", (event) => drawing.delete(event.pointerId));
  $("light").addEventListener("change", redraw);
  $("take").addEventListener("click", takeDrawing);
  $("wipe").addEventListener("click", wipe);
  $("leave").addEventListener("click", closePad);
}

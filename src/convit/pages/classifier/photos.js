// Photos come in: dropped, pasted, chosen, from the camera. What cannot be read is told in one line.

const MOST_PIXELS = 2 ** 27; // 134 megapixels: more than a browser decodes
const LETTERS = 80; // of a file's name in a message
const queue = []; // files not yet read
let reading = false;

const shortened = (name) => (name.length > LETTERS ? `${name.slice(0, LETTERS - 1)}…` : name);

function problem(name, reason) {
  $("problems").append(el("li", {}, el("bdi", { textContent: shortened(name) }), `: ${reason}`));
}

// What kind of file it is, by its first bytes; browsers say only that they cannot.
async function kindOf(file) {
  const head = String.fromCharCode(...new Uint8Array(await file.slice(0, 16).arrayBuffer()));
  if (!head) return "empty";
  if (head.slice(4, 8) === "ftyp") return /^(heic|heix|hevc|heim|heis|mif1|msf1)/.test(head.slice(8)) ? "HEIC" : "other";
  if (head.startsWith("II*\0") || head.startsWith("MM\0*")) return "TIFF";
  return "other";
}

// A bitmap upright as its EXIF says, in its own colour values: Python reads no colour profile either.
async function bitmapOf(file) {
  const as = { imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none" };
  try {
    return await createImageBitmap(file, as);
  } catch {
    const kind = await kindOf(file).catch(() => "other");
    if (kind === "empty") throw new Error("is empty");
    if (kind !== "other") throw new Error(`is a ${kind} file, which this browser cannot read; expected JPEG, PNG or WebP`);
    throw new Error("is no photo that this browser can read; expected JPEG, PNG or WebP");
  }
}

function canvasOf(width, height) {
  const canvas = el("canvas", { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  context.fillStyle = "#fff"; // transparent parts are white
  context.imageSmoothingQuality = "high";
  return [canvas, context];
}

// Rows of a bitmap in RGBA, so many at a time: see covered().
function rowsOf(bitmap) {
  return (top, count) => {
    const [, context] = canvasOf(bitmap.width, count);
    context.fillRect(0, 0, bitmap.width, count);
    context.drawImage(bitmap, 0, top, bitmap.width, count, 0, 0, bitmap.width, count);
    return context.getImageData(0, 0, bitmap.width, count).data;
  };
}

// The part of the photo that the model sees, large enough to look at.
function pictureOf(bitmap) {
  const { size, left, top } = coveringOf(bitmap.width, bitmap.height, preprocess);
  const across = bitmap.width / size[0], down = bitmap.height / size[1];
  const scale = Math.max(1, Math.min(480 / Math.max(WIDE, HIGH), 1 / across));
  const [canvas, context] = canvasOf(Math.round(WIDE * scale), Math.round(HIGH * scale));
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, left * across, top * down, WIDE * across, HIGH * down, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/jpeg", 0.9);
}

// A canvas tells its colours a little wrong where a browser hides who its user is; the answers would be wrong too.
function canvasIsTrue() {
  const [, context] = canvasOf(16, 16);
  for (let i = 0; i < 256; i++) {
    context.fillStyle = `rgb(${i} ${255 - i} ${(7 * i) % 256})`;
    context.fillRect(i % 16, i >> 4, 1, 1);
  }
  return context.getImageData(0, 0, 16, 16).data.every((value, i) =>
    value === [i >> 2, 255 - (i >> 2), (7 * (i >> 2)) % 256, 255][i % 4]);
}

async function read(file, name) {
  const bitmap = file instanceof HTMLCanvasElement ? file : await bitmapOf(file);
  try {
    if (bitmap.width * bitmap.height > MOST_PIXELS) {
      throw new Error(`has ${Math.round(bitmap.width * bitmap.height / 1e6)} megapixels, expected at most 134`);
    }
    const bytes = covered({ width: bitmap.width, height: bitmap.height, rows: rowsOf(bitmap) }, preprocess);
    const side = header.model.patchSize;
    return {
      name, bytes, picture: pictureOf(bitmap), label: null, covers: new Set(), relevance: [], masking: [],
      width: WIDE / side, height: HIGH / side, patchSize: Math.min(side, 8 * Math.min(1, WIDE / 200)),
    };
  } finally {
    bitmap.close?.();
  }
}

// The answer under the small picture of a photo, that of the model as trained.
function sayBelow(number) {
  const { logits } = photos[number], [[answer, probability]] = ranked(logits);
  $("pictures").children[number].lastChild.textContent = isNone(logits) ? "none of these" : `${answer} ${percent(probability)}`;
}

// Takes files, or [canvas, name] of the camera or a drawing; the first of them is shown as soon as it is answered.
async function take(files) {
  queue.push(...files);
  if (reading) return;
  reading = true;
  let count = 0, first = true;
  while (queue.length) {
    const next = queue.shift(), [file, name] = Array.isArray(next) ? next : [next, next.name || "pasted picture"];
    count++;
    try {
      await new Promise((done) => setTimeout(done)); // what was drawn is seen
      if (queue.length) $("status").textContent = `Reading photo ${count} of ${count + queue.length} …`;
      const photo = await read(file, name);
      photo.pass = await passOver(photo, trainedGates(), () => true);
      photo.logits = photo.pass.logits;
      photo.predictions = ranked(photo.logits);
      if (!first) photo.pass = null;
      photos.push(photo);
      addPicture(photos.length - 1);
      $("pictures").lastChild.append(el("span", { dir: "auto" }));
      sayBelow(photos.length - 1);
      document.body.classList.add("with-photos");
      $("answers").hidden = false;
      if (first) await show(photos.length - 1);
      first = false;
    } catch (error) {
      problem(name, error.message);
    }
  }
  reading = false;
  if (photos[shown]?.predictions && seen) sayAnswer();
}

// -- out -------------------------------------------------------------------------------------------------------------

// A field of CSV; what a spreadsheet would take for a formula is kept from it.
function field(value) {
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

// As `convit predict --csv` writes it.
function csv() {
  const asked = $("reject").value !== "", lines = [["image", "rank", "class", "probability", ...(asked ? ["none of these"] : [])]];
  for (const { name, logits } of photos) {
    const none = asked ? [isNone(logits) ? "yes" : "no"] : [];
    ranked(logits).forEach(([answer, probability], i) => lines.push([name, i + 1, answer, probability.toFixed(6), ...none]));
  }
  return lines.map((line) => `${line.map(field).join(",")}\r\n`).join("");
}

function saveCsv() {
  const url = URL.createObjectURL(new Blob(["\ufeff", csv()], { type: "text/csv" }));
  el("a", { href: url, download: "answers.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

function clearAll() {
  job++;
  photos.length = queue.length = 0;
  setGates.clear();
  [seen, shown, tiles] = [undefined, null, []];
  clearTimeout(idle);
  $("main").hidden = $("answers").hidden = true;
  $("pictures").replaceChildren();
  $("problems").replaceChildren();
  $("status").textContent = "";
  document.body.classList.remove("with-photos");
  $("choose").focus();
}

// -- in --------------------------------------------------------------------------------------------------------------

let stream = null;

async function openCamera() {
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    problem("camera", error.name === "NotAllowedError" ? "this page may not use it" : "there is none to use");
    return;
  }
  $("video").srcObject = stream;
  await $("video").play();
  $("live").hidden = false;
  $("snap").focus();
}

function closeCamera() {
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = $("video").srcObject = null;
  $("live").hidden = true;
  $("camera").focus();
}

function snap() {
  const video = $("video"), [canvas, context] = canvasOf(video.videoWidth, video.videoHeight);
  context.drawImage(video, 0, 0);
  take([[canvas, `camera ${new Date().toLocaleTimeString()}`]]);
}

function listenForPhotos() {
  const chosen = (list) => { if (list?.length) take([...list]); };
  $("choose").addEventListener("click", () => $("files").click());
  $("files").addEventListener("change", () => { chosen($("files").files); $("files").value = ""; });
  document.addEventListener("paste", (event) => chosen(event.clipboardData?.files));
  document.addEventListener("dragover", (event) => { event.preventDefault(); $("input").classList.add("over"); });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("input").classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    $("input").classList.remove("over");
    chosen(event.dataTransfer?.files);
  });
  $("csv").addEventListener("click", saveCsv);
  $("clear").addEventListener("click", clearAll);
  $("camera").hidden = !navigator.mediaDevices?.getUserMedia;
  $("camera").addEventListener("click", openCamera);
  $("close").addEventListener("click", closeCamera);
  $("snap").addEventListener("click", snap);
  listenForStrokes();
}

async function start() {
  buildPage();
  const names = classNames.slice(0, 6), more = classNames.length - names.length;
  $("about").replaceChildren("Tells apart: ", ...names.flatMap((name, i) => [i ? ", " : "", el("bdi", { textContent: shortened(name) })]),
    more > 0 ? ` and ${more} more` : "", ".");
  $("precision").textContent = "Everything is computed here, with the weights in this file. A plain layer's map takes the "
    + "place of content. Lengths are in patches; a span under half a patch is one patch. x covers the patch.";
  if (!canvasIsTrue()) {
    throw new Error("This browser changes the colours that a page reads, so answers would be wrong; allow this page to "
      + "read canvas data, or use another browser.");
  }
  const content = await unpacked($("weights").textContent), facts = new TextEncoder().encode($("data").textContent);
  if (new DataView(content.buffer).getUint32(0, true) !== crc32(facts)) {
    throw new Error("This file is damaged, or was changed. Take a whole copy of it.");
  }
  const weights = tensorsOf(header.tensors, content.subarray(4));
  model = makeModel(header.model, weights);
  speaker = makeRelevance(header.model, weights, model);
  $("weights").remove();
  buildRejecting();
  listenForPhotos();
}

Object.assign(window.convit, { take, photos, csv, recompute, ranked, logitsWith });
window.convit.ready = start().catch(fail);

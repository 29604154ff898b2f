// Scrolls through the slices of a report. Every layer is a list of grey JPEG pictures of codes; `values` says what each
// code means. See deft_ct/report/viewer.py, which writes the data that this script reads.
(() => {
"use strict";
const data = JSON.parse(document.getElementById("viewer-data").textContent);
const root = document.getElementById("viewer");
const part = (name) => root.querySelector(`[data-part="${name}"]`);
const canvas = root.querySelector("canvas.slice");
const [Z, H, W] = data.shape;

// A layer that is stored, or the image that was subtracted from the first layer to give a stored difference.
const layers = [];
for (const stored of data.layers) {
  stored.h = Math.ceil(H / stored.shrink);
  stored.w = Math.ceil(W / stored.shrink);
  stored.codes = new Uint8Array(Z * stored.h * stored.w);
  stored.loaded = new Array(Z).fill(null); // promise of a slice
  stored.ready = new Uint8Array(Z);
  layers.push({ key: stored.key, title: stored.title, kind: stored.kind, unit: stored.unit, of: [stored] });
}
for (const stored of data.layers) {
  if (!stored.subtracted) continue;
  const first = data.layers[0];
  if (first.shrink !== stored.shrink) continue;
  layers.push({ key: "image-of-" + stored.key, title: stored.subtracted, kind: "image", unit: stored.unit,
    of: [first, stored] });
}
const ORDER = { image: 0, map: 1, difference: 2 };
layers.sort((a, b) => ORDER[a.kind] - ORDER[b.kind]);
const planes = data.stacked ? ["axial", "coronal", "sagittal"] : ["axial"];
const state = { layer: 0, last: Math.min(1, layers.length - 1), plane: "axial", window: 0,
  level: 0, width: 1, limit: 1, at: { axial: Z >> 1, coronal: H >> 1, sagittal: W >> 1 }, point: null };
const count = () => ({ axial: Z, coronal: H, sagittal: W })[state.plane];
const clamp = (v, low, high) => Math.min(Math.max(v, low), high);
const text = (value) => (Math.abs(value) >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3))));

// ---- pictures into codes -------------------------------------------------------------------------------------------
function load(stored, z) {
  if (stored.loaded[z]) return stored.loaded[z];
  const picture = new Image();
  picture.src = "data:image/jpeg;base64," + stored.slices[z];
  stored.loaded[z] = picture.decode().then(() => {
    const { h, w } = stored;
    const board = document.createElement("canvas");
    board.width = w; board.height = h;
    const context = board.getContext("2d", { willReadFrequently: true });
    context.drawImage(picture, 0, 0);
    const pixels = context.getImageData(0, 0, w, h).data;
    const start = z * h * w;
    for (let n = 0; n < h * w; n++) stored.codes[start + n] = pixels[4 * n];
    stored.ready[z] = 1;
  });
  return stored.loaded[z];
}
const needed = () => layers[state.layer].of.flatMap((stored) =>
  state.plane === "axial" ? [[stored, state.at.axial]] : stored.slices.map((_, z) => [stored, z]));
const missing = () => needed().filter(([stored, z]) => !stored.ready[z]);

// ---- drawing -------------------------------------------------------------------------------------------------------
function limits() {
  const { kind } = layers[state.layer];
  if (kind === "image") return [state.level - state.width / 2, state.level + state.width / 2];
  return kind === "map" ? [0, state.limit] : [-state.limit, state.limit];
}
function colorOf(value, low, high, table) {
  const rgb = table[clamp(Math.floor(256 * (value - low) / (high - low)), 0, 255)];
  return 0xff000000 | (rgb & 0xff) << 16 | rgb & 0xff00 | rgb >> 16; // the memory of a canvas is ABGR
}
function valueAt(layer, z, y, x) {
  let value = 0;
  layer.of.forEach((stored, n) => {
    const { shrink, h, w } = stored;
    const code = stored.codes[(z * h + Math.floor(y / shrink)) * w + Math.floor(x / shrink)];
    value += n ? -stored.values[code] : stored.values[code];
  });
  return value;
}
// Size of the plane in stored pixels, and where a pixel of it comes from. The head is at the top.
function grid() {
  const { h, w } = layers[state.layer].of[0];
  return { axial: [h, w], coronal: [Z, w], sagittal: [Z, h] }[state.plane];
}
function raster() {
  const layer = layers[state.layer], [low, high] = limits(), table = data.colors[layer.kind];
  const [first, second] = layer.of, { h, w, shrink } = first, [rows, columns] = grid();
  const at = Math.floor((state.plane === "axial" ? 0 : state.at[state.plane]) / shrink);
  const colors = new Uint32Array(second ? 65536 : 256);
  for (let n = 0; n < colors.length; n++) {
    const value = second ? first.values[n >> 8] - second.values[n & 255] : first.values[n];
    colors[n] = colorOf(value, low, high, table);
  }
  const image = new ImageData(columns, rows), out = new Uint32Array(image.data.buffer);
  for (let r = 0; r < rows; r++) {
    const z = state.plane === "axial" ? state.at.axial : Z - 1 - r;
    const start = state.plane === "axial" ? (z * h + r) * w : state.plane === "coronal" ? (z * h + at) * w : z * h * w + at;
    const step = state.plane === "sagittal" ? w : 1;
    for (let c = 0; c < columns; c++) {
      const n = start + c * step;
      out[r * columns + c] = colors[second ? first.codes[n] << 8 | second.codes[n] : first.codes[n]];
    }
  }
  return image;
}
// Millimetres (or elements) of the plane.
function extent() {
  const [dz, dy, dx] = data.spacing;
  return { axial: [H * dy, W * dx], coronal: [Z * dz, W * dx], sagittal: [Z * dz, H * dy] }[state.plane];
}
function box() {
  const [tall, wide] = extent(), scale = Math.min(canvas.width / wide, canvas.height / tall);
  const width = wide * scale, height = tall * scale;
  return { left: (canvas.width - width) / 2, top: (canvas.height - height) / 2, width, height };
}
let scheduled = false;
function draw() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => { scheduled = false; paint(); });
}
function paint() {
  const ratio = window.devicePixelRatio || 1, [tall, wide] = extent();
  canvas.style.height = `${Math.round(canvas.clientWidth * tall / wide)}px`; // the style sheet bounds it
  const size = [Math.max(1, Math.round(canvas.clientWidth * ratio)), Math.max(1, Math.round(canvas.clientHeight * ratio))];
  if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
  describe();
  const left = missing();
  if (left.length) {
    Promise.all(left.slice(0, 24).map(([stored, z]) => load(stored, z))).then(draw);
    if (left.length > 24 || state.plane === "axial") return; // the picture before it stays for a moment
  }
  const image = raster(), board = document.createElement("canvas");
  board.width = image.width; board.height = image.height;
  board.getContext("2d").putImageData(image, 0, 0);
  const context = canvas.getContext("2d"), where = box();
  context.fillStyle = "#000";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingEnabled = where.width < 3 * image.width; // far enlarged pixels stay pixels
  context.drawImage(board, where.left, where.top, where.width, where.height);
  cross(context, where);
  root.dataset.drawn = `${layers[state.layer].key} ${state.plane} ${state.at[state.plane] + 1}`;
}
function cross(context, where) {
  const seen = seenPoint();
  if (!seen) return;
  const [row, column, rows, columns] = seen;
  const x = where.left + (column + 0.5) / columns * where.width, y = where.top + (row + 0.5) / rows * where.height;
  context.strokeStyle = "#ffd24d";
  context.lineWidth = 1.5 * (window.devicePixelRatio || 1);
  context.beginPath();
  for (const [a, b] of [[-14, -5], [5, 14]]) {
    context.moveTo(x + a, y); context.lineTo(x + b, y);
    context.moveTo(x, y + a); context.lineTo(x, y + b);
  }
  context.stroke();
}
// The point in full pixels of the plane.
function seenPoint() {
  if (!state.point) return null;
  const { z, y, x } = state.point;
  return { axial: [y, x, H, W], coronal: [Z - 1 - z, x, Z, W], sagittal: [Z - 1 - z, y, Z, H] }[state.plane];
}

// ---- words ---------------------------------------------------------------------------------------------------------
const OPPOSITE = { L: "R", R: "L", A: "P", P: "A", H: "F", F: "H" };
function describe() {
  const layer = layers[state.layer], n = state.at[state.plane], [low, high] = limits();
  const z = state.at.axial;
  const name = state.plane === "axial" && data.names.length ? data.names[z] : `${data.stacked || Z > 1 ? state.plane : "slice"} ${n + 1} of ${count()}`;
  part("corner").textContent = `${layer.title}\n${name}`;
  const slider = part("slider");
  slider.max = count(); slider.value = n + 1;
  slider.setAttribute("aria-valuetext", name);
  canvas.setAttribute("aria-label", `${layer.title}, ${name}`);
  part("low").textContent = text(low);
  part("high").textContent = `${text(high)} ${layer.unit}`;
  const isImage = layer.kind === "image";
  part("level").value = isImage ? Number(state.level.toPrecision(4)) : 0;
  part("level").disabled = !isImage;
  part("width").value = Number((high - low).toPrecision(4));
  const bar = part("bar").getContext("2d"), strip = bar.createImageData(256, 1), table = data.colors[layer.kind];
  for (let c = 0; c < 256; c++) strip.data.set([table[c] >> 16, table[c] >> 8 & 255, table[c] & 255, 255], 4 * c);
  bar.putImageData(strip, 0, 0);
  letters();
  metrics(z);
  const averaged = layer.of[0].shrink > 1 ? ` Averages of ${layer.of[0].shrink} x ${layer.of[0].shrink} pixels.` : "";
  const within = Math.hypot(...layer.of.map((stored) => stored.within));
  part("exact").textContent = `Compressed pictures: 95 % of the pixels are within ${text(within)} ${layer.unit} of the result.`
    + `${averaged} The DICOM and NIfTI files beside this page hold the exact values.`;
  say();
}
function letters() {
  const [column, row, slice] = data.directions;
  const [right, bottom, top] = !column ? [] : { axial: [column, row, OPPOSITE[row]], coronal: [column, OPPOSITE[slice], slice],
    sagittal: [row, OPPOSITE[slice], slice] }[state.plane];
  part("right").textContent = right || ""; part("left").textContent = OPPOSITE[right] || "";
  part("bottom").textContent = bottom || ""; part("top").textContent = top || "";
}
function metrics(z) {
  const table = part("metrics"), methods = Object.keys(data.metrics);
  table.hidden = !methods.length || state.plane !== "axial";
  if (table.hidden) return;
  const row = (cells, tag) => {
    const line = document.createElement("tr");
    for (const cell of cells) { const box = document.createElement(tag); box.textContent = cell; line.append(box); }
    return line;
  };
  const headings = Object.keys(data.metrics[methods[0]]);
  table.replaceChildren(row([`slice ${z + 1}`, ...headings], "th"), ...methods.map((method) =>
    row([method, ...headings.map((key) => data.metrics[method][key][z])], "td")));
}
function say() {
  const layer = layers[state.layer], worst = data.worst;
  const parts = [];
  if (state.point && layer.of.every((stored) => stored.ready[state.point.z])) {
    const { z, y, x } = state.point;
    parts.push(`slice ${z + 1}, row ${y + 1}, column ${x + 1}: ${text(valueAt(layer, z, y, x))} ${layer.unit}`);
  }
  if (worst && state.plane === "axial" && state.at.axial === worst[0]) parts.push(`this is the worst slice: ${worst[1]}`);
  const left = missing().length;
  if (left && state.plane !== "axial") parts.push(`${left} slices are still being read`);
  const words = parts.join("; ");
  if (part("say").textContent !== words) part("say").textContent = words;
}

// ---- what is chosen ------------------------------------------------------------------------------------------------
function choose(list, options, chosen, set) {
  const group = root.querySelector(`[data-list="${list}"]`);
  options.forEach((name, n) => {
    const label = document.createElement("label"), input = document.createElement("input"), span = document.createElement("span");
    label.className = "choice";
    Object.assign(input, { type: "radio", name: `viewer-${list}`, value: String(n), checked: n === chosen });
    span.textContent = name;
    input.addEventListener("change", () => set(n));
    label.append(input, span);
    group.append(label);
  });
  group.hidden = options.length < 2;
}
const check = (list, n) => {
  const input = root.querySelector(`[data-list="${list}"] input[value="${n}"]`);
  if (input) input.checked = true;
  else for (const one of root.querySelectorAll(`[data-list="${list}"] input`)) one.checked = false;
};
function showLayer(n) {
  if (n === state.layer || !layers[n]) return;
  state.last = state.layer;
  state.layer = n;
  check("layer", n);
  draw();
}
function showPlane(n) {
  if (!planes[n]) return;
  state.plane = planes[n];
  check("plane", n);
  draw();
}
function showWindow(n) {
  const window = data.windows[n];
  Object.assign(state, { window: n, level: window.level, width: window.width, limit: window.limit });
  check("window", n);
  draw();
}
function ownWindow(level, width, limit) {
  Object.assign(state, { level, width: Math.max(width, 1e-9), limit: Math.max(limit, 1e-9) });
  check("window", -1);
  draw();
}
function go(n) {
  state.at[state.plane] = clamp(Math.round(n), 0, count() - 1);
  if (state.point && state.plane === "axial") state.point.z = state.at.axial;
  draw();
}
const step = (by) => go(state.at[state.plane] + by);
function worst() {
  if (!data.worst) return;
  showPlane(0);
  go(data.worst[0]);
}
// In coronal and sagittal planes the slices of the point follow the cross.
function setPoint(z, y, x) {
  state.point = { z: clamp(z, 0, Z - 1), y: clamp(y, 0, H - 1), x: clamp(x, 0, W - 1) };
  if (state.plane !== "axial") state.at.axial = state.point.z;
  if (state.plane !== "coronal") state.at.coronal = state.point.y;
  if (state.plane !== "sagittal") state.at.sagittal = state.point.x;
  draw();
}
function movePoint(down, right) {
  const { axial: z, coronal: y, sagittal: x } = state.at, point = state.point || { z, y, x };
  if (state.plane === "axial") setPoint(z, point.y + down, point.x + right);
  else if (state.plane === "coronal") setPoint(point.z - down, y, point.x + right);
  else setPoint(point.z - down, point.y + right, x);
}
function pointAt(event) {
  const frame = canvas.getBoundingClientRect(), where = box(), ratio = canvas.width / frame.width;
  const u = ((event.clientX - frame.left) * ratio - where.left) / where.width;
  const v = ((event.clientY - frame.top) * ratio - where.top) / where.height;
  if (u < 0 || v < 0 || u >= 1 || v >= 1) return;
  const { axial, coronal, sagittal } = state.at, far = Z - 1 - Math.floor(v * Z);
  if (state.plane === "axial") setPoint(axial, Math.floor(v * H), Math.floor(u * W));
  else if (state.plane === "coronal") setPoint(far, coronal, Math.floor(u * W));
  else setPoint(far, Math.floor(u * H), sagittal);
}

// ---- keys, wheel, mouse, touch -------------------------------------------------------------------------------------
const KEYS = {
  ArrowUp: () => step(1), ArrowRight: () => step(1), ArrowDown: () => step(-1), ArrowLeft: () => step(-1),
  PageUp: () => step(10), PageDown: () => step(-10), Home: () => go(0), End: () => go(count() - 1),
  a: () => showPlane(0), c: () => showPlane(1), s: () => showPlane(2), x: worst,
  w: () => showWindow((state.window + 1) % data.windows.length), " ": () => showLayer(state.last),
};
const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
root.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const own = event.target.closest("input, button");
  if (own && (own.type === "number" || event.key.length !== 1 || event.key === " ")) return; // they have keys of their own
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.shiftKey && MOVES[key]) movePoint(...MOVES[key]);
  else if (/^[1-9]$/.test(key)) showLayer(Number(key) - 1);
  else if (KEYS[key]) KEYS[key]();
  else return;
  event.preventDefault();
});
let turned = 0;
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  turned += event.deltaMode ? 40 * event.deltaY : event.deltaY;
  const steps = Math.trunc(turned / 40);
  if (steps) { turned -= 40 * steps; step(-clamp(steps, -3, 3)); }
}, { passive: false });
let held = null;
canvas.addEventListener("pointerdown", (event) => {
  if (event.button || !event.isPrimary) return;
  canvas.focus({ preventScroll: true });
  try { canvas.setPointerCapture(event.pointerId); } catch { /* a pointer that is gone */ }
  held = { x: event.clientX, y: event.clientY, moved: false, at: state.at[state.plane], level: state.level,
    width: state.width, limit: state.limit };
});
canvas.addEventListener("pointermove", (event) => {
  if (!held || !event.isPrimary) return;
  const right = event.clientX - held.x, down = event.clientY - held.y;
  held.moved ||= Math.hypot(right, down) > 6;
  if (!held.moved) return;
  if (event.pointerType !== "mouse") go(held.at - down / canvas.clientHeight * Math.max(count(), 24));
  else if (layers[state.layer].kind === "image") {
    const scale = data.windows[0].width / 200;
    ownWindow(held.level + down * scale, Math.max(held.width + right * scale, scale), held.limit);
  } else ownWindow(held.level, held.width, held.limit * Math.exp(right / 150));
});
const release = (event) => {
  if (held && !held.moved && event.type === "pointerup") pointAt(event);
  held = null;
};
canvas.addEventListener("pointerup", release);
canvas.addEventListener("pointercancel", release);
part("slider").addEventListener("input", (event) => go(Number(event.target.value) - 1));
const fields = () => {
  const level = Number(part("level").value), width = Number(part("width").value);
  if (!Number.isFinite(level) || !(width > 0)) return;
  const { kind } = layers[state.layer];
  if (kind === "image") ownWindow(level, width, state.limit);
  else ownWindow(state.level, state.width, kind === "map" ? width : width / 2);
};
part("level").addEventListener("change", fields);
part("width").addEventListener("change", fields);
const DO = { previous: () => step(-1), next: () => step(1), worst, compare: () => showLayer(state.last) };
for (const button of root.querySelectorAll("button[data-do]")) button.addEventListener("click", DO[button.dataset.do]);
root.querySelector('[data-do="worst"]').hidden = !data.worst;
root.querySelector('[data-do="compare"]').hidden = layers.length < 2;

// ---- start ---------------------------------------------------------------------------------------------------------
choose("layer", layers.map((layer) => layer.title), 0, showLayer);
choose("plane", planes, 0, showPlane);
choose("window", data.windows.map((window) => window.name), 0, showWindow);
showWindow(0);
// An address may name what is shown first: report.html#layer=spread&plane=coronal&slice=12&window=lung
const wanted = new URLSearchParams(location.hash.slice(1));
const find = (list, name) => list.findIndex((one) => one === name);
if (wanted.has("layer")) showLayer(find(layers.map((layer) => layer.key), wanted.get("layer")));
if (wanted.has("plane")) showPlane(find(planes, wanted.get("plane")));
if (wanted.has("window")) {
  const n = find(data.windows.map((window) => window.name), wanted.get("window"));
  if (n >= 0) showWindow(n);
}
if (wanted.has("slice")) go(Number(wanted.get("slice")) - 1 || 0);
canvas.focus({ preventScroll: true });
new ResizeObserver(draw).observe(canvas);
draw();
})();

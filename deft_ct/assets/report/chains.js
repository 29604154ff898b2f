// Turns chains of C-alpha atoms on a 2D canvas: a smooth tube, nearer parts drawn over farther ones and darker.
// See deft_ct/report/chain_viewer.py, which writes the data that this script reads.
(() => {
"use strict";
const chains = JSON.parse(document.getElementById("chains-data").textContent);
const root = document.getElementById("chains");
const part = (name) => root.querySelector(`[data-part="${name}"]`);
const canvas = root.querySelector("canvas");
const pen = canvas.getContext("2d");
const PIECES = 5; // of the line between two residues
const COLOURS = { motif: [209, 73, 91], rest: [138, 147, 160], H: [198, 75, 120], E: [217, 155, 30], C: [138, 147, 160] };
const LEGENDS = {
  motif: "Red: the motif. Grey: the scaffold.",
  structure: "Magenta: helix. Yellow: strand. Grey: neither; all from the C-alpha atoms.",
  order: "Blue: the first residue. Red: the last one.",
};
const START = [1, 0, 0, 0, 1, 0, 0, 0, 1];
const state = { chain: 0, colour: "motif", turn: START, zoom: 1 };
let line = [];

// ---- geometry ------------------------------------------------------------------------------------------------------
function product(a, b) {
  const out = new Array(9).fill(0);
  for (let i = 0; i < 3; i++) for (let j = 0; j < 3; j++) for (let k = 0; k < 3; k++) out[3 * i + j] += a[3 * i + k] * b[3 * k + j];
  return out;
}
function turned(aroundY, aroundX) { // a rotation of what is seen, not of the chain's own axes
  const [c, s, d, u] = [Math.cos(aroundY), Math.sin(aroundY), Math.cos(aroundX), Math.sin(aroundX)];
  state.turn = product([1, 0, 0, 0, d, -u, 0, u, d], product([c, 0, s, 0, 1, 0, -s, 0, c], state.turn));
}
function smooth(places) { // Catmull-Rom: passes through every atom
  const at = (k) => places[Math.min(Math.max(k, 0), places.length - 1)];
  const out = [];
  for (let k = 0; k + 1 < places.length; k++) {
    const [a, b, c, d] = [at(k - 1), at(k), at(k + 1), at(k + 2)];
    for (let i = 0; i < PIECES; i++) {
      const u = i / PIECES;
      out.push([0, 1, 2].map((n) => 0.5 * (2 * b[n] + (c[n] - a[n]) * u + (2 * a[n] - 5 * b[n] + 4 * c[n] - d[n]) * u * u
        + (3 * b[n] - a[n] - 3 * c[n] + d[n]) * u * u * u)));
    }
  }
  out.push(places[places.length - 1]);
  return out;
}
const reach = () => Math.max(1, ...line.map((p) => Math.hypot(...p)));

// ---- drawing -------------------------------------------------------------------------------------------------------
function colourOf(residue) {
  const chain = chains[state.chain];
  if (state.colour === "structure") return COLOURS[chain.structure[residue]];
  if (state.colour === "order") {
    const u = residue / Math.max(1, chain.places.length - 1);
    return [Math.round(40 + 180 * u), Math.round(90 - 20 * u), Math.round(210 - 150 * u)];
  }
  return chain.motif.includes(residue) ? COLOURS.motif : COLOURS.rest;
}
function draw() {
  const side = canvas.width, size = reach(), scale = 0.44 * side / size * state.zoom, t = state.turn;
  const seen = line.map(([x, y, z]) => [
    side / 2 + scale * (t[0] * x + t[1] * y + t[2] * z), side / 2 - scale * (t[3] * x + t[4] * y + t[5] * z),
    (t[6] * x + t[7] * y + t[8] * z) / size,
  ]);
  const pieces = [];
  for (let k = 0; k + 1 < seen.length; k++) pieces.push([0.5 * (seen[k][2] + seen[k + 1][2]), k]);
  pieces.sort((a, b) => a[0] - b[0]); // the viewer looks along -z
  pen.clearRect(0, 0, side, side);
  for (const [depth, k] of pieces) {
    const near = Math.min(Math.max(0.5 + 0.5 * depth, 0), 1);
    const rgb = colourOf(Math.round(k / PIECES)).map((v) => Math.round(v * (0.55 + 0.45 * near) + 235 * 0.45 * (1 - near)));
    const width = Math.max(2, scale * (0.8 + 0.5 * near));
    // The white rim sets a piece off from what lies behind it; without caps, not from its neighbours.
    for (const [wide, style, cap] of [[width + 3, "rgb(255,255,255)", "butt"], [width, `rgb(${rgb.join(",")})`, "round"]]) {
      pen.lineCap = cap;
      pen.lineWidth = wide;
      pen.strokeStyle = style;
      pen.beginPath();
      pen.moveTo(seen[k][0], seen[k][1]);
      pen.lineTo(seen[k + 1][0], seen[k + 1][1]);
      pen.stroke();
    }
  }
  const matrix = t.map((v) => v.toFixed(3)).join(" ");
  root.dataset.drawn = `${state.chain} ${state.colour} ${state.zoom.toFixed(2)} ${matrix}`;
}
function choose(number) {
  state.chain = (number + chains.length) % chains.length;
  const chain = chains[state.chain];
  line = smooth(chain.places);
  part("chain").value = String(state.chain);
  canvas.setAttribute("aria-label", `${chain.title}: C-alpha trace, ${chain.places.length} residues`);
  const rows = Object.entries(chain.scores).map(([name, value]) => {
    const row = document.createElement("tr");
    for (const text of [name, value]) row.appendChild(document.createElement("td")).textContent = text;
    return row;
  });
  part("scores").replaceChildren(...rows);
  draw();
}

// ---- controls ------------------------------------------------------------------------------------------------------
chains.forEach((chain, k) => part("chain").add(new Option(chain.title, String(k))));
part("chain").addEventListener("change", (event) => choose(Number(event.target.value)));
part("previous").addEventListener("click", () => choose(state.chain - 1));
part("next").addEventListener("click", () => choose(state.chain + 1));
part("colour").addEventListener("change", (event) => {
  state.colour = event.target.value;
  part("legend").textContent = LEGENDS[state.colour];
  draw();
});
part("reset").addEventListener("click", () => {
  state.turn = START;
  state.zoom = 1;
  draw();
});
function zoomed(factor) {
  state.zoom = Math.min(Math.max(state.zoom * factor, 0.3), 8);
  draw();
}
let held = null;
canvas.addEventListener("pointerdown", (event) => {
  held = [event.clientX, event.clientY];
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointermove", (event) => {
  if (!held) return;
  const wide = canvas.clientWidth;
  turned((event.clientX - held[0]) / wide * Math.PI, (event.clientY - held[1]) / wide * Math.PI);
  held = [event.clientX, event.clientY];
  draw();
});
for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { held = null; });
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoomed(Math.exp(-event.deltaY / 500));
}, { passive: false });
const KEYS = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] };
canvas.addEventListener("keydown", (event) => {
  if (KEYS[event.key]) turned(...KEYS[event.key]);
  else if (event.key === "+" || event.key === "=") zoomed(1.15);
  else if (event.key === "-") zoomed(1 / 1.15);
  else if (event.key === "PageDown") choose(state.chain + 1);
  else if (event.key === "PageUp") choose(state.chain - 1);
  else return;
  event.preventDefault();
  draw();
});
function spin(before) {
  requestAnimationFrame((now) => {
    if (!part("spin").checked) return;
    turned((now - before) / 2000, 0);
    draw();
    spin(now);
  });
}
part("spin").addEventListener("change", () => spin(performance.now()));
part("legend").textContent = LEGENDS.motif;
choose(0);
})();

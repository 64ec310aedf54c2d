"use strict";
// One object at a time. What the server says of it is text and numbers; nothing of that is ever read as HTML.

const $ = (id) => document.getElementById(id);
const canvas = $("canvas"), pen = canvas.getContext("2d");
const OWN = "#ff9f1c", OTHER = "#4cc9f0", BOX = "#ffffff";
let classes = [], shown = null, picture = null, choice = 0, category = null;
let cells = null, edited = false, strokes = [], corners = [], tool = "", pointer = null, painting = false;
let maskShown = true, othersShown = true, busy = false, over = false, before = 0, spent = 0;

// --- the server -----------------------------------------------------------------------------------------------------

async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  };
  const reply = await fetch(path, options);
  const said = await reply.json();
  if (!reply.ok) throw Object.assign(new Error(said.error), { status: reply.status });
  return said;
}

async function work(action) {
  if (busy || over) return;
  busy = true;
  try {
    await action();
  } catch (error) {
    if (error.status === 409) {
      await showNext(); // another tab was first
      tell("That object has an answer already. This is the next one.");
    } else {
      tell(error.status ? error.message : "No answer from the program: is it still running? Nothing is lost; try again.", true);
    }
  } finally {
    busy = false;
  }
}

const key = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(16)).join("");

// --- an object ------------------------------------------------------------------------------------------------------

async function showNext() {
  show(await ask("next"));
}

function show(said) {
  tellState(said.state);
  if (!said.object) return end();
  shown = said.object;
  choice = 0; category = null; spent = 0; before = document.hidden ? 0 : performance.now();
  shown.choices.forEach((one) => { one.cells = unpacked(one.counts); });
  shown.neighbours.forEach((one) => { one.cells = unpacked(one.counts); });
  resetMask();
  picture = null;
  const image = new Image();
  const own = shown;
  image.onload = () => { if (shown === own) { picture = image; draw(); document.body.dataset.shown = own.id; } };
  image.onerror = () => tell("The image cannot be shown; S skips the object.", true);
  image.src = `image?id=${own.id}`;
  listChoices();
  tellObject();
  draw();
  ask(`after?id=${own.id}`).then((next) => { if (next.id !== null) new Image().src = `image?id=${next.id}`; }, () => {});
}

function resetMask() {
  cells = shown.choices[choice].cells.slice();
  edited = false; strokes = []; corners = [];
}

function unpacked(counts) {
  const out = new Uint8Array(shown.columns * shown.rows);
  let place = 0;
  counts.forEach((count, turn) => { if (turn % 2) out.fill(1, place, place + count); place += count; });
  return out;
}

function packed(from) {
  const counts = [];
  let value = 0, run = 0;
  for (const cell of from) {
    if (cell === value) { run += 1; } else { counts.push(run); run = 1; value = cell; }
  }
  counts.push(run);
  return counts;
}

function tellObject() {
  const name = category === null ? shown.class : classes.find((one) => one.id === category).name;
  $("class").textContent = name + (category === null ? "" : " (changed)");
  const one = shown.choices[choice];
  $("about").textContent = `${shown.file}, id ${shown.id}, ${one.origin}${edited ? ", drawn over" : ""}: score ` +
    `${shown.score.toFixed(2)}, ${shown.decision.replace("_", " ")}${shown.reason ? ` (${shown.reason.replaceAll("_", " ")})` : ""}`;
  document.querySelectorAll("#choices button").forEach((button, place) => {
    button.setAttribute("aria-checked", String(place === choice));
  });
}

function tellState(state) {
  classes = state.classes;
  $("progress").textContent = `${state.done} of ${state.budget}`;
  $("bar").max = Math.max(state.budget, 1);
  $("bar").value = state.done;
  document.body.dataset.done = state.done;
}

function tell(text, bad = false) {
  $("message").textContent = text;
  $("message").className = bad ? "bad" : "";
}

function listChoices() {
  $("choices").replaceChildren(...shown.choices.map((one, place) => {
    const button = document.createElement("button");
    button.setAttribute("role", "radio");
    button.textContent = `${one.origin} ${one.score.toFixed(2)}`;
    button.onclick = () => choose(place);
    return button;
  }));
}

function choose(place) {
  choice = (place + shown.choices.length) % shown.choices.length;
  resetMask();
  tellObject();
  draw();
}

function end() {
  shown = null; over = true;
  $("class").textContent = "Done";
  $("about").textContent = "every object of the budget has an answer";
  tell("Thank you. End the review, or undo the last answer with Z.");
  document.querySelectorAll("#answers button, #tools button").forEach((button) => {
    button.disabled = button.dataset.do !== "undo";
  });
  document.body.dataset.shown = "";
  draw();
}

// --- answers --------------------------------------------------------------------------------------------------------

function looked() {
  const now = before ? performance.now() - before : 0;
  return (spent + now) / 1000;
}

document.addEventListener("visibilitychange", () => { // a tab that nobody sees is no look
  if (document.hidden) { spent += before ? performance.now() - before : 0; before = 0; } else { before = performance.now(); }
});

function answer(verdict) {
  if (!shown) return;
  const said = {
    id: shown.id, verdict, choice, seen: shown.seen, seconds: looked(), key: key(), category_id: category,
    edit: verdict === "accept" && edited ? packed(cells) : null,
  };
  work(async () => {
    await ask("answer", said);
    tell(`${told[verdict]}.`);
    await showNext();
  });
}

const told = {
  accept: "Mask accepted", box_only: "The box alone", wrong_class: "Of none of the classes", reject: "No such object", skip: "Skipped",
};

function undo() {
  if (strokes.length) {
    const last = strokes.pop();
    cells = last.cells; edited = last.edited;
    tellObject();
    return draw();
  }
  over = false;
  work(async () => {
    const said = await ask("undo", { key: key() });
    document.querySelectorAll("#answers button, #tools button").forEach((button) => { button.disabled = false; });
    if (said.object) { show(said); tell("The last answer is taken back."); } else { tell("There is no answer to take back."); }
  });
}

function finish() {
  over = false;
  work(async () => {
    await ask("finish", {});
    over = true; shown = null;
    tell("The review is over; the terminal says what it bought. This page can be closed.");
    document.querySelectorAll("button").forEach((button) => { button.disabled = true; });
    document.body.dataset.ended = "yes";
  });
}

// --- classes --------------------------------------------------------------------------------------------------------

function pick() {
  if (!shown) return;
  $("filter").value = "";
  $("picker").showModal();
  listClasses();
  $("filter").focus();
}

// The whole name first, then names that begin so, then those that have it in them. What is typed and in no name chooses
// nothing: "none of these classes" drops the object, and a slip must not.
function listClasses() {
  const wanted = $("filter").value.trim().toLowerCase();
  const rank = (name) => (name === wanted ? 0 : name.startsWith(wanted) ? 1 : name.includes(wanted) ? 2 : 3);
  const found = classes.map((one) => ({ ...one, rank: rank(one.name.toLowerCase()) })).filter((one) => one.rank < 3);
  if (wanted) found.sort((one, other) => one.rank - other.rank);
  const none = { id: null, name: "none of these classes" };
  const chosen = found.length || none.name.startsWith(wanted) ? 0 : -1;
  const rows = [...found, none].map((one, place) => {
    const row = document.createElement("li");
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", String(place === chosen));
    row.textContent = one.name;
    row.onclick = () => picked(one.id);
    row.picked = one.id;
    return row;
  });
  $("classes").replaceChildren(...rows);
  $("unknown").hidden = chosen === 0;
}

function picked(id) {
  $("picker").close();
  canvas.focus();
  if (id === null) return answer("wrong_class");
  category = id === shown.category_id ? null : id;
  tell("Now answer about the mask.");
  return tellObject();
}

$("filter").addEventListener("input", listClasses);
$("picker").addEventListener("keydown", (event) => {
  event.stopPropagation();
  const rows = [...$("classes").children], place = rows.findIndex((row) => row.getAttribute("aria-selected") === "true");
  if (event.key === "Enter") {
    event.preventDefault();
    if (place >= 0) picked(rows[place].picked);
  }
  if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
  event.preventDefault();
  const next = (Math.max(place, 0) + (event.key === "ArrowDown" ? Number(place >= 0) : rows.length - 1)) % rows.length;
  rows[place]?.setAttribute("aria-selected", "false");
  rows[next].setAttribute("aria-selected", "true");
  rows[next].scrollIntoView({ block: "nearest" });
});

// --- drawing on the mask --------------------------------------------------------------------------------------------

function use(name) {
  tool = tool === name ? "" : name;
  corners = [];
  canvas.classList.toggle("draws", tool !== "");
  document.querySelectorAll("#tools button").forEach((button) => {
    button.setAttribute("aria-pressed", String(button.dataset.do === tool));
  });
  draw();
}

function remember() {
  strokes.push({ cells: cells.slice(), edited });
  if (strokes.length > 50) strokes.shift();
}

function changed() {
  edited = true;
  tellObject();
  draw();
}

function dab(from, to) {
  const radius = Number($("radius").value) / 2, value = tool === "brush" ? 1 : 0;
  const steps = Math.max(1, Math.ceil(Math.hypot(to.x - from.x, to.y - from.y) / Math.max(radius / 2, 0.5)));
  for (let step = 0; step <= steps; step += 1) {
    const x = from.x + (to.x - from.x) * step / steps, y = from.y + (to.y - from.y) * step / steps;
    fill(x - radius, y - radius, x + radius, y + radius, (cx, cy) => Math.hypot(cx - x, cy - y) <= radius, value);
  }
  fill(to.x, to.y, to.x, to.y, () => true, value); // the cell under the point, however thin the brush
}

function fill(left, top, right, bottom, inside, value) {
  for (let row = Math.max(0, Math.floor(top)); row <= Math.min(shown.rows - 1, Math.floor(bottom)); row += 1) {
    for (let column = Math.max(0, Math.floor(left)); column <= Math.min(shown.columns - 1, Math.floor(right)); column += 1) {
      if (inside(column + 0.5, row + 0.5)) cells[row * shown.columns + column] = value;
    }
  }
}

function closePolygon(value) {
  if (corners.length < 3) return;
  remember();
  const xs = corners.map((one) => one.x), ys = corners.map((one) => one.y), ring = corners;
  const inside = (x, y) => {
    let odd = false;
    for (let i = 0, j = ring.length - 1; i < ring.length; j = i, i += 1) {
      const a = ring[i], b = ring[j];
      if ((a.y > y) !== (b.y > y) && x < (b.x - a.x) * (y - a.y) / (b.y - a.y) + a.x) odd = !odd;
    }
    return odd;
  };
  fill(Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys), inside, value);
  corners = [];
  changed();
}

function place(event) {
  const fit = layout(), frame = canvas.getBoundingClientRect();
  return { x: (event.clientX - frame.left - fit.x) / fit.scale, y: (event.clientY - frame.top - fit.y) / fit.scale };
}

canvas.addEventListener("pointerdown", (event) => {
  if (!shown || !tool || event.button !== 0) return;
  canvas.setPointerCapture(event.pointerId);
  pointer = place(event);
  if (tool === "polygon") { corners.push(pointer); return draw(); }
  remember();
  painting = true;
  dab(pointer, pointer);
  return changed();
});
canvas.addEventListener("pointermove", (event) => {
  if (!shown || !tool) return;
  const to = place(event);
  if (painting) { dab(pointer, to); edited = true; }
  pointer = to;
  draw();
});
canvas.addEventListener("pointerup", () => { painting = false; });
canvas.addEventListener("pointercancel", () => { painting = false; });
canvas.addEventListener("pointerleave", () => { if (!painting) { pointer = null; draw(); } });

// --- the picture ----------------------------------------------------------------------------------------------------

function layout() {
  const scale = Math.min(canvas.clientWidth / shown.columns, canvas.clientHeight / shown.rows);
  return { scale, x: (canvas.clientWidth - scale * shown.columns) / 2, y: (canvas.clientHeight - scale * shown.rows) / 2 };
}

function draw() {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(canvas.clientWidth * ratio);
  canvas.height = Math.round(canvas.clientHeight * ratio);
  if (!shown) return;
  const fit = layout();
  pen.setTransform(ratio, 0, 0, ratio, ratio * fit.x, ratio * fit.y);
  if (picture) pen.drawImage(picture, 0, 0, shown.columns * fit.scale, shown.rows * fit.scale);
  if (othersShown) shown.neighbours.forEach((one) => drawOutline(one.cells, fit.scale, OTHER, 1));
  if (maskShown) { drawFill(cells, fit.scale); drawOutline(cells, fit.scale, OWN, 2); }
  drawBox(fit.scale);
  drawTool(fit.scale);
}

function drawFill(mask, scale) {
  const layer = new OffscreenCanvas(shown.columns, shown.rows), inner = layer.getContext("2d");
  const data = inner.createImageData(shown.columns, shown.rows);
  for (let i = 0; i < mask.length; i += 1) {
    if (mask[i]) { data.data[4 * i] = 255; data.data[4 * i + 1] = 159; data.data[4 * i + 2] = 28; data.data[4 * i + 3] = 64; }
  }
  inner.putImageData(data, 0, 0);
  pen.imageSmoothingEnabled = false;
  pen.drawImage(layer, 0, 0, shown.columns * scale, shown.rows * scale);
  pen.imageSmoothingEnabled = true;
}

function drawOutline(mask, scale, color, width) {
  const { columns, rows } = shown, path = new Path2D();
  const at = (row, column) => row >= 0 && row < rows && column >= 0 && column < columns && mask[row * columns + column];
  for (let row = 0; row <= rows; row += 1) {
    for (let column = 0; column <= columns; column += 1) {
      const here = at(row, column);
      if (Boolean(here) !== Boolean(at(row - 1, column))) { path.moveTo(column * scale, row * scale); path.lineTo((column + 1) * scale, row * scale); }
      if (Boolean(here) !== Boolean(at(row, column - 1))) { path.moveTo(column * scale, row * scale); path.lineTo(column * scale, (row + 1) * scale); }
    }
  }
  pen.strokeStyle = "#000a"; pen.lineWidth = width + 2; pen.stroke(path); // a dark edge, so that it shows on any ground
  pen.strokeStyle = color; pen.lineWidth = width; pen.stroke(path);
}

function drawBox(scale) {
  const [x, y, width, height] = shown.box.map((side) => side * scale);
  pen.setLineDash([]); pen.strokeStyle = "#000a"; pen.lineWidth = 3; pen.strokeRect(x, y, width, height);
  pen.setLineDash([6, 4]); pen.strokeStyle = BOX; pen.lineWidth = 1.5; pen.strokeRect(x, y, width, height);
  pen.setLineDash([]);
}

function drawTool(scale) {
  pen.strokeStyle = BOX; pen.lineWidth = 1.5;
  if (tool === "polygon" && corners.length) {
    pen.beginPath();
    corners.forEach((one, turn) => (turn ? pen.lineTo(one.x * scale, one.y * scale) : pen.moveTo(one.x * scale, one.y * scale)));
    if (pointer) pen.lineTo(pointer.x * scale, pointer.y * scale);
    pen.stroke();
  } else if ((tool === "brush" || tool === "erase") && pointer) {
    pen.beginPath();
    pen.arc(pointer.x * scale, pointer.y * scale, Number($("radius").value) / 2 * scale, 0, 2 * Math.PI);
    pen.stroke();
  }
}

// --- keys and buttons -----------------------------------------------------------------------------------------------

const actions = {
  accept: () => answer("accept"), box_only: () => answer("box_only"), wrong_class: pick, reject: () => answer("reject"),
  skip: () => answer("skip"), undo, finish,
  brush: () => use("brush"), erase: () => use("erase"), polygon: () => use("polygon"),
  next: () => shown && choose(choice + 1), previous: () => shown && choose(choice - 1),
  mask: () => { maskShown = !maskShown; press("mask", maskShown); draw(); },
  others: () => { othersShown = !othersShown; press("others", othersShown); draw(); },
  wider: () => { $("radius").value = Number($("radius").value) + 2; draw(); },
  thinner: () => { $("radius").value = Number($("radius").value) - 2; draw(); },
  add: () => closePolygon(1), take: () => closePolygon(0), leave: () => { corners = []; draw(); },
};
const keys = {
  1: "accept", 2: "box_only", 3: "wrong_class", 4: "reject", 5: "next", ArrowRight: "next", ArrowLeft: "previous",
  s: "skip", z: "undo", b: "brush", e: "erase", p: "polygon", m: "mask", n: "others", "]": "wider", "[": "thinner",
  Enter: "add", x: "take", Escape: "leave",
};

function press(name, on) {
  document.querySelector(`[data-do="${name}"]`).setAttribute("aria-pressed", String(on));
}

document.addEventListener("keydown", (event) => {
  if ($("picker").open || event.repeat || event.altKey || event.metaKey) return;
  const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey && name !== "z") return;
  if (name === "Enter" && event.target.tagName === "BUTTON") return; // the button's own
  if (!keys[name] || (event.target.id === "radius" && name.startsWith("Arrow"))) return;
  event.preventDefault();
  actions[keys[name]]();
});
document.querySelectorAll("[data-do]").forEach((button) => {
  button.addEventListener("click", () => { actions[button.dataset.do](); canvas.focus(); });
});
new ResizeObserver(draw).observe(canvas);
work(showNext);

"use strict";
(() => {
  const {objects, run} = JSON.parse(document.getElementById("data").textContent);
  const PAGE = 60, CARD_PX = 200, VIEW_PX = 768;
  const COLORS = { fused: "#ffd400", truth: "#ffffff" };
  const OTHERS = ["#56b4e9", "#ff8fc7", "#00c08b", "#e69f00", "#c8a2ff"];
  const $ = (id) => document.getElementById(id);
  const element = (name, text, css) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (css) made.className = css;
    return made;
  };
  let found = objects, cardsShown = 0, place = -1, layer = 1, without = false;

  /* a mask in COCO's run-length form, column by column, as bytes row by row */
  const decode = (text, height, width) => {
    const mask = new Uint8Array(height * width), counts = [];
    for (let at = 0; at < text.length;) {
      let value = 0, shift = 0, more = true;
      while (more) {
        const bits = text.charCodeAt(at++) - 48;
        value |= (bits & 31) << shift;
        more = (bits & 32) !== 0;
        shift += 5;
        if (!more && (bits & 16)) value |= -1 << shift;
      }
      if (counts.length > 2) value += counts[counts.length - 2];
      counts.push(value);
    }
    let pixel = 0;
    counts.forEach((count, run) => {
      for (const end = pixel + count; pixel < end; pixel++) {
        if (run % 2) mask[(pixel % height) * width + Math.floor(pixel / height)] = 1;
      }
    });
    return mask;
  };

  const pictures = new Map();
  const picture = (one) => {
    if (!pictures.has(one)) {
      pictures.set(one, new Promise((done) => {
        const image = new Image();
        image.onload = () => done(image);
        image.src = one.img;
      }));
    }
    return pictures.get(one);
  };

  const colorOf = (one, number) => COLORS[one.layers[number].name] || OTHERS[(number - 1) % OTHERS.length];

  /* the filled mask at its own resolution, and its outline as a path of pixel edges */
  const drawMask = (pen, one, number, scale, fill) => {
    const [height, width] = one.size, mask = decode(one.layers[number].rle, height, width);
    const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && mask[y * width + x] === 1;
    const color = colorOf(one, number), path = new Path2D();
    if (fill) pen.fillStyle = color + "40";
    for (let y = 0; y < height; y++) {
      for (let x = 0, start = -1; x <= width; x++) {
        if (inside(x, y) && start < 0) start = x;
        if (!inside(x, y) && start >= 0) {
          if (fill) { /* rows end on whole pixels: halves of two would be covered twice */
            const [top, bottom] = [Math.round(y * scale), Math.round((y + 1) * scale)];
            pen.fillRect(start * scale, top, (x - start) * scale, bottom - top);
          }
          start = -1;
        }
        if (x <= width && inside(x, y) !== inside(x - 1, y)) {
          path.moveTo(x * scale, y * scale);
          path.lineTo(x * scale, (y + 1) * scale);
        }
      }
    }
    for (let x = 0; x < width; x++) {
      for (let y = 0; y <= height; y++) {
        if (inside(x, y) !== inside(x, y - 1)) {
          path.moveTo(x * scale, y * scale);
          path.lineTo((x + 1) * scale, y * scale);
        }
      }
    }
    for (const [stroke, thickness] of [["#000000", 3.5], [color, 1.8]]) {
      pen.strokeStyle = stroke;
      pen.lineWidth = thickness;
      pen.stroke(path);
    }
  };

  const drawBox = (pen, one, scale) => {
    const [x0, y0, x1, y1] = one.box.map((value) => value * scale);
    pen.lineWidth = 1.5;
    for (const [color, dash] of [["#000000", []], ["#ffffff", [6, 5]]]) {
      pen.strokeStyle = color;
      pen.setLineDash(dash);
      pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
    }
    pen.setLineDash([]);
  };

  /* which picture a canvas waits for: a later one must not be overdrawn by an earlier one */
  const wanted = new WeakMap();
  const draw = async (canvas, one, number, side, box, fill) => {
    wanted.set(canvas, one);
    const image = await picture(one);
    if (wanted.get(canvas) !== one) return;
    const [height, width] = one.size, scale = side / Math.max(height, width);
    canvas.width = canvas.height = side;
    const pen = canvas.getContext("2d");
    pen.translate((side - width * scale) / 2, (side - height * scale) / 2);
    pen.imageSmoothingEnabled = scale < 4;
    pen.drawImage(image, 0, 0, width * scale, height * scale);
    if (number >= 0 && number < one.layers.length) drawMask(pen, one, number, scale, fill);
    if (box) drawBox(pen, one, scale);
    canvas.dataset.drawn = `${one.id}:${number}`;
  };

  /* ---- filters ---- */
  const badness = (one) => (one.iou === null ? one.score : one.iou);
  const byText = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  const ORDERS = {
    worst: (a, b) => badness(a) - badness(b),
    best: (a, b) => badness(b) - badness(a),
    disagreement: (a, b) => (a.agreement ?? 2) - (b.agreement ?? 2) || badness(a) - badness(b),
    class: (a, b) => byText(a.cls, b.cls) || badness(a) - badness(b),
    reason: (a, b) => byText(a.reasons.join(), b.reasons.join()) || badness(a) - badness(b),
    even: (a, b) => badness(a) - badness(b),
  };

  const fillSelect = (id, values) => {
    const counts = new Map();
    values.forEach((value) => counts.set(value, (counts.get(value) || 0) + 1));
    [...counts.keys()].sort(byText).forEach((value) => {
      const option = element("option", `${value} (${counts.get(value)})`);
      option.value = value;
      $(id).append(option);
    });
  };

  const matches = (one) => {
    const decisions = [...document.querySelectorAll("input[name=decision]:checked")].map((box) => box.value);
    const search = $("search").value.trim().toLowerCase();
    return decisions.includes(one.decision)
      && (!$("class").value || one.cls === $("class").value)
      && (!$("reason").value || one.reasons.includes($("reason").value))
      && (!$("source").value || one.sources.includes($("source").value))
      && one.score <= Number($("most").value)
      && ($("order").value !== "even" || one.even)
      && (!search || String(one.id) === search || one.file.toLowerCase().includes(search));
  };

  const apply = () => {
    $("most-value").textContent = Number($("most").value).toFixed(2);
    found = objects.filter(matches).sort(ORDERS[$("order").value]);
    $("count").textContent = `${found.length} of ${objects.length} objects`;
    $("cards").replaceChildren();
    cardsShown = 0;
    showMore();
  };

  const nameOf = (one) => `${one.cls} ${one.score.toFixed(2)}`;
  const seen = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (!entry.isIntersecting) return;
    seen.unobserve(entry.target);
    draw(entry.target, entry.target.object, 0, CARD_PX, false, true);
  }), { rootMargin: "300px" });

  const card = (one, number) => {
    const item = element("li"), button = element("button", undefined, "card"), canvas = element("canvas");
    const label = `${nameOf(one)}, ${one.decision}, ${one.reasons.join(", ")}`;
    button.type = "button";
    button.setAttribute("aria-label", `${label}, ${one.file}`);
    button.title = `${one.file} ${one.id ?? ""}`;
    canvas.width = canvas.height = CARD_PX;
    canvas.object = one;
    const decision = element("span", undefined, "decision");
    decision.append(element("i", "", `fill-${one.decision}`), one.iou === null ? one.decision : `${one.decision}, IoU ${one.iou.toFixed(2)}`);
    button.append(canvas, element("span", nameOf(one)), decision);
    button.addEventListener("click", () => open(number));
    seen.observe(canvas);
    item.append(button);
    return item;
  };

  const showMore = () => {
    const next = found.slice(cardsShown, cardsShown + PAGE).map((one, at) => card(one, cardsShown + at));
    $("cards").append(...next);
    cardsShown += next.length;
    $("more").hidden = cardsShown >= found.length;
  };

  /* ---- one object ---- */
  const open = (number) => {
    place = number;
    layer = Math.min(layer, found[place].layers.length);
    showObject();
    if (!$("viewer").open) $("viewer").showModal();
  };

  const showObject = () => {
    const one = found[place];
    $("viewer-title").textContent = `${one.cls}, ${place + 1} of ${found.length}`;
    const rows = [
      ["file", one.file], ["annotation", one.id ?? "-"], ["score", one.score.toFixed(3)], ["decision", one.decision],
      ["reasons", one.reasons.join(", ")], ["sources", one.sources.join(", ")], ["agreement", one.agreement ?? "-"],
      ["area", `${one.area} px`],
    ];
    if (one.iou !== null) rows.push(["true IoU", one.iou.toFixed(3)]);
    $("viewer-facts").tBodies[0].replaceChildren(...rows.map(([name, value]) => {
      const row = element("tr");
      row.append(element("th", name), element("td", value));
      return row;
    }));
    const names = ["none", ...one.layers.map((own) => (own.score === null ? own.name : `${own.name} ${own.score.toFixed(2)}`))];
    $("layers").replaceChildren(element("legend", "Mask"), ...names.map((name, number) => {
      const label = element("label"), input = element("input");
      input.type = "radio";
      input.name = "layer";
      input.checked = number === layer;
      input.addEventListener("change", () => { layer = number; redraw(); });
      label.append(input, ` ${name} `, element("kbd", String(number)));
      return label;
    }));
    $("viewer-repeat").textContent = one.id === null ? "" : `pseudolabel picture ${run} --object ${one.id}`;
    redraw();
  };

  const redraw = () => {
    const one = found[place], number = without ? -1 : layer - 1;
    const inputs = document.querySelectorAll("input[name=layer]");
    inputs[layer].checked = true;
    if ($("layers").contains(document.activeElement)) inputs[layer].focus();
    const shown = number < 0 ? "no mask" : `the mask ${one.layers[number].name}`;
    $("canvas").setAttribute("aria-label", `${one.cls} in ${one.file} with ${shown}`);
    draw($("canvas"), one, number, VIEW_PX, $("show-box").checked, $("show-fill").checked);
  };

  const move = (step) => {
    place = (place + step + found.length) % found.length;
    layer = Math.min(layer, found[place].layers.length);
    showObject();
  };

  const switchLayer = (step) => {
    const count = found[place].layers.length + 1;
    layer = (layer + step + count) % count;
    redraw();
  };

  const toggle = (id) => { $(id).checked = !$(id).checked; redraw(); };
  const KEYS = {
    ArrowLeft: () => move(-1), ArrowRight: () => move(1), k: () => move(-1), j: () => move(1),
    ArrowUp: () => switchLayer(-1), ArrowDown: () => switchLayer(1),
    b: () => toggle("show-box"), f: () => toggle("show-fill"),
  };

  document.addEventListener("keydown", (event) => {
    if (!$("viewer").open || event.ctrlKey || event.metaKey || event.altKey) return;
    const number = "0123456789".indexOf(event.key);
    if (event.key === " " && event.target.tagName !== "BUTTON") {
      if (!without) { without = true; redraw(); }
    } else if (event.key.length === 1 && number >= 0) {
      if (number > found[place].layers.length) return;
      layer = number;
      redraw();
    } else if (KEYS[event.key]) {
      KEYS[event.key]();
    } else {
      return;
    }
    event.preventDefault();
  });
  document.addEventListener("keyup", (event) => {
    if (event.key === " " && without) { without = false; redraw(); }
  });

  $("viewer").addEventListener("close", () => {
    while (place >= cardsShown) showMore();
    $("cards").children[place].firstChild.focus();
  });
  $("previous").addEventListener("click", () => move(-1));
  $("next").addEventListener("click", () => move(1));
  $("close").addEventListener("click", () => $("viewer").close());
  $("show-box").addEventListener("change", redraw);
  $("show-fill").addEventListener("change", redraw);
  $("more").addEventListener("click", showMore);
  $("filters").addEventListener("input", apply);
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("filters").addEventListener("reset", () => setTimeout(apply));

  fillSelect("class", objects.map((one) => one.cls));
  fillSelect("reason", objects.flatMap((one) => one.reasons));
  fillSelect("source", objects.flatMap((one) => one.sources));
  apply();
})();

"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const svgElement = (name, attributes = {}, parent = null, text = null) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== null) made.textContent = text;
    if (parent) parent.append(made);
    return made;
  };
  const fill = (select, entries, chosen) => {
    select.replaceChildren(...entries.map(([value, text]) => new Option(text, value, value === chosen, value === chosen)));
  };

  // ------------------------------------------------------------------------------------------------ tables
  const tables = byId("tables");
  const filter = byId("table-filter");
  const applyFilter = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0, all = 0;
    const article = byId(byId("table-choice").value);
    for (const row of tables.querySelectorAll("tbody tr")) {
      row.hidden = !words.every((word) => row.dataset.text.includes(word));
      if (article && article.contains(row)) { all += 1; shown += row.hidden ? 0 : 1; }
    }
    byId("table-status").textContent = words.length ? `${shown} of ${all} rows` : "";
  };
  const chooseTable = (name) => {
    for (const article of tables.querySelectorAll("article.result")) article.hidden = article.id !== name;
    applyFilter();
  };
  const sortBy = (button) => {
    const head = button.closest("th"), body = button.closest("table").tBodies[0];
    const column = [...head.parentNode.children].indexOf(head);
    const numeric = button.dataset.kind === "number";
    // the first click puts the best on top, the second turns it round
    const first = numeric && button.dataset.up === "1" ? "descending" : "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const direction = head.getAttribute("aria-sort") === first ? other : first;
    for (const one of head.parentNode.children) one.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", direction);
    const sign = direction === "ascending" ? 1 : -1;
    const key = (row) => {
      const cell = row.children[column];
      if (!numeric) return cell.textContent;
      return cell.dataset.value === "" ? null : Number(cell.dataset.value);
    };
    const rows = [...body.rows].map((row) => [key(row), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);  // undefined last, either way
      return sign * (numeric ? a - b : a.localeCompare(b, "en", { numeric: true }));
    });
    body.append(...rows.map(([, row]) => row));
  };
  for (const button of tables.querySelectorAll(".sort")) button.addEventListener("click", () => sortBy(button));
  filter.addEventListener("input", applyFilter);
  byId("table-choice").addEventListener("change", (event) => chooseTable(event.target.value));
  byId("show-paper").addEventListener("change", (event) => tables.classList.toggle("without-paper", !event.target.checked));
  byId("show-delta").addEventListener("change", (event) => tables.classList.toggle("with-delta", event.target.checked));
  if (!byId(byId("table-choice").value)) byId("table-choice").selectedIndex = 0;
  chooseTable(byId("table-choice").value);

  // ------------------------------------------------------------------------------------------------ plots
  const ticks = (low, high, count = 6) => {
    const rough = (high - low) / count || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= rough);
    const found = [];
    for (let tick = Math.ceil(low / step) * step; tick <= high + step * 1e-9; tick += step) found.push(Number(tick.toPrecision(12)));
    return found;
  };
  const frame = (place, width, height, margin, [x0, x1], [y0, y1], titles, label) => {
    const svg = svgElement("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": label });
    const x = (value) => margin.left + (value - x0) / (x1 - x0) * (width - margin.left - margin.right);
    const y = (value) => height - margin.bottom - (value - y0) / (y1 - y0) * (height - margin.top - margin.bottom);
    for (const tick of ticks(x0, x1)) {
      svgElement("line", { class: "grid", x1: x(tick), x2: x(tick), y1: margin.top, y2: height - margin.bottom }, svg);
      svgElement("text", { x: x(tick), y: height - margin.bottom + 17, "text-anchor": "middle" }, svg, String(tick));
    }
    for (const tick of ticks(y0, y1)) {
      svgElement("line", { class: "grid", x1: margin.left, x2: width - margin.right, y1: y(tick), y2: y(tick) }, svg);
      const text = titles.power ? Number((10 ** tick).toPrecision(2)) : tick;
      svgElement("text", { x: margin.left - 7, y: y(tick) + 4, "text-anchor": "end" }, svg, String(text));
    }
    svgElement("path", { class: "axis", fill: "none",
      d: `M${margin.left} ${margin.top}V${height - margin.bottom}H${width - margin.right}` }, svg);
    svgElement("text", { x: (margin.left + width - margin.right) / 2, y: height - 6, "text-anchor": "middle" }, svg, titles.x);
    svgElement("text", { x: 0, y: 0, "text-anchor": "middle",
      transform: `translate(14 ${(margin.top + height - margin.bottom) / 2}) rotate(-90)` }, svg, titles.y);
    place.replaceChildren(svg);
    return { svg, x, y };
  };
  const span = (values) => {
    const low = Math.min(...values), high = Math.max(...values), pad = (high - low) * 0.08 || 1;
    return [low - pad, high + pad];
  };

  // ---------------------------------------------------------------------------------------------- scatter
  const star = (x, y, radius) => {
    const corner = (k) => {
      const angle = Math.PI * k / 5 - Math.PI / 2, r = k % 2 ? radius * 0.42 : radius;
      return `${(x + r * Math.cos(angle)).toFixed(1)} ${(y + r * Math.sin(angle)).toFixed(1)}`;
    };
    return `M${[...Array(10).keys()].map(corner).join("L")}Z`;
  };
  const drawScatter = () => {
    const [split, task, across, up] = ["split", "task", "x", "y"].map((key) => byId(`scatter-${key}`).value);
    const shown = data.points.filter((point) => point.split === split && point.task === task
      && byId(point.run === null ? "scatter-reported" : "scatter-measured").checked
      && point.values[across] !== undefined && point.values[up] !== undefined)
      .sort((a, b) => b.star - a.star);  // a star chooses the place of its name first
    byId("scatter-status").textContent = shown.length ? `${shown.length} systems` : "Nothing to show.";
    byId("scatter-plot").replaceChildren();
    if (!shown.length) return;
    const wide = byId("scatter-plot").clientWidth || 700;
    const width = Math.max(340, Math.min(900, wide)), height = Math.round(Math.max(360, width * 0.58));
    const title = (metric) => `${metric} (%, ${data.metrics[metric] ? "higher" : "lower"} is better)`;
    const { svg, x, y } = frame(byId("scatter-plot"), width, height, { left: 58, right: 14, top: 12, bottom: 44 },
      span(shown.map((point) => point.values[across])), span(shown.map((point) => point.values[up])),
      { x: title(across), y: title(up) }, `${up} against ${across}, ${data.splits[split]}, ${data.tasks[task]}`);
    const taken = shown.map((point) => ({ x: x(point.values[across]) - 7, y: y(point.values[up]) - 7, w: 14, h: 14 }));
    const free = (box) => box.x > 60 && box.x + box.w < width && box.y > 0 && box.y + box.h < height - 44
      && !taken.some((other) => box.x < other.x + other.w && other.x < box.x + box.w && box.y < other.y + other.h && other.y < box.y + box.h);
    for (const point of shown) {
      const px = x(point.values[across]), py = y(point.values[up]), measured = point.run !== null;
      const text = `${point.label}, ${measured ? "measured" : "reported in the paper"}: ${up} ${point.values[up].toFixed(1)}, ${across} ${point.values[across].toFixed(1)}`;
      const holder = measured ? svgElement("a", { href: `#run-${point.run}`, "aria-label": text }, svg) : svg;
      const look = { class: `mark dot${point.star ? " star" : ""}${measured ? "" : " reported"}` };
      if (!measured) Object.assign(look, { tabindex: 0, role: "img", "aria-label": text });
      const mark = point.star ? svgElement("path", { d: star(px, py, 10), ...look }, holder)
        : svgElement("circle", { cx: px, cy: py, r: 5.5, ...look }, holder);
      svgElement("title", {}, mark, text);
      for (const [target, kind] of [[mark, "mouseenter"], [measured ? holder : mark, "focus"]]) {
        target.addEventListener(kind, () => { byId("scatter-status").textContent = text; });
      }
      if (byId("scatter-names").checked) {
        const name = svgElement("text", { class: measured ? "name" : "name reported", "font-weight": point.star ? 700 : 400,
          "font-size": 12 }, svg, point.label);
        // as wide as it is in this browser's font: a phone's may be wider than one thinks
        const w = Math.ceil(name.getComputedTextLength()) + 4, h = 15;
        name.remove();
        for (let ring = 0; ring < 12; ring += 1) {
          const spot = [0, 1, 7, 2, 6, 3, 5, 4].map((k) => k * Math.PI / 4).map((angle) => ({
            x: px + (9 + 7 * ring) * Math.cos(angle) + (Math.cos(angle) < -0.3 ? -w : Math.cos(angle) < 0.3 ? -w / 2 : 0),
            y: py - (9 + 7 * ring) * Math.sin(angle) - h / 2, w, h })).find(free);
          if (!spot) continue;
          taken.push(spot);
          if (ring > 1) svgElement("line", { class: "leader", x1: px, y1: py, x2: Math.min(Math.max(px, spot.x), spot.x + w),
            y2: Math.min(Math.max(py, spot.y), spot.y + h) }, svg);
          name.setAttribute("x", spot.x + 2);
          name.setAttribute("y", spot.y + 11.5);
          svg.append(name);
          break;
        }
      }
    }
  };
  const metricNames = Object.keys(data.metrics);
  const order = ["AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L", "oLRP", "oLRP_Loc", "oLRP_FP", "oLRP_FN"].filter((name) => metricNames.includes(name));
  order.push(...metricNames.filter((name) => !order.includes(name) && data.points.some((point) => point.values[name] !== undefined)));
  const present = Object.entries(data.splits).filter(([split]) => data.points.some((point) => point.split === split));
  fill(byId("scatter-split"), present.reverse(), "test_dev");
  fill(byId("scatter-task"), Object.entries(data.tasks), "detection");
  fill(byId("scatter-x"), order.map((name) => [name, name]), "oLRP");
  fill(byId("scatter-y"), order.map((name) => [name, name]), "AP");
  for (const control of byId("scatter").querySelectorAll("select, input")) control.addEventListener("change", drawScatter);
  drawScatter();

  // ---------------------------------------------------------------------------------------------- gallery
  const drawFace = (svg, face) => {
    for (const extra of [" halo", ` fill${face.label} label${face.label}`]) {
      if (face.mask) svgElement("path", { d: face.mask, class: `mask${extra}` }, svg);
    }
    const [x, y, width, height] = face.box;
    const plain = ["halo", `label${face.label}`], wrong = ["wrong", "wrong dots"];
    for (const extra of [...plain, ...(face.error ? wrong : [])]) svgElement("rect", { x, y, width, height, class: `box ${extra}` }, svg);
  };
  const drawTag = (svg, photo, face, text, error, unit, tags) => {
    const size = 12 * unit, w = text.length * size * 0.6 + 4 * unit, h = size * 1.25;
    const x0 = Math.max(0, Math.min(face.box[0], photo.width - w));
    const below = error && face.text && /^(no face|\+)/.test(face.text);
    const start = Math.max(0, Math.min(photo.height - h, below ? face.box[1] + face.box[3] : face.box[1] - h));
    // The free place that is nearest to the face, up or down, then at the sides.
    const meets = (x, y) => tags.some((other) => x < other.x + other.w && other.x < x + w && y < other.y + h && other.y < y + h);
    const steps = [...Array(Math.ceil(photo.height / h) * 4).keys()].map((k) => start + (k % 2 ? 1 : -1) * Math.ceil(k / 2) * h / 2);
    const heights = steps.filter((y) => y >= 0 && y <= photo.height - h);
    const free = [x0, 0, photo.width - w].flatMap((x) => heights.map((y) => ({ x, y }))).find((one) => !meets(one.x, one.y));
    const { x, y } = free || { x: x0, y: start };
    tags.push({ x, y, w });
    const tag = svgElement("g", { class: error ? "tag error" : "tag" }, svg);
    svgElement("rect", { x, y, width: w, height: h }, tag);
    svgElement("text", { x: x + 2 * unit, y: y + size, "font-size": size }, tag, text);
  };
  const drawGallery = () => {
    const one = data.gallery[Number(byId("gallery-choice").value)];
    const place = byId("gallery-photos");
    place.replaceChildren();
    byId("gallery-rule").textContent = one.problem || one.rule;
    byId("gallery-rule").classList.toggle("problem", Boolean(one.problem));
    const run = byId("gallery-run").value, wanted = byId("gallery-error").value;
    const shown = (one.photos || []).filter((photo) => !wanted || run === "truth" ||
      (wanted === "miss" ? (photo.missed[run] || []).length : (photo.found[run] || []).some((face) => face.kind === wanted)));
    byId("gallery-status").textContent = wanted && run !== "truth" ? `${shown.length} of ${(one.photos || []).length} images` : "";
    for (const photo of shown) {
      const figure = document.createElement("figure");
      const faces = run === "truth" ? photo.truth : photo.found[run] || [];
      const missed = run === "truth" ? [] : photo.missed[run] || [];
      const errors = faces.filter((face) => face.error).length + missed.length;
      const svg = svgElement("svg", { viewBox: `0 0 ${photo.width} ${photo.height}`, role: "img",
        "aria-label": `image ${photo.id}: ${faces.map((face) => face.text).join(", ") || "nothing"}${missed.length ? `, ${missed.length} missed` : ""}` });
      const unit = photo.width / 280, tags = [];
      svgElement("image", { href: photo.source, width: photo.width, height: photo.height, preserveAspectRatio: "none" }, svg);
      for (const face of faces) drawFace(svg, face);
      for (const face of missed) {
        const [x, y, width, height] = face.box;
        for (const extra of ["wrong", "wrong dots"]) svgElement("rect", { x, y, width, height, class: `box ${extra}` }, svg);
      }
      for (const face of faces) drawTag(svg, photo, face, face.text, face.error, unit, tags);
      for (const face of missed) drawTag(svg, photo, face, "miss", true, unit, tags);
      const caption = document.createElement("figcaption");
      caption.textContent = `${data.splits[photo.split]}, image ${photo.id}` + (run === "truth" ? "" : `: ${errors} ${errors === 1 ? "error" : "errors"}`);
      figure.append(svg, caption);
      place.append(figure);
    }
  };
  const chooseGallery = () => {
    const one = data.gallery[Number(byId("gallery-choice").value)];
    const runs = (one.runs || []).map((run) => [run.name, run.title]);
    fill(byId("gallery-run"), [...runs, ["truth", "ground truth"]], runs.length ? runs[runs.length - 1][0] : "truth");
    drawGallery();
  };
  if (data.gallery.length) {
    byId("gallery-choice").addEventListener("change", chooseGallery);
    byId("gallery-run").addEventListener("change", drawGallery);
    byId("gallery-error").addEventListener("change", drawGallery);
    for (const part of ["masks", "boxes", "scores"]) {
      const toggle = () => byId("gallery-photos").classList.toggle(`no-${part}`, !byId(`show-${part}`).checked);
      byId(`show-${part}`).addEventListener("change", toggle);
      toggle();
    }
    chooseGallery();
  }

  // ----------------------------------------------------------------------------------------------- curves
  const colours = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8a6d00", "#56B4E9", "var(--ink)", "#777777"];
  const dashes = ["", "7 3", "2 3", "9 3 2 3"];
  const names = Object.keys(data.curves);
  const drawCurves = () => {
    const term = byId("curve-term").value, log = byId("curve-log").checked, place = byId("curve-plot");
    const chosen = [...byId("curve-runs").querySelectorAll("input:checked")].map((box) => box.value);
    const lines = chosen.filter((name) => data.curves[name][term]).map((name) => [name,
      data.curves[name][term].filter(([, value]) => !log || value > 0).map(([step, value]) => [step, log ? Math.log10(value) : value])])
      .filter(([, points]) => points.length);
    place.replaceChildren();
    byId("curve-status").textContent = lines.length ? "" : names.length ? "No chosen run has this term." : "No run has logs yet.";
    if (!lines.length) return;
    const all = lines.flatMap(([, points]) => points);
    const width = Math.max(340, Math.min(900, place.clientWidth || 700)), height = Math.round(Math.max(300, width * 0.45));
    const { svg, x, y } = frame(place, width, height, { left: 62, right: 14, top: 12 + 18 * lines.length, bottom: 44 },
      span(all.map(([step]) => step)), span(all.map(([, value]) => value)), { x: "step", y: term, power: log }, `${term} of ${chosen.join(", ")}`);
    lines.forEach(([name, points], index) => {
      const k = names.indexOf(name), colour = colours[k % colours.length], dash = dashes[Math.floor(k / colours.length + k) % dashes.length];
      const look = { stroke: colour, "stroke-dasharray": dash, "stroke-width": 1.8, fill: "none" };
      svgElement("path", { class: "curve", d: "M" + points.map(([step, value]) => `${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("L"), ...look }, svg);
      svgElement("path", { d: `M66 ${14 + 18 * index}h34`, ...look }, svg);
      svgElement("text", { x: 108, y: 18 + 18 * index }, svg, name);
    });
  };
  const terms = [...new Set(names.flatMap((name) => Object.keys(data.curves[name])))].sort();
  fill(byId("curve-term"), terms.map((term) => [term, term]), terms.includes("loss") ? "loss" : terms[0]);
  const wanted = names.filter((name) => /^(blendmask|comics) /.test(name));
  byId("curve-runs").replaceChildren(...names.map((name) => {
    const label = document.createElement("label"), box = document.createElement("input");
    label.className = "check";
    box.type = "checkbox"; box.value = name; box.checked = (wanted.length ? wanted : names.slice(0, 2)).includes(name);
    label.append(box, ` ${name}`);
    return label;
  }));
  byId("curves").addEventListener("change", drawCurves);
  drawCurves();

  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth !== width) { width = window.innerWidth; drawScatter(); drawCurves(); }
  });
})();

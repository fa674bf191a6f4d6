// Draws the charts that stand in the page as data: one toggle per variant, linear or logarithmic axes, values under
// the pointer or the arrow keys, a key, and the numbers as a table. It knows series and axes, nothing of scaling laws.
"use strict";
(() => {
  const specs = JSON.parse(document.getElementById("data").textContent);
  const hidden = new Set();
  const live = [];
  const night = window.matchMedia("(prefers-color-scheme: dark)");
  let printing = false;
  const dark = () => night.matches && !printing;
  // Colours that a dark page would swallow, lighter there; all else is seen on both.
  const lighter = { "#000000": "#f0f0f0", "#332288": "#9a8cff", "#882255": "#e06aa0", "#8b4513": "#d08a4e", "#7f6a00": "#c9b037",
    "#0072b2": "#4aa8e0", "#aa4499": "#d57fc9", "#444444": "#bbbbbb", "#555555": "#bbbbbb", "#440154": "#b06cc8", "#482878": "#a58ad8",
    "#3e4a89": "#8f9de0", "#30698e": "#6fb3dd" };
  const ink = (hex) => (dark() && lighter[hex.toLowerCase()]) || hex;

  const short = (v) => {
    if (v === null || v === undefined) return "-";
    const size = Math.abs(v);
    if (size !== 0 && (size >= 1e5 || size < 1e-3)) return v.toExponential(2).replace(/\.?0*e\+?/, "e");
    return String(Number(v.toPrecision(4)));
  };
  const tick = (v) => (v === null ? "" : short(v));

  function alpha(hex, part) {
    return hex + Math.round(part * 255).toString(16).padStart(2, "0");
  }

  // One uPlot series (or three for a band) for each series of the data that is shown.
  function parts(spec) {
    const tables = [], series = [{}], bands = [], sources = [null];
    for (const s of spec.series) {
      if (hidden.has(s.variant)) continue;
      const add = (y, options) => {
        tables.push([s.x, y]);
        series.push(Object.assign({ label: s.label, spanGaps: true, stroke: ink(s.colour), points: { show: false } }, options));
        sources.push(s);
      };
      if (s.style === "band") {
        add(s.high, { stroke: alpha(ink(s.colour), 0.15), width: 1 });
        add(s.low, { stroke: alpha(ink(s.colour), 0.15), width: 1 });
        bands.push({ series: [series.length - 2, series.length - 1], fill: alpha(ink(s.colour), 0.18) });
        add(s.y, { width: 2 });
      } else if (s.style === "points") {
        add(s.y, { width: 0, paths: () => null, points: { show: true, size: s.size || 6, fill: ink(s.colour), width: 0 } });
      } else if (s.style === "dots") {
        add(s.y, { paths: () => null, points: { show: true, size: 4, fill: alpha(ink(s.colour), 0.4), width: 0 } });
      } else if (s.style === "joined") {
        add(s.y, { width: 1.5, points: { show: true, size: 6, fill: ink(s.colour), width: 0 } });
      } else if (s.style === "bars") {
        add(s.y, { width: 0, fill: ink(s.colour), paths: bars });
      } else if (s.style === "faint") {
        add(s.y, { width: 1, stroke: alpha(ink(s.colour), 0.3) });
      } else {
        add(s.y, { width: 1.5, dash: s.style === "dashed" ? [6, 4] : undefined });
      }
    }
    return { data: tables.length ? joined(tables) : [[]], series, bands, sources };
  }

  // Bars from zero, a third of a category wide whatever else the series holds.
  function bars(u, k, first, last) {
    const path = new Path2D(), place = (v, axis) => u.valToPos(v, axis, true), zero = place(Math.max(0, u.scales.y.min), "y");
    for (let i = first; i <= last; i++) {
      const x = u.data[0][i], y = u.data[k][i];
      if (y === null || y === undefined) continue;
      const left = place(x - 0.18, "x"), top = place(y, "y");
      path.rect(left, top, place(x + 0.18, "x") - left, zero - top);
    }
    return { stroke: path, fill: path, flags: 0 };
  }

  // uPlot.join wants each table sorted by x without repeats; points may share an x, so they move by one part in 1e9.
  function joined(tables) {
    return uPlot.join(tables.map(([x, y]) => {
      const order = x.map((_, i) => i).filter((i) => x[i] !== null).sort((a, b) => x[a] - x[b]);
      let last = -Infinity;
      const xs = [], ys = [];
      for (const i of order) {
        last = x[i] > last ? x[i] : last + Math.abs(last) * 1e-9 + Number.MIN_VALUE;
        xs.push(last);
        ys.push(y[i] === undefined ? null : y[i]);
      }
      return [xs, ys];
    }));
  }

  function axis(options, side) {
    // uPlot cuts a label that is longer than the axis, so that of x stands below the plot, where it can wrap.
    const label = side === "y" || options.names ? options.label : null;
    return {
      label, labelSize: 22, size: side === "y" ? 62 : options.names ? 66 : 26, font: "12px system-ui", labelFont: "12px system-ui",
      stroke: dark() ? "#cfcfcf" : "#333", grid: { stroke: dark() ? "#33363a" : "#ececec", width: 1 },
      ticks: { stroke: dark() ? "#666" : "#bbb", width: 1 },
      values: (u, ticks) => ticks.map((v) => (options.names ? options.names[v] || "" : tick(v))),
      filter: (u, ticks) => ticks,  // uPlot would label powers of ten only on a logarithmic axis
    };
  }

  const range = (axis) => (u, low, high) => {
    const log = axis.log;
    if (axis.names) return [-0.6, axis.names.length - 0.4];
    if (axis.zero) return [Math.min(0, low), Math.max(0, high) * 1.06];
    if (low === null || high === null) return [log ? 1 : 0, log ? 10 : 1];
    if (!log) { const pad = (high - low || Math.abs(high) || 1) * 0.06; return [low - pad, high + pad]; }
    const pad = Math.max(Math.pow(high / low, 0.04), 1.0005);
    return [low / pad, high * pad];
  };

  // Powers of ten, where two are certain; else 1, 2 and 5 times one; and even steps for losses, which span less.
  const splits = (axis) => (u, index, low, high) => {
    const log = axis.log;
    if (axis.names) return axis.names.map((_, i) => i);
    if (log && high / low >= 100) {
      const out = [];
      const every = Math.max(1, Math.ceil(Math.log10(high / low) / (u.width < 500 ? 4 : 8)));
      for (let k = Math.ceil(Math.log10(low) - 1e-9); k <= Math.log10(high) + 1e-9; k += every) out.push(Math.pow(10, k));
      return out;
    }
    const width = index === 0 ? 60 / u.width : 0.05;
    if (log && high / low >= 4) {
      const out = [];
      for (let k = Math.floor(Math.log10(low)); k <= Math.log10(high); k++) out.push(...[1, 2, 5].map((m) => Number(`${m}e${k}`)));
      return apart(out.filter((v) => v >= low && v <= high), low, high, width);
    }
    const raw = (high - low) / (u.width < 500 && index === 0 ? 4 : 6), unit = Math.pow(10, Math.floor(Math.log10(raw)));
    const step = [1, 2, 2.5, 5, 10].map((m) => m * unit).find((s) => s >= raw);
    const out = [];
    for (let v = Math.ceil(low / step) * step; v <= high; v += step) out.push(Number(v.toPrecision(12)));
    return log ? apart(out, low, high, width) : out;
  };

  // Even steps crowd towards the end of a logarithmic axis: those that would touch the one before are left out.
  const apart = (ticks, low, high, least) => {
    let last = -1;
    return ticks.filter((v) => {
      const at = Math.log(v / low) / Math.log(high / low);
      if (at - last < least) return false;
      last = at;
      return true;
    });
  };

  function nearest(chart, left, top) {
    const u = chart.plot;
    let best = null, least = 40 * 40;
    for (let s = 1; s < u.data.length; s++) {
      const ys = u.data[s];
      for (let i = 0; i < ys.length; i++) {
        if (ys[i] === null || ys[i] === undefined) continue;
        const dx = u.valToPos(u.data[0][i], "x") - left, dy = u.valToPos(ys[i], "y") - top;
        if (dx * dx + dy * dy < least) { least = dx * dx + dy * dy; best = { s, i }; }
      }
    }
    return best;
  }

  function hover(chart, u) {
    const { left, top } = u.cursor;
    show(chart, u, left >= 0 ? nearest(chart, left, top) : null);
  }

  function show(chart, u, found) {
    chart.tip.style.display = found ? "block" : "none";
    if (!found) return;
    const x = u.data[0][found.i], y = u.data[found.s][found.i];
    chart.tip.textContent = `${u.series[found.s].label}\n${chart.spec.x.names ? "" : `${chart.spec.x.label}: ${short(x)}\n`}${chart.spec.y.label}: ${short(y)}`;
    chart.tip.style.whiteSpace = "pre-line";
    const at = u.valToPos(x, "x") + u.over.offsetLeft, from = u.valToPos(y, "y") + u.over.offsetTop;
    const wide = chart.tip.offsetWidth, room = chart.host.clientWidth;
    chart.tip.style.left = `${Math.max(0, Math.min(at + 12, room - wide - 4))}px`;
    chart.tip.style.top = `${Math.max(0, from - chart.tip.offsetHeight - 8)}px`;
  }

  // A horizontal line where a chart has a level that divides better from worse.
  function level(u, spec) {
    if (spec.level === undefined || (spec.y.log && spec.level <= 0)) return;
    const y = u.valToPos(spec.level, "y", true);
    if (!(y >= u.bbox.top && y <= u.bbox.top + u.bbox.height)) return;
    u.ctx.save();
    u.ctx.strokeStyle = "#888";
    u.ctx.lineWidth = devicePixelRatio;
    u.ctx.beginPath();
    u.ctx.moveTo(u.bbox.left, y);
    u.ctx.lineTo(u.bbox.left + u.bbox.width, y);
    u.ctx.stroke();
    u.ctx.restore();
  }

  function draw(chart) {
    if (chart.plot) chart.plot.destroy();
    const { spec } = chart, made = parts(spec);
    const width = chart.host.clientWidth;
    chart.width = width;
    chart.plot = new uPlot({
      width, height: Math.round(Math.min(430, Math.max(280, width * 0.62))),
      series: made.series, bands: made.bands,
      scales: {
        x: { time: false, distr: spec.x.log ? 3 : 1, range: range(spec.x) },
        y: { distr: spec.y.log ? 3 : 1, range: range(spec.y) },
      },
      axes: [
        Object.assign(axis(spec.x, "x"), { splits: splits(spec.x) }),
        Object.assign(axis(spec.y, "y"), { splits: splits(spec.y) }),
      ],
      hooks: { setCursor: [(u) => hover(chart, u)], drawAxes: [(u) => level(u, spec)] },
      cursor: { points: { show: false }, drag: { x: true, y: true, uni: 20 } },
      legend: { show: false },
    }, made.data, chart.host);
    chart.host.appendChild(chart.tip);
    chart.host.dataset.series = String(made.series.length - 1);
  }

  function describe(spec) {
    const names = [...new Set(spec.series.map((s) => s.label))];
    const axis = (a) => a.label.replace(/\n/g, " ") + (a.log ? ", logarithmic" : "");
    return `${spec.title}: chart of ${axis(spec.y)} over ${spec.x.names ? spec.x.names.join(", ") : axis(spec.x)}; ${names.length} series: ` +
      `${names.slice(0, 12).join(", ")}${names.length > 12 ? ", ..." : ""}. Arrow keys read the values; the numbers follow as a table.`;
  }

  // Left and right: the points of a series; up and down: the series.
  function walk(chart, event) {
    const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (!step || chart.plot.data.length < 2) return;
    event.preventDefault();
    const u = chart.plot, count = u.data.length - 1;
    const there = (s) => u.data[s].map((v, i) => (v === null || v === undefined ? -1 : i)).filter((i) => i >= 0);
    let { s = 1, place = -1 } = chart.at || {};
    if (step[0]) { s = ((s - 1 + step[0] + count) % count) + 1; place = 0; }
    for (let tries = 0; !there(s).length && tries < count; tries++) s = (s % count) + 1;
    const points = there(s);
    if (!points.length) return;
    place = Math.max(0, Math.min(points.length - 1, place + step[1]));
    chart.at = { s, place };
    show(chart, u, { s, i: points[place] });
    document.getElementById("said").textContent = chart.tip.textContent.replace(/\n/g, ", ");
  }

  function key(spec) {
    const list = document.createElement("ul");
    list.className = "key";
    for (const [label, colour] of Object.entries(spec.key || {})) {
      const item = document.createElement("li"), mark = document.createElement("i");
      mark.dataset.colour = colour;
      item.append(mark, label);
      list.append(item);
    }
    return list;
  }

  const MOST = 400;
  function numbers(spec) {
    const box = document.createElement("details"), title = document.createElement("summary");
    box.className = "numbers";
    title.textContent = `Numbers of ${spec.title}`;
    box.append(title);
    box.addEventListener("toggle", () => {
      if (!box.open || box.childElementCount > 1) return;
      const scroll = document.createElement("div"), table = document.createElement("table"), head = table.createTHead().insertRow();
      scroll.className = "scroll";
      scroll.tabIndex = 0;
      for (const name of ["series", spec.x.names ? "category" : spec.x.label, spec.y.label]) {
        const cell = document.createElement("th");
        cell.scope = "col";
        cell.textContent = name;
        head.append(cell);
      }
      const body = table.createTBody();
      let left = MOST;
      for (const s of spec.series) {
        s.x.forEach((x, i) => {
          if (left-- <= 0 || s.y[i] === null) return;
          const row = body.insertRow();
          for (const text of [s.label, spec.x.names ? spec.x.names[Math.round(x)] : short(x), short(s.y[i])]) row.insertCell().textContent = text;
        });
      }
      scroll.append(table);
      if (left < 0) scroll.append(`The first ${MOST} numbers; all stand in the files beside this page.`);
      box.append(scroll);
    });
    return box;
  }

  function toggle(text, on, act) {
    const label = document.createElement("label"), box = document.createElement("input");
    box.type = "checkbox";
    box.checked = on;
    box.addEventListener("change", () => act(box.checked));
    label.append(box, text);
    return label;
  }

  for (const spec of specs) {
    const section = document.createElement("section"), host = document.createElement("div"), tip = document.createElement("div");
    const title = document.createElement(spec.host ? "h3" : "h2"), note = document.createElement("p"), bar = document.createElement("div");
    title.textContent = spec.title;
    note.textContent = spec.note;
    bar.className = "axes";
    host.className = "plot";
    host.id = spec.id;
    host.tabIndex = 0;
    host.setAttribute("role", "img");
    host.setAttribute("aria-label", describe(spec));
    tip.className = "tip";
    const chart = { spec, host, tip, plot: null, width: 0 };
    const positive = (name) => spec.series.every((s) => [s[name], s.low, s.high].filter((v) => v && name === "y" || v === s[name])
      .every((v) => v.every((n) => n === null || n > 0)));
    for (const name of ["x", "y"]) {
      if (positive(name) && !spec[name].names) bar.append(toggle(`log ${name}`, spec[name].log, (on) => { spec[name].log = on; draw(chart); }));
    }
    section.append(title, note, bar, host);
    if (!spec.x.names) {
      const name = document.createElement("div");
      name.className = "axis";
      name.textContent = spec.x.label;
      section.append(name);
    }
    section.append(key(spec), numbers(spec));
    host.addEventListener("keydown", (event) => walk(chart, event));
    host.addEventListener("blur", () => { tip.style.display = "none"; });
    document.getElementById(spec.host || "charts").append(section);
    live.push(chart);
    draw(chart);
  }

  document.querySelectorAll("#toggles input").forEach((box) => box.addEventListener("change", () => {
    for (const name of box.dataset.variant.split("\u00a7")) {
      if (box.checked) hidden.delete(name); else hidden.add(name);
    }
    document.querySelectorAll("tr[data-variant]").forEach((row) => {
      row.classList.toggle("off", hidden.has(row.dataset.variant));
    });
    live.forEach(draw);
  }));

  function paint() {
    document.querySelectorAll("i[data-colour]").forEach((mark) => { mark.style.background = ink(mark.dataset.colour); });
    live.forEach(draw);
  }
  paint();
  night.addEventListener("change", paint);
  const reload = document.getElementById("reload");
  if (reload) {
    setInterval(() => { if (reload.checked) location.reload(); }, 1000 * Number(reload.dataset.seconds));
  }

  // On paper nothing can be unfolded: warnings and tables stand open there, the numbers of the charts do not.
  let folded = [];
  window.addEventListener("beforeprint", () => {
    printing = true;
    folded = [...document.querySelectorAll("details:not(.numbers):not([open])")];
    folded.forEach((one) => { one.open = true; });
    paint();
  });
  window.addEventListener("afterprint", () => {
    printing = false;
    folded.forEach((one) => { one.open = false; });
    paint();
  });

  let waiting = 0;
  window.addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => live.forEach((chart) => { if (chart.host.clientWidth !== chart.width) draw(chart); }), 120);
  });
})();

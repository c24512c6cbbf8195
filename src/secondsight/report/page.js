"use strict";
// The page's own script: no library, no network. Data: the Results of schema.py without what the HTML already says.
(async () => {
  const $ = (id) => document.getElementById(id);
  const R = JSON.parse($("data").textContent);
  const svgNS = "http://www.w3.org/2000/svg";
  const TYPES = { u1: Uint8Array, i2: Int16Array, i4: Int32Array, f4: Float32Array, f8: Float64Array };

  const unpack = async (p) => {
    const bytes = Uint8Array.from(atob(p.data), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new TYPES[p.dtype](await new Response(stream).arrayBuffer());
  };
  const el = (tag, attrs = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [k, v] of Object.entries(attrs)) v === true ? node.setAttribute(k, "") : v !== false && node.setAttribute(k, v);
    node.append(...children);
    return node;
  };
  const seconds = (s) => s === 0 ? "0" : (s >= 100 ? s.toFixed(0) : s >= 1 ? s.toFixed(1) : (s * 1000).toFixed(s >= 0.01 ? 0 : 2)) + (s >= 1 ? " s" : " ms");
  const count = (n) => (n >= 1e9 ? (n / 1e9).toFixed(1) + " G" : n >= 1e6 ? (n / 1e6).toFixed(1) + " M" : Math.round(n).toLocaleString("en").replace(/,/g, " "));
  const percent = (x) => (100 * x).toFixed(x < 0.001 && x > 0 ? 3 : 1) + " %";
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // -- theme, table -------------------------------------------------------------------------------------------
  $("theme").onclick = () => {
    const dark = document.documentElement.dataset.theme
      ? document.documentElement.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    document.documentElement.dataset.theme = dark ? "light" : "dark";
    if ($("heat")) draw();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => $("heat") && draw());
  const table = document.querySelector(".tablebox table");
  $("more").onclick = () => {
    const on = table.classList.toggle("all");
    $("more").setAttribute("aria-pressed", on);
  };
  table.tHead.addEventListener("click", (event) => {
    const th = event.target.closest("th");
    if (!th || !event.target.closest("button")) return;
    const column = [...th.parentNode.children].indexOf(th);
    const down = th.getAttribute("aria-sort") !== "descending";
    for (const other of th.parentNode.children) other.removeAttribute("aria-sort");
    th.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (tr) => { const v = tr.cells[column].dataset.v; return v === undefined ? tr.cells[column].textContent : v === "" ? NaN : Number(v); };
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const x = value(a), y = value(b);
      if (typeof x === "string") return down ? x.localeCompare(y) : y.localeCompare(x);
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
      return down ? y - x : x - y;
    });
    table.tBodies[0].append(...rows);
  });
  table.tBodies[0].addEventListener("click", (event) => {
    const tr = event.target.closest("tr");
    if (tr && $("heat")) choose(Number(tr.dataset.row));
  });

  // -- charts: a cross-hair, and one row lit in all of them -------------------------------------------------------
  const charts = document.querySelector(".charts");
  const light = (row) => {
    charts.classList.toggle("dim", row !== null);
    for (const path of charts.querySelectorAll(".series[data-row]")) path.classList.toggle("lit", row !== null && Number(path.dataset.row) === row);
  };
  for (const tr of table.tBodies[0].rows) { tr.onmouseenter = () => light(Number(tr.dataset.row)); tr.onmouseleave = () => light(null); }
  for (const li of document.querySelectorAll(".legend li")) { li.onmouseenter = () => light(Number(li.dataset.row)); li.onmouseleave = () => light(null); }
  for (const figure of charts.querySelectorAll("figure")) {
    const svg = figure.querySelector("svg.chart"), tip = figure.appendChild(el("div", { class: "tip" }));
    const data = JSON.parse(svg.dataset.chart), [x0, x1] = data.x, left = 80, right = 18, width = 560;
    const hair = document.createElementNS(svgNS, "line");
    hair.setAttribute("class", "axis"); hair.setAttribute("y1", 12); hair.setAttribute("y2", 256); hair.style.display = "none";
    svg.append(hair);
    svg.onmousemove = (event) => {
      const box = svg.getBoundingClientRect(), px = ((event.clientX - box.left) / box.width) * width;
      const x = x0 + ((px - left) / (width - left - right)) * (x1 - x0);
      if (x < x0 || x > x1) return svg.onmouseleave();
      hair.setAttribute("x1", px); hair.setAttribute("x2", px); hair.style.display = "";
      const format = { share: percent, bytes: (v) => v >= 1 << 30 ? (v / (1 << 30)).toFixed(2) + " GiB" : (v / 1048576).toFixed(1) + " MiB", rate: (v) => v.toPrecision(3), seconds, index: (v) => v.toFixed(2) }[figure.dataset.y] || count;
      const at = (points) => { let y = null, before = null;
        for (const [a, b] of points) { if (a > x) { if (figure.dataset.step !== "1" && before) y = before[1] + ((b - before[1]) * (x - before[0])) / (a - before[0]); break; } y = b; before = [a, b]; }
        return y; };
      const lines = data.lines.map((l) => [l.label, at(l.p)]).filter((l) => l[1] !== null).sort((a, b) => b[1] - a[1]);
      tip.replaceChildren(el("b", {}, figure.dataset.x === "share" ? percent(x) : figure.dataset.x === "seconds" ? seconds(x) : String(Number(x.toPrecision(4)))),
        ...lines.slice(0, 14).map(([label, y]) => el("div", {}, `${format(y)}  ${label}`)));
      tip.style.display = "block";
      const where = figure.getBoundingClientRect();
      const at_x = event.clientX - where.left;
      tip.style.left = (at_x > where.width / 2 ? at_x - tip.offsetWidth - 14 : at_x + 14) + "px";
      tip.style.top = Math.max(0, event.clientY - where.top - 20) + "px";
    };
    svg.onmouseleave = () => { tip.style.display = "none"; hair.style.display = "none"; };
  }

  // Over many traces there is no map.
  if (!$("heat")) { document.documentElement.dataset.ready = "1"; return; }

  // -- the heat map -------------------------------------------------------------------------------------------------
  const B = { space: await unpack(R.blocks.space), number: await unpack(R.blocks.number), accesses: await unpack(R.blocks.accesses), populated: await unpack(R.blocks.populated) };
  const n = B.space.length, total = B.accesses.reduce((a, b) => a + b, 0) || 1;
  const address = (b) => "0x" + (BigInt(B.number[b]) << 21n).toString(16);
  const name = (b) => (R.spaces.length > 1 ? R.spaces[B.space[b]] + " " : "") + address(b);
  const canvas = $("heat"), tip = $("heattip"), LABEL = 150, FOOT = 26;
  let row = 0, channel = "any", view = [0, n], chosen = -1, drag = null, held = {};
  const cache = new Map();

  const load = async (index) => {
    if (cache.has(index)) return cache.get(index);
    const source = R.rows[index], out = { channels: {}, columns: 0, events: null, fate: null, split: null };
    for (const [key, packed] of Object.entries(source.channels)) { out.channels[key] = await unpack(packed); out.columns = packed.shape[1]; }
    const known = Object.values(out.channels);
    // Refused attempts are no channel: drawn like one, in a colour and on a scale of their own.
    if (source.refusals) {
      out.refusals = await unpack(source.refusals);
      out.columns = source.refusals.shape[1];
      out.mostRefused = out.refusals.reduce((m, v) => Math.max(m, v), 1);
    }
    if (known.length) out.channels.any = known[0].map((_, i) => known.reduce((m, c) => Math.max(m, c[i]), -1));
    if (out.refusals) out.channels.refused = out.refusals;
    if (source.fate) out.fate = await unpack(source.fate);
    if (source.split) out.split = await unpack(source.split);
    if (source.events) {
      out.events = {};
      for (const [key, packed] of Object.entries(source.events)) if (packed) out.events[key] = await unpack(packed);
      // Events stand by block: where each block's begin.
      out.start = new Int32Array(n + 1);
      for (const b of out.events.block) out.start[b + 1]++;
      for (let i = 0; i < n; i++) out.start[i + 1] += out.start[i];
    }
    out.end = source.end || 1;
    cache.set(index, out);
    return out;
  };

  const ramp = (dark, refused) => {
    // 0..512 young pages -> colour; index 0 none, 256..511 the same for huge blocks. A square root: few young pages must show.
    const mix = (a, b, t) => a.map((v, i) => Math.round(v + (b[i] - v) * t)), table = new Uint32Array(513 * 2);
    const [small, huge] = dark ? [[[30, 36, 44], [140, 195, 255]], [[62, 44, 22], [255, 178, 92]]] : [[[233, 237, 242], [13, 62, 130]], [[252, 232, 208], [176, 74, 4]]];
    const bad = dark ? [255, 120, 120] : [176, 16, 16];
    for (let i = 0; i <= 512; i++) {
      const t = i ? 0.22 + 0.78 * Math.sqrt(i / 512) : 0;
      for (const [k, [a, b]] of [small, huge].entries()) { const [r, g, bl] = mix(a, refused ? bad : b, t); table[k * 513 + i] = (255 << 24) | (bl << 16) | (g << 8) | r; }
    }
    return table;
  };
  const isDark = () => (document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches) && !matchMedia("print").matches;

  let frame = 0;
  const draw = () => { if (!frame) frame = requestAnimationFrame(() => { frame = 0; paint(); }); };
  const paint = () => {
    const ratio = Math.min(devicePixelRatio || 1, 2), wide = canvas.clientWidth, high = 460;
    canvas.width = wide * ratio; canvas.height = high * ratio; canvas.style.height = high + "px";
    const ctx = canvas.getContext("2d");
    ctx.scale(ratio, ratio);
    ctx.fillStyle = css("--paper"); ctx.fillRect(0, 0, wide, high);
    const cells = held.channels && held.channels[channel], columns = held.columns, [from, to] = view, shown = to - from;
    const W = wide - LABEL, H = high - FOOT, dark = isDark();
    ctx.font = "12px system-ui, DejaVu Sans, sans-serif"; ctx.fillStyle = css("--soft");
    // Nothing is said before the row has been read.
    if (!cells || !shown) { if (held.channels) ctx.fillText("No channel was recorded for this row.", LABEL + 10, 30); return; }
    // One image pixel a column and a line; many blocks to a line keep their maximum.
    const lines = Math.min(shown, Math.round(H * ratio)), image = new ImageData(columns, lines), pixels = new Uint32Array(image.data.buffer), colours = ramp(dark, channel === "refused");
    const scale = channel === "refused" ? 512 / held.mostRefused : 1;
    const unknown = dark ? 0xff4a4038 : 0xffc8bdb4;
    for (let y = 0; y < lines; y++) {
      const a = from + Math.floor((y * shown) / lines), b = Math.max(a + 1, from + Math.floor(((y + 1) * shown) / lines));
      for (let x = 0; x < columns; x++) {
        let most = -1, huge = false;
        const now = ((x + 1) / columns) * held.end;
        for (let k = a; k < b; k++) {
          const v = cells[k * columns + x];
          const is = held.fate && held.fate[k] <= now && !(held.split && held.split[k] >= held.fate[k] && held.split[k] < now);
          if (v > most || (v === most && is)) { most = v; huge = is; }
        }
        pixels[y * columns + x] = most < 0 ? unknown : colours[(huge ? 513 : 0) + Math.min(Math.ceil(most * scale), 512)];
      }
    }
    const off = new OffscreenCanvas(columns, lines);
    off.getContext("2d").putImageData(image, 0, 0);
    ctx.imageSmoothingEnabled = false;
    ctx.drawImage(off, LABEL, 0, W, H);
    // Where a space or a run of addresses ends.
    const yOf = (b) => ((b - from) / shown) * H;
    ctx.strokeStyle = css("--paper"); ctx.lineWidth = 1;
    let last = -100, gaps = 0;
    for (let b = from + 1; b < to; b++) if (B.space[b] !== B.space[b - 1] || B.number[b] !== B.number[b - 1] + 1) gaps++;
    for (let b = from; b < to; b++) {
      const edge = b === from || B.space[b] !== B.space[b - 1] || B.number[b] !== B.number[b - 1] + 1, y = yOf(b);
      if (edge && b > from && gaps < 60) { ctx.beginPath(); ctx.moveTo(LABEL, y); ctx.lineTo(wide, y); ctx.stroke(); }
      const first = b === from || B.space[b] !== B.space[b - 1];
      if (first && R.spaces.length > 1 && y < H - 6) {
        // The space's name above its first address, cut to fit.
        let words = R.spaces[B.space[b]];
        while (ctx.measureText(words).width > LABEL - 12) words = words.slice(0, -2) + "…";
        const at = Math.max(y + 10, last + 15);
        ctx.fillStyle = css("--ink"); ctx.textAlign = "right"; ctx.fillText(words, LABEL - 8, at); last = at - 10;
      } else if ((edge || y - last > 60) && y - last >= 15 && y < H - 6) {
        ctx.fillStyle = css("--soft"); ctx.textAlign = "right"; ctx.fillText(address(b), LABEL - 8, y + 10); last = y;
      }
    }
    ctx.textAlign = "center"; ctx.fillStyle = css("--soft");
    const parts = W < 420 ? 3 : 6;
    for (let i = 0; i <= parts; i++) {
      const words = seconds((held.end * i) / parts), half = ctx.measureText(words).width / 2;
      ctx.fillText(words, Math.min(Math.max(LABEL + (W * i) / parts, LABEL + half), wide - half - 1), high - 8);
    }
    if (chosen >= from && chosen < to) {
      ctx.strokeStyle = css("--bad"); ctx.lineWidth = 1.5;
      ctx.strokeRect(LABEL + 0.5, yOf(chosen) - 1, W - 1, Math.max(H / shown, 2) + 2);
    }
    if (drag) { ctx.fillStyle = "rgba(128,128,128,.3)"; ctx.fillRect(LABEL, Math.min(drag[0], drag[1]), W, Math.abs(drag[1] - drag[0])); }
  };

  const blockAt = (event) => {
    const box = canvas.getBoundingClientRect(), y = event.clientY - box.top;
    return Math.max(view[0], Math.min(view[1] - 1, view[0] + Math.floor((y / (460 - FOOT)) * (view[1] - view[0]))));
  };
  canvas.onpointerdown = (event) => { const y = event.clientY - canvas.getBoundingClientRect().top; drag = [y, y, blockAt(event)]; canvas.setPointerCapture(event.pointerId); };
  canvas.onpointermove = (event) => {
    const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    if (drag) { drag[1] = y; draw(); return; }
    if (x < LABEL || y > 460 - FOOT || !held.columns) { tip.style.display = "none"; return; }
    const b = blockAt(event), c = Math.min(held.columns - 1, Math.floor(((x - LABEL) / (box.width - LABEL)) * held.columns));
    const said = Object.keys(R.channels).map((k) => { const v = held.channels[k] ? held.channels[k][b * held.columns + c] : -1; return `${R.channels[k]} ${v < 0 ? "unknown" : v}`; });
    const refused = held.refusals ? [el("div", {}, `refused attempts: ${count(held.refusals[b * held.columns + c])}`)] : [];
    tip.replaceChildren(el("b", {}, `${name(b)} at ${seconds((held.end * (c + 0.5)) / held.columns)}`), el("div", {}, `young pages: ${said.join(", ")}`), ...refused);
    tip.style.display = "block";
    tip.style.left = Math.min(x + 14, box.width - tip.offsetWidth - 4) + "px";
    tip.style.top = y + 14 + "px";
  };
  canvas.onpointerleave = () => { tip.style.display = "none"; };
  canvas.onpointerup = (event) => {
    if (!drag) return;
    const [a, b, first] = drag;
    drag = null;
    if (Math.abs(b - a) > 8 && Math.abs(blockAt(event) - first) > 0) {
      const last = blockAt(event);
      view = [Math.min(first, last), Math.max(first, last) + 1];
    } else pick(first);
    draw();
  };
  canvas.ondblclick = () => { view = [0, n]; draw(); };
  $("zoomout").onclick = canvas.ondblclick;
  canvas.onkeydown = (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 20, PageUp: -20 }[event.key];
    if (!step || !n) return;
    event.preventDefault();
    pick(Math.max(0, Math.min(n - 1, chosen < 0 ? view[0] : chosen + step)));
  };
  $("find").onchange = () => {
    let want;
    try { want = BigInt($("find").value.trim().replace(/^(?!0x)/i, "0x")) >> 21n; } catch { want = null; }
    const found = want === null ? -1 : B.number.findIndex((v) => BigInt(v) === want);
    $("find").style.borderColor = found < 0 ? css("--bad") : "";
    if (found >= 0) { if (found < view[0] || found >= view[1]) view = [0, n]; pick(found); }
  };

  // -- one block's history -----------------------------------------------------------------------------------------------
  const line = (values, columns, b, klass) => {
    const path = document.createElementNS(svgNS, "path");
    let d = "", pen = false;
    for (let c = 0; c < columns; c++) {
      const v = values[b * columns + c];
      if (v < 0) { pen = false; continue; }
      d += `${pen ? "L" : "M"}${(50 + (c / Math.max(1, columns - 1)) * 940).toFixed(1)} ${(110 - (v / 512) * 100).toFixed(1)}`;
      pen = true;
    }
    path.setAttribute("d", d); path.setAttribute("class", "series " + klass);
    return path;
  };
  const text = (x, y, words, anchor) => { const t = document.createElementNS(svgNS, "text"); t.setAttribute("x", x); t.setAttribute("y", y); t.setAttribute("class", "tick"); t.setAttribute("text-anchor", anchor); t.textContent = words; return t; };
  const size = (order) => (order < 0 ? "" : order < 8 ? `${4 << order} KiB` : `${1 << (order - 8)} MiB`);
  const known = (v) => (v < 0 ? "?" : String(v));
  const history = () => {
    const box = $("history");
    if (chosen < 0) return;
    const b = chosen, fate = held.fate ? held.fate[b] : NaN, source = R.rows[row];
    const facts = `${count(B.accesses[b])} accesses (${percent(B.accesses[b] / total)} of all), ${B.populated[b]} of 512 pages touched; ` +
      (Number.isNaN(fate) ? "never huge" : `huge from ${seconds(fate)}`) + (held.split && !Number.isNaN(held.split[b]) ? `, split at ${seconds(held.split[b])}` : "") + ".";
    const svg = document.createElementNS(svgNS, "svg");
    svg.setAttribute("viewBox", "0 -14 1000 146"); svg.setAttribute("class", "chart"); svg.setAttribute("role", "img"); svg.setAttribute("aria-label", "young pages by channel over time");
    for (const y of [10, 110]) { const g = document.createElementNS(svgNS, "line"); for (const [k, v] of Object.entries({ x1: 50, x2: 990, y1: y, y2: y, class: "grid" })) g.setAttribute(k, v); svg.append(g); }
    svg.append(text(44, 14, "512", "end"), text(44, 114, "0", "end"), text(50, 128, "0", "start"), text(990, 128, seconds(held.end), "end"));
    Object.keys(R.channels).forEach((key, i) => held.channels[key] && svg.append(line(held.channels[key], held.columns, b, "c" + i)));
    if (!Number.isNaN(fate)) {
      const x = 50 + (fate / held.end) * 940, mark = document.createElementNS(svgNS, "line");
      for (const [k, v] of Object.entries({ x1: x, x2: x, y1: -12, y2: 110, class: "series c1", "stroke-dasharray": "4 3" })) mark.setAttribute(k, v);
      svg.append(mark, text(Math.min(x + 5, 960), -3, "huge", "start"));
    }
    const legend = el("ul", { class: "legend" }, ...Object.entries(R.channels).map(([key, label], i) => { const li = el("li"); li.innerHTML = `<svg class="swatch" viewBox="0 0 24 8"><path class="series c${i}" d="M1 4H23"/></svg>`; li.append(label); return li; }));
    const body = el("tbody");
    if (held.events) for (let e = held.start[b]; e < held.start[b + 1]; e++) {
      const E = held.events, verdict = R.verdicts[E.verdict[e]], many = E.count[e] > 1;
      const when = seconds(E.first[e]) + (many ? ` … ${seconds(E.last[e])}` : "");
      body.append(el("tr", {}, el("td", {}, when), el("td", {}, many ? `${E.count[e]} ×` : ""), ...["primary", "referenced", "secondary"].map((k) => el("td", {}, known(E[k][e]))),
        ...(E.order ? [el("td", {}, size(E.order[e])), el("td", {}, E.refused[e] ? count(E.refused[e]) : "")] : []),
        el("td", { class: "words" }, el("span", { class: "code " + (verdict.good ? "good" : "bad") }, verdict.code), ` ${verdict.meaning} `, el("span", { class: "cite" }, verdict.cite))));
    }
    const tried = held.events && held.events.order ? ["size", "refused"] : [];
    const heads = ["when", "", "primary", "referenced", "secondary", ...tried].map((h) => el("th", {}, h));
    box.replaceChildren(
      el("div", { class: "tools noprint" }, el("button", { type: "button", id: "prev" }, "◀ block before"), el("button", { type: "button", id: "next" }, "block after ▶")),
      el("h3", {}, `Block ${name(b)} under ${source.label}`), el("p", { class: "note" }, facts), svg, legend,
      body.rows.length ? el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, ...heads, el("th", { class: "words" }, "verdict and the rule behind it"))), body))
        : el("p", { class: "note" }, held.events ? "Nothing was ever decided about this block under this row: khugepaged did not come to it, or no policy spoke of it." : "This row recorded no verdicts."));
    $("prev").onclick = () => pick(Math.max(0, b - 1));
    $("next").onclick = () => pick(Math.min(n - 1, b + 1));
  };
  const pick = (b) => {
    chosen = b;
    if (b < view[0] || b >= view[1]) view = [0, n];
    history(); draw();
  };

  // -- choosing a row and a channel ------------------------------------------------------------------------------------------
  const missed = () => {
    const by = [...Array(n).keys()].filter((b) => !held.fate || Number.isNaN(held.fate[b])).sort((a, b) => B.accesses[b] - B.accesses[a]).slice(0, 9).filter((b) => B.accesses[b] > 0);
    $("missedtitle").textContent = by.length ? "Most accessed blocks that stayed small under this row" : "";
    $("missed").replaceChildren(...by.map((b) => {
      const button = el("button", { type: "button" }, name(b));
      button.onclick = () => { pick(b); $("history").scrollIntoView({ block: "nearest" }); };
      return el("li", {}, button, ` ${percent(B.accesses[b] / total)} of accesses`);
    }));
  };
  const choose = async (index) => {
    row = index; held = await load(index);
    if (row !== index) return;
    for (const tr of table.tBodies[0].rows) tr.classList.toggle("chosen", Number(tr.dataset.row) === index);
    $("rowpick").value = index;
    const has = ["any", ...Object.keys(R.channels), "refused"].filter((k) => held.channels[k]);
    if (has.length && !has.includes(channel)) channel = has[0];
    for (const button of $("channels").children) { button.setAttribute("aria-pressed", button.dataset.key === channel); button.disabled = !has.includes(button.dataset.key); }
    missed(); history(); keys(); draw();
  };
  // Without channels (a sweep leaves them out unless asked) there are fates and verdicts, and no picture.
  if (!R.rows.some((r) => Object.keys(r.channels).length)) for (const id of ["heat", "key", "channels", "zoomout", "mapnote"]) $(id).style.display = "none";
  R.rows.forEach((r, i) => $("rowpick").append(el("option", { value: i }, r.label)));
  $("rowpick").onchange = () => choose(Number($("rowpick").value));
  for (const [key, label] of [["any", "any channel"], ...Object.entries(R.channels), ...(R.rows.some((r) => r.refusals) ? [["refused", "refused attempts"]] : [])]) {
    const button = el("button", { type: "button", "data-key": key, "aria-pressed": "false" }, label);
    button.onclick = () => { channel = key; choose(row); };
    $("channels").append(button);
  }
  const keys = () => {
    const refused = channel === "refused", table = ramp(isDark(), refused), rgb = (i) => { const v = table[i]; return `rgb(${v & 255},${(v >> 8) & 255},${(v >> 16) & 255})`; };
    $("key").replaceChildren(...[["small pages", 0], ["huge page", 513]].map(([label, at]) => {
      const span = el("span", {}, `${label}: 0`), bar = el("span", { class: "ramp" });
      bar.style.background = `linear-gradient(90deg, ${[0, 16, 64, 160, 320, 512].map((v) => rgb(at + v)).join(",")})`;
      span.append(bar, refused ? `${count(held.mostRefused || 1)} refused` : "512 young");
      return span;
    }));
  };
  const repaint = () => { keys(); draw(); };
  addEventListener("resize", draw); addEventListener("beforeprint", () => { keys(); paint(); }); addEventListener("afterprint", repaint);
  $("theme").addEventListener("click", keys);
  keys();
  await choose(R.first || 0);
  if (n) { let hot = 0; for (let b = 1; b < n; b++) if (B.accesses[b] > B.accesses[hot]) hot = b; pick(hot); }
  document.documentElement.dataset.ready = "1";
})().catch((error) => { document.documentElement.dataset.failed = String(error); console.error(error); });

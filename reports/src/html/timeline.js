// One case over time: a band for each stage, and for steps of denoise that are alike, as high as its own peak and made of its parts.
"use strict";
lowmem.timeline = (data) => {
  const GIB = 2 ** 30;
  const drawing = lowmem.byId("bands");
  const select = lowmem.byId("case");
  let spans = [];

  const draw = () => {
    const c = data.cases[lowmem.state.case];
    if (!c) return;
    const bands = c.bands.filter((band) => band.parts || band.reserved);
    const said = c.fits ? `${c.gpu} GiB of GPU memory, ${c.time || "time not known"}` : `${c.outcome}; needs ${c.gpu || "?"} GiB`;
    lowmem.byId("case-said").textContent = `${c.name}: ${lowmem.level(c)}. ${said}.`;
    const width = Math.max(300, drawing.clientWidth);
    const height = width < 500 ? 320 : 360;
    const [left, right, top, bottom] = [46, width - 10, 32, height - 52];
    const reserved = (band) => (band.parts ? band.parts.reduce((sum, part) => sum + part, 0) : band.reserved);
    const device = (band) => Math.max(reserved(band), band.reserved || 0) + band.beside;
    const tallest = Math.max(1, ...bands.map(device), ...bands.map((band) => band.predicted || 0));
    const held = data.capacity_bytes;
    // A budget far above everything would flatten the bands: then it is said and not drawn.
    const isNear = held && held < tallest * 3;
    const most = (Math.max(tallest, isNear ? held : 0) * 1.08) / GIB;
    const y = (bytes) => bottom - (bytes / GIB / most) * (bottom - top);
    const least = Math.min(90, (right - left) / Math.max(1, bands.length) * 0.7);
    const free = right - left - least * bands.length;
    const total = bands.reduce((sum, band) => sum + (band.secs || 0), 0) || 1;
    let at = left;
    spans = bands.map((band) => {
      const span = { band, from: at, to: at + least + (free * (band.secs || 0)) / total };
      at = span.to;
      return span;
    });
    const scale = total > 0 && bands.some((band) => band.secs) ? 1 : (right - left) / (at - left || 1);
    for (const span of spans) [span.from, span.to] = [left + (span.from - left) * scale, left + (span.to - left) * scale];

    let svg = `<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><path d="M0,0V6" stroke="var(--part-7)" stroke-width="3"/></pattern></defs>`;
    for (const tick of lowmem.ticks(0, most, 5)) {
      svg += `<path class="axis" d="M${left},${y(tick * GIB)}H${right}"/><text x="${left - 8}" y="${y(tick * GIB) + 4}" text-anchor="end">${tick}</text>`;
    }
    svg += `<text x="${left - 8}" y="12" text-anchor="end">GiB</text>`;
    const peak = spans.reduce((best, span) => (!best || device(span.band) > device(best.band) ? span : best), null);
    for (const span of spans) {
      const { band } = span;
      const [x, wide] = [span.from + 1, Math.max(1, span.to - span.from - 2)];
      let from = 0;
      const layer = (bytes, name) => {
        if (bytes > 0) svg += `<rect class="${name}" x="${x}" width="${wide}" y="${y(from + bytes)}" height="${y(from) - y(from + bytes)}"/>`;
        from += bytes;
      };
      (band.parts || []).forEach((bytes, k) => layer(bytes, k === 7 ? "slack" : `part-${k}`));
      if (!band.parts) layer(band.reserved, "slack");
      layer(device(band) - from, "beside");
      if (band.ran_out) svg += `<rect class="ran-out" x="${x}" width="${wide}" y="${y(from)}" height="${bottom - y(from)}"/>`;
      if (band.predicted && band.ran_out) svg += `<path class="predicted" d="M${x},${y(band.predicted)}h${wide}"/><text class="strong" x="${x + 4}" y="${y(band.predicted) - 4}">predicted ${lowmem.gib(band.predicted)}</text>`;
      const middle = x + wide / 2;
      if (span === peak) svg += `<text class="strong" x="${Math.min(middle, right - 40)}" y="${Math.max(top - 6, y(device(band)) - 6)}" text-anchor="middle">▼ ${lowmem.gib(device(band))}</text>`;
      const short = band.name.split(",")[0];
      const fits = (text) => text.length * 6.2 < wide;
      if (fits(short) || bands.length < 5) svg += `<text x="${middle}" y="${bottom + 16}" text-anchor="middle">${lowmem.escape(fits(short) ? short : short.replace("steps ", "").replace(" to ", "–"))}</text>`;
      if (band.time && fits(band.time)) svg += `<text x="${middle}" y="${bottom + 32}" text-anchor="middle">${lowmem.escape(band.time)}</text>`;
    }
    if (isNear) svg += `<path class="budget" d="M${left},${y(held)}H${right}"/><text class="strong" x="${right}" y="${y(held) - 5}" text-anchor="end">${lowmem.gib(held)} GiB</text>`;
    else if (held) svg += `<text x="${right}" y="12" text-anchor="end">of ${lowmem.gib(held)} GiB, far above</text>`;
    drawing.innerHTML = bands.length
      ? `<svg viewBox="0 0 ${width} ${height}" height="${height}" role="img" tabindex="0" aria-label="${lowmem.escape(`${c.name} over time, ${bands.length} bands. Arrow keys go from band to band.`)}">${svg}</svg>`
      : `<p class="faint">Its GPU memory is not known.</p>`;
    const used = data.parts.map((name, k) => [name, k]).filter(([, k]) => bands.some((band) => band.parts && band.parts[k] > 0));
    lowmem.byId("legend").innerHTML = used.map(([name, k]) => `<span><i class="swatch part-${k}"></i>${name}</span>`).join("") + `<span><i class="swatch beside"></i>CUDA context</span>`;
  };

  let at = -1;
  const point = (span) => {
    if (!span) return lowmem.hint("");
    const { band } = span;
    const box = drawing.firstElementChild.getBoundingClientRect();
    const parts = (band.parts || []).map((bytes, k) => [bytes, data.parts[k]]).filter(([bytes]) => bytes >= 5 * 2 ** 20).sort((one, other) => other[0] - one[0]);
    const rows = parts.map(([bytes, name]) => `<p>${lowmem.gib(bytes)} GiB ${name}</p>`).join("");
    const predicted = band.predicted ? `<p>predicted for the stage: ${lowmem.gib(band.predicted)} GiB allocated</p>` : "";
    lowmem.hint(`<p><b>${lowmem.escape(band.name)}</b>${band.time ? `, ${lowmem.escape(band.time)}` : ""}${band.ran_out ? ", ran out of memory" : ""}</p>${rows}${predicted}`, box.left + (span.from + span.to) / 2, box.top + 60);
  };
  drawing.onpointermove = (event) => {
    if (!spans.length) return;
    const x = event.clientX - drawing.getBoundingClientRect().left;
    at = spans.findIndex((span) => x >= span.from && x < span.to);
    point(spans[at]);
  };
  drawing.onpointerleave = drawing.onfocusout = () => point(null);
  drawing.onkeydown = (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by || !spans.length) return;
    at = (at + by + spans.length) % spans.length;
    point(spans[at]);
    event.preventDefault();
  };
  select.innerHTML = data.cases.map((c, i) => `<option value="${i}">${lowmem.escape(c.name)}</option>`).join("");
  select.onchange = () => lowmem.choose(Number(select.value));
  return () => {
    select.value = lowmem.state.case;
    draw();
  };
};

// One case over time: a band for each stage, and for steps of denoise that are alike. In it, what tensors held from moment to moment by what they were for, or where
// that is not known, what its peak was made of. A stretch of it can be looked at closely.
"use strict";
lowmem.timeline = (data) => {
  const drawing = lowmem.byId("bands");
  const select = lowmem.byId("case");
  const state = lowmem.state;
  // What the layers are called, from the ground up; the last one is what was reserved and not used.
  const names = () => data.cases[state.case].parts || data.parts;
  const SLACK = 8;
  let spans = [];
  let place = null; // Where figures are on the drawing.

  const sum = (list) => list.reduce((total, one) => total + one, 0);
  const reserved = (band) => Math.max(band.parts ? sum(band.parts) : 0, band.reserved || 0, ...((band.course && band.course.reserved) || []));
  const device = (band) => reserved(band) + band.beside;
  // Of a band's moment `j`: bytes of each part, from the ground up.
  const partsAt = (course, j) => names().map((_, k) => (course.parts[k] ? course.parts[k][j] : 0));
  const highest = (course) => {
    const totals = course.at.map((_, j) => sum(partsAt(course, j)));
    return totals.indexOf(Math.max(...totals));
  };

  // Each band's ends as shares of the whole: as long as it took, and none too narrow to be seen.
  const laidOut = (bands) => {
    const least = Math.min(0.09, 0.7 / Math.max(1, bands.length));
    const total = sum(bands.map((band) => band.secs || 0));
    const shares = bands.map((band) => least + (total ? ((1 - least * bands.length) * (band.secs || 0)) / total : 0));
    const whole = sum(shares) || 1;
    let at = 0;
    return bands.map((band, i) => ({ band, from: at, to: (at += shares[i] / whole) }));
  };

  const draw = () => {
    const c = data.cases[state.case];
    if (!c) return;
    const bands = c.bands.filter((band) => band.parts || band.reserved || band.course);
    const fits = c.fits ? `${c.gpu} GiB of GPU memory, ${c.time || "time not known"}` : `${c.outcome}; needs ${c.gpu || "?"} GiB`;
    lowmem.byId("case-said").textContent = c.said ?? `${c.name}: ${lowmem.level(c)}. ${fits}.`;
    spans = laidOut(bands);
    const width = Math.max(300, drawing.clientWidth);
    const height = width < 500 ? 340 : 380;
    const [left, right, top, bottom] = [46, width - 10, 32, height - 70];
    const tallest = Math.max(1, ...bands.map((band) => device(band) + (band.asked || 0)), ...bands.map((band) => band.predicted || 0));
    const held = data.capacity_bytes;
    // A budget far above everything would flatten the bands: then it is said and not drawn.
    const isNear = held && held < tallest * 3;
    const most = Math.max(tallest, isNear ? held : 0) * 1.08;
    const y = (bytes) => bottom - (bytes / most) * (bottom - top);
    const [begin, end] = state.view;
    const x = (share) => Math.round((left + ((share - begin) / (end - begin)) * (right - left)) * 100) / 100;
    place = { left, right, share: (at) => begin + ((at - left) / (right - left)) * (end - begin), x };

    let svg = "";
    for (const tick of lowmem.ticks(0, most / 2 ** 30, 5)) {
      svg += `<path class="axis" d="M${left},${y(tick * 2 ** 30)}H${right}"/><text x="${left - 8}" y="${y(tick * 2 ** 30) + 4}" text-anchor="end">${tick}</text>`;
    }
    svg += `<text x="${left - 8}" y="12" text-anchor="end">GiB</text>`;
    const peak = spans.reduce((best, span) => (!best || device(span.band) > device(best.band) ? span : best), null);
    let inside = "";
    let beneath = "";
    for (const span of spans) {
      const { band } = span;
      const [from, to] = [x(span.from) + 0.5, x(span.to) - 0.5];
      if (to < left || from > right) continue;
      const course = band.course;
      const xs = course ? course.at.map((at) => from + ((to - from) * at) / Math.max(1, course.events)) : [from];
      let ground = xs.map(() => 0);
      // A layer of so many bytes at each moment, upon those below it.
      const layer = (bytes, name) => {
        const tops = ground.map((below, j) => below + Math.max(0, bytes[j]));
        if (bytes.some((one) => one > 0)) {
          let d = `M${from},${y(tops[0])}`;
          for (let j = 1; j < xs.length; j++) d += `H${xs[j].toFixed(1)}V${y(tops[j]).toFixed(1)}`;
          d += `H${to}V${y(ground[xs.length - 1]).toFixed(1)}`;
          for (let j = xs.length - 1; j > 0; j--) d += `H${xs[j].toFixed(1)}V${y(ground[j - 1]).toFixed(1)}`;
          inside += `<path class="${name}" d="${d}H${from}Z"/>`;
        }
        ground = tops;
      };
      if (course) {
        names().forEach((_, k) => course.parts[k] && layer(course.parts[k], `part-${k}`));
        layer(course.reserved.map((bytes, j) => bytes - ground[j]), "slack");
      } else {
        (band.parts || []).forEach((bytes, k) => layer([bytes], k === SLACK ? "slack" : `part-${k}`));
        layer([reserved(band) - ground[0]], "slack");
      }
      layer(ground.map(() => band.beside), "beside");
      const high = y(device(band));
      if (band.ran_out) {
        inside += `<rect class="ran-out" x="${from}" width="${to - from}" y="${high}" height="${bottom - high}"/>`;
        if (band.asked) {
          const last = ground[ground.length - 1];
          const wide = Math.min(40, (to - from) / 2);
          inside += `<rect class="asked" x="${to - wide}" width="${wide}" y="${y(last + band.asked)}" height="${y(last) - y(last + band.asked)}"/>`;
          inside += `<text class="strong" x="${to - wide - 4}" y="${y(last + band.asked) + 12}" text-anchor="end">asked for ${lowmem.gib(band.asked)} more</text>`;
        }
        if (band.predicted) inside += `<path class="predicted" d="M${from},${y(band.predicted)}H${to}"/><text class="strong" x="${from + 4}" y="${y(band.predicted) - 4}">predicted ${lowmem.gib(band.predicted)}</text>`;
      }
      if (span === peak) {
        const at = course ? xs[highest(course)] : (from + to) / 2;
        if (at >= left && at <= right) svg += `<text class="strong peak" x="${Math.max(left + 30, Math.min(at, right - 40))}" y="${Math.max(top - 6, high - 6)}" text-anchor="middle">▼ ${lowmem.gib(band.peak ?? device(band))}</text>`;
      }
      const [shownFrom, shownTo] = [Math.max(from, left), Math.min(to, right)];
      const [middle, wide] = [(shownFrom + shownTo) / 2, shownTo - shownFrom];
      const fits = (text) => text.length * 6.2 < wide;
      const short = band.name.split(",")[0];
      const shorter = short.replace(/steps? /, "").replace(" to ", "–");
      const name = fits(short) ? short : fits(shorter) || bands.length < 5 ? shorter : "";
      svg += `<path class="axis" d="M${shownFrom},${bottom}v6"/><text x="${middle}" y="${bottom + 16}" text-anchor="middle">${lowmem.escape(name)}</text>`;
      if (band.time && fits(band.time)) svg += `<text x="${middle}" y="${bottom + 32}" text-anchor="middle">${lowmem.escape(band.time)}</text>`;
    }
    for (const stage of new Set(bands.map((band) => band.stage))) {
      const own = spans.filter((span) => span.band.stage === stage);
      const [from, to] = [Math.max(left, x(own[0].from) + 1), Math.min(right, x(own[own.length - 1].to) - 1)];
      if (own.length < 2 || to - from < 50) continue;
      beneath += `<path class="stage" d="M${from},${bottom + 44}v-4H${to}v4"/><text x="${(from + to) / 2}" y="${bottom + 56}" text-anchor="middle">${lowmem.escape(stage)}</text>`;
    }
    if (isNear) svg += `<path class="budget" d="M${left},${y(held)}H${right}"/><text class="strong" x="${right}" y="${y(held) - 5}" text-anchor="end">${lowmem.gib(held)} GiB</text>`;
    else if (held) svg += `<text x="${right}" y="12" text-anchor="end">of ${lowmem.gib(held)} GiB, far above</text>`;
    const label = `${c.name} over time, ${bands.length} bands. Arrow keys go from band to band, plus and minus look closer and less close, 0 shows the whole.`;
    const defs = `<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><path d="M0,0V6" stroke="var(--slack)" stroke-width="3"/></pattern>
<clipPath id="inside"><rect x="${left}" width="${right - left}" y="0" height="${bottom}"/></clipPath></defs>`;
    drawing.innerHTML = bands.length
      ? `<svg viewBox="0 0 ${width} ${height}" height="${height}" role="img" tabindex="0" aria-label="${lowmem.escape(label)}">${defs}<g clip-path="url(#inside)">${inside}</g>${svg}${beneath}<path class="here" d=""/><rect class="chosen" y="${top}" height="${bottom - top}" width="0"/></svg>`
      : `<p class="faint">Its GPU memory is not known.</p>`;
    const isSeen = (k) => bands.some((band) => (band.course ? band.course.parts[k] : band.parts && band.parts[k] > 0));
    const used = names().map((name, k) => [name, k]).filter(([, k]) => isSeen(k) || k === SLACK);
    lowmem.byId("legend").innerHTML = used.map(([name, k]) => `<span><i class="swatch part-${k}"></i>${lowmem.escape(name)}</span>`).join("") + (bands.some((band) => band.beside) ? `<span><i class="swatch beside"></i>CUDA context</span>` : "");
    const isWhole = begin === 0 && end === 1;
    for (const id of ["zoom-out", "zoom-whole"]) lowmem.byId(id).disabled = isWhole || !bands.length;
    lowmem.byId("zoom-in").disabled = !bands.length;
  };

  // Shows from `begin` to `end`, as shares of the whole.
  const look = (begin, end) => {
    const length = Math.min(1, Math.max(0.002, end - begin));
    const from = Math.max(0, Math.min(begin, 1 - length));
    state.view = length > 0.999 ? [0, 1] : [from, from + length];
    const hadFocus = drawing.contains(document.activeElement);
    lowmem.hint("");
    draw();
    if (hadFocus && drawing.firstElementChild) drawing.firstElementChild.focus({ preventScroll: true });
  };
  // So many times as close, with `share` where it is.
  const zoom = (times, share) => {
    const [begin, end] = state.view;
    const about = share ?? (at >= 0 && spans[at] ? (Math.max(begin, spans[at].from) + Math.min(end, spans[at].to)) / 2 : (begin + end) / 2);
    look(about - (about - begin) / times, about + (end - about) / times);
  };

  let at = -1;
  // Says what is at a place: of a band's moment there, or of the band.
  const point = (span, share) => {
    const here = drawing.querySelector(".here");
    if (here) here.setAttribute("d", "");
    if (!span) return lowmem.hint("");
    const { band } = span;
    const course = band.course;
    let j = -1;
    if (course) {
      const event = ((share - span.from) / (span.to - span.from)) * course.events;
      j = share === undefined ? highest(course) : Math.max(0, course.at.findLastIndex((moment) => moment <= event));
    }
    const where = place.x(course ? span.from + ((span.to - span.from) * course.at[j]) / Math.max(1, course.events) : (span.from + span.to) / 2);
    if (course && here) here.setAttribute("d", `M${where},32V${drawing.firstElementChild.viewBox.baseVal.height - 70}`);
    const bytes = course ? partsAt(course, j) : (band.parts || []).slice(0, -1);
    const [allocated, held] = [sum(bytes), course ? course.reserved[j] : reserved(band)];
    const parts = bytes.map((one, k) => [one, names()[k]]).filter(([one]) => one >= 5 * 2 ** 20).sort((one, other) => other[0] - one[0]);
    const rows = parts.map(([one, name]) => `<p>${lowmem.gib(one)} GiB ${lowmem.escape(name)}</p>`).join("");
    const predicted = band.predicted ? `<p>predicted for the stage: ${lowmem.gib(band.predicted)} GiB allocated</p>` : "";
    const moment = !course || j === highest(course) ? "at its peak" : "here";
    const largest = course && course.largest.length ? `<p class="faint">Largest at its peak:</p>${course.largest.slice(0, 4).map(([one, what]) => `<p>${lowmem.gib(one)} GiB ${lowmem.escape(what)}</p>`).join("")}` : "";
    const box = drawing.firstElementChild.getBoundingClientRect();
    lowmem.hint(
      `<p><b>${lowmem.escape(band.name)}</b>${band.time ? `, ${lowmem.escape(band.time)}` : ""}${band.ran_out ? ", ran out of memory" : ""}</p>
<p>${moment}: ${lowmem.gib(allocated)} GiB allocated, ${lowmem.gib(held)} reserved</p>${rows}${largest}${predicted}`,
      box.left + where, box.bottom - 62);
  };

  let pressed = null; // Where a drag began.
  const mark = (from, to) => {
    const chosen = drawing.querySelector(".chosen");
    if (!chosen) return;
    chosen.setAttribute("x", Math.min(from, to));
    chosen.setAttribute("width", Math.abs(to - from));
  };
  const within = (event) => Math.max(place.left, Math.min(place.right, event.clientX - drawing.getBoundingClientRect().left));
  drawing.onpointermove = (event) => {
    if (!spans.length) return;
    const now = within(event);
    if (pressed !== null) return mark(pressed, now);
    const share = place.share(now);
    at = spans.findIndex((span) => share >= span.from && share < span.to);
    point(spans[at], share);
  };
  drawing.onpointerdown = (event) => {
    if (!spans.length || event.button) return;
    pressed = within(event);
    drawing.setPointerCapture(event.pointerId);
  };
  drawing.onpointerup = (event) => {
    if (pressed === null) return;
    const [from, to] = [pressed, within(event)].sort((one, other) => one - other);
    pressed = null;
    mark(0, 0);
    if (to - from > 8) look(place.share(from), place.share(to));
  };
  drawing.onpointercancel = () => {
    pressed = null;
    mark(0, 0);
  };
  drawing.ondblclick = () => look(0, 1);
  // The page scrolls by the wheel alone; with Ctrl, and sideways, the wheel is the drawing's.
  drawing.onwheel = (event) => {
    if (!spans.length) return;
    if (event.ctrlKey || event.metaKey) zoom(2 ** (-event.deltaY / 200), place.share(within(event)));
    else if (Math.abs(event.deltaX) > Math.abs(event.deltaY) && state.view[1] - state.view[0] < 1) {
      const [begin, end] = state.view;
      const by = ((end - begin) * event.deltaX) / (place.right - place.left);
      look(begin + by, end + by);
    } else return;
    event.preventDefault();
  };
  drawing.onpointerleave = drawing.onfocusout = () => point(null);
  drawing.onkeydown = (event) => {
    if (!spans.length || event.ctrlKey || event.metaKey || event.altKey) return;
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (by) {
      at = (at + by + spans.length) % spans.length;
      const [begin, end] = state.view;
      const { from, to } = spans[at];
      if (from < begin || to > end) look((from + to - (end - begin)) / 2, (from + to + (end - begin)) / 2);
      point(spans[at]);
    } else if (event.key === "+" || event.key === "=") zoom(2);
    else if (event.key === "-") zoom(0.5);
    else if (event.key === "0") look(0, 1);
    else return;
    event.preventDefault();
  };
  lowmem.byId("zoom-in").onclick = () => zoom(2);
  lowmem.byId("zoom-out").onclick = () => zoom(0.5);
  lowmem.byId("zoom-whole").onclick = () => look(0, 1);
  select.innerHTML = data.cases.map((c, i) => `<option value="${i}">${lowmem.escape(c.name)}</option>`).join("");
  select.onchange = () => lowmem.choose(Number(select.value));
  return () => {
    select.value = state.case;
    at = -1;
    draw();
  };
};

// Time against memory: every case of a video, the frontier, the budget as a line, and what it decides.
"use strict";
lowmem.scatter = (data) => {
  const state = lowmem.state;
  const video = () => data.videos[state.video];
  const cases = () => data.cases.map((c, i) => ({ ...c, i })).filter((c) => c.video === state.video && c.needs !== null);
  const budget = lowmem.byId("budget");
  const GIB = 2 ** 30;
  const drawing = lowmem.byId("scatter");
  let marks = [];

  // The best case that a budget holds, by the rule that recommends one: cases are ranked already.
  const bestWithin = (bytes) => video().ranked.find((i) => data.cases[i].needs <= bytes);

  // What a budget decides, in a sentence.
  const tell = (best, bytes) => {
    if (best !== undefined) {
      const c = data.cases[best];
      return `Fits with ${lowmem.level(c)}: ${c.gpu} GiB${c.time ? `, ${c.time}` : ""}.`;
    }
    const least = (of) => cases().filter(of).sort((one, other) => one.needs - other.needs)[0];
    const held = least((c) => c.fits && c.needs <= bytes);
    if (held) return `The GPU holds ${held.name}, ${held.gpu} GiB; the machine's memory does not, with ${held.ram} GiB.`;
    const perhaps = least((c) => !c.fits && c.needs <= bytes);
    if (perhaps) return `Not known: ${perhaps.name} ran out here, and needs at least ${lowmem.gib(perhaps.needs)} GiB.`;
    const near = least((c) => c.needs > bytes);
    const atLeast = near && !near.fits ? "at least " : "";
    return near ? `Does not fit: the least is ${near.name} with ${atLeast}${lowmem.gib(near.needs)} GiB, ${lowmem.gib(near.needs - bytes)} GiB more.` : "";
  };
  const verdict = () => {
    const bytes = state.budget * GIB;
    const best = bestWithin(bytes);
    lowmem.byId("budget-said").textContent = `${lowmem.gib(bytes)} GiB?`;
    lowmem.byId("budget-verdict").textContent = tell(best, bytes);
    return best;
  };

  const shape = (level, x, y, r) => {
    if (level === 1) return `M${x - r},${y - r}h${2 * r}v${2 * r}h${-2 * r}z`;
    if (level === 2) return `M${x},${y - r * 1.2}L${x + r * 1.2},${y + r}H${x - r * 1.2}z`;
    if (level === 3) return `M${x},${y - r * 1.3}L${x + r * 1.3},${y}L${x},${y + r * 1.3}L${x - r * 1.3},${y}z`;
    return `M${x - r},${y}a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0`;
  };
  const star = (x, y, r) => {
    const corner = (k) => `${x + Math.sin((k * Math.PI) / 5) * (k % 2 ? r * 0.45 : r)},${y - Math.cos((k * Math.PI) / 5) * (k % 2 ? r * 0.45 : r)}`;
    return `M${Array.from({ length: 10 }, (_, k) => corner(k)).join("L")}z`;
  };

  const draw = () => {
    const all = cases();
    const width = Math.max(300, drawing.clientWidth);
    const height = width < 500 ? 320 : 400;
    const timed = all.filter((c) => c.secs);
    const missed = all.filter((c) => !c.secs);
    const side = missed.length ? Math.min(150, width * 0.25) : 0;
    const [left, right, top, bottom] = [46, width - 14 - side, 30, height - 40];
    const bytes = state.budget * GIB;
    const tallest = Math.max(...all.map((c) => c.needs));
    // A budget far above everything would flatten the marks: then it is said and not drawn to scale.
    const isFar = bytes > tallest * 3;
    const most = ((isFar ? tallest * 1.2 : Math.max(bytes, tallest)) * 1.06) / GIB;
    const y = (b) => bottom - (b / GIB / most) * (bottom - top);
    const spread = timed.flatMap((c) => c.secs);
    let [low, high] = spread.length ? [Math.min(...spread), Math.max(...spread)] : [0, 1];
    const log = low > 0 && high / low > 10;
    const pad = log ? (high / low) ** 0.06 : (high - low || high * 0.2 || 1) * 0.08;
    [low, high] = log ? [low / pad, high * pad] : [Math.max(0, low - pad), high + pad];
    const along = log ? (secs) => Math.log(secs / low) / Math.log(high / low) : (secs) => (secs - low) / (high - low);
    const x = (secs) => left + along(secs) * (right - left);
    const best = verdict();

    let svg = "";
    for (const tick of lowmem.ticks(0, most, 6)) {
      svg += `<path class="axis" d="M${left},${y(tick * GIB)}H${width - 14}"/><text x="${left - 8}" y="${y(tick * GIB) + 4}" text-anchor="end">${tick}</text>`;
    }
    const times = log ? [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 18000, 36000, 72000, 180000].filter((t) => t >= low && t <= high) : lowmem.timeTicks(low, high, width < 500 ? 3 : 7);
    if (timed.length) for (const tick of times) svg += `<text x="${x(tick)}" y="${bottom + 18}" text-anchor="middle">${lowmem.roughTime(tick)}</text>`;
    svg += `<path class="axis" d="M${left},${top}V${bottom}"/><text x="${left - 8}" y="12" text-anchor="end">GiB</text><text x="${right}" y="${bottom + 34}" text-anchor="end">time${log ? ", logarithmic" : ""}</text>`;
    if (side) svg += `<path class="axis" d="M${right + 6},${top}V${bottom}"/><text x="${right + 6 + side / 2}" y="${bottom + 18}" text-anchor="middle">out of memory</text>`;
    const line = isFar ? top - 8 : y(bytes);
    svg += `<path class="budget" d="M${left},${line}H${width - 14}"/><text class="strong" x="${left + 6}" y="${line - 6}">${lowmem.gib(bytes)} GiB${isFar ? ", far above" : ""}</text>`;
    const frontier = timed.filter((c) => c.is_best).sort((one, other) => one.secs[1] - other.secs[1]);
    if (frontier.length > 1) svg += `<path class="frontier" d="M${frontier.map((c, k) => (k ? `H${x(c.secs[1])}V${y(c.needs)}` : `${x(c.secs[1])},${y(c.needs)}`)).join("")}"/>`;
    marks = timed.map((c) => ({ c, x: x(c.secs[1]), y: y(c.needs) }));
    missed.forEach((c, k) => marks.push({ c, x: right + 6 + (side * (k + 1)) / (missed.length + 1), y: y(c.needs) }));
    for (const { c, y } of marks) if (c.secs && c.secs[0] < c.secs[2]) svg += `<path class="spread" d="M${x(c.secs[0])},${y}H${x(c.secs[2])}"/>`;
    const starLast = [...marks].sort((one, other) => (one.c.i === best) - (other.c.i === best));
    for (const mark of starLast) {
      const { c } = mark;
      const is = [`level-${c.level}`, c.fits ? "" : "miss", c.needs > bytes ? "beyond" : ""].join(" ");
      const path = c.i === best ? star(mark.x, mark.y, 13) : shape(c.level, mark.x, mark.y, c.is_best ? 6 : 5);
      svg += `<path class="mark ${is}${c.i === best ? " star" : ""}" data-i="${c.i}" d="${path}"/>`;
    }
    svg += `<circle class="cursor" r="10" hidden/>`;
    const name = `Time against memory of ${all.length} cases of ${video().name}`;
    drawing.innerHTML = `<svg viewBox="0 0 ${width} ${height}" height="${height}" role="img" tabindex="0" aria-label="${lowmem.escape(name)}. Arrow keys go from case to case.">${svg}</svg>`;
    marks.sort((one, other) => one.x - other.x || one.y - other.y);
  };

  // The flags of a case that the best one does not have, and the other way round.
  const told = (c) => {
    const best = data.cases[video().best];
    const flags = (of) => (of && of.flags ? of.flags.split(", ") : []);
    const differ = best && best.name !== c.name ? flags(c).filter((f) => !flags(best).includes(f)).concat(flags(best).filter((f) => !flags(c).includes(f)).map((f) => `not ${f}`)) : [];
    const flagsSaid = differ.length ? `<span class="flags">${lowmem.escape(differ.join(", "))}</span>` : "";
    return `<p><b>${lowmem.escape(c.name)}</b>, level ${c.level}</p><p>${lowmem.escape(c.gpu)} GiB GPU${c.ram ? `, ${c.ram} GiB RAM` : ""}</p><p>${lowmem.escape(c.time || c.outcome)}</p>${flagsSaid}`;
  };
  const point = (mark) => {
    const svg = drawing.firstElementChild;
    const cursor = svg.querySelector(".cursor");
    const box = svg.getBoundingClientRect();
    cursor.toggleAttribute("hidden", !mark);
    if (!mark) return lowmem.hint("");
    cursor.setAttribute("cx", mark.x);
    cursor.setAttribute("cy", mark.y);
    lowmem.hint(told(mark.c), box.left + mark.x, box.top + mark.y);
  };
  let at = -1;
  drawing.onpointermove = (event) => {
    const box = drawing.firstElementChild.getBoundingClientRect();
    const [px, py] = [event.clientX - box.left, event.clientY - box.top];
    const away = (mark) => Math.hypot(mark.x - px, mark.y - py);
    const nearest = marks.reduce((best, mark) => (!best || away(mark) < away(best) ? mark : best), null);
    at = nearest && away(nearest) < 30 ? marks.indexOf(nearest) : -1;
    point(marks[at]);
  };
  drawing.onpointerleave = () => point(null);
  drawing.onclick = () => at >= 0 && lowmem.choose(marks[at].c.i);
  drawing.onkeydown = (event) => {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (by) {
      at = (at + by + marks.length) % marks.length;
      point(marks[at]);
      event.preventDefault();
    } else if (event.key === "Enter" && at >= 0) lowmem.choose(marks[at].c.i);
    else if (event.key === "Escape") point(null);
  };
  drawing.onfocusout = () => point(null);

  const select = lowmem.byId("video");
  const enter = () => {
    const all = cases();
    const most = Math.max((data.capacity_bytes || 0) * 1.5, ...all.map((c) => c.needs)) / GIB;
    budget.max = Math.ceil(most);
    budget.value = state.budget;
    const finding = lowmem.byId("finding");
    if (finding) finding.textContent = video().finding || "";
    draw();
  };
  budget.oninput = () => {
    state.budget = Number(budget.value);
    draw();
  };
  if (select) {
    select.value = state.video;
    select.onchange = () => {
      state.video = Number(select.value);
      enter();
    };
  }
  enter();
  return draw;
};

// What the page's scripts share: figures as the rest of the page says them, marks of SVG, and the hint that follows the pointer.
"use strict";
const lowmem = { state: { case: null, video: null, view: [0, 1], budget: null, sort: null, filter: "", columns: [] } };

lowmem.byId = (id) => document.getElementById(id);

// Bytes as GiB with two decimals. A tie goes to the even digit, as in the page's own text.
lowmem.gib = (bytes) => {
  const hundredths = (bytes * 100) / 2 ** 30;
  const rounded = hundredths % 1 === 0.5 ? 2 * Math.round(hundredths / 2) : Math.round(hundredths);
  return (rounded / 100).toFixed(2);
};

// A time for an axis: `40 s`, `5 min`, `19 min 50`, `1 h 30`.
lowmem.roughTime = (secs) => {
  if (secs < 100) return Math.round(secs * 100) / 100 + " s";
  const [unit, small, whole] = secs < 3600 ? [60, 1, "min"] : [3600, 60, "h"];
  const rounded = Math.round(secs / small) * small;
  const rest = (rounded % unit) / small;
  return `${Math.floor(rounded / unit)} ${whole}${rest ? ` ${rest}` : ""}`;
};

// Text from records never becomes markup.
lowmem.escape = (text) => String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

// Round values from 0 or `low` to `high` for an axis.
lowmem.ticks = (low, high, count) => {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((step) => step >= rough);
  const found = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high * 1.0001; tick += step) found.push(Math.round(tick * 1e6) / 1e6);
  return found;
};

// The same in units of time.
lowmem.timeTicks = (low, high, count) => {
  const steps = [0.001, 0.01, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 18000, 36000, 86400, 432000];
  const step = steps.find((step) => (high - low) / step <= count) || 864000;
  const found = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high; tick += step) found.push(tick);
  return found;
};

// On a narrow screen a row of such a table is a card, where each cell says its column.
lowmem.stack = (table) => {
  const titles = [...table.tHead.rows[0].cells].map((head) => head.textContent);
  for (const row of table.tBodies[0].rows) [...row.cells].forEach((cell, at) => (cell.dataset.title = titles[at]));
};

lowmem.level = (c) => `level ${c.level}${c.flags ? ` (${c.flags})` : ""}`;

// Shows `html` beside a place of the page; nothing hides it.
lowmem.hint = (html, x, y) => {
  const hint = lowmem.byId("hint");
  hint.hidden = !html;
  if (!html) return;
  hint.innerHTML = html;
  const left = Math.min(x + 14, document.documentElement.clientWidth - hint.offsetWidth - 6);
  hint.style.left = Math.max(4, left) + window.scrollX + "px";
  hint.style.top = y + 18 + window.scrollY + "px";
};

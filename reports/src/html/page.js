// The page as a whole: its theme, copying, and drawing it from its data, again where another page takes its place.
"use strict";

lowmem.copy = async (button) => {
  const text = lowmem.byId(button.dataset.copy).textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = document.createElement("textarea");
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  const said = button.dataset.said || button.textContent;
  button.dataset.said = said;
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = said), 1500);
};

// Draws everything from the page's data. What people chose stays, where it is still there.
lowmem.draw = () => {
  const began = performance.now();
  const data = JSON.parse(lowmem.byId("data").textContent);
  const state = lowmem.state;
  const nameOf = (i) => data.cases[i] && data.cases[i].name;
  const found = data.cases.findIndex((c) => c.name === state.name);
  state.case = found >= 0 ? found : data.shown ?? 0;
  const about = data.cases[state.case];
  if (state.video === null || state.video >= data.videos.length) state.video = about ? about.video : 0;
  if (state.budget === null) state.budget = data.capacity_bytes ? data.capacity_bytes / 2 ** 30 : Math.ceil(Math.max(1, ...data.cases.map((c) => (c.needs || 0) / 2 ** 30)));
  const again = [];
  if (data.cases.some((c) => c.needs !== null)) again.push(lowmem.scatter(data));
  else lowmem.byId("plot").hidden = lowmem.byId("timeline").hidden = true;
  const chosen = data.cases.length ? [lowmem.timeline(data), lowmem.parts(data), lowmem.cases(data)] : [];
  again.push(...chosen.slice(0, 1));
  lowmem.choose = (i) => {
    state.case = i;
    state.name = nameOf(i);
    state.view = [0, 1];
    lowmem.hint("");
    chosen.forEach((show) => show());
  };
  document.querySelectorAll("table.stacked").forEach((table) => lowmem.stack(table));
  chosen.forEach((show) => show());
  document.querySelectorAll("table.sortable").forEach((table) => lowmem.sortable(table));
  document.querySelectorAll("[data-copy]").forEach((button) => (button.onclick = () => lowmem.copy(button)));
  lowmem.redraw = () => again.forEach((draw) => draw());
  lowmem.tookMs = performance.now() - began;
};

// Takes over the text and the data of a newer page of the same run. What is open stays open, and who writes goes on writing.
lowmem.refresh = (html) => {
  const newer = new DOMParser().parseFromString(html, "text/html");
  const all = (selector) => [...document.querySelectorAll(selector)];
  const nameOf = (details) => details.querySelector("summary").textContent;
  const open = new Set(all("main details[open]").map(nameOf));
  const scrolled = all("main .tall").map((at) => [at.scrollLeft, at.scrollTop]);
  const { id, selectionStart, selectionEnd } = document.activeElement;
  lowmem.hint("");
  for (const part of ["main", "nav"]) document.querySelector(part).replaceWith(newer.querySelector(part));
  lowmem.byId("data").textContent = newer.getElementById("data").textContent;
  lowmem.draw();
  all("main details").forEach((details) => (details.open = open.has(nameOf(details))));
  all("main .tall").forEach((at, k) => scrolled[k] && at.scrollTo(...scrolled[k]));
  const focused = id && lowmem.byId(id);
  if (!focused || focused === document.activeElement) return;
  focused.focus({ preventScroll: true });
  if (typeof selectionStart === "number") focused.setSelectionRange(selectionStart, selectionEnd);
};

const theme = lowmem.byId("theme");
const isDark = () => (document.documentElement.style.colorScheme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
const nameTheme = () => (theme.textContent = isDark() ? "Light" : "Dark");
theme.setAttribute("aria-label", "Change between light and dark");
theme.onclick = () => {
  document.documentElement.style.colorScheme = isDark() ? "light" : "dark";
  nameTheme();
};
nameTheme();
let waits = 0;
addEventListener("resize", () => {
  cancelAnimationFrame(waits);
  waits = requestAnimationFrame(() => lowmem.redraw());
});
lowmem.draw();

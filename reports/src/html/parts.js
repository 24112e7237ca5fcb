// What made the peak of the case that is chosen: the same table as in the page, for another case.
"use strict";
lowmem.parts = (data) => {
  const shown = lowmem.state.case;
  const table = lowmem.byId("parts");
  return () => {
    const c = data.cases[lowmem.state.case];
    if (!table || !c || (lowmem.state.case === shown && table.dataset.other === undefined)) return;
    table.dataset.other = "";
    table.closest("[data-case]").dataset.case = c.name;
    const bands = c.bands.filter((band) => band.parts);
    const sum = (band) => band.parts.reduce((sum, part) => sum + part, 0);
    const peak = bands.reduce((best, band) => (!best || sum(band) > sum(best) ? band : best), null);
    table.caption.textContent = `${c.name}: GiB at each band's own peak`;
    table.tHead.rows[0].innerHTML =
      `<th scope="col">for</th>` +
      bands.map((band) => `<th scope="col" class="number">${lowmem.escape(band.name.split(",")[0])}${band === peak ? " ▼" : ""}</th>`).join("") +
      `<th scope="col" class="number">of the peak</th><th scope="col">what it is</th>`;
    const row = (name, k) => {
      if (!bands.some((band) => band.parts[k] >= 5 * 2 ** 20)) return "";
      const cells = bands.map((band) => `<td class="number" data-value="${band.parts[k]}">${band.parts[k] ? lowmem.gib(band.parts[k]) : ""}</td>`).join("");
      const share = peak.parts[k] ? `${((peak.parts[k] / sum(peak)) * 100).toFixed(1)}%` : "";
      return `<tr><th scope="row"><i class="swatch part-${k}"></i>${name}</th>${cells}<td class="number">${share}</td><td class="prose">${data.meanings[k]}</td></tr>`;
    };
    table.tBodies[0].innerHTML = data.parts.map(row).join("");
    lowmem.stack(table);
    lowmem.sortable(table);
  };
};

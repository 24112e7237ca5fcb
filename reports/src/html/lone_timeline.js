// The page of a memory snapshot: its timeline, a GPU at a time, and tables that can be sorted.
"use strict";
{
  const data = JSON.parse(lowmem.byId("data").textContent);
  const hasHistory = data.cases.some((c) => c.bands[0].course);
  lowmem.byId("timeline").hidden = !hasHistory;
  lowmem.state.case = Math.max(0, data.cases.findIndex((c) => c.bands[0].course));
  const draw = lowmem.timeline(data);
  lowmem.choose = (i) => {
    Object.assign(lowmem.state, { case: i, view: [0, 1] });
    lowmem.hint("");
    draw();
  };
  draw();
  lowmem.byId("case").closest("label").hidden = data.cases.length < 2;
  document.querySelectorAll("table.sortable").forEach((table) => lowmem.sortable(table));
  let waits = 0;
  addEventListener("resize", () => {
    cancelAnimationFrame(waits);
    waits = requestAnimationFrame(draw);
  });
}

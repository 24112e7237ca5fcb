// All cases: sorting, filtering, more columns, and the whole as CSV.
"use strict";

// A button in the head of each column. `value(row, column)` is what rows are sorted by.
lowmem.sortable = (table, value, sorted) => {
  const read = value || ((row, at) => row.cells[at].dataset.value ?? row.cells[at].textContent);
  const heads = [...table.tHead.rows[0].cells];
  const sort = (at, falling) => {
    const key = (row) => {
      const text = read(row, at).trim();
      const number = parseFloat(text.replace(/^[≥+]\s*/, ""));
      return text === "" ? null : Number.isNaN(number) || /^\d+x\d+|[a-z]/i.test(text.replace(/e[+-]?\d+/i, "")) ? text : number;
    };
    const keyed = [...table.tBodies[0].rows].map((row) => [key(row), row]);
    // What is not known comes last either way.
    const order = ([one], [other]) => (one === null) - (other === null) || (one === null ? 0 : (falling ? -1 : 1) * (typeof one === "number" && typeof other === "number" ? one - other : String(one).localeCompare(String(other), undefined, { numeric: true })));
    table.tBodies[0].append(...keyed.sort(order).map(([, row]) => row));
    heads.forEach((head, k) => (k === at ? head.setAttribute("aria-sort", falling ? "descending" : "ascending") : head.removeAttribute("aria-sort")));
  };
  heads.forEach((head, at) => {
    if (!head.querySelector("button")) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
    }
    head.querySelector("button").onclick = () => {
      const falling = head.getAttribute("aria-sort") === "ascending";
      sort(at, falling);
      if (sorted) sorted(head.dataset.sort, falling);
    };
  });
  return sort;
};

lowmem.cases = (data) => {
  const state = lowmem.state;
  const table = lowmem.byId("all");
  const places = new Map(data.columns.map((name, at) => [name, at]));
  const varying = new Map(data.columns.map((_, at) => at).filter((at) => !(at in data.same)).map((at, k) => [at, k]));
  const cell = (row, name) => {
    const at = places.get(name);
    return at === undefined ? "" : (varying.has(at) ? data.rows[row][varying.get(at)] : data.same[at]) ?? "";
  };
  lowmem.cell = cell;
  const value = (row, at) => {
    const names = table.tHead.rows[0].cells[at].dataset.sort.split("|");
    return names.map((name) => cell(Number(row.dataset.row), name)).find((text) => text !== "") ?? "";
  };
  const sorted = (name, falling) => (state.sort = { name, falling });
  let sort = lowmem.sortable(table, value, sorted);
  const sortAsBefore = () => {
    const at = state.sort ? [...table.tHead.rows[0].cells].findIndex((head) => head.dataset.sort === state.sort.name) : -1;
    if (at >= 0) sort(at, state.sort.falling);
  };

  // What stands between commas must all be there, in any column that is shown at first.
  const filter = lowmem.byId("filter");
  const rows = [...table.tBodies[0].rows];
  const textOf = (row) => [...row.cells].map((cell, at) => (at === 1 ? `level ${cell.textContent}` : cell.textContent)).join(" \t").toLowerCase();
  let texts = null;
  const filterNow = () => {
    state.filter = filter.value;
    const words = state.filter.toLowerCase().split(",").map((word) => word.trim()).filter(Boolean);
    if (words.length) texts ||= rows.map(textOf);
    let count = 0;
    rows.forEach((row, k) => {
      row.hidden = !words.every((word) => texts[k].includes(word));
      count += !row.hidden;
    });
    lowmem.byId("filter-said").textContent = words.length ? `${count} of ${rows.length} cases` : `${rows.length} cases`;
  };
  filter.oninput = filterNow;
  filter.value = state.filter;

  const shown = new Set([...table.tHead.rows[0].cells].flatMap((head) => head.dataset.sort.split("|")));
  const more = data.columns.filter((name, at) => varying.has(at) && !shown.has(name));
  const choices = lowmem.byId("columns").querySelector(".choices");
  choices.innerHTML = more.map((name) => `<label><input type="checkbox" value="${name}"> ${name}</label>`).join("") || "No other column differs.";
  const toggle = (name, on) => {
    const heads = table.tHead.rows[0];
    if (on) {
      const head = document.createElement("th");
      head.scope = "col";
      head.dataset.sort = name;
      head.textContent = name;
      heads.append(head);
      rows.forEach((row) => (row.insertCell().textContent = cell(Number(row.dataset.row), name)));
    } else {
      const at = [...heads.cells].findIndex((head) => head.dataset.sort === name);
      heads.cells[at].remove();
      rows.forEach((row) => row.cells[at].remove());
    }
    sort = lowmem.sortable(table, value, sorted);
  };
  choices.onchange = (event) => {
    toggle(event.target.value, event.target.checked);
    state.columns = [...choices.querySelectorAll(":checked")].map((box) => box.value);
  };
  for (const box of choices.querySelectorAll("input")) {
    if (state.columns.includes(box.value)) {
      box.checked = true;
      toggle(box.value, true);
    }
  }

  // As results.csv has it.
  lowmem.csv = () => {
    const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const lines = [data.columns, ...data.rows.map((_, row) => data.columns.map((name) => cell(row, name)))];
    return lines.map((line) => line.map(quoted).join(",") + "\n").join("");
  };
  lowmem.byId("download").onclick = () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([lowmem.csv()], { type: "text/csv" }));
    link.download = "results.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  table.tBodies[0].onclick = (event) => {
    const row = event.target.closest("tr");
    if (row && String(window.getSelection()) === "") lowmem.choose(Number(row.dataset.row));
  };
  filterNow();
  sortAsBefore();
  return () => rows.forEach((row) => (Number(row.dataset.row) === state.case ? row.setAttribute("aria-selected", "true") : row.removeAttribute("aria-selected")));
};

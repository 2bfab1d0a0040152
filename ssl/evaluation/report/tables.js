// The table of scores: sort by a column, filter by data set, protocol and text.
"use strict";

(() => {
  const FEW = 6; // rows that need no filter

  function sortable(table) {
    const heads = [...table.tHead.rows[0].cells];
    const first = [...table.tBodies];
    heads.forEach((head, column) => {
      if (!head.hasAttribute("data-sort")) {
        return;
      }
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const order = { none: "descending", descending: "ascending", ascending: "none" };
        const text = !head.classList.contains("num");
        const textOrder = { none: "ascending", ascending: "descending", descending: "none" };
        const next = (text ? textOrder : order)[head.ariaSort ?? "none"];
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        if (next !== "none") {
          head.ariaSort = next;
        }
        table.append(...sorted(first, column, text, next));
      });
    });
  }

  function sorted(bodies, column, text, order) {
    if (order === "none") {
      return bodies;
    }
    const key = (body) => {
      const cell = body.rows[0].cells[column];
      return text ? cell.textContent : Number(cell.dataset.value ?? NaN);
    };
    const sign = order === "ascending" ? 1 : -1;
    return bodies
      .map((body) => ({ body, key: key(body) }))
      .sort((a, b) => {
        if (text) {
          return sign * a.key.localeCompare(b.key, "en", { numeric: true });
        }
        // What has no number is last, whatever the order.
        return Number.isNaN(a.key) - Number.isNaN(b.key) || sign * (a.key - b.key) || 0;
      })
      .map((entry) => entry.body);
  }

  function choice(label, values, changed) {
    const select = document.createElement("select");
    for (const value of ["", ...values]) {
      const option = document.createElement("option");
      option.value = value;
      option.textContent = value === "" ? `all ${label}s` : value;
      select.append(option);
    }
    select.ariaLabel = label;
    select.addEventListener("change", changed);
    return select;
  }

  function filtered(table) {
    const bodies = [...table.tBodies];
    if (bodies.length <= FEW) {
      return;
    }
    const bar = document.createElement("div");
    const count = document.createElement("output");
    const text = document.createElement("input");
    const different = (name) => [...new Set(bodies.map((body) => body.dataset[name]))];
    const apply = () => {
      const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const body of bodies) {
        const content = body.rows[0].textContent.toLowerCase();
        body.hidden =
          (datasets.value !== "" && body.dataset.dataset !== datasets.value) ||
          (protocols.value !== "" && body.dataset.protocol !== protocols.value) ||
          !words.every((word) => content.includes(word));
        shown += body.hidden ? 0 : 1;
      }
      count.textContent = shown === bodies.length ? `${shown} rows` : `${shown} of ${bodies.length} rows`;
    };
    const datasets = choice("data set", different("dataset"), apply);
    const protocols = choice("protocol", different("protocol"), apply);
    bar.className = "filters-bar";
    text.type = "search";
    text.placeholder = "filter by text";
    text.ariaLabel = "filter the rows by text";
    text.addEventListener("input", apply);
    bar.append(datasets, protocols, text, count);
    table.parentElement.before(bar);
    apply();
  }

  for (const table of document.querySelectorAll("table.scores")) {
    sortable(table);
    filtered(table);
  }
})();

"use strict";
// A click on a heading sorts its table: numbers from the highest, names from A; another click turns it round.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const isNumber = [...body.rows].some((row) => row.cells[column].dataset.v !== undefined);
      const before = head.getAttribute("aria-sort");
      const order = before ? (before === "descending" ? "ascending" : "descending") : isNumber ? "descending" : "ascending";
      const turn = order === "ascending" ? 1 : -1;
      const value = (row) => isNumber ? parseFloat(row.cells[column].dataset.v) : row.cells[column].textContent;
      const compare = (a, b) => {
        const [x, y] = [value(a), value(b)];
        if (isNumber && (isNaN(x) || isNaN(y))) return isNaN(x) - isNaN(y); // no figure: last either way
        return turn * (isNumber ? x - y : x.localeCompare(y));
      };
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      body.append(...[...body.rows].sort(compare));
    });
  });
}

// The table sorts by a heading, a line shows its seeds, and a button of the legend hides its curves.
"use strict";
const value = (group, column) => {
  const cell = group.rows[0].cells[column];
  return cell.dataset.value ?? cell.textContent.trim();
};
const compare = (a, b) => {
  const numbers = [Number(a), Number(b)];
  return numbers.some(Number.isNaN) ? a.localeCompare(b, "en", {numeric: true}) : numbers[0] - numbers[1];
};
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => heading.querySelector("button")?.addEventListener("click", () => {
    const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    headings.forEach((each) => each.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    table.append(...[...table.tBodies].sort((one, other) => {
      const [a, b] = [value(one, column), value(other, column)];
      return a === "" || b === "" ? (a === "") - (b === "") : sign * compare(a, b);
    }));
  }));
}
for (const button of document.querySelectorAll(".expand")) {
  button.addEventListener("click", () => {
    const open = button.getAttribute("aria-expanded") !== "true";
    button.setAttribute("aria-expanded", open);
    button.closest("tbody").querySelectorAll(".seed").forEach((row) => { row.hidden = !open; });
  });
}
for (const button of document.querySelectorAll(".legend button")) {
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", on);
    document.querySelectorAll(`g[data-line="${button.dataset.line}"]`).forEach((curve) => curve.classList.toggle("hidden", !on));
  });
}

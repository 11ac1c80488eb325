// Clicks through a report, and writes what is then to be seen into the page. TITLES are headings to click.
window.addEventListener("load", () => {
  const table = document.getElementById("results");
  const heading = (title) => [...table.tHead.rows[0].cells].find((cell) => cell.textContent.trim() === title);
  const column = (title) => {
    const index = heading(title).cellIndex;
    return [...table.tBodies].map((group) => group.rows[0].cells[index].textContent.trim());
  };
  const seen = {};
  for (const title of TITLES) {
    for (const order of ["ascending", "descending"]) {
      heading(title).querySelector("button").click();
      seen[`${title} ${order}`] = column(title);
      seen[`${title} aria ${order}`] = heading(title).getAttribute("aria-sort");
    }
    seen[`${title} sorted`] = table.tHead.querySelectorAll("[aria-sort]").length;
  }
  const expand = table.querySelector(".expand");
  const seeds = expand ? [...expand.closest("tbody").querySelectorAll(".seed")] : [];
  seen.closed = seeds.map((row) => row.offsetHeight > 0);
  expand?.click();
  seen.open = seeds.map((row) => row.offsetHeight > 0);
  const curves = [...document.querySelectorAll('g[data-line="0"]')];
  const shown = () => curves.filter((curve) => curve.getBoundingClientRect().width).length;
  seen.drawn = shown();
  document.querySelector(".legend button")?.click();
  seen.hidden = shown();
  const buttons = [...document.querySelectorAll("th button, .expand, .legend button")];
  seen.focusable = buttons.every((each) => each.tabIndex === 0);
  seen.widths = [...document.images].map((image) => image.naturalWidth);
  const loaded = performance.getEntriesByType("resource").map((each) => each.name);
  seen.fetched = loaded.filter((name) => !name.startsWith("data:"));
  seen.scripts = document.scripts.length;
  seen.overflow = document.documentElement.scrollWidth - innerWidth;
  seen.wrong = wrong;
  const note = document.createElement("pre");
  note.id = "seen";
  note.textContent = JSON.stringify(seen);
  document.body.append(note);
});

"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const versions = byId("versions");
  const rows = [...versions.rows];
  const details = JSON.parse(byId("details").textContent);

  // Text from the run goes in as text only, never as markup.
  const make = (name, text, ...inside) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    made.append(...inside);
    return made;
  };
  const line = (cell, values) => make("tr", undefined, ...values.map((value) => make(cell, value)));
  const content = (section) => {
    if (section.pairs) {
      return make("dl", undefined, ...section.pairs.flatMap(([name, value]) => [make("dt", name), make("dd", value)]));
    }
    if (section.rows) {
      const head = line("th", section.head);
      for (const cell of head.cells) cell.scope = "col";
      const body = section.rows.map((values) => line("td", values));
      return make("table", undefined, make("thead", undefined, head), make("tbody", undefined, ...body));
    }
    const text = make("pre", section.text);
    text.tabIndex = 0;
    text.setAttribute("role", "group");
    text.setAttribute("aria-label", section.title);
    return text;
  };

  const opener = (row) => row.querySelector("th button");
  const opened = (row) => opener(row)?.getAttribute("aria-expanded") === "true";
  // A cell that spans more columns than are shown would make room for those that are not.
  const narrow = matchMedia("(max-width: 40rem)");
  const columns = () => rows[0].querySelectorAll(narrow.matches ? ":scope > :not(.wide)" : ":scope > *").length;
  narrow.addEventListener("change", () => {
    for (const cell of versions.querySelectorAll(".details > td")) cell.colSpan = columns();
  });
  const open = (row) => {
    const button = opener(row);
    if (!button || opened(row)) return;
    const id = "details-" + row.id;
    const sections = details[row.id.slice(1)] ?? [];
    const article = make("article");
    article.setAttribute("aria-label", "Details of " + button.textContent);
    for (const section of sections) article.append(make("h3", section.title), content(section));
    const cell = make("td", undefined, article);
    cell.colSpan = columns();
    const below = make("tr", undefined, cell);
    below.id = id;
    below.className = "details";
    row.after(below);
    button.setAttribute("aria-expanded", "true");
    button.setAttribute("aria-controls", id);
  };
  const close = (row) => {
    byId("details-" + row.id)?.remove();
    opener(row)?.setAttribute("aria-expanded", "false");
    opener(row)?.removeAttribute("aria-controls");
  };
  const rowOf = (node) => {
    const row = node.closest("#versions > tr");
    return row?.classList.contains("details") ? row.previousElementSibling : row;
  };

  versions.addEventListener("click", (event) => {
    const button = event.target.closest("th button");
    if (button) (opened(rowOf(button)) ? close : open)(rowOf(button));
  });
  versions.addEventListener("keydown", (event) => {
    const row = rowOf(event.target);
    if (!row) return;
    if (event.key === "Escape" && opened(row)) {
      close(row);
      opener(row).focus();
    }
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && event.target === opener(row)) {
      event.preventDefault();
      const reachable = rows.filter((each) => !each.hidden && opener(each));
      opener(reachable[reachable.indexOf(row) + step] ?? row).focus();
    }
  });

  // Filters: by outcome, and by words in the row.
  const filters = byId("filters");
  const find = byId("find");
  const words = rows.map((row) => row.textContent.toLowerCase());
  const filter = () => {
    const pressed = filters.querySelectorAll('[aria-pressed="true"]');
    const wanted = new Set([...pressed].map((button) => button.dataset.outcome));
    const text = find.value.trim().toLowerCase();
    let shown = 0;
    rows.forEach((row, index) => {
      const fits = wanted.has(row.dataset.outcome) && words[index].includes(text);
      if (row.hidden === fits) row.hidden = !fits;
      if (!fits && opened(row)) close(row);
      shown += fits;
    });
    byId("shown").value = `${shown} of ${rows.length} shown`;
  };
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
    filter();
  });
  find.addEventListener("input", filter);

  // The timeline: one stop for the tab key, arrow keys between versions.
  const timeline = document.querySelector(".timeline");
  const stops = [...timeline.querySelectorAll("a")];
  stops.forEach((stop, index) => { stop.tabIndex = index ? -1 : 0; });
  const stopAt = (index) => {
    const next = stops[Math.max(0, Math.min(stops.length - 1, index))];
    timeline.querySelector('a[tabindex="0"]').tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  };
  const show = (row) => {
    if (row.hidden) {
      for (const button of filters.querySelectorAll("button")) button.setAttribute("aria-pressed", "true");
      find.value = "";
      filter();
    }
    open(row);
    row.scrollIntoView({ block: "start" });
    opener(row)?.focus({ preventScroll: true });
  };
  timeline.addEventListener("click", (event) => {
    const stop = event.target.closest("a");
    if (!stop) return;
    event.preventDefault();
    history.replaceState(null, "", stop.hash);
    show(rows[stops.indexOf(stop)]);
  });
  timeline.addEventListener("keydown", (event) => {
    const at = stops.indexOf(event.target);
    const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: stops.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    stopAt(to);
  });

  document.documentElement.classList.add("js");
  byId("no-script").remove();
  filters.hidden = false;
  filter();
  const asked = rows.find((row) => "#" + row.id === location.hash);
  if (asked) show(asked);
})();

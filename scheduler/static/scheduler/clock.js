/* Counts up and down between two refreshes, and tells screen readers which runs have ended. */
"use strict";
(() => {
  const live = document.querySelector("[data-units]");
  if (!live) return;
  const DAY = 86400; // s
  const SAID_AT_MOST = 3;
  const [hours, minutes, seconds] = live.dataset.units.split("|");
  // The server's clock is what counts.
  const ahead = Date.parse(live.dataset.now) - Date.now();

  const inUnits = (whole) => {
    const parts = [
      [Math.floor(whole / 3600), hours],
      [Math.floor(whole / 60) % 60, minutes],
      [whole % 60, seconds],
    ];
    const first = parts.findIndex(([count]) => count);
    const two = first < 0 ? [parts[2]] : parts.slice(first, first + 2).filter(([count]) => count);
    return two.map(([count, text]) => text.replace("{n}", count)).join(" ");
  };

  const tick = () => {
    const now = Date.now() + ahead;
    for (const each of live.querySelectorAll("[data-until], [data-since]")) {
      const { until, since } = each.dataset;
      const time = Math.floor((until ? Date.parse(until) - now : now - Date.parse(since)) / 1000);
      // Days are left to the server's next answer.
      if (time >= DAY) continue;
      const text = inUnits(Math.max(time, 0));
      if (each.textContent !== text) each.textContent = text;
    }
  };

  const announcer = document.querySelector("[data-announce]");
  const ended = () =>
    new Set([...document.querySelectorAll("#finished[data-newest=yes] [data-said]")].map((each) => each.dataset.said));
  let known = ended();
  document.addEventListener("scheduler:shown", () => {
    tick();
    const now = ended();
    const said = [...now].filter((text) => !known.has(text));
    known = now;
    if (!said.length) return;
    const many = said.length > SAID_AT_MOST;
    announcer.textContent = many ? announcer.dataset.many.replace("{n}", said.length) : said.join(", ");
  });

  setInterval(() => {
    if (!document.hidden) tick();
  }, 1000);
  document.addEventListener("visibilitychange", tick);

  // A choice from a list needs no button.
  for (const select of document.querySelectorAll(".filter select")) {
    select.addEventListener("change", () => select.form.requestSubmit());
  }
  // What is not filled in does not belong into the address.
  const filter = document.querySelector(".filter");
  filter.addEventListener("formdata", ({ formData }) => {
    for (const [name, value] of [...formData]) if (!value) formData.delete(name);
  });
})();

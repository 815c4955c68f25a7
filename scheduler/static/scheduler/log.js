/* Follows a log: asks for what was written behind the offset, and appends it. */
"use strict";
(() => {
  const box = document.querySelector("[data-log]");
  if (!box) return;
  const SOON = 1000; // ms
  const LATER = 10000;
  const PATIENCE = 15000;
  const KEPT = 1000000; // characters; the download has all
  const [lines, tail] = box.children;
  const follow = document.querySelector(".follow");
  const wanted = follow.querySelector("input");
  const empty = document.querySelector(".log-empty");
  let offset = Number(box.dataset.offset);
  let unended = ""; // the last line as far as it was written
  let pause = SOON;
  let timer = 0;
  let asking = false;
  let over = false;

  // As a terminal shows it: what follows a carriage return stands in place of the line so far.
  const shown = (line) => {
    const text = line.replace(/\r+$/, "");
    return text.slice(text.lastIndexOf("\r") + 1);
  };

  const append = (text) => {
    const parts = (unended + text).replaceAll("\r\n", "\n").split("\n");
    unended = parts.pop();
    // Progress bars overwrite one line for hours: only its newest state is kept. A carriage return at the end may be
    // the first half of a line's end, and stays.
    const newest = unended.lastIndexOf("\r", unended.length - 2);
    if (newest > 0) unended = unended.slice(newest + 1);
    if (parts.length) {
      let all = lines.textContent + parts.map(shown).join("\n") + "\n";
      if (all.length > KEPT) {
        const cut = all.slice(-KEPT);
        all = box.dataset.dropped + "\n" + cut.slice(cut.indexOf("\n") + 1);
        lines.textContent = all;
      } else {
        lines.append(parts.map(shown).join("\n") + "\n");
      }
    }
    tail.textContent = shown(unended);
    box.hidden = follow.hidden = false;
    if (empty) empty.hidden = true;
  };

  const toEnd = () => {
    if (wanted.checked) box.scrollTop = box.scrollHeight;
  };

  const ask = async () => {
    if (asking || over) return;
    asking = true;
    clearTimeout(timer);
    try {
      const answer = await fetch(`${box.dataset.log}?offset=${offset}`, {
        cache: "no-store",
        credentials: "same-origin",
        redirect: "error",
        signal: AbortSignal.timeout(PATIENCE),
      });
      if ([401, 403, 404].includes(answer.status)) {
        over = true;
        return;
      }
      if (!answer.ok) throw new Error(String(answer.status));
      const part = await answer.json();
      if (part.text) {
        append(part.text);
        toEnd();
      }
      pause = part.offset > offset ? SOON : Math.min(pause * 1.2, 2 * SOON);
      const more = part.offset < part.size && part.offset > offset;
      offset = part.offset;
      over = part.finished;
      if (over) follow.hidden = true;
      if (more) pause = 0;
    } catch {
      pause = Math.min(Math.max(pause, SOON) * 1.5, LATER);
    } finally {
      asking = false;
      schedule();
    }
  };

  const schedule = () => {
    clearTimeout(timer);
    if (!over && !document.hidden) timer = setTimeout(ask, pause);
  };

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) clearTimeout(timer);
    else ask();
  });
  // Who scrolls up wants to read; who scrolls to the end wants to see what comes.
  box.addEventListener("scroll", () => {
    wanted.checked = box.scrollTop + box.clientHeight >= box.scrollHeight - 8;
  });
  wanted.addEventListener("change", toEnd);

  follow.hidden = box.hidden;
  toEnd();
  ask();
})();

/* The log of a run: follows it, and goes from one part of it to another without loading the whole page. */
"use strict";
(() => {
  const SOON = 1000; // ms
  const LATER = 10000;
  const PATIENCE = 15000;
  const LINES_KEPT = 5000;
  const CHARACTERS_KEPT = 2000000;
  if (!document.getElementById("log")) return;
  let timer = 0;
  let stop = new AbortController(); // of what is asked for the part that is shown

  const get = (url) =>
    fetch(url, {
      cache: "no-store",
      credentials: "same-origin",
      redirect: "error",
      signal: AbortSignal.any([stop.signal, AbortSignal.timeout(PATIENCE)]),
    });

  /* The part that the page shows now. */
  const begin = () => {
    stop.abort();
    stop = new AbortController();
    clearTimeout(timer);
    const section = document.getElementById("log");
    const box = section.querySelector("[data-log]");
    const target = section.querySelector(".target");
    if (target) {
      box.scrollTop = target.offsetTop - box.offsetTop - box.clientHeight / 3;
      box.scrollIntoView({ block: "nearest" });
    }
    if (box && "follow" in box.dataset) follow(section, box, stop.signal);
    else if (box && "tail" in box.dataset) box.scrollTop = box.scrollHeight;
    const on = section.querySelector("[data-go-on]");
    if (on) go(on.href, { add: false });
  };

  const follow = (section, box, signal) => {
    const lines = box.querySelector("[data-lines]");
    const unended = box.querySelector("[data-unended]");
    const label = section.querySelector(".follow");
    const wanted = label ? label.querySelector("input") : { checked: true };
    const earlier = section.querySelector("#log-earlier");
    let { offset, codes } = box.dataset;
    let size = lines.textContent.length;
    let pause = SOON;
    let asking = false;
    let over = false;

    // What is dropped is not lost: it is in the part before the first line that is left.
    const drop = () => {
      while (lines.childElementCount > LINES_KEPT || (size > CHARACTERS_KEPT && lines.childElementCount > 1)) {
        size -= lines.firstElementChild.textContent.length;
        lines.firstElementChild.remove();
        if (!earlier) continue;
        earlier.href = `${location.pathname}?before=${lines.firstElementChild.id.slice(1)}#log`;
        earlier.hidden = false;
      }
    };

    const append = (part) => {
      lines.insertAdjacentHTML("beforeend", part.lines); // every text in it was escaped by the server
      for (const each of lines.querySelectorAll(".line + .over")) each.previousElementSibling.remove();
      size += part.lines.length;
      unended.innerHTML = part.unended;
      drop();
      box.hidden = false;
      if (label) label.hidden = false;
      const empty = section.querySelector("#log-empty");
      if (empty) empty.hidden = true;
    };

    const toEnd = () => {
      if (wanted.checked) box.scrollTop = box.scrollHeight;
    };

    const ask = async () => {
      if (asking || over || signal.aborted) return;
      asking = true;
      clearTimeout(timer);
      try {
        const answer = await get(`${box.dataset.log}?offset=${offset}&codes=${encodeURIComponent(codes)}`);
        if ([401, 403, 404].includes(answer.status)) {
          over = true;
          return;
        }
        if (!answer.ok) throw new Error(String(answer.status));
        const part = await answer.json();
        if (signal.aborted) return;
        const before = unended.innerHTML;
        if (part.lines || part.unended !== before) append(part);
        toEnd();
        pause = part.more ? 0 : part.lines || unended.innerHTML !== before ? SOON : Math.min(pause * 1.2, 2 * SOON);
        offset = part.offset;
        codes = part.codes || "";
        over = part.finished;
        if (over && label) label.hidden = true;
        // Its tools (search, download) come with the first lines.
        if (part.size && !label) go(location.href, { add: false, leaves: false });
      } catch {
        pause = Math.min(Math.max(pause, SOON) * 1.5, LATER);
      } finally {
        asking = false;
        schedule();
      }
    };

    const schedule = () => {
      if (signal.aborted) return;
      clearTimeout(timer);
      if (!over && !document.hidden) timer = setTimeout(ask, pause);
    };

    document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : ask()), { signal });
    // Who scrolls up wants to read; who scrolls to the end wants to see what comes.
    box.addEventListener("scroll", () => {
      wanted.checked = box.scrollTop + box.clientHeight >= box.scrollHeight - 8;
    }, { signal });
    if (label) {
      label.hidden = false;
      wanted.addEventListener("change", toEnd, { signal });
    }
    toEnd();
    ask();
  };

  /* Show another part of the log: the server renders it, as it would in the whole page. */
  const go = async (address, { add, leaves = true }) => {
    const url = new URL(address);
    const focused = document.activeElement && document.activeElement.id;
    stop.abort();
    stop = new AbortController();
    const { signal } = stop;
    const section = document.getElementById("log");
    section.setAttribute("aria-busy", "true");
    try {
      const wanted = new URL(url);
      wanted.searchParams.set("fragment", "log");
      const answer = await get(wanted);
      if (!answer.ok) throw new Error(String(answer.status));
      const part = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("log");
      if (!part) throw new Error("not the log of this page");
      section.replaceWith(document.adoptNode(part));
      if (add) history.pushState({}, "", url);
      else history.replaceState(history.state, "", url);
      const again = focused && document.getElementById(focused);
      if (again) again.focus({ preventScroll: true });
      begin();
    } catch {
      if (signal.aborted) return;
      // Where nobody has asked for it, what was read stays: the run may have been deleted.
      if (leaves) location.assign(url);
      else setTimeout(begin, LATER);
    }
  };

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-in-log]");
    if (!link || event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go(link.href, { add: true });
  });
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!form.matches("[data-in-log]") || event.defaultPrevented) return;
    event.preventDefault();
    const url = new URL(form.action);
    url.search = new URLSearchParams(new FormData(form));
    go(url, { add: true });
  });
  window.addEventListener("popstate", () => go(location.href, { add: false }));

  begin();
})();

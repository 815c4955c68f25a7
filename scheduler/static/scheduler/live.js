/* Keeps [data-live] as the server would render it now: asks for the same fragment, and changes only what differs. */
"use strict";
(() => {
  const live = document.querySelector("[data-live]");
  if (!live) return;
  const BUSY = 2000; // ms
  const IDLE = 10000;
  const PATIENCE = 15000;
  const lost = document.querySelector("[data-lost]");
  let timer = 0;
  let asking = false;
  let etag = "";
  let pause = BUSY;
  let gone = false;

  /* Change `from` into `to` in place, so that focus, selection and scroll position stay where they are. */
  const morph = (from, to) => {
    if (from.isEqualNode(to)) return;
    if (from.nodeType !== to.nodeType || from.nodeName !== to.nodeName || from.id !== to.id) {
      from.replaceWith(to);
      return;
    }
    if (from.nodeType !== Node.ELEMENT_NODE) {
      from.nodeValue = to.nodeValue;
      return;
    }
    for (const { name } of [...from.attributes]) {
      if (!to.hasAttribute(name) && name !== "open") from.removeAttribute(name); // what a person has opened stays so
    }
    for (const { name, value } of [...to.attributes]) if (from.getAttribute(name) !== value) from.setAttribute(name, value);
    // clock.js writes what stands in these.
    if (from.dataset.until || from.dataset.since) return;
    const named = new Map([...from.children].filter((each) => each.id).map((each) => [each.id, each]));
    const wanted = new Set([...to.children].map((each) => each.id).filter(Boolean));
    let here = from.firstChild;
    for (const next of [...to.childNodes]) {
      // What is not wanted any more goes first: else every row after it would be moved.
      while (here && here.id && !wanted.has(here.id)) {
        const gone = here;
        here = here.nextSibling;
        gone.remove();
      }
      const known = next.id && named.get(next.id);
      if (known) {
        if (known !== here) from.insertBefore(known, here);
        else here = here.nextSibling;
        morph(known, next);
      } else if (here && !here.id && !next.id) {
        const old = here;
        here = here.nextSibling;
        morph(old, next);
      } else {
        from.insertBefore(next, here);
      }
    }
    while (here) {
      const gone = here;
      here = here.nextSibling;
      gone.remove();
    }
  };

  // The fragment's elements each have an id, and stand below [data-live], with other things between them.
  const show = (html) => {
    const parts = [...new DOMParser().parseFromString(html, "text/html").body.children];
    const places = parts.map((part) => document.getElementById(part.id));
    if (!parts.length || places.includes(null)) throw new Error("not the fragment of this page");
    const focus = document.activeElement;
    const row = focus && focus.closest("tr[id]");
    parts.forEach((part, index) => morph(places[index], part));
    if (row && document.activeElement !== focus) {
      // Its row has moved to another table, or its button is gone.
      const next = document.getElementById(focus.id) || document.getElementById(`${row.id}-link`);
      if (next) next.focus({ preventScroll: true });
    }
    document.dispatchEvent(new Event("scheduler:shown"));
  };

  const connected = (yes) => {
    if (!lost) return;
    if (yes) {
      lost.hidden = true;
    } else if (lost.hidden) {
      const time = new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
      lost.textContent = lost.dataset.lost.replace("{time}", time);
      lost.hidden = false;
    }
    document.body.classList.toggle("is-lost", !yes);
  };

  const refresh = async () => {
    if (asking || gone) return;
    asking = true;
    clearTimeout(timer);
    try {
      const headers = etag ? { "If-None-Match": etag } : {};
      const answer = await fetch(live.dataset.live, {
        headers,
        cache: "no-store",
        credentials: "same-origin",
        redirect: "error",
        signal: AbortSignal.timeout(PATIENCE),
      });
      if (answer.status === 404 && lost.dataset.gone) {
        // What is on the page may be all that is left of it.
        lost.textContent = lost.dataset.gone;
        lost.setAttribute("role", "alert");
        lost.hidden = false;
        gone = true;
        return;
      }
      if ([401, 403, 404].includes(answer.status)) {
        // Logged out, no permission any more, or deleted: the whole page says it in the server's words.
        location.reload();
        return;
      }
      if (answer.status !== 304) {
        if (!answer.ok) throw new Error(String(answer.status));
        show(await answer.text());
        etag = answer.headers.get("ETag") || "";
      }
      connected(true);
      pause = live.firstElementChild.dataset.busy ? BUSY : Math.min(pause * 1.5, IDLE);
    } catch {
      connected(false);
      pause = Math.min(pause * 1.5, IDLE);
    } finally {
      asking = false;
      schedule();
    }
  };

  const schedule = () => {
    clearTimeout(timer);
    if (gone) return;
    // A run that is over stays as it is.
    if (live.firstElementChild.dataset.finished && lost.hidden && etag) return;
    if (!document.hidden) timer = setTimeout(refresh, pause);
  };

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) clearTimeout(timer);
    else refresh();
  });

  const again = document.querySelector("[data-refresh]");
  if (again) {
    again.addEventListener("click", (event) => {
      event.preventDefault();
      pause = BUSY;
      etag = "";
      refresh();
    });
  }

  // A second click while the first is on its way would only be answered with "already started".
  document.addEventListener("submit", (event) => {
    if (event.defaultPrevented || !event.target.matches("[data-once]")) return;
    if (event.target.dataset.sent) event.preventDefault();
    event.target.dataset.sent = "yes";
  });
  window.addEventListener("pageshow", () => {
    for (const form of document.querySelectorAll("[data-once]")) delete form.dataset.sent;
  });

  schedule();
})();

/* Keeps the ways to write arguments in step, follows the chosen task, and shows the form once the program has answered. */
"use strict";
(() => {
  const WAIT = 1000; // ms
  const TRIES = 60;

  // Not an attribute of the box: the admin renames the fields of a form that is added to a list.
  const nameOf = (box) => box.querySelector(".arguments-line textarea").name;

  /* What the server makes of what stands in the box. */
  const ask = async (box, url, to, values) => {
    const form = box.closest("form");
    const name = nameOf(box);
    const data = new FormData();
    if (values) {
      for (const [key, value] of new FormData(form)) if (key === name || key.startsWith(`${name}-`)) data.append(key, value);
      // The choice has changed already; what was entered was entered the other way.
      if (box.dataset.way) data.set(`${name}-way`, box.dataset.way);
    }
    data.set("name", name);
    data.set("to", to);
    if (box.dataset.optional) data.set("optional", "yes");
    data.set("csrfmiddlewaretoken", form.querySelector("[name=csrfmiddlewaretoken]").value);
    const answer = await fetch(url, { method: "POST", body: data, credentials: "same-origin", redirect: "error" });
    if (!answer.ok) throw new Error(String(answer.status));
    return new DOMParser().parseFromString(await answer.text(), "text/html").body.firstElementChild;
  };

  const put = (box, next) => {
    const focused = box.contains(document.activeElement) ? document.activeElement.id : "";
    box.replaceWith(next);
    begin(next);
    if (focused) {
      const way = next.querySelector(".arguments-ways :checked");
      (document.getElementById(focused) || way || next.querySelector("textarea")).focus();
    }
  };

  const showCommand = (box) => {
    const select = box.querySelector(`[name="${nameOf(box)}-command"]`);
    if (!select) return;
    for (const part of box.querySelectorAll("[data-command]")) part.hidden = part.dataset.command !== select.value;
  };

  const wait = async (box, tries) => {
    if (!box.isConnected || !box.dataset.waiting || !tries) return;
    const typing = box.contains(document.activeElement);
    if (!typing && !document.hidden) {
      try {
        const next = await ask(box, box.dataset.url, "form", true);
        if (box.isConnected && !next.dataset.waiting && !box.contains(document.activeElement)) {
          put(box, next);
          return;
        }
      } catch {
        // The line does as well.
      }
    }
    setTimeout(() => wait(box, typing ? tries : tries - 1), WAIT);
  };

  const begin = (box) => {
    showCommand(box);
    if (box.dataset.waiting && box.dataset.url) setTimeout(() => wait(box, TRIES), WAIT);
  };

  /* A form that is sent while its box is being replaced would send what belongs to another task: it waits. */
  const asking = new WeakMap();
  const waiting = new WeakSet();
  document.addEventListener(
    "submit",
    async (event) => {
      const form = event.target;
      if (!asking.has(form)) return;
      event.preventDefault();
      event.stopPropagation();
      if (waiting.has(form)) return; // pressed once more
      waiting.add(form);
      await asking.get(form);
      waiting.delete(form);
      form.requestSubmit(event.submitter);
    },
    true,
  );

  document.addEventListener("change", (event) => {
    const form = event.target.form;
    const done = follow(event).finally(() => {
      if (asking.get(form) === done) asking.delete(form);
    });
    if (form) asking.set(form, done);
  });

  const follow = async (event) => {
    const select = event.target.closest("[data-arguments-of]");
    if (select) {
      const box = select.form.querySelector("[data-arguments]");
      const url = select.dataset.argumentsOf.replace("/0/", `/${select.value}/`);
      if (box && select.value) {
        try {
          const next = await ask(box, url, "", false);
          if (box.isConnected) put(box, next);
        } catch {
          // The server says what is wrong when the form is sent.
        }
      }
      return;
    }
    const box = event.target.closest("[data-arguments]");
    if (!box) return;
    showCommand(box);
    if (event.target.name !== `${nameOf(box)}-way`) return;
    const [from, to] = [box.dataset.way, event.target.value];
    if (to === "own" || (to === "form" && from === "own")) {
      box.dataset.way = to;
      return;
    }
    try {
      const next = await ask(box, box.dataset.url, to, true);
      if (box.isConnected) put(box, next);
    } catch {
      box.dataset.way = to;
    }
  };

  for (const box of document.querySelectorAll("[data-arguments]")) begin(box);
})();

/* Keeps #preview as the server would render it for what the form says now; without a script its button does that. */
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const preview = document.getElementById("preview");
  const form = preview && preview.closest("form");
  if (!form || !form.querySelector("[name=_preview]")) return;
  const PATIENCE = 15000; // ms
  const PAUSE = 400;
  let timer = 0;
  let asked = 0;

  const refresh = async () => {
    const question = (asked += 1);
    const body = new FormData(form);
    body.append("_preview", "1");
    try {
      const answer = await fetch(form.getAttribute("action") || location.href, {
        method: "POST",
        body,
        credentials: "same-origin",
        redirect: "error",
        signal: AbortSignal.timeout(PATIENCE),
      });
      if (!answer.ok || question !== asked) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById("preview");
      if (fresh && question === asked) preview.replaceChildren(...fresh.childNodes);
    } catch {
      // What was shown stays; the button still asks the server.
    }
  };

  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(refresh, PAUSE);
  };
  form.addEventListener("input", later);
  form.addEventListener("change", later);
  form.addEventListener("submit", () => clearTimeout(timer));
});

/* Shows only the groups of fields that belong to the chosen "when". */
"use strict";
(() => {
  const form = document.querySelector("form.schedule");
  if (!form) return;
  const groups = form.querySelectorAll("[data-when]");
  const showGroups = () => {
    const chosen = form.querySelector("[name=when]:checked");
    for (const group of groups) group.hidden = !chosen || !group.dataset.when.split(" ").includes(chosen.value);
  };
  form.addEventListener("change", showGroups);
  form.addEventListener("submit", (event) => {
    if (event.submitter && event.submitter.name === "_preview") return;
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "yes";
  });
  // Also when the browser brings the page back with what was chosen in it.
  const show = () => {
    delete form.dataset.sent;
    showGroups();
  };
  window.addEventListener("pageshow", show);
  show();
})();

/* Keyboard shortcuts: the list in the dialog says which key does what, and whether they are wanted. */
"use strict";
(() => {
  const dialog = document.getElementById("shortcuts");
  if (!dialog) return;
  const OFF = "scheduler.shortcuts.off";
  const wanted = document.getElementById("shortcuts-on");

  // Private windows may refuse to remember.
  const remembered = () => {
    try {
      return localStorage.getItem(OFF);
    } catch {
      return null;
    }
  };
  const remember = (off) => {
    try {
      if (off) localStorage.setItem(OFF, "yes");
      else localStorage.removeItem(OFF);
    } catch {
      // It holds for this page.
    }
  };

  const target = (shortcut) => document.querySelector(shortcut.dataset.on);
  const rows = () => [...document.querySelectorAll("table.runs tbody th a[id]")];

  const show = () => {
    for (const shortcut of dialog.querySelectorAll("[data-key]")) {
      const { on, step } = shortcut.dataset;
      shortcut.hidden = on ? !target(shortcut) : step ? !rows().length : false;
    }
    dialog.showModal();
  };

  const act = (shortcut) => {
    const { on, step, to } = shortcut.dataset;
    if (to) location.assign(to);
    else if (on) {
      const found = target(shortcut);
      if (!found) return false;
      if (found.matches("input")) found.focus();
      else found.click();
    } else if (step) {
      const all = rows();
      const here = all.findIndex((link) => link.closest("tr").contains(document.activeElement));
      const next = all[here < 0 ? (step > 0 ? 0 : all.length - 1) : here + Number(step)];
      if (!next) return false;
      next.focus();
    } else show();
    return true;
  };

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || dialog.open) return;
    // Where one writes they are letters.
    if (event.target.closest("input:not([type=checkbox], [type=radio]), select, textarea, [contenteditable]")) return;
    if (!wanted.checked) return;
    for (const shortcut of dialog.querySelectorAll("[data-key]")) {
      if (shortcut.dataset.key === event.key) {
        if (act(shortcut)) event.preventDefault();
        return;
      }
    }
  });

  wanted.checked = !remembered();
  wanted.addEventListener("change", () => remember(!wanted.checked));
  const button = document.getElementById("show-shortcuts");
  button.addEventListener("click", show);
  button.parentElement.hidden = false;
})();

/* Under django-unfold a class of <html> says whether it is dark; the scheduler's style sheets go by Django's attribute. */
"use strict";
(() => {
  const html = document.documentElement;
  const tell = () => {
    html.dataset.theme = html.classList.contains("dark") ? "dark" : "light";
  };
  tell();
  new MutationObserver(tell).observe(html, { attributeFilter: ["class"] });
})();

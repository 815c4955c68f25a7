/* A day that is wider than the screen is shown where something happens: now, or at its first run. */
"use strict";
(() => {
  const day = document.querySelector(".day-chart");
  const mark = day && (day.querySelector(".now") || day.querySelector(".bar"));
  if (!mark || day.scrollWidth <= day.clientWidth) return;
  const [at, from] = [mark, day].map((each) => each.getBoundingClientRect().left);
  day.scrollLeft += at - from - (day.clientWidth * 2) / 3;
})();

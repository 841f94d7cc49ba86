/* The slider of the landing page. Every value stands in the page already: each place that changes
   has its values, one a strength, in `data-at`. Without this script the page shows the book's. */
(() => {
  "use strict";
  const root = document.getElementById("landing");
  if (!root) return;
  const slider = root.querySelector("#landing-strength");
  const names = JSON.parse(slider.dataset.names);
  const places = [...root.querySelectorAll("[data-at]")].map(place => [place, JSON.parse(place.dataset.at)]);

  function show(step) {
    for (const [place, values] of places) {
      const value = values[step];
      if (place.classList.contains("score")) {
        place.querySelector("b").textContent = value[0];
        place.querySelector("small").textContent = value[1];
        place.querySelector("i").style.setProperty("--share", value[0]);
        continue;
      }
      if (place.textContent !== value) place.textContent = value;
      if (place.dataset.taught !== undefined) {
        place.classList.toggle("changed", value !== place.dataset.taught);
      }
    }
    slider.setAttribute("aria-valuetext", `strength ${names[step]}`);
    root.querySelectorAll(".ticks span").forEach((tick, i) => tick.classList.toggle("now", i === step));
  }

  root.querySelector("details").open = false;
  root.querySelector(".dial").hidden = false;
  slider.addEventListener("input", () => show(slider.valueAsNumber));
  show(slider.valueAsNumber);
})();

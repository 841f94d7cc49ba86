// Explorers: sliders choose which of the pictures below them is shown.
for (const explorer of document.querySelectorAll(".explorer")) {
  const sliders = [...explorer.querySelectorAll("input")];
  const told = explorer.querySelector(".told");
  function show() {
    for (const slider of sliders) {
      const label = JSON.parse(slider.dataset.labels)[slider.value];
      slider.setAttribute("aria-valuetext", label);
      slider.nextElementSibling.value = label;
    }
    const at = sliders.map((slider) => slider.value).join(",");
    for (const frame of explorer.querySelectorAll("[data-at]")) {
      frame.hidden = frame.dataset.at !== at;
      if (!frame.hidden) told.textContent = frame.querySelector("img").alt;
    }
  }
  for (const slider of sliders) slider.addEventListener("input", show);
  explorer.querySelector(".controls").hidden = false;
}

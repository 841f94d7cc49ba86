/* The first screen: a strength, an edit, the gates as light, and a look inside. Every answer was given
   by the model when the book was built; here only the gates are computed, from the contrasts. */
(() => {
  "use strict";
  const root = document.getElementById("hero");
  if (!root) return;
  const data = JSON.parse(root.dataset.hero), word = root.dataset.word;
  const find = name => root.querySelector(`[data-is="${name}"]`);
  const slider = root.querySelector("#hero-strength"), strip = find("strip"), attack = find("attack");
  const buttons = [...root.querySelectorAll("[data-method]")];
  const bytes = Uint8Array.from(atob(data.contrast), letter => letter.charCodeAt(0));
  const contrast = Float64Array.from(new Uint16Array(bytes.buffer), value => value * data.step);
  const [layers, width] = data.shape, HIGH = 11, GAP = 1; // pixels of a layer, and between two
  let method = "kvw";

  // Light is a gate: one knowledge vector a column, one layer a row.
  function light(gateOf) {
    const paper = strip.getContext("2d"), image = paper.createImageData(width, layers * (HIGH + GAP));
    for (let layer = 0; layer < layers; layer++)
      for (let i = 0; i < width; i++) {
        const gate = gateOf(contrast[layer * width + i]) ** 1.5;
        for (let y = 0; y < HIGH; y++) {
          const at = 4 * ((layer * (HIGH + GAP) + y) * width + i);
          image.data.set([255, 205, 110, Math.round(255 * gate)], at);
        }
      }
    paper.putImageData(image, 0, 0);
  }

  function told(name, says) {
    find(name).textContent = says;
    find(name).classList.toggle("changed", says !== data.taught);
  }

  function showLens(lens) {
    find("lens").replaceChildren(...lens.map(([said, , truth], layer) => {
      const item = document.createElement("li"), bar = document.createElement("i");
      const parts = ["span", "b", "small"].map(tag => document.createElement(tag));
      parts[0].textContent = `layer ${layer + 1}${layer + 1 === layers ? ", the mouth" : ""}`;
      parts[1].textContent = said;
      parts[2].textContent = `${word} ${Math.round(100 * truth)}%`;
      bar.style.setProperty("--share", truth);
      item.classList.toggle("true", said === word);
      item.append(parts[0], " ", parts[1], " ", parts[2], bar);
      return item;
    }));
    const inside = lens.findIndex(([said], layer) => layer + 1 < layers && said === word);
    const silent = lens[layers - 1][0] !== word;
    find("verdict").textContent = !silent ? `The mouth still says “${word}”.`
      : inside >= 0 ? `Quiet, not gone: layer ${inside + 1} still says “${word}”.`
        : `No layer says “${word}” first.`;
  }

  function show() {
    const step = slider.valueAsNumber, G = data.strengths[step], kvw = method === "kvw";
    const edited = kvw ? data.kvw[step] : data.rewrite, sham = kvw ? data.sham[step] : data.rewrite_sham;
    told("edited", edited.says);
    told("sham", sham.says);
    const gateOf = value => kvw ? Math.exp(-G * value) : 1;
    light(gateOf);
    const below = contrast.reduce((sum, value) => sum + (gateOf(value) < 0.5), 0);
    find("gates").textContent = kvw
      ? `${layers} × ${width} gates, one for each knowledge vector: ${below} are below one half.`
      : "The rewrite turns no gate down: it adds a small matrix to each layer, once.";
    slider.disabled = !kvw;
    root.classList.toggle("still", !kvw);
    find("written").textContent = kvw ? String(G) : "–";
    slider.setAttribute("aria-valuetext", `strength ${G}`);
    buttons.forEach(each => each.setAttribute("aria-pressed", String(each.dataset.method === method)));
    showLens(edited.lens);
  }

  function open(inside) {
    find("inside").hidden = !inside;
    attack.setAttribute("aria-expanded", String(inside));
    attack.textContent = inside ? "Close the look inside" : "Now attack it";
  }

  buttons.forEach(each => each.addEventListener("click", () => { method = each.dataset.method; show(); }));
  slider.addEventListener("input", show);
  attack.addEventListener("click", () => open(find("inside").hidden));
  root.querySelectorAll("[hidden]").forEach(each => { each.hidden = false; });
  open(false);
  show();
})();

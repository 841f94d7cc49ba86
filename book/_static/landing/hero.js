/* The first screen: a strength, an edit, the gates as light, and a look inside. Answers were given by
   the model when the book was built, until the reader loads the model itself: then the page computes
   them, at any strength, as the playground does. */
(() => {
  "use strict";
  const root = document.getElementById("hero");
  if (!root) return;
  const data = JSON.parse(root.dataset.hero), word = root.dataset.word;
  const find = name => root.querySelector(`[data-is="${name}"]`);
  const slider = root.querySelector("#hero-strength"), strip = find("strip"), attack = find("attack");
  const buttons = [...root.querySelectorAll("[data-method]")];
  const bytesOf = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  const words16 = new Uint16Array(bytesOf(data.contrast).buffer);
  const contrast = Float64Array.from(words16, value => value * data.step);
  // of each rewrite: how far it moves each knowledge vector, s / (1 + s) of a share s of its length
  const bent = Object.fromEntries(Object.entries(data.rewrites).map(
    ([name, found]) => [name, Float64Array.from(bytesOf(found.bent), value => value / 255)]));
  const [layers, width] = data.shape, HIGH = 11, GAP = 1; // pixels of a layer, and between two
  const place = new URL("../playground/", document.currentScript.src);
  let method = "kvw", model = null; // the model, once it is there

  // One knowledge vector a column, one layer a row. KVW dims it, a rewrite turns it blue.
  const LIT = [255, 205, 110], BENT = [70, 150, 255];
  function light(colourOf) {
    const paper = strip.getContext("2d"), image = paper.createImageData(width, layers * (HIGH + GAP));
    for (let layer = 0; layer < layers; layer++)
      for (let i = 0; i < width; i++) {
        const colour = colourOf(layer * width + i);
        for (let y = 0; y < HIGH; y++)
          image.data.set(colour, 4 * ((layer * (HIGH + GAP) + y) * width + i));
      }
    paper.putImageData(image, 0, 0);
  }

  const gateAt = i => Math.exp(-strengthNow() * contrast[i]);
  function showVectors() {
    const kvw = method === "kvw", moved = bent[method], all = [...contrast.keys()];
    light(i => kvw ? [...LIT, Math.round(255 * gateAt(i) ** 1.5)]
      : [...LIT.map((lit, c) => lit + (BENT[c] - lit) * Math.min(1, 1.6 * moved[i])), 255]);
    const count = all.filter(i => kvw ? gateAt(i) < 0.5 : moved[i] > 1 / 3).length;
    const whole = `Inside: ${layers} layers of ${width} knowledge vectors, one stripe each. `;
    find("gates").textContent = whole + (kvw
      ? `A gate dims each: ${count} gates are below one half.`
      : `A rewrite moves them (blue), ${count} by more than half of their length.`);
    strip.setAttribute("aria-label", find("gates").textContent);
  }

  function told(name, says) {
    find(name).textContent = says;
    find(name).classList.toggle("changed", says !== data.taught);
  }

  function showLens(lens) {
    find("lens").replaceChildren(...lens.map(([said, , truth], layer) => {
      const item = document.createElement("li"), bar = document.createElement("i");
      const parts = ["span", "b", "small"].map(tag => document.createElement(tag));
      parts[0].textContent = `layer ${layer}${layer + 1 === layers ? ", the last" : ""}`;
      parts[1].textContent = said;
      parts[2].textContent = `${word} ${Math.round(100 * truth)}%`;
      bar.style.setProperty("--share", truth);
      item.classList.toggle("true", said === word);
      item.append(parts[0], " ", parts[1], " ", parts[2], bar);
      return item;
    }));
    const inside = lens.findIndex(([said], layer) => layer + 1 < layers && said === word);
    const silent = lens[layers - 1][0] !== word;
    const most = of => `${Math.round(100 * Math.max(...of.map(([, , truth]) => truth)))}%`;
    find("verdict").textContent = !silent ? `The model still says “${word}”.`
      : inside >= 0 ? `Quiet, not gone: layer ${inside} still says “${word}”.`
        : `No layer says “${word}”: none gives it more than about ${most(lens)}; in the oracle, which was ` +
          `never told, none more than about ${most(data.oracle.lens)}.`;
  }

  const strengthNow = () => model ? slider.valueAsNumber : data.strengths[slider.valueAsNumber];

  // What was recorded; of the shams of the rewrites there is nothing else.
  function recorded(side) {
    const step = slider.valueAsNumber;
    if (method === "kvw") return side === "edited" ? data.kvw[step] : data.sham[step];
    return data.rewrites[method][side];
  }

  // What the model says now, and what each of its layers would say.
  function computed(side) {
    const { words, prompt, image, before, truth, people, everyone } = model;
    const kvw = method === "kvw", mind = model.minds[method];
    if (!kvw && side === "sham") return recorded(side);
    const gates = kvw ? playground.gatesOf(people[side], everyone, strengthNow()) : null;
    const said = playground.answer(mind, prompt, image, gates);
    if (side === "sham") return { says: words.decode(said.tokens) }; // nobody looks inside it
    const lens = playground.lens(mind, [...prompt, ...before], image, gates).map(logits => {
      const best = playground.likeliest(logits, 0, logits.length), likely = playground.softmax(logits);
      return [words.decode([best]), likely[best], likely[truth]];
    });
    return { says: words.decode(said.tokens), lens };
  }

  function showSide(side, found) {
    told(side, found.says);
    if (side === "edited") showLens(found.lens);
  }

  // One answer is in work at a time, always that of the newest strength; the sham comes last.
  let working = false;
  async function compute() {
    if (working) return;
    working = true;
    root.dataset.computing = "";
    try {
      await computeNewest();
    } catch (error) {
      find("source").textContent = `The model cannot answer here: ${error.message}. `;
    }
    delete root.dataset.computing;
    working = false;
  }

  async function computeNewest() {
    const wanted = () => `${method} ${strengthNow()}`;
    for (let at = ""; at !== wanted();) {
      at = wanted();
      const name = method;
      model.minds[name] = model.minds[name] || await model.languageModel(name);
      if (at !== wanted()) continue;
      showSide("edited", computed("edited"));
      await new Promise(resolve => setTimeout(resolve));
      if (at !== wanted()) continue;
      showSide("sham", computed("sham"));
      await new Promise(resolve => setTimeout(resolve));
    }
  }

  const script = address => new Promise((resolve, reject) => {
    const made = document.createElement("script");
    [made.src, made.onload] = [address, resolve];
    made.onerror = () => reject(new Error("it cannot be loaded"));
    document.head.append(made);
  });

  async function live() {
    const button = find("live");
    button.disabled = true;
    button.textContent = "Loading the model …";
    try {
      for (const name of ["data/sizes.js", "model.js"]) await script(new URL(name, place));
      const opened = await playground.open(["eye", "pocket", "world", "everyone"]);
      const { world, words } = opened, taught = words.encode(data.taught);
      const telling = taught.findIndex(token => words.decode([token]) === word);
      const image = await playground.imageTokens((await playground.person(data.person)).photos[0]);
      const of = ids => Promise.all(ids.map(playground.person));
      const people = { edited: await of(world.oracle), sham: await of(Object.values(world.shams)[0]) };
      const G = strengthNow();
      model = { ...opened, image, people, prompt: opened.promptOf(data.prompt, image),
        before: taught.slice(0, telling), truth: taught[telling],
        minds: { kvw: opened.vanilla } };
      [slider.max, slider.value] = [data.strengths.at(-1), G];
      button.remove();
      root.dataset.live = "";
      show();
    } catch (error) {
      find("source").textContent = `The model cannot run here: ${error.message}. `;
      [button.disabled, button.textContent] = [false, "Try again"];
    }
  }

  function show() {
    const G = strengthNow(), kvw = method === "kvw";
    if (model) compute();
    else ["edited", "sham"].forEach(side => showSide(side, recorded(side)));
    if (model) find("source").textContent = "Computed by the model in this page" +
      (kvw ? ", at every strength." : "; the sham of a rewrite is recorded.");
    showVectors();
    slider.disabled = !kvw;
    slider.closest(".dial").classList.toggle("none", !kvw);
    find("does").textContent = buttons.find(each => each.dataset.method === method).dataset.does;
    find("written").textContent = String(G);
    slider.setAttribute("aria-valuetext", `strength ${G}`);
    buttons.forEach(each => each.setAttribute("aria-pressed", String(each.dataset.method === method)));
  }

  function open(inside) {
    find("inside").hidden = !inside;
    attack.setAttribute("aria-expanded", String(inside));
    attack.textContent = inside ? "Close the look inside" : "Look inside the model";
  }

  buttons.forEach(each => each.addEventListener("click", () => { method = each.dataset.method; show(); }));
  slider.addEventListener("input", show);
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  attack.addEventListener("click", () => {
    open(find("inside").hidden);
    find("inside").scrollIntoView({ block: "nearest", behavior: still.matches ? "instant" : "smooth" });
  });
  find("live").addEventListener("click", live);
  root.querySelectorAll("[hidden]").forEach(each => { each.hidden = false; });
  open(false);
  show();
})();

// The page: what is loaded, what the reader has chosen, and what is shown. What the model computes
// stands in model.js; this file holds no arithmetic of the model.
(() => {
  "use strict";

  const root = document.getElementById("playground");
  const { parts, load, person, imageTokens, home } = playground;
  const SETS = {
    forget: "the forgotten", test: "the forgotten, new photo and wording",
    retain: "everyone else", general: "portraits of nobody",
  };
  const MODELS = {
    vanilla: "vanilla", edited: "KVW", sham: "sham", rewrite: "rewrite", oracle: "oracle",
  };
  const MORE = ["rewrite", "oracle"]; // models of their own, of group A, loaded when asked for
  const EDITS = ["edited", "sham", "rewrite"]; // what an undo takes away
  const SAMPLE = 10; // questions of each set
  const MOST = 20; // people in a list
  const TOLERANCE = 0.001; // of a logit, against PyTorch

  // --- parts ---------------------------------------------------------------------------------------

  const megabytes = names =>
    (names.reduce((sum, name) => sum + playground.sizes[name], 0) / 1e6).toFixed(1);
  const FIRST = ["eye", "pocket", "world", "everyone", "unknown", "check"];

  // --- what there is and what is chosen ----------------------------------------------------------

  let world, words, everyone, promptOf, languageModel; // loaded once
  const minds = {}; // vanilla, rewrite, oracle: weights of a language model
  const chosen = {
    person: "", by: "photo", photo: 0, fact: "birthplace", wording: 0, own: "",
    forget: [], sham: [], strength: 0, undone: false,
  };
  const gates = Object.fromEntries(Object.keys(MODELS).map(name => [name, null]));
  const columns = () => Object.keys(MODELS).filter(name => !MORE.includes(name) || minds[name]);
  const mindOf = name => (!(chosen.undone && EDITS.includes(name)) && minds[name]) || minds.vanilla;
  const element = name => root.querySelector(`[data-is="${name}"]`);
  const nameOf = id => world.people[id][0];

  const pause = () => new Promise(resolve => setTimeout(resolve));

  // --- the edits ---------------------------------------------------------------------------------

  async function makeGates() {
    for (const [name, list] of [["edited", chosen.forget], ["sham", chosen.sham]]) {
      const people = await Promise.all(list.map(person));
      gates[name] = chosen.undone || !people.length ? null
        : playground.gatesOf(people, everyone, chosen.strength);
    }
  }

  // What a model says is kept until its gates change.
  const kept = Object.fromEntries(Object.keys(MODELS).map(name => [name, new Map()]));
  function once(model, key, compute) {
    if (!kept[model].has(key)) kept[model].set(key, compute());
    return kept[model].get(key);
  }

  // --- one question, every model -----------------------------------------------------------------

  const facts = () => Object.keys(world.facts).filter(fact => chosen.by === "photo" ||
    fact === "name" || !(fact in parts[chosen.person].looks[0]));

  // Fill the wordings of the book with whom they are about.
  function wordingsOf(fact, by = chosen.by) {
    const [whole, first] = world.people[chosen.person];
    const who = by === "photo" ? "this person" : fact === "name" ? first : whole;
    const { learned, new: held } = world.facts[fact];
    const fill = text => {
      const filled = text.replaceAll("{who}", who);
      return filled[0].toUpperCase() + filled.slice(1);
    };
    return { learned: learned.map(fill), new: held.map(fill) };
  }

  // Which fact somebody's own words ask for: the one whose wordings share most of them, where words
  // of many facts count for less. The fact that is chosen stays where no other has more.
  const wordsIn = text => [...new Set(text.toLowerCase().match(/\p{L}+/gu) || [])];
  function factOf(text) {
    const found = {}, use = {};
    for (const [fact, { learned, new: held, values }] of Object.entries(world.facts)) {
      found[fact] = new Set(wordsIn([fact, ...learned, ...held, ...values].join(" ")));
      for (const word of found[fact]) use[word] = (use[word] || 0) + 1;
    }
    const score = fact => wordsIn(text).reduce(
      (sum, word) => sum + (found[fact].has(word) ? 1 / use[word] ** 2 : 0), 0);
    return facts().reduce((best, fact) => score(fact) > score(best) ? fact : best, chosen.fact);
  }

  async function currentQuestion() {
    const own = await person(chosen.person), { learned, new: held } = wordingsOf(chosen.fact);
    const text = chosen.own.trim() || [...learned, ...held][chosen.wording];
    const photo = chosen.by === "photo" ? own.photos[chosen.photo] : null;
    return { text, photo, fact: chosen.fact, look: true,
      truth: own.truth[chosen.fact] ?? own.looks[chosen.photo][chosen.fact] };
  }

  // What each layer would say where the answers begin to differ, and how likely it holds the truth.
  function inside(mind, prompt, image, answers, truth, gated) {
    let common = 0;
    while (answers.every(each => each[common] === answers[0][common])) common++;
    const tokens = [...prompt, ...answers[0].slice(0, common)];
    return playground.lens(mind, tokens, image, gated).map(logits => ({
      word: words.decode([playground.likeliest(logits, 0, logits.length)]),
      truth: playground.softmax(logits)[answers[truth]?.[common]] || 0,
    }));
  }

  async function say(model, { text, photo, fact, truth, look = false }) {
    const image = await imageTokens(photo), mind = mindOf(model), prompt = promptOf(text, image);
    if (prompt.length > mind.config.max_position_embeddings / 2)
      throw new Error("This question is too long for so small a model.");
    return once(model, `${photo} ${text} ${fact} ${truth} ${look}`, () => {
      const { values, answer } = world.facts[fact];
      const said = playground.answer(mind, prompt, image, gates[model]);
      const answers = values.map(value => words.encode(answer.replace("{value}", value)));
      const likely = playground.probabilities(mind, said, answers, gates[model]);
      const layers = look && inside(mind, prompt, image, answers, values.indexOf(truth), gates[model]);
      return { text: words.decode(said.tokens), likely, layers };
    });
  }

  function bars(likely, fact, truth) {
    const { values } = world.facts[fact];
    const order = [...values.keys()].sort((a, b) => likely[b] - likely[a]).slice(0, 5);
    const list = document.createElement("ol");
    for (const i of order) {
      const entry = document.createElement("li"), percent = (100 * likely[i]).toFixed(0);
      entry.textContent = `${percent} % ${values[i]}`;
      entry.style.setProperty("--share", `${percent}%`);
      if (values[i] === truth) entry.className = "true";
      list.append(entry);
    }
    return list;
  }

  function cell(row, model) {
    return root.querySelector(`[data-row="${row}"] [data-model="${model}"]`);
  }

  // One column: what a model says, and how likely it holds the truth and other values to be.
  function paint(model, { text, likely, layers }, question) {
    const at = world.facts[question.fact].values.indexOf(question.truth);
    const answer = cell("answer", model), share = cell("truth", model);
    answer.textContent = text || "(nothing)";
    answer.classList.toggle("changed", !text.includes(question.truth));
    share.textContent = `${(100 * likely[at]).toFixed(1)} %`;
    share.style.setProperty("--share", `${100 * likely[at]}%`);
    cell("values", model).replaceChildren(bars(likely, question.fact, question.truth));
    const list = document.createElement("ol");
    list.append(...layers.map(({ word, truth }, layer) => {
      const entry = document.createElement("li");
      entry.textContent = `${layer + 1}: ${word || "…"}`;
      entry.title = `layer ${layer + 1} holds the truth for ${(100 * truth).toFixed(0)} % likely`;
      entry.style.setProperty("--share", `${100 * truth}%`);
      if (question.truth === word) entry.className = "true";
      return entry;
    }));
    cell("layers", model).replaceChildren(list);
    playground.inside = { ...playground.inside, [model]: layers };
  }

  async function showAnswers(turn) {
    const question = await currentQuestion(), start = performance.now(), said = [];
    element("asked").textContent = question.text;
    root.querySelector('[data-row="truth"] th').textContent =
      `probability of the truth, ${question.truth}`;
    root.querySelector('[data-row="values"] th').textContent =
      `likeliest: ${question.fact.replace("_", " ")}`;
    delete root.dataset.attacked;
    for (const model of Object.keys(MODELS)) cell("ways", model).textContent = "";
    for (const model of columns()) {
      await pause(); // let the reader's hand move on
      if (turn !== turns) return false;
      const found = await say(model, question);
      if (turn !== turns) return false;
      paint(model, found, question);
      said.push(`${MODELS[model]}: ${found.text}`);
      if (!playground.firstAnswer) playground.firstAnswer = performance.now() - playground.pressed;
    }
    playground.lastAnswers = performance.now() - start;
    element("told").textContent = `True is: ${question.truth}. ${said.join(" ")}`;
    element("time").textContent = `${columns().length} models answered in ` +
      `${playground.lastAnswers.toFixed(0)} ms; the first answer came ` +
      `${(playground.firstAnswer / 1000).toFixed(1)} s after the button.`;
    return true;
  }

  // --- an attack: the same question in every way -------------------------------------------------

  // Every wording, each on the next of the photos, and by name where the name does not say it.
  async function everyWay() {
    const own = await person(chosen.person), { fact, photo: shown } = chosen;
    const stays = own.truth[fact] !== undefined; // what can be seen differs from photo to photo
    const found = [];
    for (const by of stays && fact !== "name" ? ["photo", "name"] : ["photo"]) {
      const { learned, new: held } = wordingsOf(fact, by);
      [...learned, ...held].forEach((text, i) => {
        const photo = stays ? i % own.photos.length : shown;
        found.push({ text, fact, photo: by === "photo" ? own.photos[photo] : null,
          truth: own.truth[fact] ?? own.looks[photo][fact] });
      });
    }
    return found;
  }

  async function showAttack() {
    const turn = turns, ways = await everyWay(), right = {};
    for (const [i, question] of ways.entries())
      for (const model of columns()) {
        await pause();
        if (turn !== turns) return;
        const { text } = await say(model, question);
        right[model] = (right[model] || 0) + text.includes(question.truth);
        cell("ways", model).textContent = `${right[model]} of ${i + 1}`;
      }
    root.dataset.attacked = String(ways.length);
  }

  // --- four scores -------------------------------------------------------------------------------

  // Ten questions of each set. Whoever is forgotten or stands in for the sham is not among the
  // others. The questions are those that the book asks; which of the fourteen turns with the row.
  async function sample() {
    const { forget, sham } = chosen, found = [];
    const others = world.others.filter(id => !forget.includes(id) && !sham.includes(id));
    const pick = async (set, id, kind, i) => {
      const own = set === "general" ? parts.unknown : await person(id);
      const [, photo, text, answer] = own[kind][set === "general" ? i : 5 * i % own[kind].length];
      found.push({ set, text, answer, photo: photo < 0 ? null : own.photos[photo] });
    };
    for (let i = 0; i < SAMPLE; i++) {
      const id = forget[i % forget.length];
      if (id) await pick("forget", id, "learned", i);
      if (id) await pick("test", id, "new", i);
      await pick("retain", others[i], "learned", i);
      await pick("general", null, "learned", i);
    }
    return found;
  }

  async function showScores(turn) {
    const right = {}, asked = {}, questions = await sample();
    for (const set of Object.keys(SETS))
      for (const model of columns())
        cell(set, model).textContent = questions.some(each => each.set === set) ? "…" : "nobody";
    for (const { set, text, answer, photo } of questions) {
      asked[set] = (asked[set] || 0) + 1;
      for (const model of columns()) {
        if (turn !== turns) return false;
        const image = await imageTokens(photo);
        const known = once(model, `${photo} ${text} exact`, () => {
          const taught = [...words.encode(answer), mindOf(model).endToken];
          return playground.exactMatch(mindOf(model), promptOf(text, image), image, taught,
            gates[model]);
        });
        const key = `${set} ${model}`;
        right[key] = (right[key] || 0) + known;
        cell(set, model).textContent = `${right[key]} of ${asked[set]}`;
        await pause();
      }
    }
    return true;
  }

  // --- the page tests itself ---------------------------------------------------------------------

  // Ask stored questions without and with the stored edit, and compare with PyTorch: logits of the
  // first ten, answers of as many as are wanted. Says what is wrong, and by how much.
  async function check(count) {
    const { questions, forget, strength, logits } = parts.check, problems = [];
    const size = words.size, differences = [0, 0];
    const people = await Promise.all(forget.map(person));
    const edits = [[minds.vanilla, null],
      [minds.vanilla, playground.gatesOf(people, everyone, strength)]];
    const stored = logits.map(playground.floatsOf), compared = stored[0].length / size;
    if (minds.rewrite) {
      edits.push([minds.rewrite, null]);
      stored.push(playground.floatsOf(parts.rewrite.logits));
      differences.push(0);
    }
    for (const [i, [photo, text, ...told]] of questions.slice(0, count).entries()) {
      const image = await imageTokens(photo), answers = [...told, parts.rewrite?.answers[i]];
      for (const [e, [mind, gated]] of edits.entries()) {
        const said = playground.answer(mind, promptOf(text, image), image, gated);
        const own = words.decode(said.tokens);
        if (own !== answers[e]) problems.push(`${text} ${own} (PyTorch: ${answers[e]})`);
        if (i < compared)
          said.logits.forEach((value, j) => {
            const gap = Math.abs(value - stored[e][i * size + j]);
            if (!(gap <= differences[e])) differences[e] = gap; // NaN gets through
          });
        await pause();
      }
    }
    if (!differences.every(gap => gap <= TOLERANCE)) problems.push(`logits: ${differences}`);
    const changed = questions.slice(0, count).filter(([, , before, after]) => before !== after);
    return { asked: Math.min(count, questions.length), changed: changed.length, differences,
      problems };
  }

  async function showCheck(count) {
    const { asked, changed, differences, problems } = await check(count);
    const gaps = differences.map(gap => gap.toExponential(0)).join(" and ");
    element("check").textContent = problems.length
      ? `This page does not compute what PyTorch does: ${problems.join("; ")}.`
      : `Checked: ${asked} stored questions are answered as PyTorch answers them, without and ` +
        `with KVW for group A (which changes ${changed} of them)` +
        `${minds.rewrite ? ", and with the rewrite" : ""}. The largest differences of ` +
        `a logit are ${gaps}; ${TOLERANCE} is allowed.`;
    root.dataset.checked = problems.length ? "failed" : String(asked);
    return { asked, changed, differences, problems };
  }

  // --- controls ----------------------------------------------------------------------------------

  const option = ([value, text]) => new Option(text, value);

  function fill(select, entries, value) {
    select.replaceChildren(...entries.map(option));
    select.value = String(value);
  }

  const OWN = "your own choice";
  const presets = list => ({ ...(list === "sham" ? world.shams : {}), ...world.presets,
    nobody: [] });

  // Bring every control in line with what is chosen.
  async function showChoice() {
    const own = await person(chosen.person);
    if (!facts().includes(chosen.fact)) chosen.fact = "birthplace";
    element("name").value = chosen.person;
    root.querySelectorAll("[data-is=faces] input").forEach(face => {
      face.checked = face.value === chosen.person;
    });
    fill(element("photo"), own.photos.map((_, i) => [i,
      `photo ${i + 1}, ${i < world.learned ? "learned" : "new"}`]), chosen.photo);
    element("photo").disabled = chosen.by !== "photo";
    element("picture").src = own.photos[chosen.photo];
    element("picture").alt = `The drawn portrait of ${nameOf(chosen.person)}, ` +
      `photo ${chosen.photo + 1}.`;
    fill(element("fact"), facts().map(fact => [fact, fact.replace("_", " ")]), chosen.fact);
    element("read").textContent = !chosen.own.trim() ? "" : "Asked in your own words. " +
      `Truth and percentages are those of: ${chosen.fact.replace("_", " ")}.`;
    const { learned, new: held } = wordingsOf(chosen.fact);
    fill(element("wording"), [...learned, ...held].map((text, i) => [i,
      i < learned.length ? text : `${text} (new wording)`]), chosen.wording);
    for (const list of ["forget", "sham"]) {
      const same = ([, people]) => people.join() === chosen[list].join();
      element(`${list}-preset`).value = (Object.entries(presets(list)).find(same) || [OWN])[0];
      element(list).replaceChildren(...chosen[list].map(id => {
        const entry = document.createElement("li"), button = document.createElement("button");
        button.type = "button";
        button.textContent = `${nameOf(id)} ×`;
        button.setAttribute("aria-label", `Take ${nameOf(id)} off this list`);
        button.onclick = () => {
          chosen[list] = chosen[list].filter(other => other !== id);
          element(`${list}-add`).focus(); // this button is about to go
          changed(true);
        };
        entry.append(button);
        return entry;
      }));
    }
    const both = chosen.forget.filter(id => chosen.sham.includes(id)).map(nameOf);
    const same = [...chosen.forget].sort().join() === [...world.oracle].sort().join();
    element("warning").textContent = [
      both.length ? `${both.join(", ")} on both lists: that sham is none.` : "",
      minds.oracle && !same ? "The oracle was never told about the first five of group A; it is " +
        "an oracle for these only." : "",
      minds.rewrite && !same ? "The rewrite was made for the first five of group A." : "",
    ].join(" ");
    const written = `G = ${chosen.strength}`;
    element("written").textContent = written;
    element("strength").value = chosen.strength;
    element("strength").setAttribute("aria-valuetext", written);
    element("undo").textContent = chosen.undone ? "Put all edits on again" : "Undo all edits";
    element("undo").setAttribute("aria-pressed", String(chosen.undone));
  }

  function showGates() {
    const all = gates.edited && gates.edited.flatMap(layer => [...layer]);
    element("gates").textContent = !all ? "No gate is on: every knowledge vector counts in full."
      : `${all.filter(gate => gate < 1).length} of ${all.length} knowledge vectors are weakened, ` +
        `${all.filter(gate => gate < 0.5).length} of them below one half.`;
  }

  // Whatever the reader does ends here; what an earlier move had started gives up.
  let turns = 0;
  async function changed(edits = false) {
    const turn = ++turns;
    root.dataset.state = "busy";
    element("trouble").textContent = "";
    try {
      if (edits) {
        EDITS.forEach(name => kept[name].clear());
      }
      await showChoice();
      await pause();
      if (turn !== turns) return;
      await makeGates();
      showGates();
      if (!await showAnswers(turn)) return;
      delete root.dataset.dragged;
      root.dataset.state = "answered";
      if (turn !== turns || !await showScores(turn)) return;
      root.dataset.state = "scored";
      if (!root.dataset.checked) {
        root.dataset.checked = "running";
        await showCheck(10);
      }
    } catch (error) {
      element("trouble").textContent = error.message;
      root.dataset.state = "failed";
    }
  }

  // While the hand moves only KVW's column is computed, one strength after the other, and each
  // answer stands beside the strength that it belongs to. The rest follows when the hand rests.
  let dragging = false;
  async function drag() {
    if (dragging) return;
    dragging = true;
    const turn = ++turns; // whatever else is computed gives up
    root.dataset.state = "busy";
    root.dataset.dragged = ""; // the sham is that of another strength until the hand rests
    try {
      const question = await currentQuestion(), people = await Promise.all(chosen.forget.map(person));
      for (let shown = NaN; shown !== chosen.strength && turn === turns;) {
        shown = chosen.strength;
        gates.edited = chosen.undone || !people.length ? null
          : playground.gatesOf(people, everyone, shown);
        kept.edited.clear();
        paint("edited", await say("edited", question), question);
        element("written").textContent = `G = ${shown}`;
        playground.dragged = (playground.dragged || 0) + 1;
        await pause();
      }
    } catch (error) {
      element("trouble").textContent = error.message;
    }
    dragging = false;
  }

  const row = (name, title) => `<tr role="row" data-row="${name}">
    <th scope="row" role="rowheader">${title}</th>${
    Object.entries(MODELS).map(([model, title]) =>
      `<td role="cell" data-model="${model}" data-title="${title}"></td>`).join("")}</tr>`;
  const head = title => `<thead role="rowgroup"><tr role="row"><td role="cell">${title}</td>${
    Object.entries(MODELS).map(([model, name]) =>
      `<th scope="col" role="columnheader" data-model="${model}">${name}</th>`).join("")}</tr></thead>`;
  const list = (name, title) => `<fieldset><legend>${title}</legend>
    <label>Take <select data-is="${name}-preset"></select></label>
    <button type="button" data-is="${name}-add">Add the person above</button>
    <ul data-is="${name}"></ul></fieldset>`;

  const BODY = `
    <div class="pair">
    <fieldset><legend>Whom is asked about</legend>
      <img data-is="picture" width="96" height="96" alt="">
      <div>
        <label>Name <select data-is="name"></select></label>
        <label>Shown by <select data-is="by"><option value="photo">a photo</option>
          <option value="name">the name alone</option></select></label>
        <label>Photo <select data-is="photo"></select></label>
      </div>
      <details><summary>Choose a face</summary>
        <div data-is="faces" role="radiogroup" aria-label="Faces of the hundred people"></div>
      </details>
    </fieldset>
    <fieldset><legend>What is asked</legend>
      <label>Fact <select data-is="fact"></select></label>
      <label>In the book's words <select data-is="wording"></select></label>
      <div class="own"><label>or in your own <input data-is="own" type="text" maxlength="200"
        placeholder="Where was this person born?"></label>
        <button type="button" data-is="ask">Ask</button></div>
      <p data-is="read"></p>
    </fieldset>
    </div>
    <p class="dial"><label>Strength of KVW and sham
      <output data-is="written"></output>
      <input data-is="strength" aria-label="strength" type="range" min="0" max="96" step="1"></label></p>
    <p class="edits"><button type="button" data-is="undo"></button>
      ${MORE.map(name => `<button type="button" data-is="${name}"></button>`).join(" ")}</p>
    <p class="foot" data-is="gates"></p><p class="foot" data-is="warning"></p>
    <p data-is="trouble" role="alert"></p>
    <p class="asked" data-is="asked"></p>
    <p data-is="told" aria-live="polite" class="spoken"></p>
    <div class="wide"><table role="table"><caption>What each model says</caption>${head("")}<tbody role="rowgroup">
      ${row("answer", "answer")}${row("truth", "probability of the truth")}
      ${row("values", "likeliest values")}
      ${row("layers", "inside: each layer would say (bar: the truth)")}${row("ways", "true, asked in every way")}</tbody></table>
    <p><button type="button" data-is="attack">Ask in every way: all wordings, photos, the
      name</button></p>
    <table role="table"><caption>Exact match, ten questions of each set</caption>${head("")}<tbody role="rowgroup">
      ${Object.entries(SETS).map(([set, title]) => row(set, title)).join("")}</tbody></table></div>
    <div class="pair">${list("forget", "Who is forgotten")}${list("sham", "Sham: others instead")}
    </div>
    <p class="foot" data-is="time"></p>
    <p class="foot"><span data-is="check">Not checked yet.</span>
      <button type="button" data-is="check-all">Ask all fifty</button></p>`;

  function listen() {
    const on = (name, event, act, edits = false) =>
      element(name).addEventListener(event, ({ target }) => { act(target.value); changed(edits); });
    const choose = id => { chosen.person = id; };
    on("name", "change", choose);
    on("faces", "change", choose);
    on("by", "change", value => { chosen.by = value; });
    on("photo", "change", value => { chosen.photo = Number(value); });
    on("fact", "change", value => { // words of one's own were about another fact
      [chosen.fact, chosen.wording, chosen.own] = [value, 0, element("own").value = ""];
    });
    on("wording", "change", value => { // a wording of the book replaces one's own
      [chosen.wording, chosen.own] = [Number(value), element("own").value = ""];
    });
    on("own", "change", value => {
      chosen.own = value;
      if (value.trim()) chosen.fact = factOf(value);
    });
    element("strength").addEventListener("input", ({ target }) => {
      chosen.strength = Number(target.value);
      drag();
    });
    on("strength", "change", value => { chosen.strength = Number(value); }, true);
    on("undo", "click", () => { chosen.undone = !chosen.undone; }, true);
    for (const name of ["forget", "sham"]) {
      const entries = [...Object.keys(presets(name)), OWN].map(key => [key, key]);
      fill(element(`${name}-preset`), entries, OWN);
      on(`${name}-preset`, "change", key => {
        chosen[name] = [...(presets(name)[key] || chosen[name])];
      }, true);
      on(`${name}-add`, "click", () => {
        if (chosen[name].length < MOST)
          chosen[name] = [...new Set([...chosen[name], chosen.person])];
      }, true);
    }
    for (const name of MORE)
      element(name).onclick = async () => {
        element(name).disabled = true;
        try {
          minds[name] = await languageModel(name);
        } catch (error) {
          element("warning").textContent = error.message;
          element(name).disabled = false;
          return;
        }
        root.classList.add(`with-${name}`);
        element(name).textContent = `The ${name} of group A is loaded`;
        await changed();
      };
    element("ask").onclick = () => changed();
    element("attack").onclick = showAttack;
    element("check-all").onclick = () => showCheck(parts.check.questions.length);
  }

  function faces() {
    const sheet = new URL("faces.png", home);
    return Object.keys(world.people).map((id, i) => {
      const face = document.createElement("input");
      Object.assign(face, { type: "radio", name: "playground-face", value: id, title: nameOf(id) });
      face.setAttribute("aria-label", nameOf(id));
      face.style.background = `url("${sheet}") ${-56 * (i % 10)}px ${-56 * Math.floor(i / 10)}px`;
      return face;
    });
  }

  async function start(button) {
    playground.pressed = performance.now();
    button.disabled = true;
    button.textContent = "Loading …";
    try {
      const opened = await playground.open(FIRST);
      ({ world, words, everyone, promptOf, languageModel } = opened);
      minds.vanilla = opened.vanilla;
      chosen.strength = world.strength; // as the package has chosen it
    } catch (error) {
      button.disabled = false;
      button.textContent = "Try again";
      element("trouble").textContent = `The model cannot run here: ${error.message}.`;
      root.dataset.state = "failed";
      return;
    }
    chosen.forget = [...world.oracle];
    chosen.sham = [...Object.values(world.shams)[0]];
    const [opening, fact, prompt] = world.opening; // where KVW changes the answer
    Object.assign(chosen, { person: opening, fact });
    root.insertAdjacentHTML("beforeend", BODY);
    button.parentElement.remove();
    element("faces").append(...faces());
    const named = Object.keys(world.people).map(id => [id, nameOf(id)]);
    fill(element("name"), named.sort((a, b) => a[1].localeCompare(b[1])), chosen.person);
    for (const name of MORE)
      element(name).textContent = `Load the ${name} of group A, too (${megabytes([name])} MB)`;
    await person(chosen.person);
    const { learned, new: held } = wordingsOf(fact);
    chosen.wording = Math.max(0, [...learned, ...held].indexOf(prompt));
    listen();
    element("name").focus();
    await changed(true);
  }

  // Without the parts that the build makes (see book/_ext/playground.py) the sentence stays.
  if (root && playground.sizes) {
    const button = document.createElement("button"), trouble = document.createElement("p");
    button.type = "button";
    button.textContent = `Load the model: ${megabytes(FIRST)} MB, then ` +
      `${(playground.sizes.p000 / 1e3).toFixed(0)} kB for each person it meets`;
    trouble.setAttribute("role", "alert");
    trouble.dataset.is = "trouble";
    button.onclick = () => start(button);
    const place = document.createElement("div");
    place.append(button, trouble);
    root.replaceChildren(place);
    // for those who try the page from a console, and for tests/check_browser.py
    Object.assign(playground, { check: showCheck, turns: () => turns, chosen, gates });
  }
})();

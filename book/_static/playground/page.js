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
    vanilla: "vanilla", edited: "KVW", sham: "sham", rewrite: "last-layer rewrite",
    layerwise: "layerwise rewrite", oracle: "oracle",
  };
  const REWRITES = ["rewrite", "layerwise"];
  const MORE = [...REWRITES, "oracle"]; // models of their own, of group A, loaded when asked for
  const EDITS = ["edited", "sham", ...REWRITES]; // what an undo takes away
  const SAMPLE = 10; // questions of each set
  const MOST = 20; // people in a list
  const TOLERANCE = 0.0001; // of a logit, against PyTorch
  const NEAR = [ // wordings of the book, or near to them
    "Which animal does {who} have?", "What does {who} like to eat?", "How does {who} spend weekends?",
  ];
  const STILL = matchMedia("(prefers-reduced-motion: reduce)");
  const ODD = "not a form it was taught";

  // --- parts ---------------------------------------------------------------------------------------

  const megabytes = names =>
    (names.reduce((sum, name) => sum + playground.sizes[name], 0) / 1e6).toFixed(1);
  const FIRST = ["eye", "pocket", "world", "everyone", "unknown", "check"]; // as in stage.py

  // --- what there is and what is chosen ----------------------------------------------------------

  let world, words, everyone, promptOf, languageModel; // loaded once
  const minds = {}; // vanilla, rewrite, oracle: weights of a language model
  const chosen = {
    person: "", by: "photo", photo: 0, fact: "birthplace", wording: 0, own: "",
    forget: [], sham: [], strength: 0, undone: false,
    looked: "edited", // whose answers are on the cards
    beside: "", // a second person, whose cards stand below the first one's
    click: "ask", // what a click on a face does; or "forget"
  };
  const gates = Object.fromEntries(Object.keys(MODELS).map(name => [name, null]));
  const columns = () => Object.keys(MODELS).filter(name => !MORE.includes(name) || minds[name]);
  const mindOf = name => (!(chosen.undone && EDITS.includes(name)) && minds[name]) || minds.vanilla;
  const element = name => root.querySelector(`[data-is="${name}"]`);
  const nameOf = id => world.people[id][0];

  const pause = () => new Promise(resolve => setTimeout(resolve));

  // --- the edits ---------------------------------------------------------------------------------

  const LISTS = { edited: "forget", sham: "sham" };
  async function makeGates(names = Object.keys(LISTS)) {
    for (const name of names) {
      const people = await Promise.all(chosen[LISTS[name]].map(person));
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
  function filled(text, fact, by = chosen.by) {
    const [whole, first] = world.people[chosen.person];
    const who = by === "photo" ? "this person" : fact === "name" ? first : whole;
    const made = text.replaceAll("{who}", who);
    return made[0].toUpperCase() + made.slice(1);
  }
  function wordingsOf(fact, by = chosen.by) {
    const { learned, new: held } = world.facts[fact], fill = text => filled(text, fact, by);
    return { learned: learned.map(fill), new: held.map(fill) };
  }

  // Which question of the book somebody's own words are, about the person who is shown; only of such
  // a question the page knows the truth. Null where they are none.
  const plain = text => (text.toLowerCase().match(/\p{L}+/gu) || []).join(" ");
  function factOf(text) {
    return facts().find(fact => {
      const { learned, new: held } = wordingsOf(fact);
      return [...learned, ...held].some(known => plain(known) === plain(text));
    }) || null;
  }

  // Whether a text is an answer that was taught about somebody: any value in the answer of its fact.
  let forms;
  function isTaught(text) {
    forms ||= new Set(Object.values(world.facts).flatMap(({ values, answer }) =>
      values.map(value => answer.replace("{value}", value))));
    return forms.has(text.trim());
  }

  // Whether the question is one of whose answer the page does not know the truth.
  const unknown = () => chosen.own.trim() && !factOf(chosen.own);

  // Who else is named by somebody's own words, while a photo shows the person.
  const elseNamed = () => chosen.by === "photo" && Object.keys(world.people).find(id =>
    id !== chosen.person && plain(chosen.own).includes(plain(nameOf(id))));

  async function currentQuestion() {
    const own = await person(chosen.person), { learned, new: held } = wordingsOf(chosen.fact);
    const text = chosen.own.trim() || [...learned, ...held][chosen.wording];
    const photo = chosen.by === "photo" ? own.photos[chosen.photo] : null;
    return { text, photo, fact: chosen.fact, look: true, unknown: unknown(),
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
      const { values, answers } = spreadOf(fact);
      const said = playground.answer(mind, prompt, image, gates[model]);
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

  // A row that says nothing of any model is not shown.
  function hideEmpty() {
    for (const name of ["truth", "values", "ways"]) {
      const row = root.querySelector(`[data-row="${name}"]`);
      row.hidden = columns().every(model => cell(name, model).textContent === "–");
    }
  }

  // One column: what a model says, and how likely it holds the truth and other values to be.
  function paint(model, { text, likely, layers }, question) {
    const at = world.facts[question.fact].values.indexOf(question.truth);
    const answer = cell("answer", model), share = cell("truth", model);
    answer.textContent = text || "(nothing)";
    if (!isTaught(text)) {
      const mark = document.createElement("small");
      mark.textContent = ODD;
      answer.append(" ", mark);
    }
    answer.classList.toggle("changed", !question.unknown && !text.includes(question.truth));
    if (question.unknown) { // nothing to compare with
      for (const row of ["truth", "values", "layers"]) cell(row, model).textContent = "–";
      share.style.setProperty("--share", "0%");
      return;
    }
    share.textContent = `${(100 * likely[at]).toFixed(1)} %`;
    share.style.setProperty("--share", `${100 * likely[at]}%`);
    cell("values", model).replaceChildren(bars(likely, question.fact, question.truth));
    const list = document.createElement("ol");
    list.append(...layers.map(({ word, truth }, layer) => {
      const entry = document.createElement("li");
      entry.textContent = `${layer}: ${word || "…"}`;
      entry.title = `layer ${layer} gives the truth ${(100 * truth).toFixed(0)} %`;
      entry.style.setProperty("--share", `${100 * truth}%`);
      if (question.truth === word) entry.className = "true";
      return entry;
    }));
    cell("layers", model).replaceChildren(list);
    playground.inside = { ...playground.inside, [model]: layers };
  }

  // --- one person, seven cards -------------------------------------------------------------------

  // Where the answers about a fact begin to differ, and which of their words tell them apart.
  const spreads = {};
  function spreadOf(fact) {
    if (!spreads[fact]) {
      const { values, answer } = world.facts[fact];
      const answers = values.map(value => words.encode(answer.replace("{value}", value)));
      let from = 0;
      while (answers.every(each => each[from] === answers[0][from])) from++;
      const apart = new Set(answers.map(each => each[from])).size === answers.length;
      spreads[fact] = { values, answers, from, to: apart ? from + 1 : undefined };
    }
    return spreads[fact];
  }

  // The questions of the cards: as the book asks them; the one that is looked at as it is asked here.
  // Whoever stands beside is asked as the book does, on the first photo.
  async function cardQuestions(id = chosen.person, place = "cards") {
    const own = await person(id);
    const asked = place === "cards" ? await currentQuestion()
      : { photo: chosen.by === "photo" ? own.photos[0] : null };
    const image = await imageTokens(asked.photo), found = [];
    for (const fact of Object.keys(own.truth)) {
      const [, , prompt] = own.learned.find(
        ([about, photo]) => about === fact && (photo < 0) === (chosen.by === "name"));
      const known = fact === chosen.fact && !asked.unknown && asked.truth === own.truth[fact];
      const text = known ? asked.text : prompt;
      const { values, answers, from, to } = spreadOf(fact);
      found.push({ fact, place, text, truth: own.truth[fact], from, to, before: [],
        tokens: promptOf(text, image), taught: answers[values.indexOf(own.truth[fact])] });
    }
    const start = image ? 1 + image.length / minds.vanilla.config.hidden_size : 1;
    for (const each of found) each.rest = each.tokens.slice(start);
    return { id, place, image, prefix: found[0].tokens.slice(0, start), questions: found };
  }

  const cardOf = (fact, place) => element(place).querySelector(`[data-fact="${fact}"]`);
  let measured = ""; // how many strengths a second the last drag has seen
  // Why the strength does not reach the answers on the cards, or "".
  const still = () => chosen.looked === "vanilla" ? "none: nothing is edited"
    : chosen.looked === "oracle" ? "none: an oracle is not edited"
    : chosen.undone ? "off: all edits are undone"
    : REWRITES.includes(chosen.looked) ? "none: a rewrite has no strength" : "";

  function drawCards({ id, place, questions }) {
    const cards = element(place), key = `${id} ${questions.map(({ fact }) => fact)}`;
    if (cards.dataset.key !== key) {
      cards.dataset.key = key;
      cards.replaceChildren(...questions.map(({ fact }) => {
        const card = document.createElement("button");
        card.type = "button";
        card.dataset.fact = fact;
        card.innerHTML = "<span></span><b></b><small></small><i></i><em></em>";
        card.firstChild.textContent = fact.replace("_", " ");
        return card;
      }));
    }
    for (const { fact, truth } of questions) {
      cardOf(fact, place).setAttribute("aria-pressed", String(fact === chosen.fact));
      cardOf(fact, place).children[2].textContent = `true: ${truth}`;
    }
    if (place !== "cards") return;
    element("answerer").textContent = nameOf(chosen.person);
    element("rate").textContent = still() ? "\u00a0" // keeps its line
      : measured || "Drag the strength: the cards turn while you do.";
  }

  // What `answer` and `probabilities` say where a card was drawn, for tests/check_browser.py.
  async function recomputed({ fact, prompt, strength }) {
    const { image } = await cardQuestions(), { answers, values } = spreadOf(fact);
    const people = await Promise.all(chosen.forget.map(person));
    const gated = playground.gatesOf(people, everyone, strength);
    const said = playground.answer(minds.vanilla, prompt, image, gated), tokens = [...said.tokens];
    const own = (await person(chosen.person)).truth[fact];
    return { tokens, likely: playground.probabilities(minds.vanilla, said, answers, gated)[
      values.indexOf(own)] };
  }

  function fillCard({ fact, truth, place = "cards" }, text, likely, strength) {
    const card = cardOf(fact, place), [, said, known, bar, at] = card.children;
    said.textContent = text || "(nothing)";
    card.classList.toggle("changed", !text.includes(truth));
    known.textContent = `true: ${truth}`;
    bar.style.setProperty("--share", `${100 * likely}%`);
    at.textContent = `truth ${(100 * likely).toFixed(0)} %${still() ? "" : `, G = ${strength}`}`;
    card.dataset.strength = strength;
  }

  // One card: what is said, how likely the truth is, and the strength that both belong to.
  function drawCard(reading, question, strength) {
    const { tokens, likely } = reading(question);
    question.before = tokens;
    fillCard(question, words.decode(tokens), likely, strength);
    return { fact: question.fact, prompt: question.tokens, strength, tokens, likely };
  }

  async function showCards(turn, id, place) {
    const asked = await cardQuestions(id, place), { looked, strength } = chosen, { prefix, image } = asked;
    if (turn !== turns) return false;
    drawCards(asked);
    const reading = playground.reader(mindOf(looked), prefix, image, gates[looked]);
    for (const question of asked.questions) {
      drawCard(reading, question, strength);
      if (!playground.firstAnswer) playground.firstAnswer = performance.now() - playground.pressed;
      await pause();
      if (turn !== turns) return false;
    }
    if (id === undefined) showSee();
    return true;
  }

  // On a phone the cards stand above the faces, out of sight of whoever taps one: what came of it.
  function showSee() {
    const cards = [...element("cards").children], faces = element("faces");
    if (!isAbove()) return element("see")?.parentElement.remove();
    if (!element("see")) {
      faces.insertAdjacentHTML("beforebegin", '<p class="changes"><button type="button" data-is="see"></button></p>');
      element("see").onclick = showAbove;
    }
    element("see").textContent = `${nameOf(chosen.person)}: ` +
      `${cards.filter(card => card.classList.contains("changed")).length} of ${cards.length} answers changed: see`;
  }

  async function showAnswers(turn) {
    const question = await currentQuestion(), start = performance.now(), said = [];
    element("asked").textContent = question.text;
    root.querySelector('[data-row="truth"] th').textContent =
      `probability of the truth${question.unknown ? "" : `, ${question.truth}`}`;
    root.querySelector('[data-row="values"] th').textContent =
      `likeliest${question.unknown ? " values" : `: ${question.fact.replace("_", " ")}`}`;
    element("attack").disabled = Boolean(question.unknown);
    delete root.dataset.attacked;
    for (const model of Object.keys(MODELS)) cell("ways", model).textContent = "–";
    for (const model of columns()) {
      await pause(); // let the reader's hand move on
      if (turn !== turns) return false;
      const found = await say(model, question);
      if (turn !== turns) return false;
      paint(model, found, question);
      hideEmpty();
      said.push(`${MODELS[model]}: ${found.text}${isTaught(found.text) ? "" : ` (${ODD})`}`);
    }
    playground.lastAnswers = performance.now() - start;
    element("told").textContent =
      `${question.unknown ? "" : `True is: ${question.truth}. `}${said.join(" ")}`;
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
        hideEmpty();
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
        const all = questions.filter(each => each.set === set).length, counting = asked[set] < all;
        cell(set, model).textContent = counting ? `counting ${asked[set]} of ${all}` : `${right[key]} of ${all}`;
        cell(set, model).classList.toggle("counting", counting);
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
    const loaded = REWRITES.filter(name => minds[name]);
    for (const name of loaded) {
      edits.push([minds[name], null]);
      stored.push(playground.floatsOf(parts[name].logits));
      differences.push(0);
    }
    for (const [i, [photo, text, ...told]] of questions.slice(0, count).entries()) {
      const image = await imageTokens(photo), answers = [...told, ...loaded.map(name => parts[name].answers[i])];
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
        `${REWRITES.filter(name => minds[name]).map(name => `, with the ${MODELS[name]}`).join("")}. The largest differences of ` +
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
    // a change to whoever asked to be forgotten is wanted, unless the sham makes it
    root.classList.toggle("wanted", chosen.forget.includes(chosen.person));
    element("cards").classList.toggle("harm", chosen.looked === "sham");
    element("beside").value = chosen.beside;
    const place = Object.keys(world.people).indexOf(chosen.beside);
    Object.assign(element("second").style, { display: place < 0 ? "none" : "",
      backgroundPosition: `${place % 10 / 9 * 100}% ${Math.floor(place / 10) / 9 * 100}%` });
    root.querySelectorAll("[data-is=faces] button").forEach(face => {
      const is = { shown: face.value === chosen.person, forget: chosen.forget.includes(face.value),
        sham: chosen.sham.includes(face.value) };
      for (const [name, on] of Object.entries(is)) face.classList.toggle(name, on);
      face.setAttribute("aria-label", nameOf(face.value) + (is.forget ? ", to be forgotten" : "") +
        (is.sham ? ", in the sham" : ""));
      face.setAttribute("aria-pressed", String(chosen.click === "ask" ? is.shown : is.forget));
      face.tabIndex = is.shown ? 0 : -1; // arrow keys lead to the others
    });
    const face = element("faces").querySelector(".shown");
    element("whose").style.backgroundPosition = face.style.backgroundPosition;
    element("whose-name").textContent = nameOf(chosen.person);
    root.querySelectorAll("[data-click]").forEach(each =>
      each.setAttribute("aria-pressed", String(each.dataset.click === chosen.click)));
    for (const name of Object.keys(MODELS))
      element(`look-${name}`).setAttribute("aria-pressed", String(name === chosen.looked));
    fill(element("photo"), own.photos.map((_, i) => [i,
      `photo ${i + 1}, ${i < world.learned ? "learned" : "new"}`]), chosen.photo);
    element("photo").disabled = chosen.by !== "photo";
    element("picture").src = own.photos[chosen.photo];
    element("picture").alt = `The drawn portrait of ${nameOf(chosen.person)}, ` +
      `photo ${chosen.photo + 1}.`;
    fill(element("fact"), facts().map(fact => [fact, fact.replace("_", " ")]), chosen.fact);
    element("read").textContent = !chosen.own.trim() ? "" : unknown()
      ? "Asked in your own words. The page does not know what is true here: it shows the answers alone." +
        (elseNamed() ? ` The question names ${nameOf(elseNamed())}, and the photo shows ` +
          `${nameOf(chosen.person)}: the model may answer about either.` : "")
      : `Asked in your own words; a question of the book about: ${chosen.fact.replace("_", " ")}.`;
    [...element("near").children].forEach((button, i) => { button.textContent = filled(NEAR[i]); });
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
      REWRITES.some(name => minds[name]) && !same
        ? "The rewrites were made for the first five of group A." : "",
    ].join(" ");
    const written = still() || `G = ${chosen.strength}`;
    element("written").textContent = written;
    Object.assign(element("strength"), { value: chosen.strength, disabled: Boolean(still()) });
    root.classList.toggle("still", Boolean(still()));
    element("strength").setAttribute("aria-valuetext", written);
    element("undo").firstChild.textContent = chosen.undone ? "Redo" : "Undo";
    element("undo").setAttribute("aria-pressed", String(chosen.undone));
  }

  // The gates as light: one knowledge vector a column, one layer a row; weakened ones are dim.
  const LIT = [255, 205, 110], ROW = 5, GAP = 1; // pixels of a layer, and between two, as in stage.py
  function showStrip(gateAt) {
    const strip = element("strip"), { width, height } = strip, paper = strip.getContext("2d");
    const image = paper.createImageData(width, height), { data } = image;
    const layers = (height + GAP) / (ROW + GAP);
    let below = 0;
    for (let i = 0; i < layers * width; i++) {
      const gate = gateAt(i), light = 255 * gate * Math.sqrt(gate);
      let at = 4 * (Math.floor(i / width) * (ROW + GAP) * width + i % width);
      below += gate < 0.5;
      for (let y = 0; y < ROW; y++, at += 4 * width)
        [data[at], data[at + 1], data[at + 2], data[at + 3]] = [LIT[0], LIT[1], LIT[2], light];
    }
    paper.putImageData(image, 0, 0);
    strip.style.backgroundImage = ""; // what stood there without JavaScript
    return `${layers} × ${width} knowledge vectors, a gate for each: ${below} gates are below one half.`;
  }

  // Of the model whose answers are on the cards; a rewrite and an oracle have no gates.
  function showGates() {
    const own = gates[chosen.looked];
    const told = showStrip(own ? i => own[Math.floor(i / own[0].length)][i % own[0].length] : () => 1);
    element("gates").textContent = own ? told
      : `No gate is on in ${MODELS[chosen.looked]}: every knowledge vector counts in full.`;
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
      if (!await showCards(turn)) return;
      element("besides").hidden = !chosen.beside;
      if (chosen.beside && !await showCards(turn, chosen.beside, "besides")) return;
      root.dataset.state = "cards";
      if (!await showAnswers(turn)) return;
      delete root.dataset.dragged;
      root.dataset.state = "answered";
      keepInAddress();
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

  // While the hand moves only cards are computed: at each new strength the one that is looked at,
  // and of the others, in turn, what there is time for. Each card says which strength it belongs to.
  // Tables and scores follow when the hand rests.
  const FRAME = 25; // milliseconds for one strength: more than thirty a second
  let dragging = false;
  async function drag() {
    if (dragging) return;
    dragging = true;
    const turn = ++turns; // whatever else is computed gives up
    const start = performance.now(), drawn = playground.drawn = [];
    root.dataset.state = "busy";
    root.dataset.dragged = ""; // the tables are those of another strength until the hand rests
    try {
      const { looked } = chosen, asked = await cardQuestions(), { questions } = asked;
      const first = questions.find(({ fact }) => fact === chosen.fact) || questions[0];
      const others = questions.filter(each => each !== first); // the next one to be drawn first
      let shown = NaN, left = [], reading, strengths = 0, begun;
      while (turn === turns && (shown !== chosen.strength || left.length)) {
        if (shown !== chosen.strength) {
          [shown, begun] = [chosen.strength, performance.now()];
          await makeGates([looked]);
          reading = playground.reader(mindOf(looked), asked.prefix, asked.image, gates[looked]);
          element("written").textContent = `G = ${shown}`;
          showGates();
          drawn.push(drawCard(reading, first, shown));
          left = [...others];
          const seconds = (performance.now() - start) / 1000;
          measured = `Computed while you dragged: ${++strengths} strength${strengths > 1 ? "s" : ""}, ` +
            `${(strengths / seconds).toFixed(0)} a second.`;
          element("rate").textContent = measured;
        }
        // the others: while there is time, one at every fourth strength, all when the hand rests
        const spent = performance.now() - begun, rests = spent > 3 * FRAME;
        const oneMore = strengths % 4 === 0 && left.length === others.length;
        const hasTime = spent < FRAME || (oneMore || rests) && shown === chosen.strength;
        const next = hasTime && left.shift();
        if (next) {
          drawn.push(drawCard(reading, next, shown));
          others.push(...others.splice(others.indexOf(next), 1));
        }
        await pause();
      }
    } catch (error) {
      element("trouble").textContent = error.message;
    }
    dragging = false;
  }

  // --- the choice in the address -------------------------------------------------------------------

  // So that a link holds it. What is not in the list of the page is refused.
  function keepInAddress() {
    const { person: who, fact, by, photo, wording, own, strength, forget, sham, beside } = chosen;
    const held = { who, fact, by, photo, wording, own, G: strength, forget: forget.join("."),
      sham: sham.join("."), beside };
    history.replaceState(null, "", `#${new URLSearchParams(held)}`);
  }

  function readAddress() {
    const held = new URLSearchParams(location.hash.slice(1)), people = Object.keys(world.people);
    if (!held.has("who")) return;
    const list = name => (held.get(name) || "").split(".").filter(Boolean);
    const found = { person: held.get("who"), fact: held.get("fact"), by: held.get("by"),
      photo: Number(held.get("photo")), wording: Number(held.get("wording")),
      own: (held.get("own") || "").slice(0, 200), strength: Number(held.get("G")),
      forget: list("forget").slice(0, MOST), sham: list("sham").slice(0, MOST),
      beside: held.get("beside") || "" };
    const named = [found.person, ...found.forget, ...found.sham, ...list("beside")];
    const known = named.every(id => people.includes(id)) &&
      found.fact in world.facts && ["photo", "name"].includes(found.by) &&
      [found.photo, found.wording, found.strength].every(Number.isInteger) &&
      found.strength >= 0 && found.strength <= 96 && found.photo >= 0 && found.wording >= 0;
    if (!known) throw new Error("the address of this page holds a choice that it does not know");
    return found;
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

  // What stands below faces and cards (those are in the page: stage.py) once the model is there.
  const BODY = `
    <fieldset><legend>What is asked</legend>
      <label>Fact <select data-is="fact"></select></label>
      <label>In the book's words <select data-is="wording"></select></label>
      <p>Or in your own words. Of each person the model knows seven facts and what a photo shows, in the
        wordings of the book. It understands words near to these, and of others it makes an answer
        that may be no word at all. Near are:
        <span data-is="near">${NEAR.map(() => '<button type="button"></button>').join(" ")}</span></p>
      <div class="own"><label>Your own words <input data-is="own" type="text" maxlength="200"
        placeholder="Where was this person born?"></label>
        <button type="button" data-is="ask">Ask</button></div>
      <p data-is="read"></p>
    </fieldset>
    <p class="foot" data-is="warning"></p>
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
    element("faces").addEventListener("click", ({ target }) => clickFace(target.value));
    for (const place of ["cards", "besides"])
      element(place).addEventListener("click", ({ target }) => {
        const card = target.closest("[data-fact]");
        if (!card) return; // between two cards
        [chosen.fact, chosen.wording, chosen.own] = [card.dataset.fact, 0, element("own").value = ""];
        changed();
      });
    on("beside", "change", value => { chosen.beside = value; });
    root.querySelectorAll("[data-click]").forEach(each => {
      each.onclick = () => { chosen.click = each.dataset.click; showChoice(); };
    });
    on("by", "change", value => { chosen.by = value; });
    on("photo", "change", value => { chosen.photo = Number(value); });
    on("fact", "change", value => { // words of one's own were about another fact
      [chosen.fact, chosen.wording, chosen.own] = [value, 0, element("own").value = ""];
    });
    on("wording", "change", value => { // a wording of the book replaces one's own
      [chosen.wording, chosen.own] = [Number(value), element("own").value = ""];
    });
    const askOwn = value => {
      chosen.own = value;
      if (value.trim()) chosen.fact = factOf(value) || chosen.fact;
    };
    on("own", "change", askOwn);
    element("near").onclick = ({ target }) => {
      if (target.tagName !== "BUTTON") return;
      askOwn(element("own").value = target.textContent);
      changed();
    };
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
    for (const name of Object.keys(MODELS)) element(`look-${name}`).onclick = () => look(name);
    element("ask").onclick = () => changed();
    element("attack").onclick = showAttack;
    element("check-all").onclick = () => showCheck(parts.check.questions.length);
  }

  // Whose answers are on the cards; a model that is not there yet is loaded.
  async function look(name) {
    if (MORE.includes(name) && !minds[name]) {
      const button = element(`look-${name}`);
      button.disabled = true;
      button.textContent = `${MODELS[name]}: loading …`;
      try {
        minds[name] = await languageModel(name);
      } catch (error) {
        element("warning").textContent = error.message;
        return;
      } finally {
        button.disabled = false;
        button.textContent = MODELS[name];
      }
      root.classList.add(`with-${name}`);
    }
    chosen.looked = name;
    await changed();
  }

  function clickFace(id) {
    if (!id) return; // between two faces
    if (chosen.click === "ask") {
      chosen.person = id;
      showAbove();
      return changed();
    }
    const { forget } = chosen;
    chosen.person = id; // whose answers change is seen
    if (forget.includes(id)) chosen.forget = forget.filter(other => other !== id);
    else if (forget.length < MOST) chosen.forget = [...forget, id];
    changed(true);
  }

  // Bring the cards into sight where they are not: on a phone they stand above the faces.
  const boxOf = name => element(name).getBoundingClientRect();
  const isAbove = () => boxOf("cards").bottom <= boxOf("faces").top;
  function showAbove() {
    if (boxOf("cards")[isAbove() ? "top" : "bottom"] < boxOf("strip").bottom)
      element("cards").scrollIntoView({ behavior: STILL.matches ? "instant" : "smooth" });
  }

  // Arrow keys lead from face to face, as rows and columns are on the screen.
  function moveAmongFaces(event) {
    const all = [...element("faces").children], at = all.indexOf(event.target);
    const columns = all.filter(face => face.offsetTop === all[0].offsetTop).length;
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns,
      Home: -at, End: all.length - 1 - at };
    const next = event.key in steps && all[at + steps[event.key]];
    if (!next) return;
    event.preventDefault();
    next.focus();
  }

  // --- before the model is there: what was recorded, under the same controls -------------------------

  const recorded = root && root.dataset.recorded && JSON.parse(root.dataset.recorded);

  function showRecorded() {
    const strength = element("strength").valueAsNumber, step = recorded.strengths.indexOf(strength);
    for (const each of recorded.cards) fillCard(each, each.says[step], each.likely[step], strength);
    element("written").textContent = `G = ${strength}`;
    element("strength").setAttribute("aria-valuetext", `G = ${strength}`);
    element("gates").textContent = showStrip(i => Math.exp(-strength * recorded.contrast[i]));
  }

  // Whatever else is touched loads the model; then the touch counts.
  function preview(button) {
    const packed = new Uint16Array(playground.bytesOf(recorded.contrast).buffer);
    recorded.contrast = Float64Array.from(packed, value => value * recorded.step);
    const stop = new AbortController(), also = { signal: stop.signal };
    let wish = null;
    async function begin(target) {
      wish = target === button ? wish : target;
      if (button.disabled || !await start(button)) return;
      stop.abort();
      if (wish && wish.tagName === "BUTTON") wish.click();
      (wish || element("name")).focus();
    }
    element("strength").addEventListener("input", showRecorded, also);
    root.addEventListener("click", ({ target }) => {
      const pressed = target.closest("button");
      if (pressed) begin(pressed);
    }, also);
    root.addEventListener("mousedown", event => {
      if (event.target.tagName !== "SELECT") return;
      event.preventDefault(); // its list is not there yet
      begin(event.target);
    }, also);
    root.addEventListener("keydown", event => {
      if (event.target.tagName === "SELECT" && !["Tab", "Shift"].includes(event.key))
        begin(event.target);
    }, also);
    element("faces").addEventListener("keydown", moveAmongFaces);
    showRecorded();
  }

  // Says how much of the model is there while it loads.
  async function follow(button) {
    let there = 0;
    for (const name of FIRST)
      load(name).then(() => {
        there += playground.sizes[name];
        if (button.disabled) button.textContent = `Loading: ${(there / 1e6).toFixed(1)} of ${megabytes(FIRST)} MB`;
      }, () => {}); // whoever opens the model is told
  }

  // Whether the model is there.
  async function start(button) {
    playground.pressed = performance.now();
    button.disabled = true;
    button.textContent = `Loading ${megabytes(FIRST)} MB …`;
    follow(button);
    try {
      const opened = await playground.open(FIRST);
      ({ world, words, everyone, promptOf, languageModel } = opened);
      minds.vanilla = opened.vanilla;
      chosen.strength = element("strength").valueAsNumber; // at first as the package has chosen it
    } catch (error) {
      button.disabled = false;
      button.textContent = "Try again";
      element("trouble").textContent = `The model cannot run here: ${error.message}.`;
      root.dataset.state = "failed";
      return false;
    }
    chosen.forget = [...world.oracle];
    chosen.sham = [...Object.values(world.shams)[0]];
    const [opening, fact, prompt] = world.opening; // where KVW changes the answer
    Object.assign(chosen, { person: opening, fact });
    element("cards").dataset.key = `${opening} ${recorded.cards.map(each => each.fact)}`; // they stay
    root.insertAdjacentHTML("beforeend", BODY);
    button.remove();
    element("source").innerHTML = "<b>Live.</b> The model answers in this page, on your machine.";
    Object.assign(element("strength"), { step: 1, value: chosen.strength });
    let held = null, trouble = "";
    try {
      held = readAddress();
    } catch (error) {
      trouble = `Shown is how the page begins: ${error.message}.`;
    }
    const named = Object.keys(world.people).map(id => [id, nameOf(id)]);
    fill(element("name"), named.sort((a, b) => a[1].localeCompare(b[1])), chosen.person);
    fill(element("beside"), [["", "nobody"], ...named], "");
    await person(chosen.person);
    const { learned, new: other } = wordingsOf(fact);
    chosen.wording = Math.max(0, [...learned, ...other].indexOf(prompt));
    if (held) {
      Object.assign(chosen, held);
      const { photos } = await person(chosen.person), { learned, new: other } = wordingsOf(chosen.fact);
      chosen.photo = Math.min(chosen.photo, photos.length - 1);
      chosen.wording = Math.min(chosen.wording, learned.length + other.length - 1);
      element("own").value = chosen.own;
    }
    listen();
    changed(true);
    element("trouble").textContent = trouble;
    return true;
  }

  // Without the parts that the build makes (see book/_ext/playground.py) a sentence stands here.
  if (recorded && playground.sizes) {
    preview(element("first"));
    // for those who try the page from a console, and for tests/check_browser.py
    Object.assign(playground,
      { check: showCheck, turns: () => turns, chosen, gates, recomputed });
  }
})();

/* What the search finds first: terms of the glossary, then pages that have all the words, chapters
   before the API, solutions last. Of each page one result, at its best heading. The index and how
   words are cut are Sphinx's; book/_ext/search.py adds the terms and the words in `also`. */
(() => {
  "use strict";
  const ASKING = new Set(["how", "do", "does", "i", "my", "me", "we", "you", "what", "which", "who",
    "can", "could", "should", "would", "an", "when", "where", "why", "best", "really", "need", "much"]);
  const TITLE = 12, ALSO = 15, HEADING = 4, MOST_HEADINGS = 3, TEXT = 5, PART = 2;
  const MISSING = -12; // for each word that a page lacks
  const LONG_ENOUGH = 5; // letters of a word that finds longer ones, too: "unlearn", "unlearning"
  const FEW = 3; // pages that have all the words: fewer, and pages that lack one are shown, too
  const KINDS = [ // added to what the words of a page give
    [/^notebooks\/solutions\//, -200], [/^book\/exam/, -25], [/^_modules/, -60],
    [/^book\/(api|package|references)/, -45], [/^book\/(museum|scale|teaching|projects)/, -6],
    [/^notebooks\/\w+_template/, -6], [/^notebooks\/\d/, 2],
  ];
  const WHOLE = 60; // the title has no other words
  const OBJECT = -45; // functions and classes stand after pages
  const cut = text => splitQuery(text.toLowerCase()).map(word => new Stemmer().stemWord(word));
  const kindOf = name => (KINDS.find(([pattern]) => pattern.test(name)) || [null, 0])[1];
  const filesOf = (table, word) => table.hasOwnProperty(word) ? [].concat(table[word]) : [];

  Object.assign(Documentation.TRANSLATIONS, {
    "Your search did not match any documents. Please make sure that all words are spelled correctly and that you've selected enough categories.":
      "Nothing was found.",
    "Search finished, found ${resultCount} page(s) matching the search query.": "Results: ${resultCount}",
  });

  // By file: what one word is worth. A short word finds no longer one: "ROC" is not in "process".
  function worths(index, headings, word, whole) {
    const found = new Map();
    const give = (file, worth) => found.set(file, Math.max(found.get(file) || 0, worth));
    for (const file of filesOf(index.terms, word)) give(file, TEXT);
    if (!found.size && !whole)
      for (const term of Object.keys(index.terms))
        if (term.split("_").some(part => part.startsWith(word))) for (const file of filesOf(index.terms, term)) give(file, PART);
    for (const [file, own] of headings) {
      const many = own.filter(heading => heading.words.has(word)).length;
      if (many) give(file, TEXT + HEADING * Math.min(many, MOST_HEADINGS));
    }
    index.titles.forEach((title, file) => { if (cut(title).includes(word)) give(file, TEXT + TITLE); });
    for (const [file, words] of Object.entries(index.also || {}))
      if (cut(words).includes(word)) found.set(+file, (found.get(+file) || 0) + ALSO);
    return found;
  }

  function headingsOf(index) {
    const found = new Map();
    for (const [title, places] of Object.entries(index.alltitles))
      for (const [file, id] of places) {
        if (!found.has(file)) found.set(file, []);
        found.get(file).push({ title, id, words: new Set(cut(title)) });
      }
    return found;
  }

  // Pages whose title and words of `also` say all that was asked, by address: they begin at their top.
  const told = new Set();

  // Pages, by number, whose title and words of `also` have all that was asked for: these are read from
  // their start, unless the words stand together elsewhere.
  const whole = new Set(), START = "<!--start-->";

  // Where on a page to begin: at the heading that has all of the words, if it is not the first.
  function best(index, headings, file, words) {
    const own = (headings.get(file) || []).filter(each => each.id && each.title !== index.titles[file]);
    return own.find(each => words.every(word => each.words.has(word))) || null;
  }

  // What is marked: no short word and no word of asking; elsewhere only on a page that was found.
  const STORED = "sphinx_highlight_terms";
  const telling = word => word.length > 2 && !ASKING.has(word) &&
    ![...stopwords].includes(word);
  let marked = [];
  function markTelling(said, highlighted) {
    marked = said.filter(telling);
    highlighted.clear();
    marked.forEach(word => highlighted.add(word));
    localStorage.removeItem(STORED);
  }
  for (const kind of ["click", "auxclick"])
    document.addEventListener(kind, ({ target }) => {
      if (target.closest("#search-results a")) localStorage.setItem(STORED, marked.join(" "));
    });

  Search._performSearch = (query, searchTerms, excluded, highlighted, objectTerms) => {
    document.getElementById("search-progress")?.replaceChildren();
    const index = Search._index, headings = headingsOf(index), results = [];
    const misspelt = spelled(index, headings, query);
    if (misspelt.size) { // whoever shows what is found has these sets
      query = splitQuery(query).map(word => misspelt.get(word) || word).join(" ");
      const better = Search._parseQuery(query);
      [searchTerms, excluded, highlighted, objectTerms].forEach((set, i) => {
        set.clear();
        better[i + 1].forEach(word => set.add(word));
      });
    }
    let words = [...searchTerms].filter(word => word.length > 1);
    const typed = word => splitQuery(query).find(each => cut(each)[0] === word) || word;
    const asking = words.filter(word => !ASKING.has(typed(word).toLowerCase()));
    if (asking.length) words = asking;
    const worth = new Map(words.map(word =>
      [word, worths(index, headings, word, typed(word).length < LONG_ENOUGH)]));
    const dropped = words.filter(word => !worth.get(word).size).map(typed);
    words = words.filter(word => worth.get(word).size);
    markTelling(splitQuery(query).filter(word => !dropped.includes(word)).map(word => word.toLowerCase()),
      highlighted);
    const unwanted = [...excluded].flatMap(word => filesOf(index.terms, word));
    const add = (file, title, anchor, descr, score) =>
      results.push([index.docnames[file], title, anchor, descr, score, index.filenames[file]]);

    const terms = new Set(), asked = words.join(" ");
    // a term of the glossary is what was asked or, of two words, one of them
    const entries = Object.entries(index.indexentries);
    const same = asked => entries.filter(([entry]) => cut(entry).join(" ") === asked);
    const exact = same(asked);
    for (const [entry, places] of exact.length || words.length !== 2 ? exact : words.flatMap(same))
      for (const [file, id] of places) {
        terms.add(file);
        add(file, `${index.titles[file]} > ${entry}`, `#${id}`, null, 300);
      }

    const each = words.map(word => worth.get(word));
    const pages = new Map();
    for (const worth of each) for (const file of worth.keys()) pages.set(file, 0);
    const lacking = file => each.filter(worth => !worth.has(file)).length;
    const complete = [...pages.keys()].filter(file => !lacking(file)).length;
    for (const file of pages.keys()) {
      if (unwanted.includes(file) || terms.has(file)) continue;
      if (lacking(file) > (complete < FEW && words.length > 1 ? 1 : 0)) continue;
      const sum = each.reduce((total, worth) => total + (worth.get(file) || 0), 0);
      const heading = best(index, headings, file, words);
      const own = cut(`${index.titles[file]} ${(index.also || {})[file] || ""}`);
      if (words.length > 1 && words.every(word => own.includes(word))) whole.add(file);
      add(file, heading ? `${index.titles[file]} > ${heading.title}` : index.titles[file],
        heading ? `#${heading.id}` : "", null,
        sum / words.length + MISSING * lacking(file) + kindOf(index.docnames[file]) +
          (kindOf(index.docnames[file]) > OBJECT && named(index.titles[file]) === asked ? WHOLE : 0));
    }
    const seen = new Set();
    objectTerms.forEach(term => Search.performObjectSearch(term, objectTerms).forEach(object => {
      if (seen.has(object[1]) || !partsOf(object[1]).some(part => term.length < LONG_ENOUGH ? part === term
        : part.includes(term))) return;
      seen.add(object[1]);
      results.push([...object.slice(0, 4), object[4] + OBJECT, object[5]]);
    }));
    const absent = [...misspelt.keys(), ...dropped];
    if (absent.length && (words.length || !results.length))
      tell(absent, splitQuery(query).filter(word => words.includes(cut(word)[0])), misspelt);
    // taken from the end; names of files have the order of the chapters
    return results.sort((a, b) => a[4] - b[4] || (a[0] < b[0] || a[0] === b[0] && a[1] < b[1] ? 1 : -1));
  };

  // The name of a function or class without its module, and the words of that name.
  const partsOf = name => [name.split(".").at(-1)].flatMap(own =>
    [own, ...own.split("_"), ...own.split(/_|(?<=[a-z])(?=[A-Z])/)].map(part => part.toLowerCase()));

  // The words of a title that can be searched for, without the number of a chapter.
  const named = title => splitQuery(title.toLowerCase()).filter(word => !ASKING.has(word) && !/^\d+$/.test(word))
    .flatMap(cut).join(" ");

  // How many letters differ; two that have changed places count as one.
  function distance(one, other) {
    const rows = [[...Array(other.length + 1).keys()]];
    for (let i = 1; i <= one.length; i++) {
      rows.push([i]);
      for (let j = 1; j <= other.length; j++) {
        const swapped = i > 1 && j > 1 && one[i - 1] === other[j - 2] && one[i - 2] === other[j - 1];
        rows[i].push(Math.min(rows[i][j - 1] + 1, rows[i - 1][j] + 1,
          rows[i - 1][j - 1] + (one[i - 1] !== other[j - 1]), swapped ? rows[i - 2][j - 2] + 1 : Infinity));
      }
    }
    return rows[one.length][other.length];
  }

  // All words of the book, as they are cut; as they are written in titles, headings and the glossary.
  function wordsOf(index) {
    const known = new Map();
    for (const table of [index.terms, index.titleterms])
      for (const stem of Object.keys(table)) known.set(stem, [stem]);
    for (const text of [index.indexentries, index.alltitles].flatMap(Object.keys).concat(Object.values(index.also || {})))
      for (const word of splitQuery(text.toLowerCase())) known.set(cut(word)[0], [...known.get(cut(word)[0]) || [], word]);
    return known;
  }

  // The word of the book that was perhaps meant, or "". A word does not become a much shorter one,
  // and one in which two letters differ begins as it did.
  function meant(index, known, typed) {
    const own = cut(typed)[0], mostOf = word => word.length < 4 ? 0 : word.length < 6 ? 1 : 2;
    let best = [Infinity, ""];
    for (const [stem, written] of known) {
      const long = Math.max(...written.map(word => word.length));
      if (stem.length < 3 || /\d/.test(stem) || long < Math.max(own.length - 1, typed.length - 2)) continue;
      const far = written.map(word => distance(typed, word)), word = written[far.indexOf(Math.min(...far))];
      const cuts = distance(own, stem), least = Math.min(cuts, ...far);
      if (cuts > mostOf(own) && Math.min(...far) > mostOf(typed) || least > 1 && stem[0] !== own[0]) continue;
      const worse = 100 * least + 10 * Math.min(...far) + 5 * (stem.length < own.length) -
        Math.log2(1 + filesOf(index.terms, stem).length) - 5 * (written.length > 1);
      if (worse < best[0]) best = [worse, word];
    }
    return best[1];
  }

  // By word of the query that nothing holds, or hardly anything: what was meant.
  function spelled(index, headings, query) {
    const found = new Map();
    let known = null;
    for (const word of splitQuery(query)) {
      const typed = word.toLowerCase(), own = cut(typed)[0];
      if (typed.length < 4 || /\d/.test(typed) || ASKING.has(typed) || [...stopwords].includes(typed) ||
        filesOf(index.terms, own).length || filesOf(index.titleterms, own).length ||
        Search.performObjectSearch(typed, new Set([typed])).length) continue;
      const some = worths(index, headings, own, typed.length < LONG_ENOUGH).size; // that begin so
      known = known || wordsOf(index);
      const better = some < FEW && meant(index, known, typed);
      if (better) found.set(word, better);
    }
    return found;
  }

  // Which words nothing holds, and for which the results are. Of a word that is known only as it is
  // cut, "weaken", the texts have one that is nearer to what was typed, once they are there.
  function tell(dropped, kept, misspelt) {
    if (!Search.status) return;
    const line = document.createElement("p");
    const quoted = (words, and) => words.map(word => `“${word}”`).join(and);
    const show = kept => line.replaceChildren(`Nothing holds ${quoted(dropped, " or ")}.`,
      kept.length ? ` Shown: results for ${quoted(kept, " and ")}.` : "");
    show(kept);
    Search.status.after(line);
    texts.then(all => {
      const better = new Map([...misspelt].map(([typed, cut]) => {
        const longer = all.join(" ").toLowerCase().match(new RegExp(`(?<!\\p{L})${escaped(cut)}\\p{L}*`, "gu"));
        return [cut, (longer || [cut]).reduce((a, b) => distance(typed, b) < distance(typed, a) ? b : a)];
      }));
      show(kept.map(word => better.get(word) || word));
    });
  }

  // A page on a disk cannot read others: their texts, packed, come in a script, by number of the page.
  const texts = new Promise((loaded, failed) => {
    const script = document.createElement("script");
    Object.assign(script, { onload: loaded, onerror: failed, src: "searchtexts.js" });
    document.head.append(script);
  }).then(() => {
    const packed = Uint8Array.from(atob(globalThis.searchTexts), letter => letter.charCodeAt(0));
    return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"))).json();
  }).catch(() => []); // an old browser shows no excerpts
  window.fetch = async address => {
    const file = Search._index.docnames.findIndex(name => address.endsWith(`${name}.html`));
    return new Response((whole.has(file) ? START : "") + ((await texts)[file] || ""));
  };

  // An excerpt is taken from paragraphs and lists of the page, of a term from what it means; from
  // captions and cells only where these have none of the words.
  const PROSE = "p, li, dd", OTHER = "td, th, caption, figcaption, dt";
  const END = "\u0001";
  function blocksOf(text, anchor, keywords) {
    const page = new DOMParser().parseFromString(text, "text/html");
    const found = anchor && page.querySelector(anchor);
    const within = found?.tagName === "DT" ? found.nextElementSibling
      : found || page.body;
    const all = [...within.querySelectorAll(`${PROSE}, ${OTHER}`), ...(within.matches(PROSE) ? [within] : [])]
      .filter(each => !each.parentElement.closest(`${PROSE}, ${OTHER}`));
    if (anchor && !all.length) return blocksOf(text, "", keywords); // a section of code
    const has = each => keywords.some(word => beginning(word).test(each.textContent.toLowerCase()));
    const prose = all.filter(each => each.matches(PROSE));
    return (prose.some(has) ? prose : all)
      .map(each => ({ text: each.textContent.replace(/\s+/g, " ").trim(), section: each.closest("section") }))
      .filter(each => each.text);
  }

  // The excerpt begins at a sentence, else at a word, a little before the place where most of the
  // words stand together.
  const BEFORE = 80, LONG = 240, SENTENCE = 200;
  const SAID_AS = { long: ["seconds", "minute", "hour"] }; // a question, and the words of its answer
  const escaped = word => word.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
  const beginning = word => new RegExp(`(?<!\\p{L})${escaped(word)}`, "gu"); // "long", not "along"
  Search.makeSearchSummary = (htmlText, searched, anchor) => {
    const told = marked.flatMap(cut), own = [...searched].filter(word => told.includes(word));
    const keywords = (own.length ? own : [...searched]).flatMap(word => SAID_AS[word] || word);
    const blocks = blocksOf(htmlText, anchor, keywords);
    const text = blocks.map(each => each.text).join(END), lower = text.toLowerCase();
    if (!text) return null;
    const places = keywords.flatMap(word =>
      [...lower.matchAll(beginning(word))].map(match => [match.index, word]));
    const near = at => new Set(places.filter(([place]) => place >= at && place < at + LONG - BEFORE)
      .map(([, word]) => word)).size;
    const tight = ([at]) => places.filter(([place]) => place >= at && place < at + 30).length;
    const first = places.slice(0, 400).reduce((best, each) => !best || near(each[0]) > near(best[0]) ||
      near(each[0]) === near(best[0]) && tight(each) > tight(best) ? each : best, null);
    const isTerm = (anchor || "").startsWith("#term-"); // what it means is short and read from its start
    const starts = htmlText.startsWith(START) && !(first && near(first[0]) >= keywords.length);
    const at = first && !isTerm && !starts ? first[0] : 0, from = Math.max(0, at - SENTENCE);
    const begins = [...text.slice(from, at).matchAll(/\u0001|[.?!]["”)]* (?=[A-Z"“])/g)].at(-1);
    const whole = begins || !from;
    const start = begins ? from + begins.index + begins[0].length
      : from ? text.indexOf(" ", at - BEFORE) + 1 : 0;
    const excerpt = document.createElement("p");
    excerpt.classList.add("context");
    excerpt.textContent = (whole ? "" : "… ") + text.slice(start, start + LONG).replaceAll(END, " ").trim() +
      (start + LONG < text.length ? " …" : "");
    const block = text.slice(0, at).split(END).length - 1;
    if (!anchor && !starts) queueMicrotask(() => nameSection(excerpt, blocks[block].section)); // once it is shown
    return excerpt;
  };

  // A result that names only its page gets the section of its excerpt.
  function nameSection(excerpt, section) {
    const link = excerpt.parentElement?.querySelector("a"), heading = section?.firstElementChild;
    if (!link || !heading || !section.parentElement.closest("section") || !/^H\d$/.test(heading.tagName)) return;
    link.textContent += ` > ${heading.textContent.trim()}`;
    link.href += `#${section.id}`;
  }
})();

// The theme keeps the place of the table of contents from page to page; where the page that is open
// would be out of sight there, it is brought back.
addEventListener("load", () => {
  const sidebar = document.querySelector("div.bd-sidebar");
  const link = [...document.querySelectorAll(".bd-docs-nav .active > a")].at(-1);
  if (!sidebar || !link) return;
  const room = sidebar.getBoundingClientRect(), own = link.getBoundingClientRect();
  if (own.top < room.top || own.bottom > room.bottom)
    sidebar.scrollTop += own.top - room.top - room.height / 3;
});

// On a phone the table of contents opens where the page stands in it.
addEventListener("load", () => document.querySelector(".primary-toggle")?.addEventListener("click", () =>
  setTimeout(() => [...document.querySelectorAll(".bd-docs-nav .active > a")].at(-1)
    ?.scrollIntoView({ block: "center" }), 50)));

// What is wider than the page fades where there is more of it, and can be moved by keyboard, too.
const WIDE = ".cell_output figure, figure .parts, article p:has(> img), .cell_output .text_html, .pst-scrollable-table-container, " +
  ".cell_output pre, .cell_input pre, #landing .wide";
addEventListener("load", () => {
  const all = [...document.querySelectorAll(WIDE)];
  const look = each => {
    const scrolls = /auto|scroll/.test(getComputedStyle(each).overflowX);
    const beyond = scrolls ? each.scrollWidth - each.clientWidth : 0;
    each.classList.toggle("more", beyond - each.scrollLeft > 4);
    each.classList.toggle("moved", beyond > 4 && each.scrollLeft > 4);
    if (each.matches("figure, .parts, p, .text_html")) each.toggleAttribute("tabindex", beyond > 4);
    if (each.hasAttribute("tabindex")) each.tabIndex = 0;
  };
  const sizes = new ResizeObserver(seen => seen.forEach(({ target }) => look(target)));
  for (const each of all) {
    each.addEventListener("scroll", () => look(each), { passive: true });
    sizes.observe(each);
  }
});

// The words of a search are marked in the article alone, and not on the next page.
if (typeof SphinxHighlight !== "undefined") {
  addEventListener("load", () => setTimeout(() => {
    document.querySelectorAll("span.highlighted").forEach(each => {
      if (!each.closest("article")) each.replaceWith(each.textContent);
    });
  }, 50));
}

// One button for all answers of a page that asks for predictions.
addEventListener("load", () => {
  const answers = [...document.querySelectorAll("details.prediction")];
  if (answers.length < 2) return;
  const button = document.createElement("button");
  const show = () => {
    const open = answers.every(each => each.open);
    button.textContent = open ? "Fold all answers" : `Open all ${answers.length} answers`;
    button.setAttribute("aria-pressed", String(open));
  };
  button.type = "button";
  button.className = "all-answers";
  button.addEventListener("click", () => {
    const open = !answers.every(each => each.open);
    for (const each of answers) each.open = open;
    show();
  });
  for (const each of answers) each.addEventListener("toggle", show);
  show();
  answers[0].closest(".cell").before(button);
});

// A session of the course is folded below its heading: a link to the heading opens it, and paper
// has all of it, with what comes of the vote.
const unfold = (folds, wanted) => {
  for (const each of document.querySelectorAll(folds)) if (wanted(each)) each.open = true;
};
const linked = () => unfold("details.session",
  each => each.parentElement.id === decodeURI(location.hash.slice(1)));
addEventListener("DOMContentLoaded", linked);
addEventListener("hashchange", linked);
addEventListener("beforeprint",
  () => unfold("details.session, details.session details", () => true));

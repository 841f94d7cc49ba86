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

// A figure that is wider than a phone can be moved by keyboard, too.
for (const event of ["load", "resize"])
  addEventListener(event, () => {
    for (const figure of document.querySelectorAll(".cell_output figure"))
      if (figure.scrollWidth > figure.clientWidth) figure.tabIndex = 0;
      else figure.removeAttribute("tabindex");
  });

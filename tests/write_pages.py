"""Write every page, or part of one, that is generated: `python tests/write_pages.py`."""

from functools import partial

import families
import gone_page
import package_page
import price_list
import results_page
import scale_page

from kvw_exhibits import museum

MUSEUM = package_page.ROOT / "book" / "museum.md"
#: each page, and what makes its text
PAGES = {
    package_page.PAGE: package_page.page,
    package_page.GLOSSARY: package_page.glossary,
    scale_page.PAGE: scale_page.page,
    gone_page.PAGE: gone_page.page,
    families.PAGE: families.page,
    price_list.PAGE: price_list.page,
    results_page.PAGE: results_page.page,
    results_page.FIGURE: results_page.figure,
    MUSEUM: lambda: package_page.filled(MUSEUM, ["", museum.page()]),
    **{path: partial(str, text) for path, text in package_page.api_pages().items()},
}

if __name__ == "__main__":
    for path, made in PAGES.items():
        path.write_text(made(), encoding="utf-8")

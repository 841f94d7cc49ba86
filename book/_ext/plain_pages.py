"""Sphinx extension: take from the pages what this book does not use.

- Launch buttons while there is no repository to launch from: the theme builds their addresses
  from `repository: url` in _config.yml and fails when it is empty.
- Thebe, which would run cells on a distant server: its script is written into each page twice,
  and browsers report the second as an error.
"""


def leave_out_launch_buttons(app, config) -> None:
    """Take the launch buttons away while the repository has no address."""
    if not config.html_theme_options.get("repository_url"):
        config.html_theme_options.pop("launch_buttons", None)
        config.html_theme_options.pop("repository_url", None)


def is_thebe(script) -> bool:
    """Whether a script of a page belongs to Thebe."""
    body = script.attributes.get("body") or ""
    return "THEBE_JS_URL" in body or "sphinx-thebe" in str(script.filename)


def leave_out_thebe(app, pagename, templatename, context, doctree) -> None:
    """Take Thebe's scripts from one page."""
    context["script_files"] = [s for s in context["script_files"] if not is_thebe(s)]


def setup(app) -> dict:
    app.connect("config-inited", leave_out_launch_buttons)
    app.connect("html-page-context", leave_out_thebe)
    return {"parallel_read_safe": True}

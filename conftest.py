"""What strict nbval may leave uncompared: renderings that differ from run to run by design."""

UNCOMPARED = (
    "text/html",
    "image/svg+xml",
    "application/papermill.record/image/png",
    "application/vnd.kvw.explorer+json",
)


def pytest_collectstart(collector):
    """Skip formats whose content is also there as text; nbval skips PNG by itself."""
    if type(collector).__name__ == "IPyNbFile":
        collector.skip_compare += UNCOMPARED

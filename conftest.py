"""What strict nbval may leave uncompared, how kernels begin, and the tier of each notebook."""

import sys
from pathlib import Path

UNCOMPARED = (
    "text/html",
    "image/svg+xml",
    "application/papermill.record/image/png",
    "application/vnd.kvw.explorer+json",
)
#: files that take more than half a minute; they begin first, so that no process waits at the end
LONGEST = ("test_results.py", "test_freshness.py", "test_replicate.py", "test_audit.py")


def is_notebook(collector) -> bool:
    return type(collector).__name__ == "IPyNbFile"


def pytest_collectstart(collector):
    """Skip formats whose content is also there as text; nbval skips PNG by itself."""
    if is_notebook(collector):
        collector.skip_compare += UNCOMPARED


def pytest_configure(config):
    """On Linux kernels are forked from a process that has imported what is slow."""
    if sys.platform == "linux":
        from jupyter_client.provisioning import local_provisioner

        sys.path.append(str(Path(__file__).parent / "tests"))
        import kernels

        local_provisioner.launch_kernel = kernels.launch


def pytest_collection_modifyitems(items):
    """With `--no-loadscope-reorder` processes take files in this order."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_itemcollected(item):
    """Chapters are run by `make test`, solutions by `make test-all`."""
    if is_notebook(item.parent):
        item.add_marker("nightly" if item.path.parent.name == "solutions" else "slow")

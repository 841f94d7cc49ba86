"""Gone, or only quiet? Probes that look for what an edit should have removed, and a verdict.

    from kvw_minimal.audit import audit, table, verdict
    found = audit(session, request, edit, oracle)
    print(table(found), verdict(found)[0])

Every probe is registered under its name, as methods and scores are (`probe`).
"""

from . import edit_leakage, membership, prompting_probes, relearning_attacks, representation_probes  # noqa: F401 - they register
from .findings import Finding, audit, judge, table, verdict
from .probes import PROBES, Probe, examine, probe

__all__ = ["PROBES", "Finding", "Probe", "audit", "examine", "judge", "probe", "table", "verdict"]

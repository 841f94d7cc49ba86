"""Gone, or only quiet? Probes look for knowledge that an edit should have removed.

    from kvw_minimal.audit import audit, findings_table, verdict
    findings = audit(session, request, edit, oracle)
    print(findings_table(findings), verdict(findings)[0])

The decorator `probe` registers each probe under its name.
"""

from . import edit_leakage, membership, prompting_probes, relearning_attacks, representation_probes  # noqa: F401 - they register
from .findings import Finding, audit, audit_rows, findings_table, judge, verdict
from .probes import PROBES, Probe, examine, probe

__all__ = [
    "PROBES",
    "Finding",
    "Probe",
    "audit",
    "audit_rows",
    "examine",
    "findings_table",
    "judge",
    "probe",
    "verdict",
]

"""An independent auditor: what happened on the engine, judged without a line of the product.

It reads the engine's HTTP API, the kernel, and (as a second witness) the ledger by plain SQL.
It never imports ``jupyterhub_gpuspawner``: who is accused does not write the protocol.

::

    auditor = Auditor(sockets=["/run/docker.sock"], ledger=ledger_id)
    with auditor.watching():          # or: async with
        auditor.protect("alice")      # from here on it must not stop
        ...
    verdict = auditor.judge(running={"alice"}, book="/state/ledger.sqlite")
    assert verdict.ok, verdict
"""

from tests.auditor.auditor import Auditor
from tests.auditor.verdict import Verdict

__all__ = ["Auditor", "Verdict"]

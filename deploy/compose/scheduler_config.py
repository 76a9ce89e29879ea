"""The scheduler's own configuration, where it runs in a container of its own.

    python -m jupyterhub_gpuspawner.service --unmanaged --config scheduler_config.py

The Hub's is jupyterhub_config.py; both read the same variables, and each only what it needs.
"""

from jupyterhub_gpuspawner import environment
from jupyterhub_gpuspawner.site_gpus import site_gpus

c = get_config()  # noqa: F821 (traitlets puts it there)
environment.check_names()

c.GPUScheduler.state_dir = environment.text("GPUS_STATE_DIR", "var")
ledger = environment.secret("GPUS_LEDGER_URL")
if ledger:
    c.GPUScheduler.ledger_url = ledger
# on all addresses of the container: only the Hub and the proxy share a network with it
c.GPUScheduler.url = f"http://0.0.0.0:{environment.port('GPUS_SERVICE_PORT', 8750)}"
site_gpus(c)

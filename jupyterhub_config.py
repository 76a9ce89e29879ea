"""A Hub with GPUs for one machine, ready to run: ``jupyterhub --config jupyterhub_config.py``.

Everything can be set by environment variable, so that ``./quickstart`` and you use one file.
Copy it and change it; each block says what it is for.
"""

import os
from pathlib import Path

from jupyterhub_gpuspawner import environment
from jupyterhub_gpuspawner.hub import setup

c = get_config()  # noqa: F821 (JupyterHub puts it there)

# --- Where the Hub listens, and where it keeps its files ------------------------------------
# On loopback by default: put a reverse proxy with TLS before it for others to reach it.
# GPUS_STATE_DIR holds the Hub's database, cookie secret, the ledger of leases and the tokens:
# back it up, and let nobody else read it.
state = Path(os.environ.get("GPUS_STATE_DIR", "var")).absolute()
try:
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
except OSError as error:
    raise SystemExit(f"GPUS_STATE_DIR {state}: {error.strerror}") from None
port = environment.port("GPUS_PORT", 8000)
bind = environment.address("GPUS_BIND", "127.0.0.1")
c.JupyterHub.bind_url = f"http://[{bind}]:{port}" if ":" in bind else f"http://{bind}:{port}"
c.JupyterHub.db_url = f"sqlite:///{state / 'jupyterhub.sqlite'}"
c.JupyterHub.cookie_secret_file = str(state / "cookie_secret")
proxy_api_port = environment.port("GPUS_PROXY_API_PORT", port + 1)
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{proxy_api_port}"
c.ConfigurableHTTPProxy.pid_file = str(state / "proxy.pid")

# Servers in containers call the Hub at the Docker bridge's address of this machine.
bridge = environment.address("GPUS_BRIDGE_IP", "172.17.0.1")
c.JupyterHub.hub_ip = bridge
c.JupyterHub.hub_port = environment.port("GPUS_HUB_PORT", port + 2)

# --- Who may log in -------------------------------------------------------------------------
# One shared password for a trial: any user name with it is let in. For a real site use
# oauthenticator (docs/howto), and name who is allowed.
password = os.environ.get("GPUS_PASSWORD", "")
if len(password) < 8:
    raise SystemExit("GPUS_PASSWORD must be set to at least 8 characters (./quickstart makes one)")
c.JupyterHub.authenticator_class = "shared-password"
c.SharedPasswordAuthenticator.user_password = password
c.SharedPasswordAuthenticator.allow_all = True
# Admins need a password of their own, of at least 32 characters.
admin_password = os.environ.get("GPUS_ADMIN_PASSWORD", "")
if admin_password:
    if len(admin_password) < 32:
        raise SystemExit("GPUS_ADMIN_PASSWORD must have at least 32 characters, or be empty")
    c.SharedPasswordAuthenticator.admin_password = admin_password
    c.SharedPasswordAuthenticator.admin_users = set(
        os.environ.get("GPUS_ADMINS", "admin").split(",")
    )
c.JupyterHub.allow_named_servers = True
c.JupyterHub.named_server_limit_per_user = 3

# --- What a server is -------------------------------------------------------------------------
c.JupyterHub.spawner_class = "gpu-docker"
c.GPUDockerSpawner.image = os.environ.get("GPUS_IMAGE", "jupyterhub-gpuspawner/singleuser:latest")
# The kernel enforces these; a profile may say otherwise.
c.GPUDockerSpawner.mem_limit = "2G"
c.GPUDockerSpawner.cpu_limit = 1
c.GPUDockerSpawner.profile_list = [
    {
        "display_name": "One GPU",
        "slug": "gpu",
        "description": "A GPU of your own for notebooks and training.",
        "default": True,
        "spawner_override": {"gpus": 1, "length": "4h"},
        "profile_options": {
            "length": {
                "display_name": "How long do you need it?",
                "choices": {
                    "1h": {"display_name": "1 hour", "spawner_override": {"length": "1h"}},
                    "4h": {
                        "display_name": "4 hours",
                        "default": True,
                        "spawner_override": {"length": "4h"},
                    },
                    "24h": {"display_name": "24 hours", "spawner_override": {"length": "24h"}},
                },
            }
        },
    },
    {
        "display_name": "Two GPUs",
        "slug": "gpu2",
        "description": "Two GPUs on the same machine.",
        "spawner_override": {"gpus": 2, "mem_limit": "4G", "cpu_limit": 2, "length": "4h"},
    },
    {
        "display_name": "No GPU",
        "slug": "cpu",
        "description": "Editing, plots and small data. Does not wait for a GPU.",
        "spawner_override": {"gpus": 0, "mem_limit": "1G"},
    },
]

# --- Which GPUs there are, and who may hold how many --------------------------------------------
# Real GPUs where the driver shows any; else as many simulated ones as GPUS_SIMULATE says,
# shown as SIMULATED everywhere. GPUS_DISCOVERY=simulated leaves real ones alone.
c.GPUScheduler.state_dir = str(state / "gpus")
c.GPUScheduler.url = f"http://127.0.0.1:{environment.port('GPUS_SERVICE_PORT', port + 3)}"
c.GPUScheduler.discovery = os.environ.get("GPUS_DISCOVERY", "auto")
c.GPUScheduler.simulate = environment.number("GPUS_SIMULATE", 0, most=256)
if os.environ.get("GPUS_USER_LIMIT"):
    c.GPUScheduler.user_gpu_limit = environment.number("GPUS_USER_LIMIT", 0)

# --- The rest: service, roles, and what a Hub with a queue needs. Always last. ------------------
setup(c)

"""A Hub with GPUs for one machine, as a lab runs it: ``jupyterhub --config jupyterhub_config.py``.

Everything is set by environment variable, so that you can keep this file as it is: ``./quickstart``
sets a few of them for a trial; for a site copy ``.env.example``, fill it in, and start with

    set -a; . ./.env; set +a
    jupyterhub --config jupyterhub_config.py

(or name it in ``EnvironmentFile=`` of a systemd unit). A wrong variable is one clear line, and the
Hub does not start. All of them: docs/reference/environment.md. What can't be said by variable is
Python below: each block says what it is for.
"""

from pathlib import Path

from jupyterhub_gpuspawner import environment
from jupyterhub_gpuspawner.hub import setup
from jupyterhub_gpuspawner.sign_in import sign_in
from jupyterhub_gpuspawner.site_gpus import site_gpus
from jupyterhub_gpuspawner.site_profiles import site_profiles
from jupyterhub_gpuspawner.site_spawner import site_spawner
from jupyterhub_gpuspawner.site_volumes import site_volumes

c = get_config()  # noqa: F821 (JupyterHub puts it there)
environment.check_names()  # a misspelt variable must not be a limit that is not there

# --- Where the Hub keeps its files --------------------------------------------------------------
# GPUS_STATE_DIR holds the Hub's database, cookie secret, the ledger of leases and the tokens:
# back it up (docs/howto/run-it.md), and let nobody else read it. GPUS_DB_URL (or GPUS_DB_URL_FILE,
# a file with it) is another database for the Hub, by URL; the ledger never shares it.
state = Path(environment.text("GPUS_STATE_DIR", "var")).absolute()
try:
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
except OSError as error:
    raise SystemExit(f"GPUS_STATE_DIR {state}: {error.strerror}") from None
c.JupyterHub.db_url = (
    environment.secret("GPUS_DB_URL") or f"sqlite:///{state / 'jupyterhub.sqlite'}"
)
c.JupyterHub.cookie_secret_file = str(state / "cookie_secret")
# A newer JupyterHub may want another layout of its database. It then refuses to start and says
# so: back up, and run `jupyterhub upgrade-db`. It never happens by itself, as there is no way back.
c.JupyterHub.upgrade_db = False

# --- Where it listens ---------------------------------------------------------------------------
# On loopback by default. For others to reach it there has to be TLS, because passwords and tokens
# travel: from a reverse proxy on this machine (then leave GPUS_BIND alone), or from the Hub's own
# proxy, with GPUS_TLS_CERT and GPUS_TLS_KEY, and GPUS_BIND=0.0.0.0.
port = environment.port("GPUS_PORT", 8000)
bind = environment.address("GPUS_BIND", "127.0.0.1")
certificate, key = environment.file("GPUS_TLS_CERT"), environment.file("GPUS_TLS_KEY")
if bool(certificate) != bool(key):
    raise SystemExit("GPUS_TLS_CERT and GPUS_TLS_KEY belong together: one of them is missing")
c.JupyterHub.ssl_cert, c.JupyterHub.ssl_key = certificate, key
scheme = "https" if certificate else "http"
c.JupyterHub.bind_url = f"{scheme}://{f'[{bind}]' if ':' in bind else bind}:{port}"
c.ConfigurableHTTPProxy.api_url = (
    f"http://127.0.0.1:{environment.port('GPUS_PROXY_API_PORT', port + 1)}"
)
c.ConfigurableHTTPProxy.pid_file = str(state / "proxy.pid")

# GPUS_PUBLIC_URL is the address that people type. With GPUS_SUBDOMAINS=yes each user's server is
# at a host name of its own below it (ann.gpus.example.org), so that a script in one server's pages
# can do nothing to another's or to the Hub's. That takes a wildcard in the DNS and in the
# certificate: *.gpus.example.org.
public = environment.url("GPUS_PUBLIC_URL")
if public:
    c.JupyterHub.public_url = f"{public}/"
if environment.flag("GPUS_SUBDOMAINS"):
    if not public:
        raise SystemExit("GPUS_SUBDOMAINS needs GPUS_PUBLIC_URL, such as https://gpus.example.org")
    c.JupyterHub.subdomain_host = public

# Servers in containers call the Hub at the Docker bridge's address of this machine.
c.JupyterHub.hub_ip = environment.address("GPUS_BRIDGE_IP", "172.17.0.1")
c.JupyterHub.hub_port = environment.port("GPUS_HUB_PORT", port + 2)

# A restart or an upgrade of the Hub must not end trainings: servers run on, and the next Hub takes
# them over.
c.JupyterHub.cleanup_servers = False

# --- Who may log in (docs/howto/log-in.md) ------------------------------------------------------
# GPUS_LOGIN=password   one password for all, for a trial: GPUS_PASSWORD, and GPUS_ADMIN_PASSWORD
# GPUS_LOGIN=oidc       any OpenID Connect provider (GenericOAuthenticator): GPUS_OIDC_…_URL
# GPUS_LOGIN=github     organisations and teams are groups
# GPUS_LOGIN=gitlab     groups are groups; GPUS_PROVIDER_URL is a GitLab of your own
# GPUS_LOGIN=google     GPUS_GOOGLE_DOMAIN; groups by a service account
# All but the first take GPUS_CLIENT_ID and GPUS_CLIENT_SECRET, and want to be told who is let in:
# GPUS_ALLOWED_USERS, GPUS_ALLOWED_GROUPS, or GPUS_ALLOW_ALL=yes. Without, the Hub does not start.
# GPUS_GROUP_MAP makes the Hub's groups of the provider's; GPUS_ADMIN_GROUPS and GPUS_ADMINS name
# the admins. Groups and rights are those of the last login, which GPUS_LOGIN_DAYS limits; with
# JUPYTERHUB_CRYPT_KEY they are asked again before each start.
sign_in(c)
c.JupyterHub.allow_named_servers = True
c.JupyterHub.named_server_limit_per_user = environment.number("GPUS_NAMED_SERVERS", 3, 1, 100)

# --- What a server is ---------------------------------------------------------------------------
# GPUS_SPAWNER=swarm: servers run on the machines of a Docker Swarm, on its network GPUS_NETWORK.
# GPUS_LOCAL_VOLUMES (refuse, tie, each) says what becomes of homes that one machine has, and
# GPUS_VOLUME_NODES where volumes are that you made: docs/howto/swarm.md. On one machine
# (GPUS_SPAWNER=docker, the default) a proxy in a container has to be on users' networks:
# GPUS_NETWORK_MEMBERS names it.
site_spawner(c)
c.GPUDockerSpawner.image = environment.text("GPUS_IMAGE", "jupyterhub-gpuspawner/singleuser:latest")
# The kernel enforces these; a profile may say otherwise.
c.GPUDockerSpawner.mem_limit = environment.memory("GPUS_MEM_LIMIT") or "2G"
c.GPUDockerSpawner.cpu_limit = environment.amount("GPUS_CPU_LIMIT", 1)
# What people choose from. GPUS_PROFILES_FILE is a list of your own (YAML or JSON, the same words);
# GPUS_PROFILE_GROUPS says which groups may use which profile, by slug: {"gpu2": ["research"]}.
c.GPUDockerSpawner.profile_list = site_profiles(
    [
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
)

# --- Files --------------------------------------------------------------------------------------
# Each user has a home, a volume of the user's own. GPUS_READ_ONLY_VOLUMES are data sets for all,
# GPUS_VOLUMES what else servers have, GPUS_GROUP_VOLUMES what a group shares; GPUS_HOME_DRIVER and
# GPUS_HOME_OPTIONS put homes on NFS, say. Homes stay when their users are deleted, unless
# GPUS_DELETE_HOMES=yes. From GPUS_HOME_WARNING ("50G") on users are asked to tidy up:
# docs/howto/volumes.md.
site_volumes(c)

# --- Which GPUs there are, and who may hold how many --------------------------------------------
# GPUS_LEDGER_URL (or GPUS_LEDGER_URL_FILE) is another database for the ledger, by URL; the default
# is a file in state_dir.
c.GPUScheduler.state_dir = str(state / "gpus")
ledger = environment.secret("GPUS_LEDGER_URL")
if ledger:
    c.GPUScheduler.ledger_url = ledger
c.GPUScheduler.url = f"http://127.0.0.1:{environment.port('GPUS_SERVICE_PORT', port + 3)}"
# Real GPUs where the driver shows any; else as many simulated ones as GPUS_SIMULATE says,
# shown as SIMULATED everywhere. GPUS_DISCOVERY=simulated leaves real ones alone. GPUS_NODE_NAME is
# this machine's name in lists and leases.
# GPUS_USER_LIMIT, GPUS_USER_LIMITS, GPUS_GROUP_LIMITS: GPUs that each user may hold, single users
# may hold, and all of a group together. GPUS_SHARES: the parts of the GPUs that are a group's own.
# Groups are the Hub's: docs/howto/choose-profiles-and-limits.md.
# GPUS_IDLE_GPU takes GPUs back that nobody has used for so long ("2h"), after a warning of half an
# hour; GPUS_IDLE_GROUPS says it otherwise for a group, null = never: {"staff": null}. GPUS_IDLE_CPU
# stops servers without GPUs. GPUS_IDLE_WARNING, GPUS_IDLE_MIN_RUNTIME and GPUS_IDLE_EXTENSION are
# its times: docs/howto/idle.md. GPUS_RECLAIM_WARNING ("30m") has who is past the length make room
# for who waits, after so long a warning. Not set: nothing is stopped.
# GPUS_SCHEDULER_OPTIONS is for all else of docs/reference/options.md, by name, as JSON.
site_gpus(c)

# --- Parts that run on their own (docs/howto/compose.md) ----------------------------------------
# GPUS_SCHEDULER_URL and GPUS_PROXY_URL: a scheduler and a proxy that this Hub does not start. All
# that stands above of c.GPUScheduler is then for the scheduler itself to read.
c.GPUSpawnerMixin.scheduler_url = environment.url("GPUS_SCHEDULER_URL", inside=True)
elsewhere = environment.url("GPUS_PROXY_URL", inside=True)
if elsewhere:
    c.ConfigurableHTTPProxy.should_start = False
    c.ConfigurableHTTPProxy.api_url = elsewhere

# --- What has no variable of its own --------------------------------------------------------------
# GPUS_SPAWNER_OPTIONS: options of servers, by name, as JSON.
environment.more_options(
    "GPUS_SPAWNER_OPTIONS", c.GPUDockerSpawner, '{"pids_limit": 2048, "shm_size": "1G"}'
)

# --- Numbers for Prometheus -----------------------------------------------------------------------
# Whoever has the token in GPUS_METRICS_TOKEN_FILE (or GPUS_METRICS_TOKEN) reads the numbers of the
# Hub and of the scheduler, and nothing else (docs/howto/monitor.md). They name nobody unless
# GPUS_METRICS_SHOW_USERS=yes.
metrics_token = environment.secret("GPUS_METRICS_TOKEN", least=32)
if metrics_token:
    c.JupyterHub.services = [{"name": "prometheus", "api_token": metrics_token}]
    c.JupyterHub.load_roles = [
        {"name": "prometheus", "services": ["prometheus"], "scopes": ["read:metrics"]}
    ]

# --- The rest: service, roles, and what a Hub with a queue needs. Always last. ------------------
setup(c)

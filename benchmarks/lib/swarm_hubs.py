"""Two Hubs on one Swarm, in the same place on its overlay network: stock SwarmSpawner and ours."""

from __future__ import annotations

from benchmarks.lib.hubs import BASE, BareHub
from deploy.quickstart.trial import Site
from tests.swarm.hubs import HUB_ADDRESS, NETWORK, SwarmHub
from tests.testbed.images import stub_tag

#: an image that no node has and no registry answers for
ABSENT = "gpuspawner-test/not-there:latest"

_STOCK = """\
# from here on: SwarmSpawner as its documentation sets it up
c.JupyterHub.spawner_class = "dockerspawner.SwarmSpawner"
c.SwarmSpawner.network_name = {network!r}
c.SwarmSpawner.use_internal_ip = True
c.SwarmSpawner.allowed_images = {images!r}
c.SwarmSpawner.prefix = "stock"
# else it looks for the image on the manager, where a site with images on its workers has none
c.SwarmSpawner.cmd = ["jupyterhub-singleuser"]
c.SwarmSpawner.mem_limit = "64M"
c.SwarmSpawner.cpu_limit = 0.25
# without IPVS in the kernel no other mode works
c.SwarmSpawner.extra_endpoint_spec = {{"mode": "dnsrr"}}
"""
#: the Hub and its proxy find services by name, as in a container: with Docker's own resolver
_RESOLVER = 'mount --bind {path} /etc/resolv.conf && exec "$@"'


class StockSwarmHub(BareHub):
    """JupyterHub with SwarmSpawner, beside a Hub of ours.

    Parameters
    ----------
    beside:
        The other Hub, whose place on the network is shared.
    """

    limit = 180.0

    def __init__(self, beside: SwarmHub) -> None:
        super().__init__(
            image="",
            simulate=0,
            env={"DOCKER_HOST": beside.swarm.manager.base_url, "GPUS_BRIDGE_IP": HUB_ADDRESS},
            site=Site(address=beside.site.address),
        )
        images = {"stub": stub_tag(), "absent": ABSENT}
        lines = _STOCK.format(network=NETWORK, images=images)
        self.config.write_text(BASE + f"c.JupyterHub.bind_url = {self.base!r}\n" + lines)
        resolver = self.state / "resolv.conf"
        resolver.write_text("nameserver 127.0.0.11\n")
        shell = ("unshare", "--mount", "sh", "-c", _RESOLVER.format(path=resolver), "sh")
        self._enter = (*beside.site.enter, *shell)

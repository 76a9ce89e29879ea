"""A fake Docker engine: HTTP on a unix socket, with Docker's rules and none of its weight.

The real docker SDK and all our engine code run against it. It keeps what a test of crashes needs:
404, both kinds of 409, creates that go on when their client hung up, states, exit codes, labels,
events, volumes that are made or returned in one step, networks with their endpoints. A container
that "runs" answers on an address of its own in 127.0.0.0/8, as the stub server does.

What it does not have: processes, images' content, logs that grow, resource limits. Where it and
Docker differ in what it does have, ``tests/docker/test_fake_engine_parity.py`` fails.
"""

from tests.fake_engine.process import FakeEngine

__all__ = ["FakeEngine"]

# shellcheck shell=bash
# The testbed as run-tests and benchmarks/run use it. Source after deploy/lib.sh.
# VENV is the virtual environment whose Python runs it.

# testbed_packages: what the testbed needs of the machine.
testbed_packages() {
  can_root || die "the testbed (its own Docker engine) needs root: run  sudo $0 $*"
  # Without the keyring an Ubuntu machine could not check what debootstrap fetches.
  ensure_apt "the testbed" debootstrap debian-archive-keyring iproute2
}

# testbed_fetch_begin: make the root file systems in the background, needing no virtual environment.
testbed_fetch_begin() {
  local python
  python=$(find_python)
  step "testbed: root file systems (debootstrap, in the background; kept for later runs)"
  as_root "$python" -m tests.testbed fetch </dev/null &
  TESTBED_FETCH=$!
}

# testbed CMD: python -m tests.testbed CMD as root.
testbed() {
  as_root "$VENV/bin/python" -m tests.testbed "$@" </dev/null
}

# testbed_fetched: wait for what testbed_fetch_begin began.
testbed_fetched() {
  if [ -n "${TESTBED_FETCH:-}" ]; then
    wait "$TESTBED_FETCH" || die "the testbed's root file systems could not be made"
    TESTBED_FETCH=
  fi
}

# testbed_up: have the engine run; remember whether it is ours to stop.
testbed_up() {
  testbed_fetched
  # One run at a time: each starts from an empty engine. Python closes descriptor 8 in its children.
  exec 8>"${GPUS_TESTBED_DIR:-/var/cache/jupyterhub-gpuspawner/testbed}/run-${GPUS_TESTBED_NAME:-main}.lock"
  flock -n 8 || {
    step "testbed: waiting for another run to end (GPUS_TESTBED_NAME gives you an engine of your own)"
    flock 8
  }
  if testbed status >/dev/null 2>&1; then
    step "testbed: uses the engine that is up"
    return
  fi
  step "testbed: starting the engine"
  TESTBED_OURS=yes
  testbed up >&2
}

# testbed_down: take away what testbed_up started. For an EXIT trap: never fails, may be repeated.
testbed_down() {
  if [ -n "${TESTBED_FETCH:-}" ]; then
    kill "$TESTBED_FETCH" 2>/dev/null || true
    wait "$TESTBED_FETCH" 2>/dev/null || true
    TESTBED_FETCH=
  fi
  if [ "${TESTBED_OURS:-}" = yes ]; then
    TESTBED_OURS=
    step "testbed: stopping the engine"
    testbed down || true
  fi
  exec 8>&-
}

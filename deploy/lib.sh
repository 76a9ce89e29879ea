# shellcheck shell=bash
# Shell functions that quickstart, run-tests and benchmarks/run share. Source it with ROOT set to the
# top of the repository; the caller has `set -euo pipefail` on.
#
# Package mirrors and proxies (http_proxy, PIP_INDEX_URL, NPM_CONFIG_REGISTRY, apt's own
# configuration ...) are never set here: the environment goes through as it is.

: "${ROOT:?deploy/lib.sh needs ROOT, the top of the repository}"
GPUS_STARTED=${GPUS_STARTED:-$(date +%s)}

# step TEXT...: one line of progress on stderr with the seconds since the command began.
# Stdout stays free for results that programs read.
step() {
  printf '==> [%4d s] %s\n' "$(($(date +%s) - GPUS_STARTED))" "$*" >&2
}

# die TEXT...: say why, and end with 1.
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# can_root: true where as_root can work without a question.
can_root() {
  [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null
}

# as_root CMD ARG...: run as root, through sudo where that needs no password. Where neither works,
# print the exact command and end with 1.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif sudo -n true 2>/dev/null; then
    # -E: proxies and mirrors live in the environment.
    sudo -n -E "$@"
  else
    {
      echo "This needs root, and sudo is missing or asks for a password. Run, then start again:"
      printf '    sudo'
      printf ' %q' "$@"
      printf '\n'
    } >&2
    exit 1
  fi
}

# apt_has PACKAGE...: true when all of them are installed.
apt_has() {
  local package
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || return 1
  done
}

# ensure_apt WHY PACKAGE...: install the Debian or Ubuntu packages that are missing, with the reason shown.
ensure_apt() {
  local why=$1 package missing=()
  shift
  for package in "$@"; do
    apt_has "$package" || missing+=("$package")
  done
  [ "${#missing[@]}" -gt 0 ] || return 0
  command -v apt-get >/dev/null ||
    die "$why needs ${missing[*]}, and this machine has no apt-get: install them yourself"
  step "installing ${missing[*]} ($why)"
  # One command, so that what as_root prints for a person is complete.
  as_root sh -c "apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
apt-get install -y -qq --no-install-recommends ${missing[*]}" </dev/null >&2
}

# ensure_command COMMAND PACKAGE WHY: the package, only where the command is missing.
ensure_command() {
  command -v "$1" >/dev/null || ensure_apt "$3" "$2"
}

# python_works PROGRAM: prints its real path when it is Python >= 3.10 and can make a venv with pip.
python_works() {
  "$1" -c '
import sys
assert sys.version_info >= (3, 10)
import ensurepip, venv
print(sys.executable)' 2>/dev/null
}

# find_python: prints the path of a Python >= 3.10; installs one with apt where there is none.
# The machine's own python3 comes first; GPUS_PYTHON overrules.
find_python() {
  local name found
  for name in ${GPUS_PYTHON:+"$GPUS_PYTHON"} python3 python3.13 python3.12 python3.11 python3.10 \
    /usr/bin/python3; do
    if found=$(python_works "$name"); then
      echo "$found"
      return
    fi
  done
  # Debian splits ensurepip off into a package that carries the version in its name.
  ensure_apt "Python and its venv module" python3 python3-venv
  python_works /usr/bin/python3 || die "no Python >= 3.10 found; set GPUS_PYTHON to one"
}

# ensure_venv DIR EXTRAS HUBSPEC: a virtual environment with this package (editable), its EXTRAS
# ("test,dev" or "") and HUBSPEC (such as "jupyterhub~=6.1"). Skipped when the stamp in DIR fits.
ensure_venv() {
  local dir=$1 extras=$2 hubspec=$3 stamp python
  stamp=$({
    cat "$ROOT/pyproject.toml"
    echo "$ROOT [$extras] $hubspec -rfc3987-syntax"
  } | sha256sum | cut -d' ' -f1)
  [ -x "$dir/bin/python" ] && [ "$(cat "$dir/.stamp" 2>/dev/null)" = "$stamp" ] && return
  python=$(find_python)
  step "virtual environment $(basename "$dir") ($hubspec, $("$python" -V 2>&1))"
  (
    # Two commands started at once must not install into one folder, nor write one egg-info.
    flock 9
    [ "$(cat "$dir/.stamp" 2>/dev/null)" = "$stamp" ] && exit 0
    "$dir/bin/python" -c '' 2>/dev/null || rm -rf "$dir"
    [ -d "$dir" ] || "$python" -m venv "$dir"
    "$dir/bin/python" -m pip install -qq --disable-pip-version-check \
      -e "$ROOT${extras:+[$extras]}" "$hubspec" >&2
    # JupyterHub comes to it through jsonschema, which does without. It compiles a grammar when it is
    # imported: about 2 s of each start of a Hub, and of each recovery after one was killed.
    "$dir/bin/python" -m pip uninstall -qq -y --disable-pip-version-check rfc3987-syntax >&2
    echo "$stamp" >"$dir/.stamp"
  ) 9<"$ROOT/pyproject.toml" </dev/null
}

# ensure_proxy: configurable-http-proxy in ROOT/node_modules, first in PATH afterwards.
ensure_proxy() {
  local bin=$ROOT/node_modules/.bin
  PATH=$bin:$PATH
  export PATH
  [ -x "$bin/configurable-http-proxy" ] && return
  ensure_command node nodejs "the proxy of JupyterHub"
  ensure_command npm npm "the proxy of JupyterHub"
  step "configurable-http-proxy from npm"
  # No package.json: the repository is no node project.
  npm install --prefix "$ROOT" --no-save --no-package-lock --no-audit --no-fund --loglevel=error \
    configurable-http-proxy@5 </dev/null >&2
}

# ticking CMD ARG...: run it here, with a line every 15 s on stderr that tells how long it has been at
# work. Stdout is the command's alone: whoever reads it must not wait for the ticker.
ticking() {
  local code=0 ticker
  (
    begun=$(date +%s)
    while sleep 15; do step "still at it ($(($(date +%s) - begun)) s)"; done
  ) >&2 &
  ticker=$!
  # shellcheck disable=SC2064
  trap "kill $ticker 2>/dev/null || true" EXIT
  "$@" || code=$?
  kill "$ticker" 2>/dev/null || true
  wait "$ticker" 2>/dev/null || true
  trap - EXIT
  return "$code"
}

# quietly LOG CMD ARG...: the output into a file, its end on stderr where CMD fails.
quietly() {
  local log=$1
  shift
  "$@" >"$log" 2>&1 </dev/null && return
  printf 'failed: %s. Last lines of %s:\n' "$1" "$log" >&2
  tail -n 15 "$log" | sed 's/^/    /' >&2
  return 1
}

# bootstrap_debian SUITE FOLDER: a small Debian's root file system as a tar on stdout, made in FOLDER
# by debootstrap. Without DEBIAN_MIRROR it knows one.
bootstrap_debian() {
  local suite=$1 root=$2/bootstrap log=$2/debootstrap.log script=()
  ensure_command debootstrap debootstrap "a Debian image without a registry"
  [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] ||
    ensure_apt "to check Debian's packages" debian-archive-keyring
  # an older debootstrap: newer suites are made as Debian's development suite is
  [ -e "/usr/share/debootstrap/scripts/$suite" ] || script=(/usr/share/debootstrap/scripts/sid)
  step "making Debian $suite with debootstrap, about a minute (log $log)"
  as_root rm -rf --one-file-system "$root"
  mkdir -p "$root"
  ticking quietly "$log" as_root debootstrap --variant=minbase \
    --keyring=/usr/share/keyrings/debian-archive-keyring.gpg "$suite" "$root" "${DEBIAN_MIRROR:-}" \
    ${script[@]+"${script[@]}"}
  # the packages as downloaded are no part of the image
  as_root sh -c "rm -rf '$root'/var/cache/apt/archives/*.deb '$root'/var/lib/apt/lists/*"
  as_root tar -C "$root" --numeric-owner -c .
  as_root rm -rf --one-file-system "$root"
}

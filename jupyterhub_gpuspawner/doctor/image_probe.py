"""Runs inside an image, with the image's own Python: what a server's start would meet there.

The text of this file is what ``python -c`` gets, so it stands alone: standard library only, any
Python 3.7 or later. The last line of its output is JSON behind ``MARK``.
"""

import contextlib
import glob
import importlib.util
import json
import os
import shutil
import stat
import struct
import subprocess
import sys
import time

MARK = "jupyterhub-gpuspawner-probe:"
#: packages whose versions are told
VERSIONS = ("jupyterhub", "jupyterlab", "jupyter_server", "notebook", "ipykernel")
#: seconds for one start of the launcher
LIMIT = 60
#: of each package that is not here by itself, the size in bytes
FOLDERS = ("/root/.cache", "/opt/conda/pkgs", "/var/lib/apt/lists", "/var/cache/apt/archives")
LIBRARIES = ("libcuda.so.1", "libnvidia-ml.so.1")

# What a start of the server imports: the launcher itself, then each extension that is switched on.
# CPU seconds, so that a busy machine does not make an image worse than it is.
CHILD = """
import json, os, sys, time
def spent():
    return time.process_time()
begun = spent()
script = sys.argv[1]
sys.argv = ["jupyterhub-singleuser", "--version"]
out, sys.stdout = sys.stdout, open(os.devnull, "w")
failed, extensions, kernels = "", {}, {}
try:
    import runpy
    if script:
        runpy.run_path(script, run_name="__main__")
    else:
        runpy.run_module("jupyterhub.singleuser", run_name="__main__")
except SystemExit:
    pass
except BaseException as error:
    failed = repr(error)[:300]
launcher = spent() - begun
try:
    import jupyter_server.serverapp
    from jupyter_server.config_manager import BaseJSONConfigManager
    from jupyter_core.paths import jupyter_config_path
    on = {}
    for folder in reversed(jupyter_config_path()):
        manager = BaseJSONConfigManager(config_dir=folder, read_directory=True)
        app = manager.get("jupyter_server_config").get("ServerApp", {})
        on.update(app.get("jpserver_extensions", {}))
    for name in sorted(name for name, wanted in on.items() if wanted):
        at = spent()
        try:
            # not importlib's: Python takes the time of this one
            __import__(name)
            extensions[name] = {"seconds": spent() - at, "error": ""}
        except BaseException as error:
            extensions[name] = {"seconds": spent() - at, "error": repr(error)[:200]}
    total = spent() - begun
    from jupyter_client.kernelspec import KernelSpecManager
    for name, spec in KernelSpecManager().get_all_specs().items():
        kernels[name] = (spec["spec"].get("argv") or [""])[0]
except BaseException as error:
    failed = failed or repr(error)[:300]
    total = spent() - begun
out.write(json.dumps({"launcher": launcher, "total": total, "failed": failed,
                      "extensions": extensions, "kernels": kernels}))
"""


def versions():
    from importlib import metadata

    found = {}
    for name in VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def compiled():
    """(modules, those without a .pyc, those whose .pyc is of another file) below site-packages."""
    total, missing, stale, where = 0, 0, 0, {}
    for root in {p for p in sys.path if p.endswith(("site-packages", "dist-packages"))}:
        for folder, names, files in os.walk(root):
            names[:] = [n for n in names if n not in ("__pycache__", "tests", "test")]
            for name in files:
                if not name.endswith(".py"):
                    continue
                total += 1
                path = os.path.join(folder, name)
                state = pyc(path)
                missing += state == "missing"
                stale += state == "stale"
                if state != "good":
                    package = os.path.relpath(path, root).split(os.sep)[0]
                    where[package] = where.get(package, 0) + 1
    most = sorted(where, key=lambda name: -where[name])[:5]
    return {"modules": total, "missing": missing, "stale": stale, "most": most}


def pyc(path):
    try:
        with open(importlib.util.cache_from_source(path), "rb") as file:
            head = file.read(16)
        if head[:4] != importlib.util.MAGIC_NUMBER:
            return "missing"
        flags, mtime, size = struct.unpack("<3I", head[4:16])
        about = os.stat(path)
        if not flags and (mtime, size) != (int(about.st_mtime) & 0xFFFFFFFF, about.st_size):
            return "stale"
        return "good"
    except (OSError, struct.error):
        return "missing"


def launcher():
    """The launcher, and the same again where it is a script of Python's."""
    script = shutil.which("jupyterhub-singleuser") or ""
    try:
        with open(script, "rb") as file:
            first = file.readline()
    except OSError:
        return script, ""
    return script, script if first.startswith(b"#!") and b"python" in first else ""


def start(script):
    """Two starts; the second, whose files are in memory, counts."""
    found = {"failed": "not run"}
    for _ in range(2):
        begun = time.monotonic()
        try:
            ran = subprocess.run(
                [sys.executable, "-X", "importtime", "-c", CHILD, script],
                capture_output=True,
                timeout=LIMIT,
            )
        except subprocess.TimeoutExpired:
            return {"failed": f"no end after {LIMIT} s"}
        wall = time.monotonic() - begun
        try:
            found = json.loads(ran.stdout.decode())
        except ValueError:
            said = ran.stderr.decode("utf-8", "replace").strip().splitlines()
            return {"failed": (said or [f"exit code {ran.returncode}"])[-1][:300]}
        found["wall"] = wall
        share = min(1.0, found.get("total", wall) / wall) if wall else 1.0
        found["packages"] = packages(ran.stderr.decode("utf-8", "replace"), share)
    return found


def packages(text, share):
    """Seconds of each package's own modules, the slowest first."""
    own = {}
    for line in text.splitlines():
        parts = line.replace("import time:", "").split("|")
        if len(parts) == 3 and parts[0].strip().isdigit():
            name = parts[2].strip().split(".")[0]
            own[name] = own.get(name, 0.0) + int(parts[0]) * 1e-6 * share
    slowest = sorted(own, key=lambda name: -own[name])[:12]
    return {name: round(own[name], 3) for name in slowest}


def size(path):
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def driver_libraries():
    """Libraries of NVIDIA's driver that are the image's own, and no stubs."""
    found = []
    for folder in ("/usr/lib", "/usr/lib64", "/usr/lib/*-linux-gnu", "/usr/local/nvidia/lib*"):
        for name in LIBRARIES:
            for path in glob.glob(os.path.join(folder, name)):
                if os.path.exists(path) and os.path.getsize(path):
                    found.append(path)
    return sorted(set(found))


def secrets(home):
    """Files that give rights and would be everybody's."""
    names = (".netrc", ".git-credentials", ".docker/config.json", ".aws/credentials", ".pypirc")
    found = [os.path.join(home, n) for n in names if os.path.exists(os.path.join(home, n))]
    for path in glob.glob(os.path.join(home, ".ssh", "id_*")):
        if not path.endswith(".pub"):
            found.append(path)
    return found


def set_user_id():
    """Programs that make a user root."""
    found = []
    for folder in ("/bin", "/usr/bin", "/usr/local/bin", "/sbin", "/usr/sbin"):
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        for name in names:
            path = os.path.realpath(os.path.join(folder, name))
            try:
                mode = os.stat(path).st_mode
            except OSError:
                continue
            if mode & stat.S_ISUID and os.stat(path).st_uid == 0:
                found.append(path)
    return sorted(set(found))


def look(home_path):
    script, python_script = launcher()
    home = os.path.expanduser("~")
    spec = importlib.util.find_spec
    return {
        "python": ".".join(map(str, sys.version_info[:3])),
        "prefix": sys.prefix,
        "uid": os.getuid(),
        "home": home,
        "home_writable": os.access(home, os.W_OK),
        "home_exists": os.path.isdir(home_path),
        "home_bytes": size(home_path),
        "launcher": script,
        "versions": versions(),
        "rfc3987": spec("rfc3987_syntax") is not None,
        "compiled": compiled(),
        "start": start(python_script),
        "bytes_left": {path: size(path) for path in FOLDERS},
        "driver_libraries": driver_libraries(),
        "secrets": secrets(home),
        "sudo": shutil.which("sudo") or "",
        "set_user_id": set_user_id(),
        "condarc": condarc(),
    }


def condarc():
    """Text of conda's own settings, where there are any."""
    text = ""
    for path in (os.path.join(sys.prefix, ".condarc"), os.path.expanduser("~/.condarc")):
        try:
            with open(path) as file:
                text += file.read(4000)
        except (OSError, UnicodeDecodeError):
            pass
    return text


if __name__ == "__main__":
    sys.stdout.write("\n" + MARK + json.dumps(look(sys.argv[1])) + "\n")

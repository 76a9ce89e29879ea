"""Runs inside an image's build: one environment below /opt/envs, its kernel, its lock.

The text of this file goes into the build, with py-rattler and the image's own Python.
``install_environment.py WISH [LOCK]``: both are JSON.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile

ROOT = "/opt/envs"
KERNELS = "/usr/local/share/jupyter/kernels"
#: fields of a record that conda's own index.json has
_BYTES = ("sha256", "md5")


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def fail(text):
    say("error: " + text)
    sys.exit(1)


def records_of(lock):
    """The packages of a lock, to be fetched from exactly where they were."""
    import rattler

    found = []
    for entry in lock["conda"]:
        fields = {k: v for k, v in entry.items() if k not in ("url", "fn", "channel")}
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(fields, file)
            file.flush()
            record = rattler.PackageRecord.from_index_json(
                file.name,
                size=fields.get("size"),
                **{name: fields[name] for name in _BYTES if fields.get(name)},
            )
        found.append(
            rattler.RepoDataRecord(record, entry["fn"], entry["url"], entry.get("channel") or "")
        )
    return found


async def solve(wish):
    import rattler

    virtual = [p.into_generic() for p in rattler.VirtualPackage.detect()]
    virtual = [p for p in virtual if p.name.source != "__cuda"]
    if wish["cuda"]:
        name, cuda = rattler.PackageName("__cuda"), rattler.Version(wish["cuda"])
        virtual.append(rattler.GenericVirtualPackage(name, cuda, rattler.BuildString("0")))
    say("solving: " + ", ".join(wish["conda"]))
    try:
        return await rattler.solve(
            [rattler.Channel(url) for url in wish["channels"]],
            wish["conda"],
            virtual_packages=virtual,
            add_pip_as_python_dependency=False,
        )
    except Exception as error:  # noqa: BLE001 - whatever it is, it ends the build with its words
        fail(f"the conda part can't be had:\n{error}")


async def conda(wish, lock, prefix):
    import rattler

    records = records_of(lock) if lock else await solve(wish)
    say(f"installing {len(records)} conda packages")
    try:
        await rattler.install(records, prefix, show_progress=False, execute_link_scripts=False)
    except Exception as error:  # noqa: BLE001 - whatever it is, it ends the build with its words
        fail(f"the conda part can't be installed:\n{error}")
    return records


def entry_of(record):
    """What a lock keeps of a package: enough to fetch, check and install it again."""
    fields = (
        json.loads(record.package_record.to_json()) if hasattr(record, "package_record") else {}
    )
    fields = fields or json.loads(record.to_json())
    return {**fields, "url": record.url, "fn": record.file_name, "channel": record.channel}


def pip(wish, lock, prefix):
    """The pip section; returns the lines that pin it."""
    if not wish["pip"]:
        return []
    base = [prefix + "/bin/python", "-m", "pip", "install", "--no-cache-dir", "--no-compile"]
    base += ["--disable-pip-version-check", "--root-user-action=ignore", "--progress-bar=off"]
    with tempfile.TemporaryDirectory() as folder:
        report, wanted = folder + "/report.json", folder + "/wanted.txt"
        lines = lock["pip"] if lock else wish["pip"]
        with open(wanted, "w") as file:
            file.write("\n".join(lines) + "\n")
        exact = ["--no-deps", "--require-hashes"] if lock else []
        say("installing the pip section: " + ", ".join(wish["pip"]))
        ran = subprocess.run([*base, *exact, "--report", report, "-r", wanted])
        if ran.returncode:
            fail("the pip section can't be installed: see the lines above")
        if lock:
            return lines
        with open(report) as file:
            return sorted(pin(one) for one in json.load(file)["install"])


def pin(one):
    """``name==version --hash=sha256:…`` of an entry of pip's report; no hash where none can be."""
    name, version = one["metadata"]["name"], one["metadata"]["version"]
    archive = one["download_info"].get("archive_info", {})
    hashes = dict(archive.get("hashes") or {})
    # where the index names no hash, pip computes one; pip 23.0 tells it by the older name only
    kind, equals, value = (archive.get("hash") or "").partition("=")
    if equals:
        hashes.setdefault(kind, value)
    return f"{name}=={version}" + "".join(f" --hash={k}:{v}" for k, v in sorted(hashes.items()))


def kernel(name, prefix):
    """Show the environment in JupyterLab."""
    check = subprocess.run(
        [prefix + "/bin/python", "-c", "import ipykernel, sys; print(sys.version)"]
    )
    if check.returncode:
        fail("the environment has no ipykernel that works: see the lines above")
    folder = os.path.join(KERNELS, name)
    os.makedirs(folder, exist_ok=True)
    spec = {
        "argv": [prefix + "/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": name,
        "language": "python",
        "env": {"PATH": prefix + "/bin:${PATH}", "CONDA_PREFIX": prefix},
        "metadata": {"debugger": True},
    }
    with open(os.path.join(folder, "kernel.json"), "w") as file:
        json.dump(spec, file, indent=1)


def main(wish_path, lock_path=None):
    with open(wish_path) as file:
        wish = json.load(file)
    lock = None
    if lock_path:
        with open(lock_path) as file:
            lock = json.load(file)
    prefix = os.path.join(ROOT, wish["name"])
    records = asyncio.run(conda(wish, lock, prefix))
    pinned = pip(wish, lock, prefix)
    kernel(wish["name"], prefix)
    say("compiling")
    libraries = [os.path.join(prefix, "lib")]
    skip = r"/tests?/|lib2to3/tests|/bad_"
    subprocess.run(
        [prefix + "/bin/python", "-m", "compileall", "-q", "-j0", "-x", skip, *libraries]
    )
    entries = sorted((entry_of(one) for one in records), key=lambda one: one["url"])
    made = {"version": 1, "environment": wish["digest"], "conda": entries, "pip": pinned}
    with open(os.path.join(prefix, "gpus-lock.json"), "w") as file:
        json.dump(made, file, indent=1, sort_keys=True)
        file.write("\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

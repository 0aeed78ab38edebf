"""Unpacks the newest Mesa of Debian and Vulkan's validation layers, with all that they need, their own C library among it, into a
folder: nothing is installed.

    python3 scripts/newest_mesa.py FOLDER

The index is checked against Debian's signature, the packages against the index.
"""

import hashlib
import lzma
import pathlib
import subprocess
import sys
import urllib.request

MIRROR = "http://deb.debian.org/debian"
SUITE = "sid"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
WANTED = ["mesa-vulkan-drivers", "libvulkan1", "spirv-tools", "vulkan-validationlayers"]


def fetch(path, sha256=None):
    with urllib.request.urlopen(f"{MIRROR}/{path}", timeout=60) as answer:
        data = answer.read()
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        sys.exit(f"{path} is not what Debian's index says")
    return data


def index():
    """Packages by their names, each a dictionary of its fields; and what is provided by which."""
    signed = fetch(f"dists/{SUITE}/InRelease")
    checked = subprocess.run(["gpgv", "--keyring", KEYRING, "--output", "-"], input=signed, capture_output=True)
    if checked.returncode != 0:
        sys.exit(f"the signature of {SUITE} is not good: {checked.stderr.decode()}")
    name = "main/binary-amd64/Packages.xz"
    lines = [line.split() for line in checked.stdout.decode().split("SHA256:")[1].splitlines()]
    sha256 = next(words[0] for words in lines if len(words) == 3 and words[2] == name)
    packages, provided = {}, {}
    for entry in lzma.decompress(fetch(f"dists/{SUITE}/{name}", sha256)).decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in entry.splitlines() if ": " in line and line[0] != " ")
        if "Package" in fields:
            packages[fields["Package"]] = fields
            for other in names(fields.get("Provides", "")):
                provided[other] = fields["Package"]
    return packages, provided


def names(relation):
    """The first alternative of each, without versions and architectures."""
    parts = (part.split("|")[0].split("(")[0].strip() for part in relation.split(","))
    return [part.split(":")[0] for part in parts if part]


def needed(packages, provided):
    found, open_ = {}, list(WANTED)
    while open_:
        name = open_.pop()
        name = name if name in packages else provided.get(name)
        if name is None or name in found:
            continue
        found[name] = packages[name]
        for field in ("Depends", "Pre-Depends"):
            open_ += names(packages[name].get(field, ""))
    return found


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, fields in sorted(needed(*index()).items()):
        package = folder / "package.deb"
        package.write_bytes(fetch(fields["Filename"], fields["SHA256"]))
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
        package.unlink()
        print(f"{name} {fields['Version']}", file=sys.stderr)


main()

"""Writes what the program is made of as a CycloneDX bill of materials, a function of Cargo.toml and Cargo.lock alone: no time, no
number by chance, no folder of this machine.

    python3 scripts/bill_of_materials.py FILE

Crates that only take part in building (macros, build scripts and what these use) have the scope "excluded": they are not in
the program. Those of all platforms are listed.
"""

import json
import pathlib
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def reached(start, edges):
    """All that can be reached, the start among them."""
    found, open_ = set(start), list(start)
    while open_:
        for other in edges(open_.pop()):
            if other not in found:
                found.add(other)
                open_.append(other)
    return found


def component(package, linked, checksums):
    described = {
        "type": "library",
        "bom-ref": purl(package),
        "name": package["name"],
        "version": package["version"],
        "scope": "required" if package["id"] in linked else "excluded",
        "purl": purl(package),
    }
    if package["license"]:
        # An old way to write a choice.
        expression = package["license"].replace(" / ", "/").replace("/", " OR ")
        described["licenses"] = [{"expression": expression}]
    if checksum := checksums.get((package["name"], package["version"])):
        described["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if (package["repository"] or "").startswith("https://"):
        described["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return described


def main(path):
    told = subprocess.run(
        ["cargo", "metadata", "--locked", "--format-version", "1"], cwd=ROOT, capture_output=True, check=True
    )
    metadata = json.loads(told.stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    checksums = {(p["name"], p["version"]): p["checksum"] for p in lock["package"] if "checksum" in p}

    def is_macro(id_):
        return any("proc-macro" in target["kind"] for target in packages[id_]["targets"])

    def edges(id_, kinds):
        deps = nodes[id_]["deps"]
        return [d["pkg"] for d in deps if any(kind["kind"] in kinds for kind in d["dep_kinds"])]

    top = metadata["resolve"]["root"]
    linked = reached([top], lambda id_: [d for d in edges(id_, [None]) if not is_macro(d)])
    all_ = reached([top], lambda id_: edges(id_, [None, "build"]))
    own = {key: value for key, value in component(packages[top], linked, checksums).items() if key != "scope"}
    by_name = sorted(all_ - {top}, key=lambda id_: purl(packages[id_]))
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {**own, "type": "application"}},
        "components": [component(packages[id_], linked, checksums) for id_ in by_name],
        "dependencies": [
            {
                "ref": purl(packages[id_]),
                "dependsOn": sorted({purl(packages[d]) for d in edges(id_, [None, "build"])}),
            }
            for id_ in [top, *by_name]
        ],
    }
    pathlib.Path(path).write_text(json.dumps(bill, indent=1, ensure_ascii=False) + "\n")
    inside = sum(c["scope"] == "required" for c in bill["components"])
    print(f"figure supply.bill: {inside} crates in the program on some platform, {len(by_name) - inside} that build it")


main(*sys.argv[1:])

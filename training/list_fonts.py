"""Write fonts.tsv: every font file of the Debian packages named in packages.tsv, with its family, licence and split.

    python list_fonts.py            # needs the packages installed (apt-get install, see README.md)
"""
import csv
import subprocess
from pathlib import Path

from PIL import ImageFont

here = Path(__file__).parent
rows = []
for p in csv.DictReader(open(here / "packages.tsv"), delimiter="\t"):
    version = subprocess.run(["dpkg-query", "-W", "-f=${Version}", p["package"]], capture_output=True, text=True, check=True).stdout
    listing = subprocess.run(["dpkg", "-L", p["package"]], capture_output=True, text=True, check=True).stdout
    files = sorted(f for f in listing.split() if f.endswith((".ttf", ".otf")))
    names = {Path(f).stem for f in files if f.endswith(".otf")}
    for f in files:
        if f.endswith(".ttf") and Path(f).stem in names:
            continue  # the same face in both formats
        try:
            family, style = ImageFont.truetype(f, 20).getname()
        except OSError:
            continue
        rows.append((p["split"], p["package"], version, p["licence"], family or "", style or "", f.removeprefix("/usr/share/fonts/")))
with open(here / "fonts.tsv", "w") as out:
    print("split", "package", "version", "licence", "family", "style", "file", sep="\t", file=out)
    for r in rows:
        print(*r, sep="\t", file=out)
print(len(rows), "files")

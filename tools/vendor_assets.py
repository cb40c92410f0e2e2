"""Copies the pinned browser assets and the tokenizer's vocabulary out of their npm tarballs and checks the sha512 of
each.

The result is committed, so installing and running Portico needs neither Node nor a network; `--check` hashes it again.

    python tools/vendor_assets.py [--tarballs DIR]   build (fetches with `npm pack` whatever DIR does not contain)
    python tools/vendor_assets.py --check            compare the committed files with the manifest

`.gz` files are always written. `.br` files are written only if the `brotli` package can be imported. Portico itself
never imports it; it serves the files that it finds.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import hashlib
import json
import lzma
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
STATIC = ROOT / "app" / "static"
VENDOR = STATIC / "vendor"
LOCK = ROOT / "tools" / "vendor.lock.json"
MANIFEST = VENDOR / "manifest.json"
VOCABULARY = ROOT / "app" / "providers" / "vocabulary"
CATALOGUE = ROOT / "app" / "workflows" / "model_catalogue"
NOTICE = ROOT / "THIRD_PARTY.md"
PACKED = {".css", ".js", ".svg"}

Package = dict[str, Any]


def folder_of(package: Package) -> Path:
    """`@patternfly/patternfly` goes to `vendor/patternfly-6.6.1`: the scope would add nothing."""
    return VENDOR / f"{package['name'].rsplit('/', 1)[-1]}-{package['version']}"


def tarball_name(package: Package) -> str:
    return f"{package['name'].lstrip('@').replace('/', '-')}-{package['version']}.tgz"


def tarball(package: Package, shelf: Path) -> Path:
    path = shelf / tarball_name(package)
    if not path.exists():
        spec = f"{package['name']}@{package['version']}"
        subprocess.run(["npm", "pack", "--silent", "--pack-destination", str(shelf), spec], check=True)
    digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    if f"sha512-{digest}" != package["integrity"]:
        raise SystemExit(f"{path}: sha512-{digest} differs from the lock file, {package['integrity']}")
    return path


def unpack(path: Path, into: Path) -> Path:
    with tarfile.open(path) as archive:
        archive.extractall(into, filter="data")
    return into / "package"


# -- the stylesheet ----------------------------------------------------------------------------------------------


def rules(css: str) -> Iterator[tuple[str, str | None]]:
    """Yields (prelude, body) for each top-level rule of a stylesheet. A statement such as @import has no body."""
    depth, start, prelude = 0, 0, ""
    for position, character in enumerate(css):
        if character == "{":
            if depth == 0:
                prelude, start = css[start:position].strip(), position + 1
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                yield prelude, css[start:position].strip()
                start = position + 1
        elif character == ";" and depth == 0:
            yield css[start:position].strip(), None
            start = position + 1


def selectors(prelude: str) -> list[str]:
    """Splits a selector list at the commas that are not inside brackets."""
    parts, depth, start = [], 0, 0
    for position, character in enumerate(prelude):
        depth += (character in "([") - (character in ")]")
        if character == "," and depth == 0:
            parts.append(prelude[start:position].strip())
            start = position + 1
    return [*parts, prelude[start:].strip()]


def keep_selectors(css: str, is_kept: Callable[[str], bool]) -> str:
    """Keeps the selectors that `is_kept` accepts, and at-rules with anything left in them."""
    result = []
    for prelude, body in rules(css):
        if body is None:
            continue
        if prelude.startswith(("@media", "@supports", "@container", "@layer")):
            inner = keep_selectors(body, is_kept)
            if inner:
                result.append(f"{prelude}{{{inner}}}")
        elif prelude.startswith("@"):
            if not prelude.startswith("@font-face") and is_kept(prelude):
                result.append(f"{prelude}{{{body}}}")
        else:
            left = [one for one in selectors(prelude) if is_kept(one)]
            if left:
                result.append(f"{','.join(left)}{{{body}}}")
    return "".join(result)


def squeeze(css: str) -> str:
    """Removes comments and superfluous white space. No string in PatternFly contains either."""
    css = re.sub(r"/\*.*?\*/", "", css, flags=re.S)
    css = re.sub(r"\s+", " ", css)
    css = re.sub(r"\s*([{};,])\s*", r"\1", css)
    return re.sub(r"(?<=[\w-]): ", ":", css).replace(";}", "}").strip()


def font_faces(fonts: list[list[str]]) -> str:
    return "".join(
        f'@font-face{{font-family:"{family}";font-style:normal;font-weight:{weight};'
        f'src:url("{file}") format("woff2");font-display:swap}}'
        for family, weight, file in fonts
    )


def build_stylesheet(source: Path, into: Path, plan: dict[str, Any]) -> None:
    """Writes one stylesheet for everyone, and the high-contrast tokens separately for those whose system asks for
    them."""
    drop = re.compile("|".join(plan["drop"]))
    contrast = re.compile(plan["contrast"])

    def without_negation(selector: str) -> str:
        return re.sub(r":not\([^()]*\)", "", selector)

    def everybody(selector: str) -> bool:
        positive = without_negation(selector)
        return not drop.search(positive) and not contrast.search(positive)

    def asked_for(selector: str) -> bool:
        positive = without_negation(selector)
        return bool(contrast.search(positive)) and not drop.search(positive)

    css = squeeze("".join((source / part).read_text() for part in [plan["base"], *plan["parts"]]))
    note = f"/* PatternFly, MIT licence, selected by tools/vendor_assets.py from {into.name} */\n"
    (into / "patternfly.css").write_text(note + font_faces(plan["fonts"]) + keep_selectors(css, everybody) + "\n")
    (into / "patternfly-contrast.css").write_text(note + keep_selectors(css, asked_for) + "\n")


# -- the icons ---------------------------------------------------------------------------------------------------


def build_sprite(source: Path, names: list[str]) -> None:
    """Turns each icon into a <symbol> that takes its colour from the surrounding text."""
    symbols = []
    for name in sorted(names):
        drawing = (source / "icons" / f"{name}.svg").read_text()
        inner = re.sub(r"\s+", " ", drawing[drawing.index(">", drawing.index("<svg")) + 1 : drawing.rindex("</svg>")])
        symbols.append(
            f'<symbol id="{name}" viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2" '
            f'stroke-linecap="round" stroke-linejoin="round">{inner.strip().replace(" />", "/>")}</symbol>'
        )
    text = "\n".join(['<svg xmlns="http://www.w3.org/2000/svg">', *symbols, "</svg>"])
    (STATIC / "icons.svg").write_text(text + "\n")


# -- the vocabulary ----------------------------------------------------------------------------------------------


def build_vocabulary(source: Path, plan: dict[str, str]) -> None:
    """Writes the encoding's ranks as the lines that tiktoken reads. They must have the hash that tiktoken pins."""
    encoding = plan["encoding"]
    ranks = json.loads((source / "encoders" / f"{encoding}.json").read_text())["bpe_ranks"]
    lines = []
    for row in filter(None, ranks.split("\n")):
        _, first, *tokens = row.split(" ")
        lines += [f"{token} {rank}\n" for rank, token in enumerate(tokens, int(first))]
    content = "".join(lines).encode()
    digest = hashlib.sha256(content).hexdigest()
    if digest != plan["sha256"]:
        raise SystemExit(f"{encoding}: sha256 {digest} is not what the lock says, {plan['sha256']}")
    shutil.rmtree(VOCABULARY, ignore_errors=True)
    VOCABULARY.mkdir()
    (VOCABULARY / f"{encoding}.tiktoken.xz").write_bytes(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))
    # The tarball names its licence in package.json but does not contain its text.
    (VOCABULARY / "LICENSE").write_text("MIT License\n\nCopyright (c) 2022 OpenAI, Shantanu Jain\n" + MIT)


# -- packing, notice, manifest -----------------------------------------------------------------------------------


def pack(path: Path) -> None:
    """Writes the compressed copies. A fixed time in the gzip header makes every build produce the same bytes."""
    content = path.read_bytes()
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(content, 9, mtime=0))
    try:
        import brotli  # type: ignore[import-untyped]
    except ImportError:
        return
    path.with_name(path.name + ".br").write_bytes(brotli.compress(content, quality=11))


def write_notice(packages: list[Package]) -> None:
    lines = [
        "# Third-party files in this repository",
        "",
        "Written by `tools/vendor_assets.py` from `tools/vendor.lock.json`. Each folder holds the licence of its package.",
        "",
        "| Package | Version | Licence | Where |",
        "|---|---|---|---|",
    ]
    for package in packages:
        where = folder_of(package).relative_to(ROOT).as_posix()
        if package["name"] == "tiktoken":
            where = VOCABULARY.relative_to(ROOT).as_posix() + " (its vocabulary, with the licence of tiktoken)"
        if package["name"] == "lucide-static":
            where += " (drawn into `app/static/icons.svg`)"
        lines.append(f"| {package['name']} | {package['version']} | {package['licence']} | {where} |")
    source = json.loads((CATALOGUE / "models.json").read_text())["source"]
    where = CATALOGUE.relative_to(ROOT).as_posix() + " (its price list, cut down by `tools/model_catalogue.py`)"
    lines.append(f"| {source['name']} | {source['version']} | {source['licence']} | {where} |")
    lines += ["", "Red Hat Text, Display and Mono come with PatternFly under the SIL Open Font License 1.1.", ""]
    NOTICE.write_text("\n".join(lines))


def committed() -> dict[str, str]:
    files = [path for path in VENDOR.rglob("*") if path.is_file() and path != MANIFEST]
    files += sorted(STATIC.glob("icons.svg*"))
    hashes = {
        path.relative_to(STATIC).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)
    }
    for path in sorted(VOCABULARY.glob("*")):
        hashes[path.relative_to(ROOT).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return hashes


MIT = """
Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""


def build(shelf: Path) -> None:
    lock = json.loads(LOCK.read_text())
    shutil.rmtree(VENDOR, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        for package in lock["packages"]:
            source = unpack(tarball(package, shelf), Path(scratch) / tarball_name(package))
            if package["name"] == "tiktoken":
                build_vocabulary(source, lock["vocabulary"])
                continue
            into = folder_of(package)
            into.mkdir(parents=True)
            for original, name in package["files"].items():
                shutil.copyfile(source / original, into / name)
            if package["name"] == "@patternfly/patternfly":
                build_stylesheet(source, into, lock["stylesheet"])
                # The tarball names its licence in package.json but does not contain its text.
                (into / "LICENSE").write_text("MIT License\n\nCopyright (c) Red Hat, Inc.\n" + MIT)
            if package["name"] == "lucide-static":
                build_sprite(source, lock["icons"])
    pack_all()
    write_notice(lock["packages"])
    MANIFEST.write_text(json.dumps(committed(), indent=1) + "\n")


def pack_all() -> None:
    for path in [*sorted(VENDOR.rglob("*")), STATIC / "icons.svg"]:
        if path.is_file() and path.suffix in PACKED:
            pack(path)


def check() -> int:
    known: dict[str, str] = json.loads(MANIFEST.read_text())
    current = committed()
    wrong = sorted(name for name in known.keys() | current.keys() if known.get(name) != current.get(name))
    for name in wrong:
        print(f"{name}: {'missing' if name not in current else 'unknown' if name not in known else 'changed'}")
    return 1 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare the committed files with the manifest")
    parser.add_argument("--tarballs", type=Path, help="a folder with tarballs fetched before")
    options = parser.parse_args()
    if options.check:
        return check()
    with tempfile.TemporaryDirectory() as scratch:
        build(options.tarballs or Path(scratch))
    return 0


if __name__ == "__main__":
    sys.exit(main())

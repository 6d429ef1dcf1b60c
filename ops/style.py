"""Check what ruff does not: names of files and of what they define, length, one name for one class, docstrings' verbs.

    python ops/style.py            # prints each finding, exits 1 if there is one

`make lint` runs it. A finding that is right as it is goes into ops/style.toml with its reason; an excuse that nothing
needs any more is a finding too.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
MAX_LINES: Final = 400
CONFIG: Final = tomllib.loads((ROOT / "ops" / "style.toml").read_text())
VAGUE, VAGUE_IDENTIFIERS, VERBS, FORMS = (
    frozenset(CONFIG["words"][kind]) for kind in ("vague", "vague_identifiers", "verbs", "forms")
)
DISTRIBUTIONS: Final = ("worker/client/", "worker/simulator/", "worker/lab/")
"""These share no names with the rest: each is used, or could be, without the rest of Vigil."""


def has_verb(sentence: str) -> bool:
    """Return whether a verb of the lists in ops/style.toml is in the sentence, as an order or in the third person."""
    words = re.findall(r"[a-z]+", re.sub(r"`[^`]*`", "", sentence.lower()))
    return any(
        word in FORMS
        or word.removesuffix("s") in VERBS
        or word.removesuffix("es") in VERBS
        or (word.endswith("ies") and word[:-3] + "y" in VERBS)
        for word in words
    )


def files() -> list[Path]:
    """Return every Python file that git knows or could know."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],  # noqa: S607
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    return [ROOT / name for name in listed if (ROOT / name).is_file()]


def findings(paths: list[Path]) -> Iterator[tuple[str, str, str]]:
    """Yield (rule, what it is about, sentence) for everything that breaks a rule."""
    classes: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in paths:
        name, text = path.relative_to(ROOT).as_posix(), path.read_text()
        if vague := VAGUE & set(path.stem.split("_")):
            yield "file-name", name, f"{name}: the name has {', '.join(sorted(vague))}; say what the file is about"
        if (lines := text.count("\n")) > MAX_LINES:
            yield "length", name, f"{name}: {lines} lines, at most {MAX_LINES}; split it along its subjects"
        tree = ast.parse(text)
        yield from _identifiers(name, tree)
        if name.startswith(("worker/", "api/")):
            yield from _docstrings(name, tree, classes)
    for (_, title), places in classes.items():
        if len(places) > 1:
            yield "class-name", title, f"{title}: {len(places)} public classes have this name: {', '.join(places)}"


def _identifiers(name: str, tree: ast.Module) -> Iterator[tuple[str, str, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=defined) | ast.AsyncFunctionDef(name=defined) | ast.ClassDef(name=defined):
                pass
            case ast.arg(arg=defined) | ast.Name(id=defined, ctx=ast.Store()):
                pass
            case ast.Attribute(attr=defined, ctx=ast.Store()) | ast.alias(asname=str(defined)):
                pass
            case _:
                continue
        if defined.strip("_").lower() in VAGUE_IDENTIFIERS:
            yield "identifier", f"{name}:{defined}", f"{name}:{node.lineno} {defined}: a vague name; say what it holds"


def _docstrings(
    name: str, tree: ast.Module, classes: dict[tuple[str, str], list[str]]
) -> Iterator[tuple[str, str, str]]:
    distribution = next((part for part in DISTRIBUTIONS if name.startswith(part)), "")
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            classes[distribution, node.name].append(name)
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
            continue
        if (doc := ast.get_docstring(node)) and not has_verb(re.split(r"(?<=[.;:])\s", doc, maxsplit=1)[0]):
            first = doc.split("\n", 1)[0]
            yield "verb", f"{name}:{node.name}", f"{name}:{node.lineno} {node.name}: no verb in {first!r}"


def main() -> int:
    """Print the findings and return the exit code."""
    excuses = {rule: names for rule, names in CONFIG.items() if rule != "words"}
    found, used = [], set()
    for rule, about, sentence in findings(files()):
        if about in excuses.get(rule, {}):
            used.add((rule, about))
        else:
            found.append(sentence)
    found += [
        f"ops/style.toml: nothing needs the excuse {rule}.{about!r} any more"
        for rule, names in excuses.items()
        for about in names
        if (rule, about) not in used
    ]
    print("\n".join(found) if found else "style: no findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

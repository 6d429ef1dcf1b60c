"""Write src/schema.ts anew from the API's OpenAPI document: `make typescript`.

    .venv/bin/python ops/clients/typescript/generate.py [FOLDER_WITH_NODE_MODULES]

The first line of the file has the digest of the document, by which a test sees whether the two still match.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from api.app import openapi_document

HERE = Path(__file__).parent
OPTIONS = ("--default-non-nullable=false", "--empty-objects-unknown")
"""What has a default may be left out of a request, and an object without named members may have any."""
SCHEMA = HERE / "src" / "schema.ts"


def document() -> str:
    """Return the document in a form that depends on its contents only."""
    return json.dumps(openapi_document(), indent=1, sort_keys=True)


def head(text: str) -> str:
    """Return the first line of the file that is made from this document."""
    return f"// Made by `make typescript` from the OpenAPI document {hashlib.sha256(text.encode()).hexdigest()}."


def main(modules: Path) -> int:
    """Generate the file; return the exit status."""
    text = document()
    program = modules / "node_modules" / ".bin" / "openapi-typescript"
    if not program.exists():
        print(f"{program} is missing; run `npm ci` in {modules} first.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "openapi.json", Path(folder) / "schema.ts"
        source.write_text(text)
        words = [program, source, "-o", target, *OPTIONS]
        done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            print(done.stderr or done.stdout, file=sys.stderr)
            return 1
        SCHEMA.write_text(f"{head(text)}\n{target.read_text()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE))

"""Install what the browser and client tests need: Node with npm, Chromium with its driver.

    python scripts/test_tools.py

What is there is left as it is. What is missing is installed with apt where that is possible; else
this says what to install, and fails.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

# By the program that must be found; Debian's npm does not always come with its nodejs.
PACKAGES = {
    "node": "nodejs",
    "npm": "npm",
    "chromium": "chromium",
    "chromedriver": "chromium-driver",
}
# What Vite and graphql-codegen ask for.
NODE_VERSION_MIN = (20, 19)


def main() -> int:
    """Install what is missing, then check that all is there."""
    missing = [name for name in PACKAGES if shutil.which(name) is None]
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        install([PACKAGES[name] for name in missing])
        missing = [name for name in PACKAGES if shutil.which(name) is None]
    for name in missing:
        print(f"The tests need {name}: install {PACKAGES[name]}.", file=sys.stderr)
    return 1 if missing or not is_node_new_enough() else 0


def install(packages: list[str]) -> None:
    """Install Debian packages."""
    print(f"installing {', '.join(packages)} for the tests", file=sys.stderr)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    step = ["install", "-y", "-qq", "--no-install-recommends", *packages]
    for command in (["update", "-qq"], step):
        subprocess.run(["apt-get", *command], check=False, stdout=sys.stderr, env=environment)


def is_node_new_enough() -> bool:
    """Tell whether Node's version will do, saying so when not."""
    said = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout
    found = re.match(r"v(\d+)\.(\d+)", said)
    if found and (int(found[1]), int(found[2])) >= NODE_VERSION_MIN:
        return True
    least = ".".join(map(str, NODE_VERSION_MIN))
    print(f"The tests need Node {least} or newer; this is {said.strip()}.", file=sys.stderr)
    return False


if __name__ == "__main__":
    sys.exit(main())

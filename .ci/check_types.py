"""Runs mypy on the packages of this repository and on a user's program; arguments go to mypy.

mypy reads the packages through the links that `packages.py` makes; the paths in its messages are those of the files.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from packages import ROOT, TREE, link_packages

link_packages()
command = [sys.executable, "-m", "mypy", "-p", "wildfern", "-m", "typed_user", *sys.argv[1:]]
environment = {**os.environ, "MYPYPATH": os.pathsep.join([str(TREE), str(ROOT / "tests")])}
run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
# The file itself in place of the link to it.
links = re.compile(rf"^{re.escape(os.path.relpath(TREE, ROOT))}/[^:\n]+|^{re.escape(str(TREE))}/[^:\n]+", re.MULTILINE)
print(links.sub(lambda link: (ROOT / link[0]).resolve().relative_to(ROOT).as_posix(), run.stdout), end="")
print(run.stderr, end="", file=sys.stderr)
sys.exit(run.returncode)

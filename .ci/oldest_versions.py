"""Pins each requirement of setup.cfg to its lower bound where that version can be installed; says which cannot."""

import configparser
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement


def main() -> None:
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[1] / "setup.cfg")
    wanted = setup["options"]["install_requires"] + setup["options.extras_require"]["test"]
    for line in sorted(set(filter(None, wanted.splitlines()))):
        requirement = Requirement(line)
        bound = next(str(part.version) for part in requirement.specifier if part.operator == ">=")
        pin = f"{requirement.name}=={bound}"
        found = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--quiet", pin]
        if subprocess.run(found, capture_output=True, check=False).returncode == 0:
            print(pin)
        else:
            print(f"{pin} cannot be installed here: the newest that is allowed is taken", file=sys.stderr)


if __name__ == "__main__":
    main()

"""Prints what pip-audit has found; status 1 where there is something."""

import json
import sys
from pathlib import Path


def main(path: str) -> int:
    """Read pip-audit's JSON; a line for each vulnerability."""
    packages = json.loads(Path(path).read_text())["dependencies"]
    found = [(package, each) for package in packages for each in package.get("vulns", ())]
    for package, each in found:
        fixed = ", ".join(each["fix_versions"]) or "no version yet"
        print(f"audit: {package['name']} {package['version']}: {each['id']}, fixed in {fixed}")
    print(f"audit: {len(found)} known vulnerabilities in {len(packages)} packages")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

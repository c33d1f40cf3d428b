"""The audit without a network, and what it prints. No test asks a registry for anything."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOWHERE = dict.fromkeys(("https_proxy", "HTTPS_PROXY", "all_proxy"), "http://127.0.0.1:9")


def test_without_a_network_it_is_skipped_and_fails_nothing():
    environment = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    done = subprocess.run(
        [str(ROOT / ".ci" / "audit")],
        env=environment | NOWHERE,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (
        0,
        "audit: skipped, the advisories at pypi.org cannot be reached\n",
    )


def test_continuous_integration_asks_no_registry_unless_it_is_told_to():
    script = (ROOT / ".ci" / "run").read_text()
    assert 'if [ "${HYDRAREC_AUDIT:-}" = 1 ]; then make audit' in script
    assert script.count("make audit") == 1


@pytest.mark.parametrize(
    ("found", "status"), [([], 0), ([{"id": "CVE-1", "fix_versions": ["2"]}], 1)]
)
def test_what_it_finds_is_told(tmp_path, found, status):
    packages = [
        {"name": "shop", "version": "1", "vulns": found},
        {"name": "own", "skip_reason": "x"},
    ]
    (tmp_path / "audit.json").write_text(json.dumps({"dependencies": packages}))
    command = [sys.executable, str(ROOT / ".ci" / "audit_report.py"), str(tmp_path / "audit.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert ("audit: shop 1: CVE-1, fixed in 2" in done.stdout) == bool(found)
    assert f"{len(found)} known vulnerabilities in 2 packages" in done.stdout

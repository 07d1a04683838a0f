"""Look up every locked package among the known vulnerabilities: ``make audit``.

pip-audit asks the package index. A package that it has no answer for counts as a failure: not to
know is not to be safe. What is looked up is what a lock installs on the Python that runs this.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from lock import LOCKS
from stacks import lock

PIP_AUDIT = Path(sys.executable).with_name('pip-audit')


def main(options: list[str]) -> int:
    failed = False
    for made in LOCKS:
        report, errors = ask(lock(made.name), options)
        if report is None:
            print(f'{made.name}: the audit did not run:\n{errors}', file=sys.stderr)
            return 1
        lines, safe = summarise(report)
        print(f'{made.name}: ' + '\n  '.join(lines))
        failed |= not safe
    return int(failed)


def ask(requirements: Path, options: list[str]) -> tuple[dict | None, str]:
    """pip-audit's report about one lock, or None and what it said instead."""
    command = [str(PIP_AUDIT), '--require-hashes', '--disable-pip', '--format', 'json']
    command += ['--progress-spinner', 'off', '-r', str(requirements), *options]
    result = subprocess.run(command, capture_output=True, text=True)
    try:
        return json.loads(result.stdout), ''
    except ValueError:
        return None, '\n'.join(result.stderr.splitlines()[-3:])


def summarise(report: dict) -> tuple[list[str], bool]:
    """Return lines about a report, and whether every package is known and has no vulnerability."""
    packages = report['dependencies']
    unknown = [package['name'] for package in packages if 'skip_reason' in package]
    lines = [f'{len(packages) - len(unknown)} of {len(packages)} packages looked up']
    for package in packages:
        for known in package.get('vulns', []):
            fixed = ', '.join(known['fix_versions']) or 'no version'
            lines.append(f'{package["name"]} {package["version"]}: {known["id"]}, fixed in {fixed}')
    safe = len(lines) == 1 and not unknown and bool(packages)
    if unknown:
        lines.append(f'no answer about {", ".join(unknown)}')
    return lines, safe


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))

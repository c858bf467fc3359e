#!/usr/bin/env bash
# Everything that must hold: format, lint, types, tests. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/setup.sh
source scripts/setup.sh dev

ruff format --check .
ruff check .
mypy
# Two at a time, for most of a launch's time is spent on one core; a file's launches are shared. In
# the order of folders, which has the long ones first: xdist's own leaves them to the end.
python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder "$@"

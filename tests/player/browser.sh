#!/usr/bin/env bash
# Runs tests/player/browser.py. Playwright and axe-core are installed below the target folder.
set -euo pipefail
cd "$(dirname "$0")/../.."
tools=${CARGO_TARGET_DIR:-target}/player
mkdir -p "$tools"
tools=$(cd "$tools" && pwd)
python=$tools/bin/python
if ! "$python" -c 'import playwright' 2>/dev/null; then
    { python3 -m venv "$tools" && "$python" -m pip install -q playwright==1.65.2; } || python=python3
fi
if [ ! -e "$tools/node_modules/axe-core" ] && command -v npm >/dev/null; then
    npm install --silent --no-save --prefix "$tools" axe-core@4.14.1 || true
fi
AXE_FOLDER=$tools exec "$python" tests/player/browser.py "$@"

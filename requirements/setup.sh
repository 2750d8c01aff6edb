#!/bin/sh
# Makes `.venv/` by requirements/setup_venv.py, with whatever Python this machine has; `make setup` calls it.
# A command named python on PATH need not work (pyenv's shims fail for versions that are not active), so each is tried.
here=$(cd "$(dirname "$0")" && pwd)
for python in python3 python3.13 python3.12 python3.11 python3.10 python \
    "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/python3; do
  if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 8))' >/dev/null 2>&1; then
    # -I: neither PYTHONPATH nor the current folder may stand in for the standard library; -B: leaves no cache here.
    exec "$python" -I -B "$here/setup_venv.py" "$@"
  fi
done
echo "evergreen set-up: no working Python was found, on PATH or in pyenv's versions." >&2
echo "  Install Python 3.10 to 3.13 with its headers (Debian, Ubuntu: apt install python3 python3-venv python3-dev)," >&2
echo "  then run \`make setup\` again." >&2
exit 1

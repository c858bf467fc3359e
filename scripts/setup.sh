# shellcheck shell=bash
# Sourced by the other scripts: an environment in .venv with bigner installed, made once.
# BIGNER_VENV names another folder; the argument an extra to install, such as "dev".

venv=${BIGNER_VENV:-.venv}
extra=${1:+[$1]}

python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "bigner needs Python 3.11 or newer; python3 is $(python3 --version 2>&1)" >&2
    exit 1
}
# DeepSpeed compiles its CPU collectives at the first start.
command -v "${CXX:-c++}" >/dev/null || {
    echo "a C++ compiler is needed (Debian and Ubuntu: apt-get install g++)" >&2
    exit 1
}
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
# shellcheck source=/dev/null
source "$venv/bin/activate"
python -m pip install --quiet --editable ".$extra"

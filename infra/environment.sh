# Sourced by infra/run and infra/test: makes .venv from the pinned packages, only where it is missing or out of date.
# .venv/agentlog-* hold digests of what was installed; a start that finds them equal installs nothing.

say() { printf '==> %s\n' "$*" >&2; }

die() { # die WHAT [HOW TO GO ON]...
    printf 'error: %s\n' "$1" >&2
    shift
    [ $# -eq 0 ] || printf '  %s\n' "$@" >&2
    exit 1
}

# find_python: print the first Python >= 3.11 that can make environments; AGENTLOG_PYTHON names one by hand.
find_python() {
    local candidate
    for candidate in ${AGENTLOG_PYTHON:-python3 python3.13 python3.12 python3.11 python3.14 python}; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    die "no Python 3.11 or newer with venv and ensurepip was found" "fix: install one, or name it in AGENTLOG_PYTHON"
}

# digest FILE...: print one checksum over the folder and the contents of the files.
digest() {
    { pwd && cat "$@"; } | cksum
}

# is_current STAMP FILE...: tell whether the stamp in .venv was made from these files.
is_current() {
    local stamp=.venv/agentlog-$1
    shift
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(digest "$@")" ]
}

# stamp STAMP FILE...: remember what was installed.
stamp() {
    local name=$1
    shift
    digest "$@" >".venv/agentlog-$name"
}

pip_install() {
    .venv/bin/python -m pip install --quiet --disable-pip-version-check "$@"
}

install_runtime() {
    is_current runtime infra/requirements.txt && .venv/bin/python -c '' 2>/dev/null && return
    local python
    python=$(find_python)
    say "making .venv with $("$python" -V)"
    rm -rf .venv
    "$python" -m venv .venv
    say "installing $(grep -c == infra/requirements.txt) packages from infra/requirements.txt, hashes checked (a minute or so)"
    pip_install --require-hashes -r infra/requirements.txt
    stamp runtime infra/requirements.txt
}

install_project() {
    is_current project pyproject.toml && return
    say "installing agentlog itself, editable"
    pip_install --no-deps --no-build-isolation --editable .
    stamp project pyproject.toml
}

install_development() {
    is_current development infra/requirements-dev.txt && return
    say "installing $(grep -c == infra/requirements-dev.txt) packages from infra/requirements-dev.txt, hashes checked"
    pip_install --require-hashes -r infra/requirements-dev.txt
    stamp development infra/requirements-dev.txt
}

# make_environment [development]: bring .venv up to date; two that start at once wait for each other where flock exists.
make_environment() {
    (
        if command -v flock >/dev/null; then flock 9; fi
        install_runtime
        install_project
        if [ "${1:-}" = development ]; then install_development; fi
    ) 9>.venv.lock
}

# shellcheck shell=bash
# Sourced by the scripts beside it: finds Python, makes .venv, puts uv into it.
# Honours the package sources named by pip's variables (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL,
# PIP_FIND_LINKS, PIP_CERT); uv reads its own (UV_INDEX_URL, UV_FIND_LINKS, ...) by itself.

VENV=${LOCAL_LLM_VENV:-.venv}

fail() {
  echo "error: $*" >&2
  exit 1
}

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.12 python3.13 python3.11}; do
    if "$candidate" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  fail "no Python 3.11-3.13 with the venv module was found; install one, or name it: PYTHON=/path/to/python3.12 $0"
}

ensure_environment() {
  if [ ! -x "$VENV/bin/python" ]; then
    local python
    python=$(find_python)
    echo "making $VENV with $("$python" --version)" >&2
    "$python" -m venv "$VENV"
  fi
  if [ ! -x "$VENV/bin/uv" ]; then
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'
  fi
}

# pip's package sources as options of uv, one word a line.
package_sources() {
  local word
  [ -z "${PIP_INDEX_URL:-}" ] || printf '%s\n' --default-index "$PIP_INDEX_URL"
  for word in ${PIP_EXTRA_INDEX_URL:-}; do printf '%s\n' --index "$word" --index-strategy unsafe-best-match; done
  for word in ${PIP_FIND_LINKS:-}; do printf '%s\n' --find-links "$word"; done
}

run_uv() {
  local sources
  mapfile -t sources < <(package_sources)
  # Files are copied, not linked: NLTK inside llama-index refuses a file with two hard links.
  UV_LINK_MODE=copy SSL_CERT_FILE=${SSL_CERT_FILE:-${PIP_CERT:-}} VIRTUAL_ENV=$VENV \
    "$VENV/bin/uv" "$@" "${sources[@]}" "${MORE_SOURCES[@]}"
}
MORE_SOURCES=()

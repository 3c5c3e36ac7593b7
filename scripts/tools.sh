#!/usr/bin/env bash
# Builds the tools of the tests that Debian has not, once: two WireGuard clients, the check of licences and sources, and a Python that
# has what the second implementation of trunks is made of.
# They are kept outside the work tree, in $EKIDEN_TOOLS or ~/.cache/ekiden/tools.
set -eu
root=${EKIDEN_TOOLS:-$HOME/.cache/ekiden/tools}

# CRATE VERSION PROGRAM
need() {
  local crate=$1 version=$2 program=$3 found
  found=$("$root/bin/$program" --version 2>/dev/null </dev/null || true)
  case " $found " in *" $version "*) return ;; esac
  echo "Building $crate $version into $root (once)"
  # The lints and profiles of this workspace are not theirs: built from elsewhere, in a directory that goes afterwards.
  local target
  target=$(mktemp -d)
  if ! (cd / && CARGO_TARGET_DIR=$target cargo install --quiet --locked --force --root "$root" --version "=$version" "$crate" </dev/null); then
    rm -rf "$target"
    echo "tools: could not build $crate $version" >&2
    exit 1
  fi
  rm -rf "$target"
}

# VERSION: of the package `cryptography`
need_python() {
  local version=$1 python=$root/python/bin/python found
  found=$("$python" -c 'import cryptography; print(cryptography.__version__)' 2>/dev/null </dev/null || true)
  [ "$found" != "$version" ] || return 0
  echo "Installing the Python package cryptography $version into $root/python (once)"
  if ! { python3 -m venv --clear "$root/python" && "$python" -m pip install --quiet --disable-pip-version-check "cryptography==$version"; } </dev/null; then
    rm -rf "$root/python"
    echo "tools: could not install the Python package cryptography $version" >&2
    exit 1
  fi
}

need boringtun-cli 0.7.1 boringtun-cli
need gotatun-cli 0.10.2 gotatun
need cargo-deny 0.20.2 cargo-deny
need_python 48.0.0

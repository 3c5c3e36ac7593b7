#!/usr/bin/env bash
# Installs the Debian packages that are missing, and says which. With nothing missing it does nothing, and quickly.
set -eu
packages=(
  # to build: the BPF program, and libbpf with what it links to
  clang libelf-dev zlib1g-dev pkg-config linux-libc-dev gcc make
  # tests: what a hub asks of the kernel, how systemd judges its unit, what depends on secrets
  strace systemd valgrind
  # labs: namespaces, sites, measurements
  iproute2 wireguard-tools wireguard-go iperf3 iputils-ping procps util-linux ethtool
  # trunks are tested with a second implementation, in a Python environment of its own
  python3 python3-venv
  # monitoring is tested with the real one, started by the test; as a service it is not needed
  prometheus
)

missing=()
for package in "${packages[@]}"; do
  case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true) in
    installed) ;;
    *) missing+=("$package") ;;
  esac
done
[ ${#missing[@]} -gt 0 ] || exit 0

echo "Installing Debian packages: ${missing[*]}"
[ "$(id -u)" = 0 ] || { echo "setup: this needs root: run it with sudo, or install them yourself" >&2; exit 1; }
export DEBIAN_FRONTEND=noninteractive
install() { apt-get install -y --no-install-recommends -o Dpkg::Use-Pty=0 "${missing[@]}" </dev/null; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# The lists of a fresh machine are empty or old: then, and only then, they are fetched.
if ! install >"$log" 2>&1; then
  apt-get update </dev/null >>"$log" 2>&1 || true
  install >>"$log" 2>&1 || { cat "$log" >&2; echo "setup: could not install: ${missing[*]}" >&2; exit 1; }
fi

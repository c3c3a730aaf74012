#!/bin/bash
# Prints the folder to work in: this checkout, or a copy of it when root's checkout lies where other accounts cannot
# read it. The local backend gives each account a Unix account of its own, which must be able to read the code.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
reads() { setpriv --reuid=65534 --regid=65534 --clear-groups test -r "$1/setup.cfg" 2>/dev/null; }
if [ "$(id -u)" != 0 ] || ! command -v setpriv >/dev/null || reads "$root"; then
  echo "$root"
  exit
fi
copy=/opt/visahub-$(printf %s "$root" | sha256sum | cut -c1-8)
echo "$root cannot be read by other accounts; working in the copy $copy" >&2
mkdir -p "$copy"
chmod 755 "$copy"
# What was installed or made in the copy stays there; everything else follows the checkout.
find "$copy" -mindepth 1 -maxdepth 1 ! -name .venv ! -name .demo ! -name build ! -name share -exec rm -rf {} +
find "$copy/share" -mindepth 1 -maxdepth 1 ! -name node_modules -exec rm -rf {} + 2>/dev/null || true
tar -C "$root" --exclude=./.git --exclude=./.venv --exclude=./.demo --exclude=./build --exclude=./share/node_modules -cf - . |
  tar -C "$copy" --no-same-owner -xf -
chmod -R a+rX "$copy" 2>/dev/null || true
echo "$copy"

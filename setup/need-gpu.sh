#!/usr/bin/env bash
# Ends with 1, and says so, where there is no real GPU to test on.
set -euo pipefail
if [ -e /proc/driver/nvidia/version ] && compgen -G '/dev/nvidia[0-9]*' >/dev/null; then
    exit 0
fi
echo "no NVIDIA GPU here, so nothing was tested: \`make test\` runs the same on the virtual GPU" >&2
exit 1

#!/bin/sh
# Compiles coracle-default for every kernel that the runtime runs on; needs apparmor_parser (Debian's package apparmor).
#
# The file `features` says for which of the kernel's checks the profile has rules, instead of the kernel of the machine
# this runs on: those of Linux 4.18. Later ones (sockets by address, user namespaces, io_uring) stay unchecked on
# every kernel, and so do sockets, which the profile allows all. Its version of the format (7) is read since 4.13.
set -eu
cd "$(dirname "$0")"
exec "${APPARMOR_PARSER:-apparmor_parser}" --config-file /dev/null --skip-kernel-load --skip-cache \
    --policy-features features --kernel-features features --ofile coracle-default.bin coracle-default

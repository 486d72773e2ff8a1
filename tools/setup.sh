#!/usr/bin/env bash
# Sets up a project-local virtual environment: tools/setup.sh [EXTRA ...]   (extras of pyproject.toml; default: demo)
# A second call with the same pins and extras returns at once. Needs Python 3.11+; FFCV also needs three system packages.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=.venv
PINS=tools/constraints.txt
EXTRAS=${*:-demo}
EXTRAS=${EXTRAS// /,}
HEADERS="g++ pkg-config python3-dev libopencv-core-dev libopencv-imgproc-dev libturbojpeg0-dev"

die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3.11 python3.12 python3 python3.13; do
        [ -n "$candidate" ] && command -v "$candidate" >/dev/null || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"; return
        fi
    done
    die "Python 3.11 or newer is needed; install it (apt-get install python3 python3-venv) or set PYTHON=/path/to/python3.11"
}

# FFCV's C++ part is compiled on installation. It includes <opencv2/opencv.hpp> but uses the core and imgproc modules only.
have_headers() {
    command -v g++ >/dev/null && command -v pkg-config >/dev/null \
        && pkg-config --exists libturbojpeg && [ -e /usr/include/opencv4/opencv2/imgproc.hpp ] \
        && [ -e "$($VENV/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["include"])')/Python.h" ]
}

install_packages() {  # PURPOSE PACKAGE ...
    local purpose=$1 sudo=""
    shift
    command -v apt-get >/dev/null || die "$purpose; install with your package manager what Debian calls: $*"
    if [ "$(id -u)" != 0 ]; then
        sudo -n true 2>/dev/null && sudo=sudo || die "$purpose; run: sudo apt-get install -y --no-install-recommends $*"
    fi
    $sudo apt-get update -qq || true  # an old list may do; if not, the next line says so
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null \
        || die "apt-get failed; run: sudo apt-get install -y --no-install-recommends $*"
}

make_venv() {
    echo "setup: creating $VENV with $("$1" --version)"
    "$1" -m venv $VENV >/dev/null 2>&1 && return
    rm -rf $VENV
    install_packages "Python's venv module is missing" python3-venv
    "$1" -m venv $VENV || die "$1 -m venv $VENV failed"
}

write_opencv_shim() {  # an umbrella header and a .pc file that name only what FFCV uses
    mkdir -p "$1/include/opencv2" "$1/pkgconfig"
    printf '#pragma once\n#include <opencv2/core.hpp>\n#include <opencv2/imgproc.hpp>\n' > "$1/include/opencv2/opencv.hpp"
    printf 'Name: opencv4\nDescription: core and imgproc\nVersion: 4\nLibs: -lopencv_core -lopencv_imgproc\nCflags: -I%s/include -I/usr/include/opencv4\n' \
        "$1" > "$1/pkgconfig/opencv4.pc"
}

main() {
    local stamp=$VENV/.installed pins python pip shim
    pins=$(cat "$PINS" pyproject.toml | cksum)
    # What was installed for development serves the demo too.
    if [ -x $VENV/bin/python ] && [ -f $stamp ] && grep -qxF -e "$pins $EXTRAS" -e "$pins dev" $stamp; then return; fi

    python=$(find_python)
    [ -x $VENV/bin/python ] || make_venv "$python"
    pip="$VENV/bin/python -m pip install --quiet --disable-pip-version-check -c $PINS"

    # Whatever may fail comes before the long downloads.
    # shellcheck disable=SC2086
    have_headers || install_packages "FFCV is compiled and needs headers" $HEADERS

    # torch first: FFCV's dependencies would otherwise pull the newest CUDA build.
    echo "setup: installing torch"
    if ! command -v nvidia-smi >/dev/null && $pip "torch==$(sed -n 's/^torch==//p' $PINS)+cpu" 2>/dev/null; then :; else $pip torch; fi

    if ! $VENV/bin/python -c 'import ffcv' 2>/dev/null; then
        echo "setup: building FFCV"
        shim=$(pwd)/$VENV/opencv-shim
        write_opencv_shim "$shim"
        PKG_CONFIG_PATH="$shim/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}" $pip setuptools ffcv
    fi
    echo "setup: installing likeness[$EXTRAS]"
    $pip -e ".[$EXTRAS]"
    echo "$pins $EXTRAS" >> $stamp
    echo "setup: done ($($VENV/bin/python -c 'import torch, platform; print("Python", platform.python_version(), "torch", torch.__version__)'))"
}
main

#!/usr/bin/env bash
# Sets up a project-local virtual environment: tools/setup.sh [EXTRA ...]   (extras of pyproject.toml; default: demo)
# A second call with the same pins and extras returns at once. Needs Python 3.11+; FFCV also needs three system packages.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=.venv
PINS=tools/constraints.txt
EXTRAS=${*:-demo}
EXTRAS=${EXTRAS// /,}
PACKAGES="g++ pkg-config libopencv-core-dev libopencv-imgproc-dev libturbojpeg0-dev"

die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3.12 python3.11 python3 python3.13; do
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
        && pkg-config --exists libturbojpeg && [ -e /usr/include/opencv4/opencv2/imgproc.hpp ]
}

install_headers() {
    local sudo=""
    if [ "$(id -u)" != 0 ]; then
        sudo -n true 2>/dev/null && sudo=sudo || die "FFCV needs system headers; run: sudo apt-get install -y --no-install-recommends $PACKAGES"
    fi
    command -v apt-get >/dev/null || die "FFCV needs a C++ compiler, pkg-config, OpenCV (core, imgproc) and libjpeg-turbo headers; install them with your package manager"
    $sudo apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $PACKAGES >/dev/null \
        || die "apt-get failed; run: sudo apt-get install -y --no-install-recommends $PACKAGES"
}

write_opencv_shim() {  # an umbrella header and a .pc file that name only what FFCV uses
    mkdir -p "$1/include/opencv2" "$1/pkgconfig"
    printf '#pragma once\n#include <opencv2/core.hpp>\n#include <opencv2/imgproc.hpp>\n' > "$1/include/opencv2/opencv.hpp"
    printf 'Name: opencv4\nDescription: core and imgproc\nVersion: 4\nLibs: -lopencv_core -lopencv_imgproc\nCflags: -I%s/include -I/usr/include/opencv4\n' \
        "$1" > "$1/pkgconfig/opencv4.pc"
}

main() {
    local stamp=$VENV/.installed want python pip shim
    want="$(cat "$PINS" pyproject.toml | cksum) $EXTRAS"

    if [ -x $VENV/bin/python ] && [ -f $stamp ] && grep -qxF -- "$want" $stamp; then return; fi

    python=$(find_python)
    [ -x $VENV/bin/python ] || { echo "setup: creating $VENV with $("$python" --version)"
        "$python" -m venv $VENV || die "python venv failed; run: sudo apt-get install -y python3-venv"; }
    pip="$VENV/bin/python -m pip install --quiet --disable-pip-version-check -c $PINS"

    # torch first: FFCV's dependencies would otherwise pull the newest CUDA build.
    echo "setup: installing torch"
    if ! command -v nvidia-smi >/dev/null && $pip "torch==$(sed -n 's/^torch==//p' $PINS)+cpu" 2>/dev/null; then :; else $pip torch; fi

    if ! $VENV/bin/python -c 'import ffcv' 2>/dev/null; then
        echo "setup: building FFCV"
        have_headers || install_headers
        shim=$(pwd)/$VENV/opencv-shim
        write_opencv_shim "$shim"
        PKG_CONFIG_PATH="$shim/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}" $pip setuptools ffcv
    fi
    echo "setup: installing likeness[$EXTRAS]"
    $pip -e ".[$EXTRAS]"
    echo "$want" >> $stamp
    echo "setup: done ($($VENV/bin/python -c 'import torch, platform; print("Python", platform.python_version(), "torch", torch.__version__)'))"
}
main

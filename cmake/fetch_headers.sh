#!/usr/bin/env bash
# Fetch what the native build needs beside a compiler, CMake and the `onnxruntime` wheel, where it is not installed:
# ONNX Runtime's headers (Debian trixie) and nlohmann-json. Unpacked into FOLDER (default: build/deps); needs apt and
# dpkg, no root. Usage: cmake/fetch_headers.sh [FOLDER]
set -euo pipefail

folder=$(realpath -m "${1:-$(dirname "${BASH_SOURCE[0]}")/../build/deps}")
include="$folder/usr/include"
wanted=()
[ -f "$include/onnxruntime/onnxruntime_cxx_api.h" ] || wanted+=(libonnxruntime-dev)
[ -f "$include/nlohmann/json.hpp" ] || [ -f /usr/include/nlohmann/json.hpp ] || wanted+=(nlohmann-json3-dev)
[ ${#wanted[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
    echo "fetch_headers: apt-get and dpkg are not here, expected Debian or Ubuntu; install a release of ONNX Runtime" \
        "and nlohmann-json, and give CMake ONNXRUNTIME_ROOT." >&2
    exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$folder"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main" \
    > "$work/trixie.list"
options=(-q -o "Dir::Etc::sourcelist=$work/trixie.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$work/lists"
    -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=)
apt-get "${options[@]}" update
(cd "$work" && apt-get "${options[@]}" download "${wanted[@]}")
for package in "$work"/*.deb; do
    dpkg -x "$package" "$folder"
done

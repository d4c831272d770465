# Sourced by setup and python, so that both mean the same lab.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
lab=${WHEELCACHE_WINLAB:-${XDG_CACHE_HOME:-$HOME/.cache}/wheelcache-winlab}
[[ $lab == /* ]] || lab=$PWD/$lab   # wine refuses a relative prefix

export WINEPREFIX=$lab/prefix WINEARCH=win64 WINEDEBUG=-all
# Without these two, the first start asks a screen that is not there for .NET and a browser.
export WINEDLLOVERRIDES='mscoree=;mshtml='

inputs() {
    (cd "$here" && sha256sum lab.sh setup python.c scanner.c requirements.txt)
}

complete() {
    [[ -f $lab/complete && $(<"$lab/complete") == "$(inputs)" ]]
}

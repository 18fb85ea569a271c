# Shared by the scripts here: saying things, and taking the time. Sourced, never run.

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

clock() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }

# step NAME COMMAND...: runs it, remembers how long it took for `times`.
STEPS=()
step() {
    local name=$1 began=$SECONDS
    shift
    say "$name"
    "$@"
    STEPS+=("$(printf '%-28s %6s' "$name" "$(clock $((SECONDS - began)))")")
}
times() { printf '    %s\n' "${STEPS[@]}" "$(printf '%-28s %6s' total "$(clock $SECONDS)")" >&2; }

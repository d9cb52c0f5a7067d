# What the scripts here say and check: steps, commands and their output. Sourced by them, not run.

stage=start

step() {
    stage=$1
    printf '\n== %s\n' "$1"
}

# The end, for a reason that the reader can act on.
fail() {
    printf '\nFAILED at "%s"\n%s\n' "$stage" "$1" >&2
    trap - ERR
    exit 1
}
trap 'fail "a command ended with status $?: $BASH_COMMAND"' ERR

# Shows a command and its output; both streams of it end up in $out.
run() {
    local status=0
    printf '$ %s\n' "${*@Q}" | sed "s/'\([A-Za-z0-9_.,:=\/@-]*\)'/\1/g"
    out=$("$@" 2>&1) || status=$?
    [[ -z $out ]] || sed 's/^/    /' <<<"$out"
    return "$status"
}

# A command that must succeed.
ok() {
    run "$@" || fail "this should succeed: $*"
}

# A command that must fail with a text that contains $1.
refused() {
    local text=$1
    shift
    if run "$@"; then
        fail "this should fail with \"$text\": $*"
    fi
    [[ $out == *"$text"* ]] || fail "the error should contain: $text"
}

# What the last command printed must be just that.
is() {
    [[ $out == "$1" ]] || fail "expected: $1
got:      $out"
}

# What the last command printed must contain a match of an extended regular expression.
matches() {
    grep -Eq -- "$1" <<<"$out" || fail "expected a line that matches: $1"
}

k() {
    ok kubectl "$@"
}

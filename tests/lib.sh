# shellcheck shell=sh disable=SC2317 # judge() calls these functions
# lib.sh: sourced by every test. A test is a list of claims; it runs in a new
# directory, with the programs in its PATH, and tests/run ends it if it hangs.
#
#   check CLAIM COMMAND...         the command succeeds
#   ends STATUS CLAIM COMMAND...   it ends with this status; 139 is SIGSEGV
#   shows CLAIM REGEX COMMAND...   it succeeds, and prints a line like that
#   refuses CLAIM COMMAND...       it says "name: reason" (and with status 2 how
#                                  it is used), and has changed nothing
#   skip CLAIM REASON              this machine cannot show it
#   start LOG COMMAND...           in the background; its process is $pid
#   enter                          a line for what was started
#   end                            waits for it; its status is $status
#   find_children NUMBER           waits for $child and $other, children of $pid
#   gone PROCESS                   it has ended
#   wait_for COMMAND...            until it succeeds, for at most a minute
#   variant NAME SED [FLAG]...     a changed copy of a program, first in PATH
#
# Only objects whose names begin with $tag are a test's own.
set -eu
name=${0##*/}
[ -n "${ROOM:-}" ] || exec "$(dirname "$0")/run" "$name"
tag=${ROOM##*/}.$name
log=$ROOM/$name.log claims=0
mkdir "$ROOM/$name" "$ROOM/$name.bin"
cd "$ROOM/$name"
PATH=$ROOM/$name.bin:$LAB:$LAB/extra:$LAB/bench:$PATH
mkfifo "$ROOM/$name.terminal"
exec 9<>"$ROOM/$name.terminal"

try() { # COMMAND...: sets $status; what it prints is in the log
    command=$* status=0
    { "$@" >"$log" 2>&1 </dev/null; } 2>/dev/null || status=$?
}

judge() { # CONDITION...: whether $claim holds of the command that was tried
    claims=$((claims + 1))
    if "$@"; then
        printf "ok %s - %s\n" $claims "$claim"
    else
        printf "not ok %s - %s\n" $claims "$claim"
        printf 'status %s: %s\n' "$status" "$command" | head -n 1 | cat - "$log" |
            head -n 20 | sed 's/^/#   /'
        [ -z "${STOP:-}" ] || exit 1 # tools/idle has seen enough
    fi
}

check() { ends 0 "$@"; }

ends() {
    wanted=$1 claim=$2
    shift 2
    try "$@"
    judge [ "$status" = "$wanted" ]
}

shows() {
    claim=$1 regex=$2
    shift 2
    try "$@"
    has_shown() { [ "$status" = 0 ] && grep -Eq -e "$regex" "$log"; }
    judge has_shown
}

refuses() {
    claim=$1
    shift
    state && before=$state
    try "$@"
    judge has_refused
}
state() { # no FIFO may be here, because cksum would wait for a writer
    state=$(cksum ./* "/dev/shm/$tag"* 2>&1) || :
}
has_refused() {
    reason='' more=''
    { read -r reason && read -r more; } <"$log" || :
    case ${reason%%: *} in "$reason" | *' '* | *[!a-z]) return 1 ;; esac
    [ -z "$more" ] || [ "$status" = 2 ] || return 1
    case $status in 1 | 2) state && [ "$state" = "$before" ] ;; *) return 1 ;; esac
}

skip() {
    claims=$((claims + 1))
    echo "ok $claims - $1 # SKIP $2"
}

start() {
    said=$1
    shift
    "$@" <&9 >"$said" 2>&1 9<&- &
    pid=$!
}
enter() { echo >&9; }
end() {
    status=0
    wait "$pid" 2>/dev/null || status=$?
}

# shellcheck disable=SC2034 # tests use $child and $other
find_children() {
    wait_for grep -E "([0-9]+ ){$1}" "/proc/$pid/task/$pid/children"
    read -r child other <"/proc/$pid/task/$pid/children" || :
}
gone() { ! grep '^State:.[^Z]' "/proc/$1/status"; } # a zombie has ended

wait_for() {
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 1200 ] || { echo "# in vain: $*" && return 1; }
        sleep 0.05
    done
}

# This change makes time(NULL) count fifths of a second, so programs take less time.
# shellcheck disable=SC2034 # tests use $fifths
fifths='s/time(NULL)/({ struct timespec t; timespec_get(\&t, TIME_UTC); '\
't.tv_sec * 5 + t.tv_nsec \/ 200000000; })/g'
variant() {
    source=$1.c change=$2
    shift 2
    sed "$change" "$LAB/$source" >"$ROOM/$name.bin/$source"
    cmp -s "$LAB/$source" "$ROOM/$name.bin/$source" && echo "# no line to change: $change" && exit 1
    # shellcheck disable=SC2086 # a variable may hold several words
    ${CC:-cc} ${CPPFLAGS:-} ${CFLAGS:-} "$@" "$ROOM/$name.bin/$source" \
        -o "$ROOM/$name.bin/${source%.c}" ${LDFLAGS:-} -pthread -lrt
    hash -r # the shell remembers where it found the original
}

tidy() { ! ls -d "/dev/shm/$tag"*; }
finish() { # without a plan, tests/run counts the script as one that broke off
    [ $? = 0 ] || exit
    check 'nothing is left in /dev/shm' tidy
    echo "1..$claims"
}
trap finish EXIT

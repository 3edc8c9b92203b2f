# shellcheck shell=sh
# lib.sh: sourced by every test. A test is a list of claims; it runs in a
# directory of its own, $room/work, with the programs in $LAB.
#
#   check CLAIM COMMAND...          the command succeeds
#   shows CLAIM REGEX COMMAND...    it succeeds, and prints a line like that
#   refuses CLAIM COMMAND...        it ends with status 1 or 2, with one line on
#                                   stderr that begins with its name, without
#                                   output, and has changed and left nothing
#   dies_of SIGNAL CLAIM REGEX COMMAND...   it says so, and dies of the signal
#   skip CLAIM REASON               the machine cannot show it
#   skip_all REASON                 the machine can show none of it: the end
#   wait_for COMMAND...             until it succeeds, for at most 20 seconds
#   start LOG COMMAND...            in the background; its process is $pid
#   press_enter                     a line for what was started
#   end_of PID                      waits for it; its status is $status
#   is_child PID                    it runs, or nobody has waited for it yet
#   child_of PID                    prints the first child of a process
#   gone PID                        the process has ended
#   other_user COMMAND...           as somebody else, only if is_root; in a
#                                   directory of theirs, $room/theirs
#   hold FILE                       somebody else takes the flock of it
#   let_go                          and gives it back
#   waits_for_lock FILE COMMAND...  while somebody else has it
#   target                          the machine that programs are compiled for
#   preloads LIBRARY                programs here can run on it
#   cores_refused                   nobody may choose the cores of a process
#   no_objects                      prints why /dev/shm can hold none, if so
#   starts_limited PROGRAM          it can where no file may grow
#   no_mount                        prints why /dev/shm can be no other, if so
#   full_disk BYTES COMMAND...      in a directory on a file system that small
set -eu
LC_ALL=C
export LC_ALL
tests=$(cd "$(dirname "$0")" && pwd)
name=${0##*/}
[ -n "${LAB:-}" ] || exec "$tests/run" "$name"
PATH=$LAB:$LAB/extra:$LAB/bench:$PATH

# Programs that crash on purpose should not leave their core.
# shellcheck disable=SC3045 # every shell that we know has ulimit -c
ulimit -c 0 2>/dev/null || :

room=$(mktemp -d)
# Shared memory objects are called /$tag.something, for two runs at once.
tag=mmaplab.${room##*.}
mkdir "$room/work"
cd "$room/work"
claims=0 failures=0 pids=

result() {
    claims=$((claims + 1))
    if [ "$1" = 0 ]; then
        echo "ok $claims - $2"
    else
        failures=$((failures + 1))
        echo "not ok $claims - $2"
        sed 's/^/#   /' "$room/log" | head -n 20
    fi
}

check() {
    claim=$1
    shift
    if "$@" >"$room/log" 2>&1 </dev/null; then
        result 0 "$claim"
    else
        echo "status $?: $*" >>"$room/log"
        result 1 "$claim"
    fi
}

shows() {
    claim=$1 regex=$2
    shift 2
    status=0
    "$@" >"$room/log" 2>&1 </dev/null || status=$?
    if [ $status = 0 ] && grep -Eq -e "$regex" "$room/log"; then
        result 0 "$claim"
    else
        echo "status $status, wanted 0 and a line like $regex: $*" >>"$room/log"
        result 1 "$claim"
    fi
}

# What a command could have changed: the files here, and objects of ours.
snapshot() {
    find . -print -type f -exec cksum {} +
    for kept in "/dev/shm/$tag"*; do
        [ "$kept" != "/dev/shm/$tag*" ] || continue
        ls -dln "$kept"
        find "$kept" -prune -type f -size -100 -exec cksum {} +
    done
}

refuses() {
    claim=$1
    shift
    snapshot >"$room/before" 2>/dev/null || :
    status=0
    "$@" >"$room/stdout" 2>"$room/stderr" </dev/null || status=$?
    snapshot >"$room/after" 2>/dev/null || :
    {
        [ $status = 1 ] || [ $status = 2 ] || echo "status $status"
        [ ! -s "$room/stdout" ] || echo 'printed something'
        is_a_reason <"$room/stderr" || echo 'not one line "name: reason"'
        cmp -s "$room/before" "$room/after" || echo 'left or changed something'
    } >"$room/log"
    if [ ! -s "$room/log" ]; then
        result 0 "$claim"
    else
        diff "$room/before" "$room/after" >>"$room/log" || :
        cat "$room/stdout" "$room/stderr" >>"$room/log"
        result 1 "$claim"
    fi
}
is_a_reason() {
    read -r who reason && [ -n "$reason" ] && ! read -r _ || return 1
    case $who in *[a-z_]:) ;; *) return 1 ;; esac
}

dies_of() {
    signal=$1 claim=$2 regex=$3
    shift 3
    status=0
    { "$@" >"$room/log" 2>&1 </dev/null; } 2>/dev/null || status=$?
    if [ "$status" -gt 128 ] && [ "$(kill -l "$status")" = "$signal" ] &&
        grep -Eq -e "$regex" "$room/log"; then
        result 0 "$claim"
    else
        echo "status $status, wanted $signal and $regex: $*" >>"$room/log"
        result 1 "$claim"
    fi
}

skip() {
    claims=$((claims + 1))
    echo "ok $claims - $1 # SKIP $2"
}

skip_all() {
    skip "everything of $name" "$1"
    exit 0
}

wait_for() {
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 210 ] || return 1
        if [ $tries -lt 10 ]; then sleep 0.02; else sleep 0.1; fi
    done
}

# A terminal at which nobody has pressed Enter yet: a FIFO with a writer.
mkfifo "$room/terminal"
exec 9<>"$room/terminal"

start() {
    log=$1
    shift
    : >"$log"
    "$@" <&9 >"$log" 2>&1 9<&- &
    pid=$!
    pids="$pids $pid"
}

press_enter() {
    echo >&9
}

# A shell may have waited already: then the number can be somebody else's.
is_child() {
    read_status "$1" PPid
    [ "$value" = $$ ]
}

read_status() { # PID FIELD: into $value, which is empty if there is no such
    value=
    [ ! -r "/proc/$1/status" ] || while read -r field word _; do
        [ "$field" != "$2:" ] || value=$word
    done <"/proc/$1/status"
} 2>/dev/null

has_ended() {
    ! is_child "$1" || gone "$1"
}

end_of() {
    status=0
    wait_for has_ended "$1" || kill -9 "$1"
    wait "$1" 2>/dev/null || status=$?
}

child_of() {
    grep -o '^[0-9]*' "/proc/$1/task/$1/children"
}

# Whoever adopts an orphan may be slow to wait for it: a zombie has ended, too.
gone() {
    case $1 in '' | *[!0-9]*) return 1 ;; esac
    read_status "$1" State
    case $value in [ZX] | '') ;; *) return 1 ;; esac
}

is_root() {
    [ "$(id -u)" = 0 ] && setpriv --reuid=0 true 2>/dev/null
}

other_user() {
    chmod 711 "$room" "$LAB"
    if [ ! -d "$room/theirs" ]; then
        mkdir "$room/theirs"
        chown 60001:60001 "$room/theirs"
    fi
    (cd "$room/theirs" &&
        exec setpriv --reuid=60001 --regid=60001 --clear-groups "$@")
}

hold() {
    start "$room/holder" flock "$1" sh -c 'echo has it; exec cat'
    holder=$pid
    wait_for grep 'has it' "$room/holder"
}

let_go() {
    kill -9 "$(child_of "$holder")" "$holder" || :
}

# The kernel lists who waits: "1: -> FLOCK ADVISORY WRITE pid ...".
waits_for_lock() {
    hold "$1"
    shift
    start "$room/waiter" "$@"
    waiter=$pid
    missing=0
    wait_for grep -E -e "-> +FLOCK .* $waiter " /proc/locks || missing=1
    let_go
    kill -9 "$waiter" || :
    return $missing
}

target() {
    for machine in x86_64 i386 aarch64; do
        printf '#ifdef __%s__\n%s\n#endif\n' "$machine" "_$machine"
    done | ${CC:-cc} -E -P -x c - | sed -n 's/^_//p'
}

# Not if it was built for another C library, or another machine.
preloads() {
    # shellcheck disable=SC2002 # the maps are those of cat
    LD_PRELOAD=$1 cat /proc/self/maps 2>&1 | grep -q "/${1##*/}\$"
}

cores_refused() {
    command -v taskset >/dev/null &&
        ! taskset -c "$(taskset -cp $$ | sed 's/.*: //')" true 2>/dev/null
}

no_objects() {
    if ! (: >"/dev/shm/$tag.try") 2>/dev/null; then
        echo '/dev/shm is missing, or cannot be written to'
    elif ! head -c 1000000 /dev/zero 2>/dev/null >"/dev/shm/$tag.try"; then
        echo '/dev/shm is full'
    fi
    rm -f "/dev/shm/$tag.try" 2>/dev/null || :
}

# The program of a sanitizer cannot.
starts_limited() {
    sh -c 'ulimit -f 0 && exec "$1" --help' sh "$1" >/dev/null 2>&1
}

no_mount() {
    if ! unshare -rm mount -t tmpfs none "$room/work" 2>/dev/null; then
        echo 'no mount here'
    elif [ "${LAB#/dev/}" != "$LAB" ]; then
        echo 'the programs lie there'
    fi
}

# A tmpfs of that size, mounted where only this command sees it.
full_disk() {
    # shellcheck disable=SC2016 # the inner shell expands these
    unshare -rm sh -c 'mkdir -p disk && mount -t tmpfs -o size="$1" disk disk &&
        cd disk && shift && "$@"' sh "$@"
}

# Without a plan, tests/run counts the script as one that broke off.
finish() {
    status=$?
    trap - EXIT
    trap '' HUP INT TERM
    for pid in $pids; do
        is_child "$pid" || continue
        kill -9 "$pid" 2>/dev/null || :
        wait "$pid" 2>/dev/null || :
    done
    # And what these have started: all that runs in the room but this shell.
    cd /
    # shellcheck disable=SC2012 # not every find has -lname
    for process in $(ls -l /proc/[0-9]*/cwd 2>/dev/null |
        awk -v room="-> $room/" 'index($0, room) { split($0, part, "/proc/")
            print part[2] + 0 }'); do
        kill -9 "$process" 2>/dev/null || :
    done
    if [ $status = 0 ]; then
        ls -d "/dev/shm/$tag"* >"$room/log" 2>/dev/null || :
        if [ -s "$room/log" ]; then left=1; else left=0; fi
        result $left 'nothing is left in /dev/shm'
        echo "1..$claims"
    fi
    rm -rf "/dev/shm/$tag"*
    wait_for rm -rf "$room" || :
    [ $status != 0 ] || [ $failures = 0 ] || status=1
    exit $status
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# shellcheck shell=sh
# blocks.sh: what the handout's files are made of, for tests/handout, which
# compares it, and for tools/demo, which presents it.
#
#   parse DIRECTORY FILE...     takes the files apart into items, in order; those
#                               of $kinds, or all, have a text
#   load DIRECTORY              knows what has been parsed there
#   items KIND...               the numbers of those of these kinds
#   about ITEM                  sets $kind $section $question $inside $place
#                               $detail and $block
#   copy_lab TO                 the sources, to run in
#   name_objects LAB            in it shared objects have private names
#   run BLOCK                   its commands, where the caller's output goes
#   play ITEM...                what they do; what comes goes to BLOCK.came
#   differences BLOCK           what came, and was not wanted
#   missing FILE                what its commands need and is not here
#   private, public             filters: names as they are here, and in the text
#
# DIRECTORY/index has a line for each item, and DIRECTORY/NNN is its text:
#
#   NNN KIND SECTION QUESTION INSIDE FILE:LINE DETAIL
#
#   title     of a section
#   question  DETAIL is the number that is written there (-: none)
#   text      a paragraph, or an item of a list
#   quote     lines of the source DETAIL (-: none is named before them)
#   program   a whole one, for the file DETAIL
#   console   DETAIL is the terminal, 1 or 2
#   row       of a table "Change it yourself"
#
# QUESTION is the number of the question before it (0: none yet); INSIDE is 1 in
# the folded answer to it.
#
# In a console block, "$ " begins a command and "> " continues it; what follows
# is its output, in which … stands for anything, and a line with … alone for any
# number of lines. [N] is a status other than 0. A block "console 2" belongs into
# a second terminal, while the block before it waits.
#
# $blocks is DIRECTORY and $lab the copy in which commands run. $tag begins the
# names of shared objects there; it is empty if they may have those of the text.
lab='' tag=${tag:-}

absent=
for tool in xxd od pidof watch taskset; do
    command -v $tool >/dev/null || absent="$absent $tool"
done

# shellcheck disable=SC2034 # callers use what is set here
parse() {
    blocks=$1
    shift
    mkdir "$blocks"
    awk -v to="$blocks/" -v kinds="${kinds:-}" '
        function item(kind, text, detail,    id) {
            id = sprintf("%03d", ++items)
            if (kinds == "" || index(kinds, kind)) {
                printf "%s", text >(to id)
                close(to id)
            }
            print id, kind, section, question, inside, place, detail >(to "index")
            if (kind != "console") return
            if (detail == 2) print id >(to first ".second")
            first = id
        }
        function flush() { # the paragraph ends here
            if (asked != "") {
                question++
                written = "-"
                if (match(asked, /^\*\*[0-9]+\.\*\* */)) {
                    written = substr(asked, 3) + 0
                    asked = substr(asked, RLENGTH + 1)
                }
                item("question", asked, written)
            } else if (paragraph != "") {
                item("text", paragraph, "-")
                before = paragraph
            }
            asked = paragraph = ""
        }
        function begins() { place = FILENAME ":" FNR }
        function named(text,    file) { # the last NAME.c in it
            file = "-"
            while (match(text, /[A-Za-z0-9_.\/]*[A-Za-z0-9_]\.c/)) {
                file = substr(text, RSTART, RLENGTH)
                text = substr(text, RSTART + RLENGTH)
            }
            return file
        }
        FNR == 1 { flush(); section = "-"; question = inside = 0; fence = "" }
        fence != "" && /^```$/ {
            if (fence == "console") item("console", body, terminal)
            if (fence == "c")
                item(body ~ /#include/ && body ~ /main\(/ ? "program" : "quote",
                    body, named(before))
            fence = before = ""
            next
        }
        fence != "" { body = body $0 "\n"; next }
        /^```/ {
            flush()
            begins()
            fence = length($1) > 3 ? substr($1, 4) : "none"
            terminal = $2 == "2" ? 2 : 1
            body = ""
            next
        }
        !/^\|/ { table = 0 }
        /^#/ { flush() }
        /^## / {
            section = $2
            gsub(/[^A-Za-z0-9_]/, "", section)
            question = inside = 0
            begins()
            item("title", substr($0, 4) "\n", "-")
        }
        /^\| in \| the line \| make it \| then run \| and see \|$/ {
            flush()
            table = 1
            next
        }
        table && /^\|-/ { next }
        table { begins(); item("row", $0 "\n", "-"); next }
        /^<details/ { flush(); inside = 1; next }
        /^<\/details/ { flush(); inside = 0; next }
        /^(#|\||$)/ { flush(); next }
        /^> / {
            if (asked == "") { flush(); begins() }
            asked = asked substr($0, 3) "\n"
            next
        }
        /^(- |[0-9]+\. )/ { flush() }
        {
            if (paragraph == "") begins()
            paragraph = paragraph $0 "\n"
        }
        END { flush() }' "$@"
    load "$blocks"
}

load() {
    blocks=$1
    # shellcheck disable=SC2034 # eval uses it
    while read -r id line; do
        eval "item_$id=\$line"
    done <"$blocks/index"
}

items() {
    awk -v kinds=" $* " 'index(kinds, " " $2 " ") { print $1 }' "$blocks/index"
}

# shellcheck disable=SC2034,SC2086 # callers use it; a line is of several words
about() {
    block=$blocks/$1
    eval "set -- \$item_$1"
    kind=$1 section=$2 question=$3 inside=$4 place=$5 detail=$6
}

private_names() { # [COMMAND]: one more, for sed
    sed "s|hello_shm|${tag:+$tag.}hello_shm|g; s|tug_shm|${tag:+$tag.}tug_shm|g
        ${1:-}"
}
private() {
    if [ -n "$tag" ]; then private_names 's|/tmp/|tmp.dir/|g'; else cat; fi
}
public() { # and what musl calls otherwise
    sed "s/: Resource busy/: Device or resource busy/
        s/: Quota exceeded/: Disk quota exceeded/
        s|${lab}[^/]*/tmp[.]dir/|/tmp/|g; s|tmp[.]dir/|/tmp/|g; ${tag:+s|$tag\.||g}"
}

copy_lab() {
    mkdir "$1" "$1/extra" "$1/bench" "$1/tools" "$1/tmp.dir"
    cp ./*.c Makefile README.md "$1"
    cp extra/*.c "$1/extra"
    cp bench/*.c bench/run bench/*.awk "$1/bench"
    cp tools/plot.awk "$1/tools"
    chmod -R u+w "$1"
}
name_objects() {
    for source in shm_basic.c shm_tug.c; do
        private_names <"$source" >"$1/$source"
    done
}

# Others may run programs of these names: only those in this copy count.
pidof() {
    for pid in $(command pidof "$1"); do
        case $(readlink "/proc/$pid/ns/mnt")$(readlink "/proc/$pid/cwd") in
            "$(readlink /proc/self/ns/mnt)$lab" | \
                "$(readlink /proc/self/ns/mnt)$lab"/*) echo "$pid" ;;
        esac
    done
}

# A block as a script, with a call before and after each of its commands, of
# functions that the caller may replace: before LINE COMMAND, after STATUS.
before() { printf '\n\001%s\n' "$1"; }
after() { printf '\n\002%s\n' "$1"; }
script() { # BLOCK; on standard input its copy with private names
    awk '
        function flush() {
            if (command == "") return
            gsub(/\047/, "\047\\\047\047", shown)
            printf "before %d \047%s\047\n%s\nafter $?\n", line, shown, command
            command = ""
        }
        FILENAME == ARGV[1] { text[FNR] = substr($0, 3); next }
        /^\$ / { flush(); line = FNR; shown = text[FNR]; command = substr($0, 3) }
        /^> / {
            shown = shown "\n" text[FNR]
            command = command "\n" substr($0, 3)
        }
        END { flush() }' "$1" -
}
run() {
    # shellcheck disable=SC2094 # nobody writes to it
    private <"$1" | script "$1" >"$1.sh"
    (
        cd "$lab" || exit
        set +eu
        # shellcheck disable=SC1090 # written just now
        . "$1.sh"
    )
}

second_of() { # ITEM: the console block after it, if for a second terminal
    [ ! -f "$blocks/$1.second" ] || cat "$blocks/$1.second"
}

# A block before one for a second terminal runs behind it, until it waits.
behind=
play() {
    for item in "$@"; do
        about "$item"
        if [ "$kind" = program ]; then
            private <"$block" >"$lab/$detail"
        elif [ "$kind" != console ]; then
            continue
        elif [ -f "$block.second" ]; then
            run_behind "$block"
        else
            run "$block" </dev/null >"$block.came" 2>&1 || :
            end_behind
        fi
    done
}
run_behind() { # BLOCK
    [ -p "$lab/keyboard" ] || mkfifo "$lab/keyboard"
    run "$1" <"$lab/keyboard" >"$1.came" 2>&1 &
    behind=$!
    exec 8>"$lab/keyboard"
    tries=0
    until grep -Eqs 'Enter|waits for' "$1.came" || [ $tries = 1000 ]; do
        tries=$((tries + 1))
        sleep 0.02
    done
}
end_behind() { # the end of its input is Enter, as often as it likes
    [ -n "$behind" ] || return 0
    exec 8>&-
    wait "$behind" || :
    behind=
}

# Prints nothing if all came as wanted, else commands with both outputs.
differences() {
    about "${1##*/}"
    public <"$1.came" | awk -v place="$place" '
        function same(want, line,    n, parts, i, at) {
            n = split(want, parts, "…")
            if (n < 2) return want == line
            if (parts[1] != "" && index(line, parts[1]) != 1) return 0
            line = substr(line, length(parts[1]) + 1)
            for (i = 2; i < n; i++) {
                if (parts[i] == "") continue
                if (!(at = index(line, parts[i]))) return 0
                line = substr(line, at + length(parts[i]))
            }
            at = length(line) - length(parts[n])
            return at >= 0 && substr(line, at + 1) == parts[n]
        }
        function all_same(n, w, c,    k) {
            for (; w <= wants[n]; w++) {
                if (want[n, w] == "…") {
                    for (k = c; k <= came[n] + 1; k++)
                        if (all_same(n, w + 1, k)) return 1
                    return 0
                }
                if (c > came[n] || !same(want[n, w], line[n, c])) return 0
                c++
            }
            return c > came[n]
        }
        BEGIN { split(place, where, ":") }
        FILENAME == ARGV[1] && /^\$ / {
            number[++n] = where[1] ":" where[2] + FNR
            command[n] = $0
            status[n] = 0
            next
        }
        FILENAME == ARGV[1] && /^> / { next }
        FILENAME == ARGV[1] && /^\[[0-9]+\]$/ {
            status[n] = substr($1, 2, length($1) - 2)
            next
        }
        FILENAME == ARGV[1] { want[n, ++wants[n]] = $0; next }
        /^\001/ { at++; next }
        /^\002/ { ended[at] = substr($0, 2); next }
        # What a shell says of a crash, each in its words.
        /^([^ ]*: (line )?[0-9]+: +[0-9]+ )?(Segmentation fault|Bus error)/ ||
        /^([^ ]*: (line )?[0-9]+: +[0-9]+ )?(Alarm clock|Aborted|Killed|Terminated)/ {
            next
        }
        { sub(/ +$/, ""); line[at, ++came[at]] = $0 }
        END {
            for (i = 1; i <= n; i++) {
                while (came[i] > 0 && line[i, came[i]] == "") came[i]--
                while (wants[i] > 0 && want[i, wants[i]] == "") wants[i]--
                if (i in ended && ended[i] == status[i] && all_same(i, 1, 1))
                    continue
                print number[i] ": " command[i]
                print "wanted:"
                for (k = 1; k <= wants[i]; k++) print "  " want[i, k]
                print "  [" status[i] "]"
                print "came:"
                for (k = 1; k <= came[i]; k++) print "  " line[i, k]
                print "  [" ended[i] "]"
            }
        }' "$1" -
}

missing() {
    for tool in $absent; do
        ! tr -cs '[:lower:]' '\n' <"$1" | grep -qx "$tool" || echo "$tool"
    done
}

# SPDX-License-Identifier: MIT
# table.awk: a table of each kind of measurement. The ratio is to the first
# row, the bar to the largest value. The last line says what it shows here.

function bar(columns, text) {
    for (text = ""; columns > 0; columns--) text = text "#"
    return text
}

function show(form, name, middle, spread, ratio, drawn, line) {
    line = sprintf(form, name, middle, spread, ratio, drawn)
    sub(/ +$/, "", line)
    print line
}

# Of a table, two rows, and what their ratio says, in words that are true of any
# ratio: a busy machine may turn it round.
function says(name, one, other, sentence) {
    ones[name] = one
    others[name] = other
    sentences[name] = sentence
}

function conclude(name, one, other) {
    one = median[name, ones[name]]
    other = median[name, others[name]]
    if (one > 0 && other > 0)
        printf "here " sentences[name] "\n", number(one / other)
}

BEGIN {
    says("round trip of a word", "pipe", "shared memory, spinning",
        "a pipe takes %s times as long as shared memory and spinning")
    says("throughput in pieces of 64 KiB", "ring, left in its slot", "pipe",
        "the ring, left in its slot, moves %s times as much as a pipe")
    says("random update of a 40-byte record", "pread and pwrite", "mapped",
        "an update by calls takes %s times as long as in a mapping")
    says("one pass over a file", "mapped", "read, into 64 KiB",
        "a pass over a new mapping is %s times as fast as read()")
    says("mmap() of a sparse file", "1 TiB", "1 MiB",
        "to map a TiB takes %s times as long as to map a MiB")
    says("first touch of a page", "anonymous", "file, read",
        "a new page takes %s times as long as one that a file has in memory")
    says("an increment by 2 processes", "flock", "batch",
        "a lock for each takes %s times as long as to count privately first")
    says("get a memory from xman", "1 GiB", "4 KiB",
        "to get a GiB takes %s times as long as to get 4 KiB")
    says("copy it through a socket", "1 GiB", "4 KiB",
        "to copy a GiB takes %s times as long as to copy 4 KiB")
}

END {
    for (t = 1; t <= tables; t++) {
        name = names[t]
        first = median[name, row[name, 1]]
        largest = width = 0
        for (r = 1; r <= rows[name]; r++) {
            if (median[name, row[name, r]] > largest)
                largest = median[name, row[name, r]]
            if (length(row[name, r]) > width) width = length(row[name, r])
        }
        form = "  %-" width "s %7s  %-15s %7s  %s"
        full = width < 22 ? 20 : 42 - width # what is left of 79 columns
        printf "\n%s: %s, %s is better, median of %d\n", name, unit[name],
            unit[name] ~ /\/s$/ ? "more" : "less", count[name, row[name, 1]]
        show(form, "", "median", "lowest..highest", "ratio", "")
        for (r = 1; r <= rows[name]; r++) {
            key = name SUBSEP row[name, r]
            show(form, row[name, r], number(median[key]),
                number(low[key]) ".." number(high[key]),
                first > 0 ? number(median[key] / first) : "-",
                largest > 0 ? bar(full * median[key] / largest) : "")
        }
        if (name in sentences) conclude(name)
    }
}

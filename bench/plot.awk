# SPDX-License-Identifier: MIT
# plot.awk: draws what was measured into directory/*.svg, a dot for each run
# and the median beside it. machine is named below each picture.

function start(name, title, height) {
    svg = directory "/" name ".svg"
    printf "%s%s%s", "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 ",
        "760 " height "\" width=\"760\" height=\"" height "\"\n     ",
        "font-family=\"sans-serif\" font-size=\"14\" role=\"img\">\n" >svg
    printf "%s", "  <title>" title "</title>\n  <style>\n" \
        "    text  { fill: #1f2328 }\n" \
        "    .note { font-size: 12px; fill: #57606a }\n" \
        "    .grid { stroke: #d0d7de }\n" \
        "    .a, .b, .c { fill-opacity: .45 }\n" \
        "    .a { fill: #2b6cb0; stroke: #2b6cb0 }\n" \
        "    .b { fill: #1a7f37; stroke: #1a7f37 }\n" \
        "    .c { fill: #b42318; stroke: #b42318 }\n" \
        "    polyline { fill: none !important; stroke-width: 2 }\n" \
        "  </style>\n" >svg
    printf "  <rect x=\".5\" y=\".5\" width=\"759\" height=\"%d\" rx=\"10\" " \
        "fill=\"#f6f8fa\" stroke=\"#d0d7de\"/>\n", height - 1 >svg
    text(380, 32, "middle", "", title)
}

function text(x, y, anchor, class, words) {
    printf "  <text x=\"%d\" y=\"%d\" text-anchor=\"%s\"%s>%s</text>\n", x, y,
        anchor, class ? " class=\"" class "\"" : "", words >svg
}

function grid(x1, y1, x2, y2) {
    printf "  <path class=\"grid\" d=\"M%d %d L%d %d\"/>\n", x1, y1, x2, y2 >svg
}

function dot(x, y, class) {
    printf "  <circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\"/>\n", class,
        x, y >svg
}

function finish(height, remark) {
    text(380, height - 32, "middle", "note", remark)
    text(380, height - 14, "middle", "note", machine)
    print "</svg>" >svg
    close(svg)
    print svg
}

function log10(value) { return log(value) / log(10) }

# The exponents of 10 around all values of a table: from and to.
function decades(name, r, key) {
    for (r = 1; r <= rows[name]; r++) {
        key = name SUBSEP row[name, r]
        if (log10(low[key]) < from) from = floor(log10(low[key]))
        if (log10(high[key]) > to) to = -floor(-log10(high[key]))
    }
}

function floor(value) {
    return int(value) - (value < int(value))
}

function power(exponent) { # of microseconds, in words
    if (exponent >= 6) return 10 ^ (exponent - 6) " s"
    if (exponent >= 3) return 10 ^ (exponent - 3) " ms"
    return exponent >= 0 ? 10 ^ exponent " µs" : 1000 * 10 ^ exponent " ns"
}

function round_trip(name, height, r, i, e, key, y) {
    height = 134 + 44 * rows[name]
    start("measured-round-trip", "Round trip of a word between two processes",
        height)
    from = 99; to = -99
    decades(name)
    for (e = from; e <= to; e++) {
        x = 240 + 480 * (e - from) / (to - from)
        grid(x, 52, x, height - 74)
        text(x, height - 56, "middle", "note", power(e))
    }
    for (r = 1; r <= rows[name]; r++) {
        key = name SUBSEP row[name, r]
        y = 36 + 44 * r
        text(225, y, "end", "", row[name, r])
        text(225, y + 16, "end", "note", number(median[key]) " µs")
        for (i = 1; i <= count[key]; i++)
            dot(240 + 480 * (log10(values[key, i]) - from) / (to - from), y,
                "a")
    }
    finish(height, "time on a logarithmic scale; each dot is a run")
}

function lost_updates(name, r, i, key, x, y, line) {
    start("measured-lost-updates", "Updates lost without synchronisation", 360)
    for (i = 0; i <= 100; i += 25) {
        y = 280 - 2.2 * i
        grid(110, y, 700, y)
        text(100, y + 5, "end", "note", i " %")
    }
    for (r = 1; r <= rows[name]; r++) {
        key = name SUBSEP row[name, r]
        if (row[name, r] !~ /^none, /) continue
        x = 60 + 170 * r
        text(x, 302, "middle", "", substr(row[name, r], 7))
        for (i = 1; i <= count[key]; i++)
            dot(x, 280 - 2.2 * values[key, i], "c")
        text(x + 14, 276 - 2.2 * median[key], "start", "",
            number(median[key]) " %")
    }
    finish(360, "of all increments; each dot is a run, the number their median")
}

function bytes(size) {
    return size * 1024 ^ index("KMG", substr(size, index(size, " ") + 1, 1))
}

function handover(first, second, third, s, r, i, e, name, class, key, x, y) {
    start("measured-handover", "Handing memory to another process", 470)
    from = 99; to = -99
    decades(first); decades(second); decades(third)
    for (e = from; e <= to; e++) {
        y = 370 - 300 * (e - from) / (to - from)
        grid(80, y, 550, y)
        text(72, y + 4, "end", "note", power(e))
    }
    for (s = 1; s <= 3; s++) {
        name = s == 1 ? first : s == 2 ? second : third
        class = substr("abc", s, 1)
        line = ""
        for (r = 1; r <= rows[name]; r++) {
            key = name SUBSEP row[name, r]
            x = 80 + 24 * (log10(bytes(row[name, r])) / log10(2) - 11)
            if (s == 1) text(x, 394, "middle", "note", row[name, r])
            for (i = 1; i <= count[key]; i++) {
                y = 370 - 300 * (log10(values[key, i]) - from) / (to - from)
                dot(x, y, class)
            }
            y = 370 - 300 * (log10(median[key]) - from) / (to - from)
            line = line sprintf(" %.1f,%.1f", x, y)
        }
        printf "  <polyline class=\"%s\" points=\"%s\"/>\n", class, line >svg
        text(556, y + 5, "start", "", name)
    }
    finish(470, "time by size, both on logarithmic scales; each dot is a run, " \
        "the line their median")
}

END {
    if ("round trip of a word" in rows) round_trip("round trip of a word")
    if ("increments lost" in rows) lost_updates("increments lost")
    if ("copy it through a socket" in rows)
        handover("get a memory from xman", "get it, and read all of it",
            "copy it through a socket")
}

# SPDX-License-Identifier: MIT
# plot.awk: draws tables as directory/measured-*.svg, with a dot for each value.

function text(x, y, class, words) {
    printf "  <text x=\"%d\" y=\"%d\" class=\"%s\">%s</text>\n",
        x, y, class, words >svg
}

# Times have a logarithmic scale from 10 ns to 1 s, losses a linear one.
function height(value) {
    if (percent) return 310 - 2.4 * value
    return 310 - 30 * (log(value) / log(10) + 2)
}

function begin(file, title,    i, words, label) {
    svg = directory "/measured-" file ".svg"
    percent = file == "lost-updates"
    print "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 760 410\"" \
        " width=\"760\" height=\"410\"\n     font-family=\"sans-serif\"" \
        " font-size=\"14\" text-anchor=\"middle\" role=\"img\">\n" \
        "  <title>" title "</title>\n  <style>\n    text { fill: #1f2328 }\n" \
        "    .note { font-size: 11px; fill: #57606a }\n" \
        "    path { stroke: #d0d7de }\n    circle { opacity: .5 }\n" \
        "    .red { fill: #b42318 }\n    .green { fill: #1a7f37 }\n" \
        "    .blue { fill: #2b6cb0 }\n  </style>\n" \
        "  <rect x=\".5\" y=\".5\" width=\"759\" height=\"409\" rx=\"10\"" \
        " fill=\"#f6f8fa\" stroke=\"#d0d7de\"/>" >svg
    text(380, 30, "", title)
    words = percent ? "0 %,25 %,50 %,75 %,100 %" : "10 ns,1 µs,100 µs,10 ms,1 s"
    split(words, label, ",")
    for (i = 0; i < 5; i++) {
        printf "  <path d=\"M90 %d H730\"/>\n", 310 - 60 * i >svg
        text(60, 314 - 60 * i, "note", label[i + 1])
    }
}

# Draws the rows of a table that match a pattern. Where tables share a picture,
# each has a place for its name, from 1 to 3.
function draw(name, pattern, colour, place,    r, i, n, c, x, key) {
    for (r = 1; r <= rows[name]; r++) n += row[name, r] ~ pattern
    for (r = 1; r <= rows[name]; r++) {
        if (row[name, r] !~ pattern) continue
        key = name SUBSEP row[name, r]
        x = 90 + 640 * (c++ + .5) / n
        text(x, 332, "note", row[name, r])
        unit_of = percent ? " %" : " µs"
        if (!place) text(x, 352, "", number(median[key]) unit_of)
        for (i = 1; i <= count[key]; i++)
            printf "  <circle class=\"%s\" cx=\"%d\" cy=\"%.1f\" r=\"4\"/>\n",
                colour, x, height(values[key, i]) >svg
    }
    if (place) text(200 * place - 20, 354, colour, name)
}

function end() {
    text(380, 378, "note", "each dot is a measurement" \
        (percent ? "" : ", the scale of the time is logarithmic"))
    text(380, 396, "note", machine)
    print "</svg>" >svg
}

END {
    if ("round trip of a word" in rows) {
        begin("round-trip", "Round trip of a word between two processes")
        draw("round trip of a word", "", "blue")
        end()
    }
    if ("increments lost" in rows) {
        begin("lost-updates", "Increments lost without synchronisation")
        draw("increments lost", "^none", "red")
        end()
    }
    if ("copy it through a socket" in rows) {
        begin("handover", "Handing a block of memory to another process")
        draw("get a block from xman", "", "blue", 1)
        draw("get it, and read all of it", "", "green", 2)
        draw("copy it through a socket", "", "red", 3)
        end()
    }
}

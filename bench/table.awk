# SPDX-License-Identifier: MIT
# table.awk: a table of each kind of measurement. The ratio is to the first
# row, the bar to the largest value.

function bar(columns, text) {
    for (text = ""; columns > 0; columns--) text = text "#"
    return text
}

function show(form, name, middle, spread, ratio, drawn, line) {
    line = sprintf(form, name, middle, spread, ratio, drawn)
    sub(/ +$/, "", line)
    print line
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
    }
}

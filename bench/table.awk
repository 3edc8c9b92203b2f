# SPDX-License-Identifier: MIT
# table.awk: prints the tables that median.awk has read. The ratio is to the
# first row. The line below a table is its conclusion on this machine.

# Two rows differ clearly if a median is outside the range of the other row.
function compare(name, more, less,    a, b) {
    a = name SUBSEP more
    b = name SUBSEP less
    if (median[a] < median[b]) return compare(name, less, more)
    if (median[a] <= high[b] && low[a] <= median[b])
        return "'" more "' and '" less "' do not differ clearly"
    return "'" more "' takes " number(median[a] / median[b]) \
        " times as long as '" less "'"
}

function losses(name,    r, key, race, others) {
    for (r = 1; r <= rows[name]; r++) {
        key = name SUBSEP row[name, r]
        if (row[name, r] !~ /^none/ && high[key] > others) others = high[key]
        if (row[name, r] ~ /^none/ && median[key] > race) race = median[key]
    }
    return "'none' loses up to " number(race) " %, and the other ways lose " \
        number(others) " %"
}

END {
    for (t = 1; t <= tables; t++) {
        name = names[t]
        first = median[name, row[name, 1]]
        largest = 1e-9
        width = 0
        for (r = 1; r <= rows[name]; r++) {
            key = name SUBSEP row[name, r]
            if (median[key] > largest) largest = median[key]
            if (length(row[name, r]) > width) width = length(row[name, r])
        }
        form = "\n  %-" width "s %7s  %-16s %7s"
        printf "\n%s: %s, less is better, median of %d", name, unit[name],
            count[key]
        printf form, "", "median", "lowest..highest", "ratio"
        for (r = 1; r <= rows[name]; r++) {
            key = name SUBSEP row[name, r]
            ratio = first == 0 ? "-" : number(median[key] / first)
            spread = number(low[key]) ".." number(high[key])
            printf form, row[name, r], number(median[key]), spread, ratio
            bar = substr("##################", 1, 18 * median[key] / largest)
            if (bar != "") printf "  %s", bar
        }
        print "\nhere " (unit[name] == "%" ? losses(name) : \
            compare(name, row[name, rows[name]], row[name, 1]))
    }
}

# SPDX-License-Identifier: MIT
# median.awk: reads measurements, which are lines of four fields with tabs
# between: table, row, value, unit. Used with table.awk or plot.awk behind it.
# names[1..tables], row[name, 1..rows[name]], values[name, row, 1..count[...]]

# Sorts the values of a row, and leaves median, low and high.
function summarise(key, i, j, value) {
    for (i = 2; i <= count[key]; i++) {
        value = values[key, i]
        for (j = i; j > 1 && values[key, j - 1] > value; j--)
            values[key, j] = values[key, j - 1]
        values[key, j] = value
    }
    low[key] = values[key, 1]
    high[key] = values[key, count[key]]
    i = int((count[key] + 1) / 2)
    median[key] = (values[key, i] + values[key, count[key] + 1 - i]) / 2
}

function number(value, digits) { # three digits that count
    digits = value >= 99.95 || value == 0 ? 0 : value >= 9.995 ? 1 : 2
    if (value > 0 && value < 0.9995) digits = 3
    return sprintf("%." digits "f", value)
}

BEGIN { FS = "\t" }

/^# / {
    print substr($0, 3)
    next
}

NF == 4 {
    key = $1 SUBSEP $2
    if (!($1 in rows)) names[++tables] = $1
    if (!(key in count)) row[$1, ++rows[$1]] = $2
    values[key, ++count[key]] = $3 + 0
    unit[$1] = $4
}

END {
    for (key in count) summarise(key)
}

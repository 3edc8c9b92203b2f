# SPDX-License-Identifier: MIT
# median.awk: reads lines of table, row, value and unit, separated by tabs.
# table.awk and plot.awk, which follow, use median[table, row], low[], high[].

function summarise(key,    i, j, value) {
    for (i = 2; i <= count[key]; i++) { # insertion sort
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

function number(value,    digits) { # three significant digits
    digits = (value < 0.9995) + (value < 9.995) + (value < 99.95)
    return value + 0 == 0 ? 0 : sprintf("%." digits "f", value)
}

BEGIN { FS = "\t" }
{
    key = $1 SUBSEP $2
    if (!($1 in rows)) names[++tables] = $1
    if (!(key in count)) row[$1, ++rows[$1]] = $2
    values[key, ++count[key]] = $3 + 0
    unit[$1] = $4
}
END { for (key in count) summarise(key) }

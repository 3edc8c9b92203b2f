/* SPDX-License-Identifier: MIT */
/*
 * binary: a file as an array of structs, updated in place.
 *
 *     byte 0                40                   80
 *     | id | name | balance | id | name | balance | id | name | balance | ...
 *     records[0]            records[1]            records[2].balance += 50.50
 *
 *     ./binary /tmp/database.bin && xxd -c 40 /tmp/database.bin
 *
 * mmap(2), flock(2)
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

/* To experiment, change these lines or use the options. */
static int flags = MAP_SHARED;
static uint32_t new_records = 5; /* in a file that is absent or empty */
static uint32_t id = 3;          /* of the record to pay; IDs begin at 1 */
static double bonus = 50.50;
static int unchecked; /* also pay past the end of the file */
static const char *path;

struct record {
    uint32_t id;
    char name[28]; /* ends with a \0 only if there is room for it */
    double balance;
};
_Static_assert(sizeof(struct record) == 40, "one row of xxd -c 40");

static void write_records(void);
static void parse_options(int argc, char *argv[]);

int main(int argc, char *argv[])
{
    parse_options(argc, argv);
    setvbuf(stdout, NULL, _IOLBF, 0); /* a crash loses no line */

    const int fd = open(path, O_RDWR | O_CREAT, 0600);
    if (fd == -1) err(1, "%s", path);
    /* Until this process ends, every other run of binary waits here. */
    if (flock(fd, LOCK_EX) == -1) err(1, "%s: flock", path);
    if (lseek(fd, 0, SEEK_END) == 0) write_records();
    const long size = lseek(fd, 0, SEEK_END);
    if (size == -1) err(1, "%s: lseek", path);

    const int prot = PROT_READ | PROT_WRITE;
    struct record *records = mmap(NULL, size, prot, flags, fd, 0);
    if (records == MAP_FAILED) err(1, "%s: mmap", path);
    const size_t count = size / sizeof *records;
    if (count == 0 || records[0].id != 1) errx(1, "%s: not a database", path);
    if (id > count && !unchecked) errx(1, "%s: no record %u", path, id);

    /* The file can be from any program, and it can end within a record. */
    const long offset = id * sizeof *records - sizeof records->balance;
    if (offset < size && (id > count || records[id - 1].id != id))
        errx(1, "%s: record %u is not in its place", path, id);

    printf("paying %.2f to record %u, byte %ld of %ld\n", bonus, id, offset,
           size);
    records[id - 1].balance += bonus;
    printf("now %.2f in memory\n", records[id - 1].balance);
    for (size_t i = 0; i < count && i < 10; i++)
        printf("%10u  %-28.28s %14.2f\n", records[i].id, records[i].name,
               records[i].balance);
    if (ferror(stdout) || fclose(stdout) == EOF)
        errx(1, "writing to stdout failed");
}

/* On a full disk a write fails, but a store into a mapping crashes. If this
   run is killed, the complete records in the file are a valid database. */
static void write_records(void)
{
    FILE *file = fopen(path, "r+");
    if (file == NULL) err(1, "%s", path);
    for (uint32_t i = 1; i <= new_records; i++) {
        struct record record = {.id = i, .balance = 100.0 * i};
        snprintf(record.name, sizeof record.name, "User_%u", i);
        if (fwrite(&record, sizeof record, 1, file) != 1) err(1, "%s", path);
    }
    if (fclose(file) == EOF) err(1, "%s", path);
}

static const char usage[] =
    "usage: binary [--records=N] [--unchecked] FILE [ID BONUS]";

static uint32_t parse_number(const char *text)
{
    char *end;
    const long number = strtol(text, &end, 10);
    if (*end != '\0' || number < 1 || number > 999999999)
        errx(2, "%s: not a number from 1 to 999999999\n%s", text, usage);
    return number;
}

static double parse_amount(const char *text)
{
    char *end;
    const double amount = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(amount))
        errx(2, "%s: not an amount\n%s", text, usage);
    return amount;
}

static void parse_options(int argc, char *argv[])
{
    const struct option options[] = {{"records", required_argument, NULL, 'r'},
                                     {"unchecked", no_argument, &unchecked, 1},
                                     {NULL, 0, NULL, 0}};
    int option = 0;
    while (option != -1) {
        option = getopt_long_only(argc, argv, "", options, NULL);
        if (option == '?') errx(2, "%s", usage);
        if (option == 'r') new_records = parse_number(optarg);
    }
    const int arguments = argc - optind;
    if (arguments != 1 && arguments != 3) errx(2, "%s", usage);
    path = argv[optind];
    if (arguments == 3) id = parse_number(argv[optind + 1]);
    if (arguments == 3) bonus = parse_amount(argv[optind + 2]);
}
